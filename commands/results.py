"""How results are written: JSON Lines or CSV."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from enum import StrEnum
from typing import TextIO

import orjson

from models.bulk import Classified
from models.problem import SingleLabel
from models.tables import BadRow

Write = Callable[[Classified | BadRow], None]
# Line ends to many programs, Python's splitlines() among them, and mere characters to JSON.
_LINE_ENDS = {"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"}


class Format(StrEnum):
    """How results are written."""

    JSONL = "jsonl"
    CSV = "csv"


def writer(
    output_format: Format,
    stream: TextIO,
    labels: tuple[str, ...],
    *,
    with_text: bool,
    strip: bool = False,
    windows: bool = False,
    header: bool = True,
    answers: tuple[str, ...] = SingleLabel.columns,
) -> Write:
    """What writes a result as one row; with the scores of `labels`. For CSV, the header is written now unless it is there already;
    it has the columns `answers`, and columns `stripped` and `windows` if HTML is to be stripped or long texts are to be read so.
    """

    def write_json(result: Classified | BadRow) -> None:
        line = orjson.dumps(_record(result, labels, with_text=with_text)).decode()
        for letter, escape in _LINE_ENDS.items():
            line = line.replace(letter, escape)
        stream.write(line + "\n")

    if output_format is Format.JSONL:
        return write_json
    columns = ["source", "line", *(["text"] if with_text else []), *answers]
    columns += [
        *(f"score_{label}" for label in labels),
        "truncated",
        *(["stripped"] if strip else []),
        *(["windows"] if windows else []),
        "error",
    ]
    table = csv.DictWriter(_Records(stream), columns, lineterminator="\r\n")
    if header:
        table.writeheader()

    def write_csv(result: Classified | BadRow) -> None:
        table.writerow(dict(_flat(_record(result, labels, with_text=with_text))))

    return write_csv


class _Records:
    """Takes records that end in \\r\\n and writes them with \\n.

    Before Python 3.13, the csv module quotes a field for a carriage return in it only if one is in the line terminator as well.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, record: str) -> None:
        """One whole record, as the csv module writes them."""
        self._stream.write(record.removesuffix("\r\n") + "\n")


def _record(result: Classified | BadRow, labels: tuple[str, ...], *, with_text: bool) -> dict[str, object]:
    if isinstance(result, BadRow):
        return {"source": result.source, "line": result.line, "error": result.reason}
    fields: dict[str, object] = {"source": result.row.source, "line": result.row.line}
    if with_text:
        fields["text"] = result.row.text
    fields |= result.answer
    if labels:
        fields["scores"] = {label: round(score, 6) for label, score in zip(labels, result.scores, strict=True)}
    if result.truncated:
        fields["truncated"] = True
    if result.stripped:
        fields["stripped"] = True
    if result.windows > 1:
        fields["windows"] = result.windows
    return fields


def _flat(fields: dict[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from ((f"score_{label}", score) for label, score in value.items())
        elif isinstance(value, list):
            yield name, joined(value)
        else:
            yield name, value


def joined(values: list[object]) -> str:
    """Several labels or numbers in one field of CSV, as files with several labels a text are read: `|` between, or a JSON list."""
    fields = [str(value) for value in values]
    # A label may have such a character in it, or look like a list itself.
    is_plain = not any("|" in field or field != field.strip() or field.startswith("[") for field in fields)
    return "|".join(fields) if is_plain else orjson.dumps(values).decode()
