"""`supportbot classify`"""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated, TextIO

import orjson
import typer

from commands.console import fail, progress_bar, say, stderr
from models.bulk import Classified, classify_rows
from models.bundle import BundleError, embedded_bundle
from models.tables import BadRow, Row, TableError, fault_of, read_stream, read_table


class Format(StrEnum):
    """How results are written."""

    JSONL = "jsonl"
    CSV = "csv"


def classify(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to classify; without any, --file or standard input.")] = None,
    file: Annotated[
        list[Path] | None, typer.Option(help="A file of texts: .csv, .tsv, .jsonl, or one text a line. May be repeated.")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="The bundle's folder.", show_default="the embedded one")] = None,
    text_column: Annotated[str, typer.Option(help="The column or key that holds the text.")] = "text",
    output: Annotated[Path | None, typer.Option(help="Where to write.", show_default="standard output")] = None,
    output_format: Annotated[Format, typer.Option("--format", help="How to write.")] = Format.JSONL,
    scores: Annotated[bool, typer.Option("--scores", help="Add the probability of each label.")] = False,
    no_text: Annotated[bool, typer.Option("--no-text", help="Leave the texts out of the output.")] = False,
    workers: Annotated[int, typer.Option(min=0, help="Worker threads; 0 is one for each usable core.")] = 0,
) -> None:
    """Classify texts without a server.

    Each row of the input becomes one row of the output, in the same order, written as chunks of 256 rows are done. A row that
    cannot be classified (blank, not JSON, not UTF-8) has an error in its place, and the exit status is 1.

    Examples:

        supportbot classify "payment failed" "app crashed"

        supportbot classify --file tickets.csv --text-column body --format csv --output labels.csv

        zcat tickets.gz | supportbot classify --scores
    """
    from models.classifier import Classifier, SelfCheckFailed
    from server.cores import usable_cores

    try:
        classifier = Classifier.open(bundle or embedded_bundle())
        classifier.self_check()
    except (BundleError, SelfCheckFailed) as error:
        fail(str(error), 1)
    bad = 0
    try:
        total = len(texts) if texts else sum(map(_count_lines, file)) if file else None
        results = classify_rows(classifier, _rows(texts, file, text_column), workers or usable_cores())
        with _Output(output) as stream, progress_bar() as progress:
            write = _writer(output_format, stream, classifier.labels if scores else (), with_text=not no_text)
            task = progress.add_task("classifying", total=total)
            # Lines on a terminal and a bar over them disturb each other.
            progress.disable = progress.disable or (stream is sys.stdout and sys.stdout.isatty())
            for result in results:
                write(result)
                bad += isinstance(result, BadRow)
                progress.advance(task)
            stream.flush()
    except TableError as error:
        fail(str(error))
    except BrokenPipeError:
        # The reader (head, say) has seen enough. Python would complain again when it closes standard output.
        sys.stdout = None
        raise typer.Exit(1) from None
    except OSError as error:
        fail(f"{error.filename or output or 'standard output'}: {error.strerror}", 1)
    if bad:
        say(f"{bad} rows could not be classified")
        raise typer.Exit(1)


def _rows(texts: list[str] | None, files: list[Path] | None, text_column: str) -> Iterable[Row | BadRow]:
    if texts and files:
        fail("give texts or --file, not both")
    if texts:
        return (_argument(number, text) for number, text in enumerate(texts, start=1))
    if files:
        return chain.from_iterable(read_table(path, text_column=text_column) for path in files)
    if sys.stdin is None:
        fail("standard input is closed")
    if sys.stdin.isatty():
        stderr.print("reading texts from the terminal, one a line; end with Ctrl-D")
    stdin = open(sys.stdin.fileno(), encoding="utf-8-sig", errors="surrogateescape", closefd=False)  # noqa: SIM115
    return read_stream(stdin, ".txt", "standard input")


def _argument(number: int, text: str) -> Row | BadRow:
    reason = fault_of(text, "text")
    return BadRow("argument", number, reason) if reason else Row("argument", number, text)


def _count_lines(path: Path) -> int:
    try:
        with path.open("rb") as stream:
            return sum(1 for _ in stream)
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from error


class _Output:
    """Standard output, or a file that only takes its name once it is complete; devices and pipes are written to as they are."""

    def __init__(self, path: Path | None) -> None:
        self._final = path.resolve() if path else None
        self._temporary: Path | None = None

    def __enter__(self) -> TextIO:
        if self._final is None:
            if sys.stdout is None:
                fail("standard output is closed")
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(encoding="utf-8")
            self._stream: TextIO = sys.stdout
        elif self._final.exists() and not self._final.is_file():
            self._stream = self._final.open("w", encoding="utf-8", newline="")
        else:
            if not self._final.parent.is_dir():
                fail(f"{self._final.parent}: no such folder")
            self._temporary = self._final.with_name(f".{self._final.name}.{os.getpid()}.part")
            self._stream = self._temporary.open("w", encoding="utf-8", newline="")
        return self._stream

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self._final is not None:
            self._stream.close()
        if self._final is not None and self._temporary is not None:
            if kind is None:
                self._temporary.replace(self._final)
            else:
                self._temporary.unlink()


def _writer(
    output_format: Format, stream: TextIO, labels: tuple[str, ...], *, with_text: bool
) -> Callable[[Classified | BadRow], None]:
    def record(result: Classified | BadRow) -> dict[str, object]:
        if isinstance(result, BadRow):
            return {"source": result.source, "line": result.line, "error": result.reason}
        fields: dict[str, object] = {"source": result.row.source, "line": result.row.line}
        if with_text:
            fields["text"] = result.row.text
        fields |= {"label": result.prediction.label, "confidence": round(result.prediction.confidence, 6)}
        if labels:
            fields["scores"] = {label: round(score, 6) for label, score in zip(labels, result.prediction.scores, strict=True)}
        if result.truncated:
            fields["truncated"] = True
        return fields

    if output_format is Format.JSONL:
        return lambda result: _ignore(stream.write(orjson.dumps(record(result)).decode() + "\n"))

    columns = ["source", "line", *(["text"] if with_text else []), "label", "confidence"]
    columns += [*(f"score_{label}" for label in labels), "truncated", "error"]
    table = csv.DictWriter(stream, columns, lineterminator="\n")
    table.writeheader()

    def flat(fields: dict[str, object]) -> Iterator[tuple[str, object]]:
        for name, value in fields.items():
            if isinstance(value, dict):
                yield from ((f"score_{label}", score) for label, score in value.items())
            else:
                yield name, value

    return lambda result: _ignore(table.writerow(dict(flat(record(result)))))


def _ignore(_: object) -> None:
    return None
