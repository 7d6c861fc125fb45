"""What the commands that read files of texts share: their options, and checks before the work begins."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from commands.console import fail, stderr
from models.problem import ProblemType
from models.tables import STANDARD_INPUT, Kind, LabelKind, TableError, TableFormat, kind_of, source_name
from server.settings import SettingsError, load_bundle

FILE_OF_TEXTS = "CSV, TSV, JSON, JSON Lines or one text a line, gzipped or not; - is standard input"


def _folder(value: str) -> Path:
    if not value:  # as a path, it would be the current folder
        raise typer.BadParameter("must not be empty")
    return Path(value)


_BUNDLE = "The bundle's folder."
_OF_SETTINGS = "BUNDLE of the settings"
BundleOption = Annotated[Path | None, typer.Option(parser=_folder, help=_BUNDLE, show_default=_OF_SETTINGS)]
BundleArgument = Annotated[Path | None, typer.Argument(parser=_folder, help=_BUNDLE, show_default=_OF_SETTINGS)]
TextColumn = Annotated[str | None, typer.Option(help="The column or key of the text.", show_default="text")]
LabelColumn = Annotated[str | None, typer.Option(help="The column or key of the label.", show_default="label")]
LabelColumns = Annotated[
    str | None, typer.Option(help="Multi-label: columns or keys of 0 and 1, one for each label, separated by commas.")
]
InputFormat = Annotated[Kind | None, typer.Option(help="How texts are laid out in the files.", show_default="told by the name")]
Delimiter = Annotated[
    str | None,
    typer.Option(
        help="What separates the fields of CSV: a character, or comma, semicolon, tab, pipe.", show_default="told by the header"
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(help="Of files without a byte order mark, such as windows-1252.", show_default="utf-8"),
]

_DELIMITER_NAMES = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|"}


class ProblemChoice(StrEnum):
    """What a model gives to a text: one of several labels, any number of labels, the probability of one label, or a number."""

    SINGLE_LABEL = "single-label"
    MULTI_LABEL = "multi-label"
    ONE_LABEL = "one-label"
    REGRESSION = "regression"

    @property
    def problem(self) -> ProblemType:
        """The problem type."""
        return self.value


def bundle_folder(given: Path | None) -> Path:
    """The bundle to work with: the given one, else the one that `serve` would serve. Ends the command for a wrong setting."""
    if given is not None:
        return given
    try:
        return load_bundle()
    except SettingsError as error:
        fail(str(error))


def table_format(
    kind: Kind | None,
    delimiter: str | None,
    encoding: str | None,
    text_column: str | None = None,
    label_column: str | None = None,
    label_columns: str | None = None,
) -> TableFormat:
    """The options as one value; ends the command for a delimiter that cannot be one, and for labels in two ways at once."""
    columns = tuple(name for part in (label_columns or "").split(",") if (name := part.strip()))
    if columns and label_column is not None:
        fail("give --label-column or --label-columns, not both")
    if delimiter is not None:
        named = delimiter
        delimiter = _DELIMITER_NAMES.get(named.lower(), named)
        if len(delimiter) != 1 or delimiter in '"\r\n\0 ':
            fail(f"--delimiter {named}: must be one character, or comma, semicolon, tab or pipe")
    return TableFormat(kind, delimiter, encoding, text_column, label_column, columns)


def check_labels(table: TableFormat, labels: LabelKind) -> None:
    """End the command for columns of 0 and 1 where a text has not several labels: they would be ignored."""
    if table.label_columns and labels is not LabelKind.SEVERAL:
        fail("--label-columns: is for multi-label models")


def check_files(inputs: Iterable[Path], *outputs: Path | None) -> None:
    """End the command now for inputs that cannot be read, or not as often as they are named, and for outputs on top of them.

    An output of None is standard output.
    """
    seen = set[tuple[int, int]]()
    for path in inputs:
        status = _status(path)
        identity = (status.st_dev, status.st_ino) if status else (-1, -1)
        is_regular = status is not None and stat.S_ISREG(status.st_mode)
        if identity in seen and (path in STANDARD_INPUT or not is_regular):
            fail(f"{source_name(path)}: can be read only once")
        if is_regular and (output := _same_file(identity, outputs)) is not None:
            fail(f"{output}: is read and would be written")
        seen.add(identity)


def check_used(table: TableFormat, files: object, option: str) -> None:
    """End the command for options about files where there is no file: they would be ignored."""
    if not files and table != TableFormat():
        fail(f"--text-column, --input-format, --delimiter and --encoding are about files, and there is no {option}")


def _status(path: Path) -> os.stat_result | None:
    """None for a standard input that is no file."""
    try:
        if path in STANDARD_INPUT:
            if sys.stdin is None:
                fail("standard input is closed")
            return _status_of_stream(sys.stdin)
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            fail(f"{source_name(path)}: Is a directory")
        if not os.access(path, os.R_OK):
            fail(f"{source_name(path)}: Permission denied")
    except OSError as error:
        fail(f"{source_name(path)}: {error.strerror or error}")
    return status


def _same_file(identity: tuple[int, int], outputs: Sequence[Path | None]) -> str | None:
    """The output that is this file; None as a path is standard output."""
    for path in outputs:
        try:
            status = _status_of_stream(sys.stdout) if path is None else path.stat()
        except OSError:
            continue
        if status is not None and (status.st_dev, status.st_ino) == identity:
            return "standard output" if path is None else source_name(path)
    return None


def _status_of_stream(stream: object) -> os.stat_result | None:
    try:
        return os.fstat(stream.fileno())  # type: ignore[attr-defined]
    except (OSError, AttributeError):
        return None


def rows_in(paths: Sequence[Path], table: TableFormat) -> int | None:
    """About how many rows there are, for a progress bar: lines of plain files. None where that cannot be known by reading them."""
    if not stderr.is_terminal:
        return None
    try:
        counts = [_lines_in(path) if kind_of(source_name(path), table) is not Kind.JSON else None for path in paths]
    except (OSError, TableError):
        return None  # to be said by who reads it
    return None if None in counts else sum(filter(None, counts))


def _lines_in(path: Path) -> int | None:
    if not path.is_file() or path in STANDARD_INPUT:
        return None
    with path.open("rb") as stream:
        if stream.peek(2).startswith(b"\x1f\x8b"):
            return None
        return sum(1 for _ in stream)
