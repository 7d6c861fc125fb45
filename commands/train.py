"""`supportbot train`"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, TaskID

from commands.console import fail, progress_bar, say
from commands.inputs import (
    Delimiter,
    Encoding,
    InputFormat,
    LabelColumn,
    LabelColumns,
    ProblemChoice,
    TextColumn,
    check_files,
    check_labels,
    table_format,
)
from models.problem import problem_of
from models.tables import TableError

if TYPE_CHECKING:
    from models.making.augment import Augmenter
    from models.making.train import EpochResult

NEEDS_BUILD = "this needs torch and transformers: run `make setup-build`, or install supportbot[build]"

EPOCHS = 5
LABEL_SMOOTHING = 0.1
# What figures are called.
FIGURE_NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "mean_average_precision": "mean average precision",
    "mae": "mean absolute error",
    "spearman": "Spearman",
}
# A few hundred tickets make a handful of batches an epoch, and 5 epochs of those teach next to nothing: on 300 tickets with three
# labels, accuracy on held-out ones was .39 after 18 batches and .90 after some hundred.
LEAST_BATCHES = 500


def train(
    data: Annotated[
        list[str],
        typer.Option(
            help="A CSV, TSV, JSON or JSON Lines file with a text and a label column, gzipped or not; - is standard input. May be"
            " repeated. FILE@WEIGHT draws its rows WEIGHT times as often."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The checkpoint folder to make.")],
    dev: Annotated[
        list[Path] | None, typer.Option(help="Files to choose the best epoch on.", show_default="a share of --data")
    ] = None,
    dev_share: Annotated[float, typer.Option(min=0.01, max=0.5, help="The share of each label held out of --data.")] = 0.1,
    base: Annotated[Path | None, typer.Option(help="An encoder's checkpoint folder.", show_default="MiniLM-L6")] = None,
    problem_type: Annotated[ProblemChoice, typer.Option(help="What the model shall give to a text.")] = ProblemChoice.SINGLE_LABEL,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    label_columns: LabelColumns = None,
    input_format: InputFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="The most epochs to train.", show_default="5, or as many as 500 batches take")
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(min=1, help="Stop after this many epochs without a better one.", show_default="a quarter of them, at least 2"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts in a training batch.")] = 32,
    learning_rate: Annotated[float, typer.Option(min=1e-7, max=1.0, help="The peak, after warm-up.")] = 5e-5,
    label_smoothing: Annotated[
        float | None,
        typer.Option(min=0.0, max=0.5, help="Share of certainty taken from the true label.", show_default="0.1; 0 for regression"),
    ] = None,
    max_length: Annotated[int, typer.Option(min=8, help="Tokens of a text that the model reads.")] = 256,
    seed: Annotated[int, typer.Option(help="Decides the split, the order and the new weights.")] = 17,
    threads: Annotated[int, typer.Option(min=0, help="Compute threads; 0 leaves it to torch.")] = 0,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Faster on CPUs with AVX-512 BF16 or AMX.")] = False,
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="KIND,...",
            help="Change training texts as real ones are: email, html, markdown, form, languages, references, logs, typos,"
            " lowercase, shouting, or all of them. KIND@WEIGHT takes a kind WEIGHT times as often.",
            show_default="none",
        ),
    ] = None,
    augment_chance: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="The chance that a text is changed, each time that it is drawn.")
    ] = 0.5,
    augment_pieces: Annotated[
        Path | None, typer.Option(help="A TOML file with greetings, signatures, HTML and so on.", show_default="built-in ones")
    ] = None,
) -> None:
    """Fine-tune a classifier on your own labelled texts, with any number of labels, or a model that gives numbers.

    Seeded: the same data and options give the same model. It can be interrupted at any time: run the same command again, and it
    continues after the last finished epoch. Needs the build extra.

    Example:

        supportbot train --data tickets.csv --out my-checkpoint
    """
    from models.making.dataset import DatasetError, label_names, read_examples, split
    from models.making.judge import JUDGES

    table = table_format(input_format, delimiter, encoding, text_column, label_column, label_columns)
    problem = problem_type.problem
    labels = JUDGES[problem].kind
    check_labels(table, labels)
    if label_smoothing and problem == "regression":
        fail("--label-smoothing: numbers have no certainty that it could be taken from")
    files = [_weighted(name) for name in data]
    check_files([*(path for path, _ in files), *(dev or [])])
    try:
        examples = read_examples(files, table, say, labels)
        if dev:
            kept = examples
            held = read_examples([(path, 1.0) for path in dev], table, say, labels)
        else:
            kept, held = split(examples, dev_share, seed)
    except (DatasetError, TableError) as error:
        fail(str(error))
    augmenter = _augmenter(augment, augment_chance, augment_pieces)
    try:
        import torch

        from models.making.config import CheckpointError
        from models.making.train import TrainingError, TrainingOptions, default_base
        from models.making.train import train as run
    except ImportError as error:
        fail(f"{NEEDS_BUILD} ({error})")
    if threads:
        torch.set_num_threads(threads)
    if epochs is None:
        epochs = max(EPOCHS, math.ceil(LEAST_BATCHES * batch_size / sum(example.weight for example in kept)))
    options = TrainingOptions(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        label_smoothing=(0.0 if problem == "regression" else LABEL_SMOOTHING) if label_smoothing is None else label_smoothing,
        max_length=max_length,
        patience=patience or max(2, epochs // 4),
        seed=seed,
        bfloat16=bfloat16,
    )
    try:
        with progress_bar(transient=False) as progress:
            wanted = problem_of(problem, label_names(kept, problem, label_column or "LABEL_0"))
            run(base or default_base(), out, kept, held, options, TrainingBar(progress, epochs), augmenter, wanted)
    except (TrainingError, CheckpointError, DatasetError, OSError) as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        fail("interrupted; the same command continues after the last finished epoch", 130)
    say(f"checkpoint written to {out}; next: supportbot build {out} BUNDLE")


class TrainingBar:
    """Shows training on a terminal: a bar an epoch, and a line for each epoch's result."""

    def __init__(self, progress: Progress, epochs: int) -> None:
        self._progress = progress
        self._epochs = epochs
        self._tasks: dict[int, TaskID] = {}

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """One of the epoch's `steps` batches is done; `loss` is the epoch's mean so far."""
        if epoch not in self._tasks:
            self._tasks[epoch] = self._progress.add_task("", total=steps)
        self._progress.update(self._tasks[epoch], completed=step, description=f"epoch {epoch}/{self._epochs}  loss {loss:.4f}")

    def epoch(self, result: EpochResult, *, best: bool) -> None:
        """An epoch is done and measured; `best` when it is the best so far."""
        figures = ", ".join(f"dev {FIGURE_NAMES[name]} {value:.4f}" for name, value in result.dev.items())
        say(f"epoch {result.epoch}: loss {result.loss:.4f}, {figures}{' (best so far)' if best else ''}")

    def note(self, text: str) -> None:
        """A sentence about the base."""
        say(text)


