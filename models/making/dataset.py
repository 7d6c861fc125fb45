"""Labelled examples for training and measuring: read strictly, split in proportion to the labels."""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.tables import BadRow, Notice, TableFormat, read_table, source_name

SHOWN_BAD_ROWS = 20


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text; `weight` is how often it is drawn relative to an example of weight 1; augmentation leaves a `fixed` one as
    it is.
    """

    text: str
    label: str
    weight: float = 1.0
    fixed: bool = False


class DatasetError(Exception):
    """Raised when labelled data cannot be used as it stands; the message names files, lines and reasons."""


def _say_nothing(_: str) -> None:
    return None


def read_examples(
    files: Sequence[tuple[Path, float]], table: TableFormat | None = None, notice: Notice = _say_nothing
) -> list[Example]:
    """Read every row of (path, weight) pairs, or raise `DatasetError` naming every row that cannot be used.

    `table`, `notice`: as for `read_table`, whose `TableError` is raised for a file as a whole.
    """
    examples: list[Example] = []
    bad: list[BadRow] = []
    for path, weight in files:
        for row in read_table(path, table, labelled=True, notice=notice):
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


def label_names(examples: Sequence[Example]) -> list[str]:
    """The distinct labels in alphabetical order, so that the order of rows never changes the meaning of a class index."""
    labels = sorted({example.label for example in examples})
    if len(labels) < 2:
        raise DatasetError(f"a classifier needs two labels or more; the data has {len(labels)}: {labels}")
    return labels


def split(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Divide into (kept, held out), `share` of each label held out and at least one; seeded and order-preserving.

    Raises `DatasetError` when a label has fewer than two examples.
    """
    by_label: dict[str, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        by_label[example.label].append(index)
    held: set[int] = set()
    generator = random.Random(seed)
    for label, indices in sorted(by_label.items()):
        if len(indices) < 2:
            raise DatasetError(f"label {label!r} has one example only; it needs two or more to hold one out")
        held.update(generator.sample(indices, max(1, round(share * len(indices)))))
    kept = [example for index, example in enumerate(examples) if index not in held]
    return kept, [examples[index] for index in sorted(held)]


def fingerprint(examples: Sequence[Example]) -> str:
    """SHA-256 over texts, labels, weights and what is fixed, in order: tells whether two runs saw the same data."""
    digest = hashlib.sha256()
    for example in examples:
        for part in (example.text, example.label, repr(example.weight), *(["fixed"] if example.fixed else [])):
            digest.update(part.encode("utf-8"))
            digest.update(b"\0")
    return digest.hexdigest()


def counts(examples: Sequence[Example]) -> dict[str, int]:
    """Examples per label, the labels in alphabetical order."""
    return dict(sorted(Counter(example.label for example in examples).items()))
