"""The ladder from PyTorch, one text at a time, to the engine that is served: every step measured in one run.

Each step lives in a process of its own, so that its peak memory is its own, and all are loaded from the start; each round runs
every step once on every workload. What is said is the median over the rounds, with the spread.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from models.engines import PaddedEngine, open_session, packed_logits, padded
from models.making.architecture import Dense, Encoder
from models.making.calibrate import make_recipes
from models.making.config import CheckpointError
from models.making.encoder import read_encoder
from models.making.graph import Writer
from models.making.tune import LONGEST
from models.problem import softmax
from models.types import Encoding

Shape = Literal["minilm", "distilbert"]
Texts = list[list[int]]
Floats = npt.NDArray[np.float32]

ARTICLE, MIXED = "article", "mixed"
# Rows of the product that limits all: more make it no faster.
LIMIT_ROWS: Final = 256
CALIBRATION_TEXTS: Final = 128
PAD: Final = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One rung: how its model is run. `batch` in texts; `useful` names what of the model it computes (see `useful_macs`)."""

    name: str
    title: str
    runner: Literal["torch", "padded", "packed"]
    model: str
    batch: int
    is_sorted: bool = False
    useful: Literal["", "all", "first", "absorbed"] = ""


STEPS: Final = (
    Step("1", "PyTorch, one at a time", "torch", "checkpoint", 1),
    Step("2", "PyTorch, batches of 16", "torch", "checkpoint", 16),
    Step("3", "ONNX Runtime, traced with dynamic axes, batches of 16", "padded", "traced.onnx", 16, useful="all"),
    Step("4", "+ dynamic INT8 (the article ends here)", "padded", "traced-int8.onnx", 16, useful="all"),
    Step("4b", "the same, batches of 32 (the usual recipe)", "padded", "traced-int8.onnx", 32, useful="all"),
    Step("5", "INT8, one at a time", "padded", "traced-int8.onnx", 1, useful="all"),
    Step("6", "INT8, sorted by length, batches of 32", "padded", "traced-int8.onnx", 32, is_sorted=True, useful="all"),
    Step("7", "padding-free INT8, batches of 32 as they come", "packed", "all.onnx", 32, useful="all"),
    Step("8", "+ last layer for the first token only", "packed", "first.onnx", 32, useful="first"),
    Step("9", "+ last keys and values absorbed (what is served)", "packed", "absorbed.onnx", 32, useful="absorbed"),
    Step("9b", "the same, one at a time", "packed", "absorbed.onnx", 1, useful="absorbed"),
)
BASELINE, ARTICLE_END = "1", "4"


@dataclass(frozen=True, slots=True)
class Measured:
    """One step on one workload: milliseconds a text (median and the rounds' extremes) and how near its answers are to PyTorch's."""

    ms: float
    fastest: float
    slowest: float
    label_match: float
    largest_probability_change: float
    useful_gmacs: float | None


@dataclass(slots=True)
class Result:
    """A whole run. `limit_gmacs` is the plain INT8 product at the model's shapes; `models` MB and `peaks` MB of memory a step."""

    title: str
    texts: int
    rounds: int
    threads: int
    mean_tokens: float
    limit_gmacs: float = 0.0
    steps: dict[str, dict[str, Measured]] = field(default_factory=dict)
    models: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, float] = field(default_factory=dict)


class AllTokensWriter(Writer):
    """The last layer like the others: step 7."""

    def _last_layer(self, number: int, hidden: str) -> str:
        g = self._g
        hidden = self._layer(number, hidden)
        return g.op("Gather", hidden, g.op("Gather", "texts", g.index(0), axis=1), axis=0)


class FirstTokenWriter(Writer):
    """The last layer's queries for first tokens only, its keys and values for all: step 8."""

    def _last_layer(self, number: int, hidden: str) -> str:
        g, layer, encoder = self._g, self._encoder.layers[number], self._encoder
        name, width = f"layer.{number}", encoder.hidden
        firsts = g.op("Gather", "texts", g.index(0), axis=1)
        first = g.op("Gather", hidden, firsts, axis=0)
        query = g.op("Unsqueeze", self._dense(f"{name}.first", first, layer.query, firsts), g.integers(1))
        weights = np.concatenate([layer.key.weight, layer.value.weight], axis=1)
        product = self._dense(f"{name}.attention", hidden, Dense(weights, np.zeros(2 * width, dtype=np.float32)))
        halves = g.op("Reshape", product, g.integers(-1, width))
        keys = g.op("Mul", "texts", g.index(2))
        sides = [g.op("Gather", halves, keys, axis=0), g.op("Gather", halves, g.op("Add", keys, g.index(1)), axis=0)]
        mask = g.op("Unsqueeze", "text_mask", g.integers(2))
        mixed = g.op("Attention", query, *sides, mask, q_num_heads=encoder.heads, kv_num_heads=encoder.heads)
        return self._after_attention(number, first, g.op("Reshape", mixed, g.integers(-1, width)), firsts)