def _weighted(name: str) -> tuple[Path, float]:
    """`FILE` or `FILE@WEIGHT`; a file whose name really ends so is taken as it is."""
    file, _, weight = name.rpartition("@")
    if not file or Path(name).exists():
        return Path(name), 1.0
    try:
        value = float(weight)
    except ValueError:
        return Path(name), 1.0
    _check_weight(name, value)
    return Path(file), value


def _check_weight(name: str, weight: float) -> None:
    if not 0 < weight <= 1000:
        fail(f"{name}: the weight must be over 0 and at most 1000")


def _augmenter(kinds: str | None, chance: float, file: Path | None) -> Augmenter | None:
    """What the options of augmentation ask for; exits where they are wrong."""
    from models.making.augment import KINDS, Augmenter
    from models.making.pieces import TRAINING_PIECES, PiecesError, read_pieces

    if kinds is None:
        if file is not None:
            fail("--augment-pieces needs --augment, which says what to do with them")
        return None
    weights: dict[str, float] = {}
    for entry in KINDS if kinds.strip() == "all" else kinds.split(","):
        kind, at, weight = entry.strip().partition("@")
        try:
            weights[kind] = float(weight) if at else 1.0
        except ValueError:
            fail(f"--augment: {entry.strip()!r}: {weight!r} is not a weight")
        _check_weight(entry.strip(), weights[kind])
    try:
        return Augmenter(weights, chance, read_pieces(file or TRAINING_PIECES))
    except PiecesError as error:
        fail(str(error))
