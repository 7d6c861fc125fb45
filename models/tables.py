"""Reading texts, with or without labels, from the files people have: plain text, CSV/TSV and JSON Lines.

A row that cannot be used is yielded as a `BadRow` with its file, line and reason instead of ending the iteration, so that the
caller decides whether one bad row spoils the file (training: yes) or only itself (classifying: no).
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import orjson

CSV_DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSONL_SUFFIXES = frozenset({".jsonl", ".ndjson"})
# Python's csv module refuses fields over 128 KiB; a pasted log file in a ticket may be longer.
CSV_FIELD_LIMIT = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One usable row: a non-blank text and, where labels were asked for, its non-blank label."""

    source: str
    line: int
    text: str
    label: str | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """One row that cannot be used, and why; `line` counts from 1."""

    source: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}: {self.reason}"


class TableError(Exception):
    """Raised when a file as a whole cannot be read: missing, a folder, no such column."""


def read_table(path: Path, *, text_column: str = "text", label_column: str | None = None) -> Iterator[Row | BadRow]:
    """Yield the rows of `path`, its format told by the suffix: .csv, .tsv, .jsonl, .ndjson; anything else is one text a line.

    Raises `TableError` when the file cannot be opened or lacks a column that was asked for.
    """
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            yield from read_stream(stream, path.suffix.lower(), str(path), text_column=text_column, label_column=label_column)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror or error}") from error


def read_stream(
    stream: TextIO, suffix: str, source: str, *, text_column: str = "text", label_column: str | None = None
) -> Iterator[Row | BadRow]:
    """Yield the rows of an open stream in the format that `suffix` names (see `read_table`)."""
    if suffix in CSV_DELIMITERS:
        fields = _csv_fields(stream, CSV_DELIMITERS[suffix], source, text_column, label_column)
    elif suffix in JSONL_SUFFIXES:
        fields = _jsonl_fields(stream, text_column, label_column)
    elif label_column is not None:
        raise TableError(f"{source}: a plain text file has no labels; use .csv, .tsv or .jsonl")
    else:
        fields = ((number, line.rstrip("\r\n"), None) for number, line in enumerate(stream, start=1))
    for line, text, label in fields:
        reason = fault_of(text, text_column) or (label_column and fault_of(label, label_column))
        if reason:
            yield BadRow(source, line, reason)
        else:
            assert isinstance(text, str)
            yield Row(source, line, text, label.strip() if isinstance(label, str) else None)


class _Malformed(str):
    """A reason that stands in for a text that could not be parsed out of its line."""

    __slots__ = ()


def fault_of(value: object, column: str) -> str | None:
    """What is wrong with a field's value, or None when it is a non-blank string of valid Unicode."""
    if isinstance(value, _Malformed):
        return str(value)
    if value is None:
        return f"no {column!r}"
    if not isinstance(value, str):
        return f"{column!r} is not a string"
    if not value.strip():
        return f"{column!r} is blank"
    try:
        # surrogateescape let undecodable bytes through so that the rest of the file stays readable.
        value.encode("utf-8")
    except UnicodeEncodeError:
        return f"{column!r} is not valid UTF-8"
    return None


def _jsonl_fields(stream: TextIO, text_column: str, label_column: str | None) -> Iterator[tuple[int, object, object]]:
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue  # files are put together with blank lines between them
        try:
            record: object = orjson.loads(line.encode("utf-8", "surrogateescape"))
        except orjson.JSONDecodeError as error:
            yield number, _Malformed(f"not JSON: {error.msg}"), None
            continue
        if not isinstance(record, dict):
            yield number, _Malformed("not a JSON object"), None
            continue
        yield number, record.get(text_column), record.get(label_column) if label_column else None


def _csv_fields(
    stream: TextIO, delimiter: str, source: str, text_column: str, label_column: str | None
) -> Iterator[tuple[int, object, object]]:
    csv.field_size_limit(min(CSV_FIELD_LIMIT, sys.maxsize))
    reader = csv.DictReader(stream, delimiter=delimiter, strict=True)
    try:
        columns = reader.fieldnames or []
    except csv.Error as error:
        raise TableError(f"{source}: not CSV: {error}") from error
    for column in filter(None, (text_column, label_column)):
        if column not in columns:
            raise TableError(f"{source}: no column {column!r}; it has {', '.join(map(repr, columns)) or 'none'}")
    rows = iter(reader)
    while True:
        try:
            record = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            # After a quoting error the reader's idea of where rows begin cannot be trusted any more.
            yield reader.line_num, _Malformed(f"not CSV: {error}; the rest of the file was not read"), None
            return
        if None in record:
            yield reader.line_num, _Malformed("more fields than the header has columns"), None
            continue
        yield reader.line_num, record[text_column], record[label_column] if label_column else None