WRITERS: Final[dict[str, type[Writer]]] = {"all": AllTokensWriter, "first": FirstTokenWriter, "absorbed": Writer}


def useful_macs(encoder: Encoder, lengths: Sequence[int], kind: str) -> float:
    """Multiply-accumulates that the texts need, padding not counted: all tokens in all layers, or less in the last one."""
    width, inner, layers = encoder.hidden, int(encoder.layers[0].up.weight.shape[1]), len(encoder.layers)
    tokens, texts = float(sum(lengths)), float(len(lengths))
    square, feed = float(width * width), 2.0 * width * inner
    pairs = 2.0 * width * sum(float(length) ** 2 for length in lengths)
    if kind == "all":
        return layers * (tokens * (4 * square + feed) + pairs)
    total = (layers - 1) * (tokens * (4 * square + feed) + pairs) + texts * (2 * square + feed)
    if kind == "first":
        return total + tokens * (2 * square + 2.0 * width)
    return total + texts * 2 * square + tokens * 2.0 * encoder.heads * width


def random_checkpoint(shape: Shape, folder: Path) -> None:
    """A classifier of that shape with random weights and three labels. Needs torch and transformers."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, DistilBertConfig, DistilBertForSequenceClassification

    torch.manual_seed(7)
    if shape == "minilm":
        config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, num_labels=3)
        BertForSequenceClassification(config).eval().save_pretrained(folder)
    else:
        DistilBertForSequenceClassification(DistilBertConfig(num_labels=3)).eval().save_pretrained(folder)


def run_ladder(
    checkpoint: Path,
    work: Path,
    result: Result,
    texts: Texts,
    article: list[int],
    calibration: Texts,
    on_step: Callable[[str], None],
) -> None:
    """Build each step's model in `work`, measure all, and fill `result`. Needs torch and transformers.

    `texts` are the token ids of the mixed workload, `article` those of the text that the article's workload repeats ten times,
    `calibration` others, for the INT8 scales of steps 7 to 9. Raises `CheckpointError` for an unusable checkpoint, and for one of
    an architecture that not all steps can compute.
    """
    encoder = read_encoder(checkpoint)
    if not encoder.is_like_bert:
        raise CheckpointError(f"{checkpoint}: the ladder's steps are made for encoders like BERT, not for {encoder.family}")
    _build(checkpoint, encoder, work, calibration, on_step)
    workloads = {ARTICLE: [article] * 10, MIXED: texts}
    # spawn: a process that begins with nothing of ours has a peak of its own.
    context = multiprocessing.get_context("spawn")
    children: dict[str, tuple[Any, Connection]] = {}
    try:
        for step in STEPS:
            ours, theirs = context.Pipe()
            process = context.Process(target=_child, args=(theirs, step, str(checkpoint), str(work), result.threads), daemon=True)
            process.start()
            theirs.close()
            children[step.name] = process, ours
            ours.recv()
            on_step(f"loaded step {step.name}")
        seconds: dict[tuple[str, str], list[float]] = {}
        logits: dict[tuple[str, str], Floats] = {}
        limits: list[float] = []
        limit = _limit(encoder, result.threads)
        for round_number in range(result.rounds + 1):
            for step in STEPS:
                for name, load in workloads.items():
                    # Ten short texts are over in milliseconds; as many repeats as make the two workloads alike.
                    repeats = max(1, len(texts) // len(load)) if name == ARTICLE else 1
                    children[step.name][1].send((load, repeats))
                    duration, rows = children[step.name][1].recv()
                    logits[step.name, name] = rows
                    if round_number:  # the first one warms up
                        seconds.setdefault((step.name, name), []).append(duration / len(load) / repeats)
                on_step(f"round {round_number} of {result.rounds}: step {step.name}")
            limits.append(limit())
        result.limit_gmacs = statistics.median(limits)
        for step in STEPS:
            pipe = children[step.name][1]
            pipe.send(None)
            result.peaks[step.name] = pipe.recv()
            result.models[step.name] = _size(checkpoint / "model.safetensors" if step.runner == "torch" else work / step.model)
            result.steps[step.name] = {
                name: _measured(
                    seconds[step.name, name],
                    logits[step.name, name],
                    logits[BASELINE, name],
                    useful_macs(encoder, list(map(len, load)), step.useful) / len(load) if step.useful else None,
                )
                for name, load in workloads.items()
            }
    finally:
        for process, pipe in children.values():
            pipe.close()
            process.join(5)
            if process.is_alive():
                process.kill()


def _measured(seconds: Sequence[float], logits: Floats, reference: Floats, macs: float | None) -> Measured:
    median = statistics.median(seconds)
    return Measured(
        ms=median * 1e3,
        fastest=min(seconds) * 1e3,
        slowest=max(seconds) * 1e3,
        label_match=float((logits.argmax(axis=1) == reference.argmax(axis=1)).mean()),
        largest_probability_change=float(np.abs(softmax(logits) - softmax(reference)).max()),
        useful_gmacs=None if macs is None else macs / median / 1e9,
    )


def _size(path: Path) -> float:
    return path.stat().st_size / 1e6


def _build(checkpoint: Path, encoder: Encoder, work: Path, calibration: Texts, on_step: Callable[[str], None]) -> None:
    from models.making.trace import quantize_int8, trace

    on_step("tracing")
    trace(checkpoint, LONGEST, work / "traced.onnx")
    on_step("quantizing the traced graph")
    quantize_int8(work / "traced.onnx", work / "traced-int8.onnx")
    encodings = [Encoding(tuple(ids), truncated=False) for ids in calibration]
    for kind, writer in WRITERS.items():
        on_step(f"writing the padding-free graph ({kind})")
        recipes = make_recipes(encoder, encodings, writer=writer)
        (work / f"{kind}.onnx").write_bytes(writer(encoder, recipes).write().SerializeToString())


def _limit(encoder: Encoder, threads: int) -> Callable[[], float]:
    """A function that measures one layer's four INT8 products on random numbers, in GMAC/s."""
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    from models.making.graph import OPSET
    from models.making.nodes import MICROSOFT

    generator = np.random.default_rng(3)
    width, inner = encoder.hidden, encoder.layers[0].up.weight.shape[1]
    runs: list[tuple[Any, dict[str, Any]]] = []
    macs = 0.0
    for inputs, outputs in ((width, 3 * width), (width, width), (width, inner), (inner, width)):
        constants = {
            "w": generator.integers(-127, 128, (inputs, outputs)).astype(np.int8),
            "a": np.float32(0.02),
            "s": np.full(outputs, 0.001, dtype=np.float32),
            "z": np.uint8(128),
            "b": np.zeros(outputs, dtype=np.float32),
        }
        node = helper.make_node("MatMulIntegerToFloat", ["x", "w", "a", "s", "z", "", "b"], ["y"], domain=MICROSOFT)
        graph = helper.make_graph(
            [node],
            "limit",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", inputs])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", outputs])],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
        session = open_session(model, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, threads)
        runs.append((session, {"x": generator.integers(0, 256, (LIMIT_ROWS, inputs)).astype(np.uint8)}))
        macs += LIMIT_ROWS * inputs * outputs

    def measure(repeats: int = 20) -> float:
        started = time.perf_counter()
        for _ in range(repeats):
            for session, values in runs:
                session.run(None, values)
        return macs * repeats / (time.perf_counter() - started) / 1e9

    measure()
    return measure


