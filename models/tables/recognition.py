"""What a file is, by its name and its first line; which column is meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Final

import orjson

from models.json_text import loads_lenient
from models.tables.files import GZIP_SUFFIXES
from models.tables.types import Kind, TableError, TableFormat

DELIMITERS: Final = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
_KINDS: Final = {
    ".csv": Kind.CSV,
    ".tsv": Kind.TSV,
    ".tab": Kind.TSV,
    ".json": Kind.JSON,
    ".jsonl": Kind.JSONL,
    ".ndjson": Kind.JSONL,
}
# The beginning of a JSON document that goes on in the next line, or of a list of objects or strings.
_JSON_BEGINS: Final = re.compile(r'\s*(?:[\[{]\s*$|\{\s*"[^"]*"\s*:|\[\s*\{\s*"|\[\s*"[^"]*"\s*(?:,\s*(?:"|$)|\]?\s*$))')
_COLUMNS_SHOWN, _NAME_SHOWN = 12, 40


def kind_of(name: str, table: TableFormat) -> Kind | None:
    """How a file is laid out: as the format says, by its name, or CSV where a delimiter is given; None where nothing says it.

    Raises `TableError` for a delimiter where there is none.
    """
    kind = table.kind
    if kind is None:
        path = PurePath(name)
        path = path.with_suffix("") if path.suffix.lower() in GZIP_SUFFIXES else path
        kind = _KINDS.get(path.suffix.lower())
    if table.delimiter is None:
        return kind
    if kind not in {None, Kind.CSV, Kind.TSV}:
        raise TableError(f"{name}: --delimiter is for CSV, and this is read as {kind}; --input-format csv reads it as CSV")
    return kind or Kind.CSV


def looks_like_json(line: str) -> bool:
    """Whether a file's first line is a JSON object, a list of objects or strings, or begins one."""
    if not line.lstrip().startswith(("{", "[")):
        return False
    if _JSON_BEGINS.match(line):
        return True
    try:
        value = loads_lenient(line.encode("utf-8", "surrogateescape"))
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, str | dict) for item in value))


def looks_like_header(line: str, column: str) -> bool:
    """Whether a file's first line is the name of a column, alone or among others that a delimiter separates."""
    if _folded(line.strip('" \t\r\n')) == _folded(column):
        return True
    return any(delimiter in line and _is_header(line.split(delimiter), column) for delimiter in DELIMITERS)


def _is_header(fields: list[str], column: str) -> bool:
    names = [_folded(field.strip('" \t\r\n')) for field in fields]
    # "Please call, text or write" is a sentence: blanks after its commas, and more than a word between them.
    is_sentence = any(field.startswith(" ") for field in fields[1:]) and any(" " in name for name in names)
    return _folded(column) in names and len(set(names)) == len(names) and not is_sentence


def matching(columns: Sequence[str], wanted: str) -> list[int]:
    """The places of the column: of its very name, else of names that differ in case and surrounding blanks only."""
    exact = [place for place, column in enumerate(columns) if column == wanted]
    return exact or [place for place, column in enumerate(columns) if _folded(column) == _folded(wanted)]


def listed(names: Sequence[str]) -> str:
    """Some names for a message."""
    shown = [repr(name if len(name) <= _NAME_SHOWN else f"{name[:_NAME_SHOWN]}...") for name in names[:_COLUMNS_SHOWN]]
    more = [f"{len(names) - _COLUMNS_SHOWN} more"] if len(names) > _COLUMNS_SHOWN else []
    return ", ".join(shown + more) or "none"


def _folded(name: str) -> str:
    return name.strip().casefold()
