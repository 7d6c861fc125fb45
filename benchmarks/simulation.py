"""The batching queue in virtual time: what look-ahead and its bound are worth, on pass times that were measured.

    python -m benchmarks.simulation measure      # pass times of this machine, into benchmarks/pass_times.json
    python -m benchmarks.simulation              # tables; --plot and --plot-look-ahead draw

Texts of tickets' lengths arrive at random (Poisson), and the real `batching.queue` decides what leaves; only the model is replaced,
by a formula for the seconds of a pass. So every policy meets the same texts at the same times, and no noise of a machine. There are
two engines: the padding-free one that is served, and the usual one, which pads a batch to its longest text.

Loads are shares of what an engine can do in the order of arrival (FIFO). Where the queue is full texts are refused; latencies are
those of the others. The first half of a run, in which the queue fills, does not count.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import platform
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from itertools import chain, count, islice, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from batching.policy import BatchPolicy, Priority
from batching.queue import BatchQueue
from benchmarks.console import say
from loadtest.corpus import tickets
from models import passes
from models.build.tune import ticket_lengths
from models.bundle import Bundle, embedded_bundle
from models.engines import PackedEngine, PaddedEngine
from models.tokenizer import Tokenizer
from models.types import Encoding

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PASS_TIMES: Final = Path(__file__).with_name("pass_times.json")
PADDING_FREE: Final = "padding-free"
PADDED: Final = "padded to the longest"

# A run is as long as so many texts take at the capacity, and done with each seed; the figures are those of all these runs.
TEXTS: Final = 14_000
SEEDS: Final = (1, 2, 3)
LOADS: Final = (0.3, 0.5, 0.8, 0.95, 1.2)
# More than any policy can do, so that all of them are saturated.
OVERLOAD: Final = 4.0
INTERACTIVE_LOAD: Final = 0.2
# Passes that are timed in a row on one engine.
TURN: Final = 12

FIFO: Final = BatchPolicy(max_items=32, max_cost=512, workers=2, look_ahead=0, max_passed_over=0)
STRICT_WINDOW: Final = replace(FIFO, idle_flush=False, window=0.040)
# Look-ahead, and how often a text may be passed over.
DEFAULT: Final = (BatchPolicy().look_ahead, BatchPolicy().max_passed_over)
OTHERS: Final = ((32, 1), (32, 4), (48, 6), (64, 1), (64, 2), (64, 8), (128, 4), (128, 8), (256, 16))
LOOK_AHEADS: Final = (32, 64, 128, 256)
BOUNDS: Final = (1, 2, 4, 8, 16, 32)

Seconds = Callable[[Sequence[int]], float]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(eq=False, slots=True)
class Text:
    """An entry of the queue, of `cost` tokens. `place` counts those that were queued; a text that was refused is never answered."""

    cost: int
    queued_at: float
    priority: Priority = Priority.INTERACTIVE
    deadline: float = math.inf
    place: int = 0
    passed_over: int = 0
    answered_at: float = math.inf


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass over texts, oldest first."""

    started: float
    ended: float
    texts: tuple[Text, ...]

    @property
    def lengths(self) -> list[int]:
        """In tokens."""
        return [text.cost for text in self.texts]


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of some texts. Times in seconds; cells are those of attention, `padded` and `computed` over real ones."""

    texts_per_second: float
    refused: float
    p50: float
    p99: float
    padded: float
    computed: float
    batch: float
    passed_over: int


def simulate(texts: Sequence[Text], policy: BatchPolicy, seconds: Seconds) -> list[Pass]:
    """Let texts arrive at their `queued_at`, in this order, and answer all that find a place; returns the passes by their start.

    A pass over texts of some lengths takes `seconds(lengths)`.
    """
    queue = BatchQueue[Text](policy)
    coming = deque(texts)
    running: list[tuple[float, int, Pass]] = []
    done: list[Pass] = []
    places = count()
    while coming or running or queue:
        moments = [coming[0].queued_at] if coming else []
        if running:
            moments.append(running[0][0])
        if len(running) < policy.workers and (window_end := queue.window_end()) is not None:
            moments.append(window_end)
        now = min(moments)
        while running and running[0][0] <= now:
            for text in heapq.heappop(running)[2].texts:
                text.answered_at = now
        while coming and coming[0].queued_at <= now:
            text = coming.popleft()
            if queue.count(text.priority) < policy.max_queued:
                text.place = next(places)
                queue.push(text)
        while len(running) < policy.workers and (batch := queue.take(now)) is not None:
            ended = now + seconds([text.cost for text in batch.entries])
            done.append(Pass(now, ended, batch.entries))
            heapq.heappush(running, (ended, len(done), done[-1]))
            _note_passed_over(queue, batch.entries[-1])
    return done


def _note_passed_over(queue: BatchQueue[Text], youngest: Text) -> None:
    for text in queue:
        if text.priority is youngest.priority:
            if text.place > youngest.place:
                break
            text.passed_over += 1


def arrivals(number: int, rate: float, seed: int, priority: Priority = Priority.INTERACTIVE) -> list[Text]:
    """So many texts of tickets' lengths, `rate` a second on average, at random; the same for the same seed."""
    moments = np.random.default_rng(seed).exponential(1 / rate, number).cumsum().tolist()
    return [Text(length, moment, priority) for length, moment in zip(ticket_lengths(number, seed=seed), moments, strict=True)]