def _child(pipe: Connection, step: Step, checkpoint: str, work: str, threads: int) -> None:
    """One step's process: load, then time whatever batches of texts come, until None."""
    forward = RUNNERS[step.runner](Path(checkpoint) if step.runner == "torch" else Path(work) / step.model, threads)
    pipe.send(None)
    while (message := pipe.recv()) is not None:
        texts, repeats = message
        order = sorted(range(len(texts)), key=lambda index: len(texts[index])) if step.is_sorted else list(range(len(texts)))
        parts = [order[start : start + step.batch] for start in range(0, len(order), step.batch)]
        batches = [[texts[index] for index in part] for part in parts]
        outputs: list[Floats] = []
        started = time.perf_counter()
        for _ in range(repeats):
            outputs = [forward(batch) for batch in batches]
        duration = time.perf_counter() - started
        logits = np.empty((len(texts), outputs[0].shape[1]), dtype=np.float32)
        for part, rows in zip(parts, outputs, strict=True):
            logits[part] = rows
        pipe.send((duration, logits))
    pipe.send(_peak_megabytes())


def _peak_megabytes() -> float:
    """The most memory this process ever had resident. (`getrusage` would count what its parent had when it was started.)"""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 / 1e6 for line in status.splitlines() if line.startswith("VmHWM"))


def _torch_runner(checkpoint: Path, threads: int) -> Callable[[Texts], Floats]:
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(threads)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint, local_files_only=True).eval()

    def forward(batch: Texts) -> Floats:
        ids, mask = padded(batch, PAD)
        with torch.inference_mode():
            logits: Floats = model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).logits.numpy()
        return logits

    return forward


