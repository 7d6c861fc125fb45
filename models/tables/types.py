"""Rows, faults, and how a file is to be read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import TypeAlias

# What a text is labelled with: one label, several or none, or a number.
Label: TypeAlias = str | tuple[str, ...] | float

# Where what was recognised about a file is said.
Notice = Callable[[str], object]


class Kind(StrEnum):
    """How texts are laid out in a file."""

    LINES = "lines"
    CSV = "csv"
    TSV = "tsv"
    JSON = "json"
    JSONL = "jsonl"


class LabelKind(Enum):
    """How texts are labelled."""

    ONE = "one"
    SEVERAL = "several"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class TableFormat:
    """How files are to be read; what is None is recognised.

    `kind`: by the file's name. `delimiter`: of CSV, by its header. `encoding`: by a byte order mark, which wins over it, else
    UTF-8. `text_column`: "text"; one that is named is an error where there are no columns. `label_column`: "label".
    `label_columns`: in place of it, a column of 0 and 1 for each of several labels.
    """

    kind: Kind | None = None
    delimiter: str | None = None
    encoding: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    label_columns: tuple[str, ...] = ()

    @property
    def text_name(self) -> str:
        """The column or key of the text."""
        return "text" if self.text_column is None else self.text_column

    @property
    def label_name(self) -> str:
        """The column or key of the label."""
        return "label" if self.label_column is None else self.label_column


@dataclass(frozen=True, slots=True)
class Row:
    """One usable row: a non-blank text and, where labels were asked for, what it is labelled with.

    `line` counts from 1. A record of several lines has the number of its first; in a JSON list it is the number of the element.
    """

    source: str
    line: int
    text: str
    label: Label | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row that cannot be used, and why; `line` as in `Row`."""

    source: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.reason}"


class TableError(Exception):
    """Raised when a file as a whole cannot be read: missing, a folder, no such column, not what its name says."""
