"""The rows of a file."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import orjson

from models.json_text import loads_lenient
from models.tables.fields import LabelFault, Malformed, fault_of, is_undecodable, read_label
from models.tables.files import LONGEST_LINE, NAME_ENCODING, TextFile, open_text
from models.tables.recognition import DELIMITERS, kind_of, listed, looks_like_header, looks_like_json, matching
from models.tables.separated import Separated
from models.tables.types import BadRow, Kind, LabelKind, Notice, Row, TableError, TableFormat

# Of a row: its line, its text and its label.
Fields = tuple[int, object, object]
_LINES_LOOKED_AT: Final = 20


def _say_nothing(_: str) -> None:
    return None


def read_table(
    path: Path,
    table: TableFormat | None = None,
    *,
    labelled: bool = False,
    labels: LabelKind = LabelKind.ONE,
    notice: Notice = _say_nothing,
) -> Iterator[Row | BadRow]:
    """Yield the rows of a file, `-` being standard input; with their labels, of the kind `labels`, if it is `labelled`.

    What the format leaves open is told by the name (.csv, .tsv, .jsonl, .ndjson, .json, each with or without .gz; anything else is
    one text a line) and the content. `notice` is told what was recognised beyond that.

    Raises `TableError` when the file cannot be opened, lacks a column that was asked for, or is not what it is read as.
    """
    table = table or TableFormat()
    with open_text(path, table.encoding) as file:
        yield from read_rows(file, table, labelled=labelled, labels=labels, notice=notice)


def read_rows(
    file: TextFile,
    table: TableFormat,
    *,
    labelled: bool = False,
    labels: LabelKind = LabelKind.ONE,
    notice: Notice = _say_nothing,
) -> Iterator[Row | BadRow]:
    """Yield the rows of an open file: see `read_table`."""
    kind = kind_of(file.name, table)
    if file.encoding.startswith(("UTF-16", "UTF-32")) and table.encoding is None:
        notice(f"{file.name}: read as {file.encoding}, by its byte order mark")
    if kind is Kind.JSON:
        fields = _json_fields(file.name, file.read(), table, labelled=labelled)
    else:
        _refuse_wide_units(file)
        if kind is Kind.JSONL:
            _refuse_list(file)
            fields = _jsonl_fields(file, table, labelled=labelled)
        elif kind in {Kind.CSV, Kind.TSV}:
            fields = _csv_fields(file, kind, table, labelled=labelled, notice=notice)
        else:
            _check_lines(file, table, is_assumed=kind is None, labelled=labelled)
            fields = _line_fields(file)
    for line, text, label in fields:
        if (reason := fault_of(text, table.text_name, file.encoding)) is not None:
            yield BadRow(file.name, line, reason)
            continue
        assert isinstance(text, str)
        try:
            found = read_label(label, table.label_name, labels, file.encoding) if labelled else None
        except LabelFault as fault:
            yield BadRow(file.name, line, str(fault))
        else:
            yield Row(file.name, line, text, found)


_TOO_LONG: Final = Malformed(f"a line of over {LONGEST_LINE} characters")


def _first_line(file: TextFile) -> str:
    return next((line for line in file.peek(_LINES_LOOKED_AT) if line and line.strip()), "")


def _refuse_wide_units(file: TextFile) -> None:
    """Raise `TableError` for UTF-16 without a mark, whose every other byte is 0 in Latin script, and for what is no text at all."""
    line = (file.peek(1) or [""])[0] or ""
    if line.count("\0") * 4 > len(line):
        order = "le" if line[1:2] == "\0" else "be"
        raise TableError(
            f"{file.name}: is not text in {file.encoding}, but full of zeros; if it is UTF-16, say --encoding utf-16-{order}"
        )


def _check_lines(file: TextFile, table: TableFormat, *, is_assumed: bool, labelled: bool) -> None:
    """Raise `TableError` for what would be ignored, and for a file that is assumed to be lines of text and looks otherwise."""
    name, way_out = file.name, "--input-format csv, tsv, json or jsonl says what it is"
    if labelled:
        raise TableError(f"{name}: lines of plain text have no labels; if it is something else, {way_out}")
    if table.text_column is not None:
        raise TableError(f"{name}: lines of plain text have no columns for --text-column; if it is something else, {way_out}")
    if not is_assumed:
        return
    first = _first_line(file)
    if looks_like_json(first):
        raise TableError(f"{name}: looks like JSON; --input-format jsonl or json reads it so, --input-format lines as plain text")
    if looks_like_header(first, table.text_name):
        raise TableError(f"{name}: looks like CSV; --input-format csv reads it so, --input-format lines as plain text")


def _line_fields(file: TextFile) -> Iterator[Fields]:
    """One text a line. Blank lines are rows, but not those at the end, where editors leave them."""
    blank = 0
    for number, line in enumerate(file, start=1):
        if line is not None and not line.strip():
            blank += 1
            continue
        for passed in range(number - blank, number):
            yield passed, "", None
        blank = 0
        yield number, _TOO_LONG if line is None else line.rstrip("\r\n"), None


def _refuse_list(file: TextFile) -> None:
    if _first_line(file).lstrip().startswith("[") and looks_like_json(_first_line(file)):
        raise TableError(f"{file.name}: looks like a JSON list, not JSON Lines; --input-format json reads it")


def _jsonl_fields(lines: Iterable[str | None], table: TableFormat, *, labelled: bool) -> Iterator[Fields]:
    for number, line in enumerate(lines, start=1):
        if line is None:
            yield number, _TOO_LONG, None
            continue
        if not line.strip():
            continue  # files are put together with blank lines between them
        if is_undecodable(line):
            yield number, Malformed(f"not JSON: not valid UTF-8; {NAME_ENCODING}"), None
            continue
        try:
            record = loads_lenient(line.encode())
        except orjson.JSONDecodeError as error:
            yield number, Malformed(f"not JSON: {error.msg}"), None
            continue
        yield number, *_of_record(record, table, labelled=labelled)


def _of_record(record: object, table: TableFormat, *, labelled: bool) -> tuple[object, object]:
    """The text and the label of an object; a string is a text without columns."""
    if isinstance(record, str) and table.text_column is None:
        return record, None
    if not isinstance(record, dict):
        return Malformed("not a JSON object"), None
    text = _value(record, table.text_name, "--text-column")
    return text, _label_of(record, table) if labelled else None


def _label_of(record: dict[str, object], table: TableFormat) -> object:
    if table.label_columns:
        return {name: _value(record, name, "--label-columns") for name in table.label_columns}
    return _value(record, table.label_name, "--label-column")


def _value(record: dict[str, object], name: str, option: str) -> object:
    if name in record:
        return record[name]
    keys = list(record)
    places = matching(keys, name)
    if len(places) == 1:
        return record[keys[places[0]]]
    if places:
        return Malformed(
            f"{len(places)} keys fit {name!r}: {listed([keys[place] for place in places])}; {option} names another one"
        )
    return Malformed(f"no {name!r}; it has {listed(keys)}; {option} names the right one")


def _json_fields(name: str, content: str, table: TableFormat, *, labelled: bool) -> Iterator[Fields]:
    """The elements of a list, which are objects or texts. Files of JSON Lines are called .json as well."""
    if is_undecodable(content):
        raise TableError(f"{name}: not valid UTF-8; {NAME_ENCODING}")
    try:
        document = loads_lenient(content.encode())
    except orjson.JSONDecodeError as error:
        if _begins_with_a_record(content):
            yield from _jsonl_fields(io.StringIO(content, newline=""), table, labelled=labelled)
            return
        raise TableError(f"{name}: not JSON: {error.msg}, in line {error.lineno}, column {error.colno}") from error
    if isinstance(document, dict) and matching(list(document), table.text_name):
        document = [document]
    if not isinstance(document, list):
        keys = f", but an object with {listed(list(document))}" if isinstance(document, dict) else ""
        raise TableError(f"{name}: not a JSON list of texts, or of objects with {table.text_name!r}{keys}")
    for number, record in enumerate(document, start=1):
        yield number, *_of_record(record, table, labelled=labelled)


def _begins_with_a_record(content: str) -> bool:
    first, _, rest = content.lstrip().partition("\n")
    try:
        return isinstance(loads_lenient(first.encode()), dict | str) and bool(rest.strip())
    except orjson.JSONDecodeError:
        return False


def _csv_fields(file: TextFile, kind: Kind, table: TableFormat, *, labelled: bool, notice: Notice) -> Iterator[Fields]:
    names = (table.label_columns or [table.label_name]) if labelled else []
    wanted = [table.text_name, *names]
    records = Separated(file, kind, table.delimiter, wanted)
    text_place = records.place(table.text_name, "--text-column")
    option = "--label-columns" if table.label_columns else "--label-column"
    label_places = [records.place(name, option) for name in names]
    if records.is_unusual:
        notice(f"{file.name}: fields are separated by {DELIMITERS[records.header.delimiter]}s")
    for asked, place in zip(wanted, (text_place, *label_places), strict=True):
        if (column := records.header.columns[place]) != asked:
            notice(f"{file.name}: column {column!r} is taken for {asked!r}")
    for line, fields, fault in records:
        if fields is None:
            yield line, Malformed(fault), None
        else:
            found = [_field(fields, place) for place in label_places]
            label = dict(zip(names, found, strict=True)) if table.label_columns else next(iter(found), None)
            yield line, _field(fields, text_place), label


def _field(fields: list[str], place: int) -> str | None:
    return fields[place] if place < len(fields) else None