def _padded_runner(model: Path, threads: int) -> Callable[[Texts], Floats]:
    import onnxruntime as ort

    session = open_session(model.read_bytes(), ort.GraphOptimizationLevel.ORT_ENABLE_ALL, threads)

    def forward(batch: Texts) -> Floats:
        (logits,) = session.run(None, dict(zip(PaddedEngine.INPUTS, padded(batch, PAD), strict=True)))
        return np.asarray(logits)

    return forward


def _packed_runner(model: Path, threads: int) -> Callable[[Texts], Floats]:
    import onnxruntime as ort

    session = open_session(model.read_bytes(), ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, threads)
    return lambda batch: packed_logits(session, [Encoding(tuple(ids), truncated=False) for ids in batch])


RUNNERS: Final = {"torch": _torch_runner, "padded": _padded_runner, "packed": _packed_runner}


HEADINGS: Final = (
    "step", "", "ms a text", "spread", "texts/s", "x step 1", "x step 4", "label match", "largest change", "MB", "peak RSS MB",
    "useful GMAC/s", "of the limit",
)  # fmt: skip


# Those that fit on a narrow terminal.
NARROW: Final = (0, 1, 2, 5, 6, 12)


def table(result: Result, workload: str) -> list[list[str]]:
    """The rows under `HEADINGS` for one workload, as text."""
    base, end = result.steps[BASELINE][workload].ms, result.steps[ARTICLE_END][workload].ms
    rows = []
    for step in STEPS:
        row = result.steps[step.name][workload]
        gmacs = row.useful_gmacs
        rows.append(
            [
                step.name,
                step.title,
                f"{row.ms:.2f}",
                f"{row.fastest:.2f} - {row.slowest:.2f}",
                f"{1000 / row.ms:.0f}",
                f"{base / row.ms:.2f}",
                f"{end / row.ms:.2f}",
                f"{row.label_match:.1%}",
                f"{row.largest_probability_change:.4f}",
                f"{result.models[step.name]:.0f}",
                f"{result.peaks[step.name]:.0f}",
                "" if gmacs is None else f"{gmacs:.0f}",
                "" if gmacs is None else f"{gmacs / result.limit_gmacs:.2f}",
            ]
        )
    return rows


def captions(result: Result) -> dict[str, str]:
    """What each workload is, in words."""
    return {
        MIXED: f"{result.texts} tickets of mixed lengths ({result.mean_tokens:.0f} tokens on average)",
        ARTICLE: "the article's workload: ten times the same short text",
    }


def markdown(result: Result) -> str:
    """Both tables."""
    about = (
        f"{result.title}; {result.threads} thread(s), {result.rounds} rounds, medians. The limit is the plain INT8 product at the"
        f" model's shapes and {LIMIT_ROWS} rows: {result.limit_gmacs:.0f} GMAC/s."
    )
    parts = [about]
    for workload, caption in captions(result).items():
        parts += ["", f"{caption[0].upper()}{caption[1:]}:", "", f"| {' | '.join(HEADINGS)} |", f"|{' --- |' * len(HEADINGS)}"]
        parts += [f"| {' | '.join(row)} |" for row in table(result, workload)]
    return "\n".join(parts) + "\n"


def as_json(result: Result) -> str:
    """All figures."""
    return json.dumps({**asdict(result), "titles": {step.name: step.title for step in STEPS}}, indent=2) + "\n"


def draw(result: Result, path: Path) -> None:
    """A bar chart of milliseconds a text on the mixed workload, as PNG. Needs matplotlib."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(13, 5), sharey=True, layout="constrained")
    names = [f"{step.name}  {step.title}" for step in STEPS]
    colours = {"torch": "#9aa0a6", "padded": "#5b8def", "packed": "#1e9e61"}
    for axis, (workload, caption) in zip(axes, captions(result).items(), strict=True):
        rows = [result.steps[step.name][workload] for step in STEPS]
        errors = [[row.ms - row.fastest for row in rows], [row.slowest - row.ms for row in rows]]
        bars = axis.barh(
            names, [row.ms for row in rows], xerr=errors, color=[colours[step.runner] for step in STEPS], ecolor="#555"
        )
        axis.bar_label(bars, [f"{row.ms:.2f}" for row in rows], padding=6)
        axis.set_title(caption, fontsize=10)
        axis.set_xlabel("ms a text (less is better)")
        axis.margins(x=0.15)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].invert_yaxis()
    figure.suptitle(result.title)
    figure.savefig(path, dpi=110)
    plt.close(figure)
