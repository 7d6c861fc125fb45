"""Labelled examples for training and measuring: read strictly, split in proportion to the labels."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.problem import ProblemType
from models.tables import BadRow, Label, LabelKind, Notice, TableFormat, read_table, source_name

SHOWN_BAD_ROWS = 20


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text: with one label, with several or none, or with a number.

    `weight` is how often it is drawn relative to an example of weight 1; augmentation leaves a `fixed` one as it is.
    """

    text: str
    label: Label
    weight: float = 1.0
    fixed: bool = False


class DatasetError(Exception):
    """Raised when labelled data cannot be used as it stands; the message names files, lines and reasons."""


def _say_nothing(_: str) -> None:
    return None


def read_examples(
    files: Sequence[tuple[Path, float]],
    table: TableFormat | None = None,
    notice: Notice = _say_nothing,
    labels: LabelKind = LabelKind.ONE,
) -> list[Example]:
    """Read every row of (path, weight) pairs, or raise `DatasetError` naming every row that cannot be used.

    `table`, `notice`, `labels`: as for `read_table`, whose `TableError` is raised for a file as a whole.
    """
    examples: list[Example] = []
    bad: list[BadRow] = []
    for path, weight in files:
        for row in read_table(path, table, labelled=True, labels=labels, notice=notice):
            if isinstance(row, BadRow):
                bad.append(row)
            else:
                assert row.label is not None
                examples.append(Example(row.text, row.label, weight))
    if bad:
        more = f"\n... and {len(bad) - SHOWN_BAD_ROWS} more" if len(bad) > SHOWN_BAD_ROWS else ""
        listed = "\n".join(map(str, bad[:SHOWN_BAD_ROWS]))
        raise DatasetError(f"{len(bad)} of {len(bad) + len(examples)} rows cannot be used:\n{listed}{more}")
    if not examples:
        raise DatasetError("no rows in " + ", ".join(source_name(path) for path, _ in files))
    return examples


def read_texts(path: Path, table: TableFormat | None = None, notice: Notice = _say_nothing) -> list[str]:
    """The texts of a file that needs no labels. Raises `DatasetError` for rows that cannot be used, `TableError` for the file.

    `table`, `notice`: as for `read_table`.
    """
    rows = list(read_table(path, table, notice=notice))
    if bad := [row for row in rows if isinstance(row, BadRow)]:
        raise DatasetError(f"{len(bad)} of {len(rows)} rows cannot be used, first {bad[0]}")
    if not rows:
        raise DatasetError(f"{source_name(path)}: no texts")
    return [row.text for row in rows if not isinstance(row, BadRow)]


def label_names(examples: Sequence[Example], problem_type: ProblemType = "single-label", name: str = "LABEL_0") -> list[str]:
    """The distinct labels in alphabetical order, so that the order of rows never changes the meaning of a class index; `name` for
    the one of a model that gives a number.

    Raises `DatasetError` for too few.
    """
    if problem_type in {"one-label", "regression"}:
        return [name]
    labels = sorted({label for example in examples for label in labels_of(example)})
    if len(labels) < 2:
        raise DatasetError(f"a {problem_type} classifier needs two labels or more; the data has {len(labels)}: {labels}")
    return labels


def labels_of(example: Example) -> tuple[str, ...]:
    """The labels of a text, none of one with a number: by these, texts are counted, and held out in proportion."""
    if isinstance(example.label, float):
        return ()
    return (example.label,) if isinstance(example.label, str) else example.label


def split(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Divide into (kept, held out), `share` of each label held out and at least one; seeded and order-preserving.

    A text with several labels goes with those of its rarest one, and texts without a label are among themselves. Raises
    `DatasetError` when there are fewer than two texts to divide.
    """
    frequency = Counter(label for example in examples for label in labels_of(example))
    by_label: dict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        by_label[min(labels_of(example), key=lambda label: (frequency[label], label), default="")].append(index)
    held: set[int] = set()
    generator = random.Random(seed)
    for label, indices in sorted(by_label.items()):
        if len(indices) < 2:
            what = f"label {label!r}" if label else "the texts without a label, or with a number,"
            raise DatasetError(f"{what} has one example only; it needs two or more to hold one out; or give --dev")
        held.update(generator.sample(indices, max(1, round(share * len(indices)))))
    kept = [example for index, example in enumerate(examples) if index not in held]
    return kept, [examples[index] for index in sorted(held)]


def fingerprint(examples: Sequence[Example]) -> str:
    """SHA-256 over texts, labels, weights and what is fixed, in order: tells whether two runs saw the same data."""
    digest = hashlib.sha256()
    for example in examples:
        label = example.label if isinstance(example.label, str) else repr(example.label)
        for part in (example.text, label, repr(example.weight), *(["fixed"] if example.fixed else [])):
            digest.update(part.encode("utf-8"))
            digest.update(b"\0")
    return digest.hexdigest()


def counts(examples: Sequence[Example]) -> dict[str, int]:
    """Examples per label, the labels in alphabetical order; of numbers, how many there are in all."""
    found = Counter(label for example in examples for label in labels_of(example))
    return dict(sorted(found.items())) if found else {"": len(examples)}
