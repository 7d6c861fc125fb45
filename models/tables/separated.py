"""CSV, whatever separates its fields."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from models.tables.files import LONGEST_LINE, NAME_ENCODING, TextFile
from models.tables.recognition import DELIMITERS, listed, looks_like_json, matching
from models.tables.types import Kind, TableError

# Excel writes and reads such a line before the header.
_SEPARATOR_LINE: Final = re.compile(r'"?sep=([^"\r\n])"?[\r\n]*', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Header:
    """A file's columns, and what separates them."""

    columns: list[str]
    delimiter: str


class Separated:
    """Iterates over the records after the header: (line, fields or None, fault or None), the line being the record's first.

    After a quoting error the reader's idea of where records begin cannot be trusted any more: it is the last that is yielded.
    """

    def __init__(self, file: TextFile, kind: Kind, delimiter: str | None, wanted: Sequence[str]) -> None:
        # Python's csv module refuses fields over 128 KiB otherwise.
        csv.field_size_limit(LONGEST_LINE)
        self._name, self._encoding = file.name, file.encoding
        self._lines = _whole_lines(file)
        self._kept: list[str] = []
        self._skipped = 0
        if delimiter is None and (said := _SEPARATOR_LINE.fullmatch((file.peek(1) or [""])[0] or "")):
            delimiter = said[1]
            self._skipped = 1
            next(self._lines)
        usual = "\t" if kind is Kind.TSV else ","
        self.header = self._find_header([delimiter] if delimiter else sorted(DELIMITERS, key=usual.__ne__), wanted)
        self.is_unusual = delimiter is None and self.header.delimiter != usual

    def place(self, wanted: str, option: str) -> int:
        """The column's place. Raises `TableError` unless there is exactly one of its name."""
        columns = self.header.columns
        places = matching(columns, wanted)
        if len(places) == 1:
            return places[0]
        if places:
            found = listed([columns[place] for place in places])
            raise TableError(f"{self._name}: {len(places)} columns fit {wanted!r}: {found}; {option} names another one")
        first = self._kept[0] if self._kept else ""
        if not columns:
            raise TableError(f"{self._name}: is empty; the first line of CSV names the columns")
        if looks_like_json(first):
            raise TableError(f"{self._name}: looks like JSON and is read as CSV; --input-format names what it is")
        if any("\udc80" <= letter <= "\udcff" for letter in first):
            raise TableError(f"{self._name}: no column {wanted!r} in a header that is not valid {self._encoding}; {NAME_ENCODING}")
        way_out = f"{option} names the right one" + (", --delimiter what separates columns" if len(columns) == 1 else "")
        raise TableError(f"{self._name}: no column {wanted!r}; it has {listed(columns)}; {way_out}")

    def __iter__(self) -> Iterator[tuple[int, list[str] | None, str | None]]:
        reader = csv.reader(chain(self._kept, self._lines), delimiter=self.header.delimiter, strict=True)
        columns = self.header.columns
        is_header = True
        while True:
            line = self._skipped + reader.line_num + 1
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield line, None, f"not CSV: {error}; the rest of the file was not read"
                return
            if not fields:
                continue  # a blank line
            if is_header:
                is_header = False
            elif len(fields) > len(columns):
                yield line, None, "more fields than the header has columns"
            else:
                yield line, fields, None

    def _find_header(self, delimiters: Sequence[str], wanted: Sequence[str]) -> Header:
        """The header as split by the first delimiter by which all wanted columns are found, else by the one with most columns."""
        headers, fault = [], None
        for delimiter in delimiters:
            try:
                header = Header(self._header(delimiter), delimiter)
            except csv.Error as error:
                fault = fault or error
                continue
            if all(matching(header.columns, column) for column in wanted):
                return header
            headers.append(header)
        if fault is not None and not headers:
            raise TableError(f"{self._name}: not CSV: {fault}") from fault
        return max(headers, key=lambda header: len(header.columns))

    def _header(self, delimiter: str) -> list[str]:
        return next(filter(None, csv.reader(self._from_start(), delimiter=delimiter, strict=True)), [])

    def _from_start(self) -> Iterator[str]:
        """The lines so far, and then others, which are kept."""
        yield from self._kept
        for line in self._lines:
            self._kept.append(line)
            yield line


def _whole_lines(file: TextFile) -> Iterator[str]:
    for line in file:
        if line is None:
            raise csv.Error(f"a line of over {LONGEST_LINE} characters")
        yield line