def summarize(runs: Sequence[tuple[Sequence[Text], Sequence[Pass]]]) -> Summary:
    """Of the second half of the texts of each run, by age, and of the passes that began between the first and the last of them."""
    counted: list[Text] = []
    lengths: list[list[int]] = []
    seconds, answered = 0.0, 0
    for texts, done in runs:
        late = texts[len(texts) // 2 :]
        start, end = late[0].queued_at, late[-1].queued_at
        counted += late
        lengths += [one.lengths for one in done if start <= one.started <= end]
        seconds += end - start
        answered += sum(start < text.answered_at <= end for text in texts)
    latencies = [text.answered_at - text.queued_at for text in counted if text.answered_at < math.inf]
    cells = sum(length * length for length in chain.from_iterable(lengths))
    p50, p99 = np.percentile(latencies, [50, 99]).tolist()
    return Summary(
        texts_per_second=answered / seconds,
        refused=1 - len(latencies) / len(counted),
        p50=p50,
        p99=p99,
        padded=sum(len(batch) * max(batch) ** 2 for batch in lengths) / cells,
        computed=sum(_planned(tuple(sorted(batch)))[1] for batch in lengths) / cells,
        batch=sum(map(len, lengths)) / len(lengths),
        passed_over=max(text.passed_over for text in counted),
    )


def capacity(seconds: Seconds, policy: BatchPolicy = FIFO) -> float:
    """Texts a second when all are there from the start."""
    texts = [Text(length, 0.0) for length in ticket_lengths(TEXTS // 4)]
    done = simulate(texts, replace(policy, max_queued=len(texts)), seconds)
    return len(texts) / max(one.ended for one in done)


# --- pass times


@lru_cache(maxsize=1 << 16)
def _planned(lengths: tuple[int, ...]) -> tuple[float, int]:
    """What the padding-free engine makes of a batch: its cost in tokens, by the constants that it plans with, and its cells."""
    cost, cells = 0.0, 0
    for group in passes.plan(lengths):
        rows, width, _ = passes.place([lengths[index] for index in group])
        cost += passes.PASS_COST + rows * width * (passes.SLOT_COST + passes.CELL_COST * width)
        cells += rows * width * width
    return cost + sum(lengths), cells


def _padding_free_terms(lengths: Sequence[int]) -> tuple[float, ...]:
    return 1.0, _planned(tuple(sorted(lengths)))[0]


def _padded_terms(lengths: Sequence[int]) -> tuple[float, ...]:
    slots, longest = len(lengths) * max(lengths), max(lengths)
    return 1.0, float(slots), float(slots * longest)


# The seconds of a pass are a sum of these terms, each times a coefficient.
TERMS: Final[Mapping[str, Callable[[Sequence[int]], tuple[float, ...]]]] = {
    PADDING_FREE: _padding_free_terms,
    PADDED: _padded_terms,
}


def measured(path: Path = PASS_TIMES) -> dict[str, Seconds]:
    """The seconds of a pass over texts of some lengths, for each engine, as they were measured."""
    curves = json.loads(path.read_text(encoding="utf-8"))["curves"]
    return {engine: _formula(engine, curve["coefficients"]) for engine, curve in curves.items()}


def _formula(engine: str, coefficients: Sequence[float]) -> Seconds:
    terms = TERMS[engine]
    return lambda lengths: sum(factor * term for factor, term in zip(coefficients, terms(lengths), strict=True))


def measure(padded_bundle: Path, seconds: float) -> dict[str, Any]:
    """Time both engines, one thread, on random batches for some `seconds`, and fit the formulas."""
    served, padded = Bundle.open(embedded_bundle()), Bundle.open(padded_bundle)
    engines = {
        PADDING_FREE: PackedEngine(served.model, served.manifest).logits,
        PADDED: PaddedEngine(padded.model, padded.manifest).run,
    }
    tokenizer = Tokenizer(served.tokenizer, served.manifest.max_length)
    words = [token for text in islice(tickets(1), 500) for token in tokenizer.encode(text).ids[1:-1]]
    ends = tokenizer.encode("help").ids
    random = np.random.default_rng(1)

    def text(length: int) -> Encoding:
        return Encoding((ends[0], *random.choice(words, length - 2).tolist(), ends[-1]), truncated=False)

    seen: dict[str, list[tuple[list[int], float]]] = {engine: [] for engine in engines}
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        batches = [_batch(random) for _ in range(TURN)]
        for engine, run in engines.items():
            # The first is not counted: it finds the other engine's weights in the cache.
            for index, lengths in enumerate([batches[0], *batches]):
                batch = [text(length) for length in lengths]
                before = time.perf_counter()
                run(batch)
                if index:
                    seen[engine].append((lengths, time.perf_counter() - before))
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{_processor()}, one thread",
        "onnxruntime": metadata.version("onnxruntime"),
        "curves": {engine: _fit(engine, pairs) for engine, pairs in seen.items()},
    }


def _batch(random: np.random.Generator) -> list[int]:
    """1 to `max_items` texts within `max_cost`: as they come, or, half of the time, neighbours of a sorted stretch of them."""
    size = int(random.choice([1, 2, 4, 8, 16, FIFO.max_items]))
    lengths = ticket_lengths(4 * FIFO.max_items, seed=int(random.integers(1 << 32)))
    if random.random() < 0.5:
        lengths.sort()
        lengths = lengths[int(random.integers(len(lengths) - size)) :]
    total = np.cumsum(lengths[:size])
    return lengths[: max(1, int((total <= FIFO.max_cost).sum()))]


def _fit(engine: str, pairs: Sequence[tuple[Sequence[int], float]]) -> dict[str, Any]:
    """The coefficients with the least relative error; by absolute values, so that a disturbed pass weighs little."""
    terms = np.array([TERMS[engine](lengths) for lengths, _ in pairs])
    seconds = np.array([value for _, value in pairs])
    errors: Floats = np.ones(len(seconds))
    coefficients: Floats = np.zeros(terms.shape[1])
    for _ in range(30):
        weights = 1 / seconds / np.sqrt(np.maximum(errors, 1e-3))
        coefficients = np.linalg.lstsq(terms * weights[:, None], seconds * weights, rcond=None)[0]
        errors = np.abs(terms @ coefficients / seconds - 1)
    return {
        "coefficients": [float(f"{value:.4g}") for value in coefficients],
        "median_relative_error": round(float(np.median(errors)), 4),
        "batches": len(pairs),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


# --- what is compared


def look_ahead(seen: int, bound: int) -> BatchPolicy:
    """With so many texts considered for a batch, and a text passed over so many times at most."""
    return replace(FIFO, look_ahead=seen, max_passed_over=bound)


def policies() -> dict[str, BatchPolicy]:
    """All policies by name."""
    pairs = {f"look-ahead {seen}, passed over {bound}": look_ahead(seen, bound) for seen, bound in (DEFAULT, *OTHERS)}
    return {"FIFO": FIFO, "strict window of 40 ms": STRICT_WINDOW, **pairs}


def run(policy: BatchPolicy, seconds: Seconds, load: float, full: float) -> Summary:
    """One policy at a share of `full` texts a second."""
    runs = []
    for seed in SEEDS:
        texts = arrivals(int(TEXTS * max(1, load)), load * full, seed)
        runs.append((texts, simulate(texts, policy, seconds)))
    return summarize(runs)


def run_two_classes(policy: BatchPolicy, seconds: Seconds, full: float, bulk_class: Priority) -> tuple[Summary, Summary]:
    """(interactive, bulk): interactive texts at a fifth of the capacity, beside more bulk texts than can be done."""
    interactive, bulk = [], []
    for seed in SEEDS:
        urgent = arrivals(int(TEXTS * INTERACTIVE_LOAD), INTERACTIVE_LOAD * full, seed)
        others = arrivals(int(TEXTS * OVERLOAD), OVERLOAD * full, seed + 1000, bulk_class)
        done = simulate(sorted([*urgent, *others], key=lambda text: text.queued_at), policy, seconds)
        interactive.append((urgent, done))
        bulk.append((others, done))
    return summarize(interactive), summarize(bulk)


def report(curves: Mapping[str, Seconds]) -> dict[str, dict[str, dict[float, Summary]]]:
    """Print all tables; returns what was found by engine, policy and load."""
    found: dict[str, dict[str, dict[float, Summary]]] = {}
    for engine, seconds in curves.items():
        full = capacity(seconds)
        say(f"\n## {engine}: FIFO does {full:.0f} texts/s\n")
        found[engine] = {
            name: {load: run(policy, seconds, load, full) for load in (*LOADS, OVERLOAD)} for name, policy in policies().items()
        }
        for load in (*LOADS, OVERLOAD):
            say(f"\n### {load:.0%}\n")
            say("| policy | texts/s | refused | p50 ms | p99 ms | padded cells | computed cells | texts a batch | passed over |")
            say("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
            for name, by_load in found[engine].items():
                one = by_load[load]
                say(
                    f"| {name} | {one.texts_per_second:.0f} | {one.refused:.1%} | {one.p50 * 1e3:.1f} | {one.p99 * 1e3:.1f}"
                    f" | {one.padded:.2f} | {one.computed:.2f} | {one.batch:.1f} | {one.passed_over} |"
                )
        say(f"\n### interactive texts at {INTERACTIVE_LOAD:.0%} beside bulk that saturates\n")
        say("| classes | interactive: texts/s | refused | p50 ms | p99 ms | bulk: texts/s |")
        say("| --- | --- | --- | --- | --- | --- |")
        ways = {"one": Priority.INTERACTIVE, "two, 4 to 1": Priority.BULK}
        orders = {"FIFO": FIFO, "look-ahead": look_ahead(*DEFAULT)}
        for (classes, bulk_class), (order, policy) in product(ways.items(), orders.items()):
            one, bulk = run_two_classes(policy, seconds, full, bulk_class)
            say(
                f"| {classes}, {order} | {one.texts_per_second:.0f} | {one.refused:.1%} | {one.p50 * 1e3:.1f}"
                f" | {one.p99 * 1e3:.1f} | {bulk.texts_per_second:.0f} |"
            )
    return found


def draw(found: Mapping[str, Mapping[str, Mapping[float, Summary]]], path: Path) -> None:
    """Padding, throughput and p99 over load, as PNG. Needs matplotlib."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import ScalarFormatter

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    # The first three; where lines lie on each other, the wider one below is still seen.
    styles = dict(zip(policies(), (("#5b8def", 5), ("#d9822b", 2.5), ("#1e9e61", 1.5)), strict=False))
    for part, (engine, by_policy) in zip(figure.subfigures(len(found), 1, squeeze=False)[:, 0], found.items(), strict=True):
        part.suptitle(engine, fontweight="bold")
        axes = part.subplots(1, 3)
        for name, (colour, width) in styles.items():
            ones = [by_policy[name][load] for load in LOADS]
            values = [one.padded for one in ones], [one.texts_per_second for one in ones], [one.p99 * 1e3 for one in ones]
            for axis, value in zip(axes, values, strict=True):
                axis.plot([load * 100 for load in LOADS], value, "o-", color=colour, linewidth=width, markersize=4, label=name)
        axes[0].set(title="cells if padded, over real ones", ylim=(0, 5.5))
        axes[1].set(title="texts/s", ylim=(0, None))
        axes[2].set(title="p99 of accepted texts, ms", yscale="log")
        axes[2].yaxis.set_major_formatter(ScalarFormatter())
        axes[2].yaxis.set_minor_formatter("")
        for axis in axes:
            axis.set_xlabel("load, % of what FIFO can do")
            axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def draw_look_ahead(curves: Mapping[str, Seconds], path: Path) -> None:
    """Padding, throughput and p99 under overload against FIFO's, over the bound, a line for each look-ahead. Needs matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), layout="constrained")
    for part, (engine, seconds) in zip(figure.subfigures(len(curves), 1, squeeze=False)[:, 0], curves.items(), strict=True):
        part.suptitle(f"{engine}, overloaded, in % of FIFO's", fontweight="bold")
        axes = part.subplots(1, 3)
        full = capacity(seconds)
        fifo = run(FIFO, seconds, OVERLOAD, full)
        for seen in LOOK_AHEADS:
            ones = [run(look_ahead(seen, bound), seconds, OVERLOAD, full) for bound in BOUNDS]
            values = (
                [(one.padded - 1) / (fifo.padded - 1) * 100 for one in ones],
                [one.texts_per_second / fifo.texts_per_second * 100 for one in ones],
                [one.p99 / fifo.p99 * 100 for one in ones],
            )
            for axis, value in zip(axes, values, strict=True):
                axis.plot(BOUNDS, value, "o-", markersize=4, label=f"look-ahead {seen}")
        axes[0].set(title="padding (ratio - 1)", ylim=(0, 105))
        axes[0].axhline(50, color="grey", linestyle="--", linewidth=1)
        axes[1].set(title="texts/s")
        axes[2].set(title="p99 of accepted texts")
        for axis in axes:
            axis.axhline(100, color="grey", linewidth=1)
            axis.set_xscale("log", base=2)
            axis.set_xticks(BOUNDS, [str(bound) for bound in BOUNDS])
            axis.set_xlabel("passed over at most")
            axis.spines[["top", "right"]].set_visible(False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """With one legend for all axes, as PNG with 4 bits a colour, which takes half the room and looks the same."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.image import imsave

    lines = figure.axes[0].get_lines()
    handles = [line for line in lines if not str(line.get_label()).startswith("_")]
    figure.legend(handles=handles, frameon=False, loc="outside lower center", ncols=len(handles))
    figure.set_dpi(110)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    imsave(path, np.asarray(canvas.buffer_rgba())[..., :3] // 17 * 17, pil_kwargs={"optimize": True})


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="?", choices=["compare", "measure"], default="compare")
    parser.add_argument(
        "--padded", type=Path, default=Path("dist/supportbot-padded"), help="an INT8 bundle built with --engine padded"
    )
    parser.add_argument("--seconds", type=float, default=50, help="how long to measure")
    parser.add_argument("--plot", type=Path, help="a picture over load")
    parser.add_argument("--plot-look-ahead", type=Path, help="a picture over look-ahead and its bound")
    arguments = parser.parse_args()
    if arguments.command == "measure":
        found = measure(arguments.padded, arguments.seconds)
        PASS_TIMES.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        say(f"{PASS_TIMES.name}: {found}")
        return
    curves = measured()
    found = report(curves)
    if arguments.plot:
        draw(found, arguments.plot)
    if arguments.plot_look_ahead:
        draw_look_ahead(curves, arguments.plot_look_ahead)


if __name__ == "__main__":
    main()
