"""`supportbot classify`"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import Annotated, TextIO

import typer

from commands.console import fail, progress_bar, say, stderr
from commands.inputs import (
    FILE_OF_TEXTS,
    BundleOption,
    Delimiter,
    Encoding,
    InputFormat,
    TextColumn,
    bundle_folder,
    check_files,
    check_used,
    rows_in,
    table_format,
)
from commands.output import STANDARD_OUTPUT, Output
from commands.results import Format, Write, writer
from commands.resuming import ResumableOutput, can_resume, identity
from models.bulk import Classified, classify_rows, in_chunks
from models.bundle import BundleError
from models.tables import STANDARD_INPUT, BadRow, Row, TableError, TableFormat, fault_of, read_table
from models.windows import DEFAULT_MOST, DEFAULT_OVERLAP, Windows


class Strip(StrEnum):
    """What is taken off a text before it is classified."""

    NONE = "none"
    HTML = "html"


class LongTexts(StrEnum):
    """What becomes of texts over the model's limit."""

    TRUNCATE = "truncate"
    WINDOWS = "windows"


class JoinBy(StrEnum):
    """How windows are joined."""

    MEAN = "mean"
    MAX = "max"


def classify(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to classify; without any, --file or standard input.")] = None,
    file: Annotated[list[Path] | None, typer.Option(help=f"Texts: {FILE_OF_TEXTS}. May be repeated.")] = None,
    bundle: BundleOption = None,
    text_column: TextColumn = None,
    input_format: InputFormat = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    output: Annotated[Path | None, typer.Option(help="Where to write.", show_default="standard output")] = None,
    output_format: Annotated[Format, typer.Option("--format", help="How to write.")] = Format.JSONL,
    scores: Annotated[bool, typer.Option("--scores", help="Add the probability of each label.")] = False,
    no_text: Annotated[bool, typer.Option("--no-text", help="Leave the texts out of the output.")] = False,
    strip: Annotated[Strip, typer.Option(help="html: classify what a person sees of HTML documents.")] = Strip.NONE,
    long_texts: Annotated[
        LongTexts, typer.Option(help="windows: classify a text over the model's limit in overlapping windows, joined.")
    ] = LongTexts.TRUNCATE,
    window_overlap: Annotated[int, typer.Option(min=0, help="Tokens that two windows of a text share.")] = DEFAULT_OVERLAP,
    window_join: Annotated[JoinBy, typer.Option(help="How the logits of a text's windows are joined.")] = JoinBy.MEAN,
    max_windows: Annotated[int, typer.Option(min=2, help="Most windows of a text.")] = DEFAULT_MOST,
    workers: Annotated[int, typer.Option(min=0, help="Worker threads; 0 is one for each usable core.")] = 0,
    url: Annotated[str | None, typer.Option(help="A server that classifies, in place of a bundle here.")] = None,
    connections: Annotated[int, typer.Option(min=1, max=64, help="To the server of --url.")] = 4,
) -> None:
    """Classify texts, without a server or with --url by one.

    Each row of the input becomes one row of the output, in the same order, written as chunks of 256 rows are done. A row that
    cannot be classified (blank, not JSON, not in the encoding) has an error in its place, and the exit status is 1. What a file is
    is told by its name (.csv, .tsv, .json, .jsonl; .gz may follow), else by --input-format, else it is one text a line.

    Examples:

        supportbot classify "payment failed" "app crashed"

        supportbot classify --file tickets.csv --text-column body --format csv --output labels.csv

        export-tickets | supportbot classify --input-format jsonl --text-column body

        supportbot classify --url http://localhost:8000 --file tickets.csv --output labels.jsonl

    From files to a file, a command that was interrupted goes on where it was when it is started again.
    """
    from commands.remote import RemoteError

    table = table_format(input_format, delimiter, encoding, text_column)
    files = _files(texts, file, table, output)
    windows = Windows(window_overlap, max_windows, window_join.value) if long_texts is LongTexts.WINDOWS else None
    if windows is not None and url is not None:
        fail("--long-texts: with --url, the server decides (LONG_TEXTS)")
    try:
        engine = _here(bundle, workers, strip, windows) if url is None else _elsewhere(url, connections, scores, strip, bundle)
    except RemoteError as error:
        fail(str(error), 1)
    facts = {
        "model": engine.identity,
        "format": output_format,
        "scores": scores,
        "text": not no_text,
        "strip": strip,
        "windows": windows,
        "table": table,
    }
    rows: Iterator[Row | BadRow]
    total: int | None
    if texts:
        rows, total = (_argument(number, text) for number, text in enumerate(texts, start=1)), len(texts)
    else:
        rows, total = chain.from_iterable(read_table(path, table, notice=say) for path in files), rows_in(files, table)
    target: Output | ResumableOutput = Output(output)
    if output is not None and can_resume(files, output):
        target = ResumableOutput(output, identity(files, facts), is_csv=output_format is Format.CSV)
    try:
        with target as stream:
            earlier, bad = (target.done, target.bad) if isinstance(target, ResumableOutput) else (0, 0)
            write = writer(
                output_format,
                stream,
                engine.labels if scores else (),
                with_text=not no_text,
                strip=strip is Strip.HTML,
                windows=windows is not None,
                header=not earlier,
                answers=engine.answers,
            )
            for _ in islice(rows, earlier):  # an earlier run has written their results
                pass
            done, failed = _write_all(engine.classify(rows), write, earlier, total, stream)
            stream.flush()
    except TableError as error:
        fail(str(error))
    except RemoteError as error:
        fail(str(error), 1)
    except BrokenPipeError:
        # The reader (head, say) has seen enough. Python would complain again when it closes standard output.
        sys.stdout = None
        raise typer.Exit(1) from None
    except OSError as error:
        fail(f"{output or 'standard output'}: {error.strerror or error}", 1)
    _say_outcome(earlier + done, bad + failed)


def _say_outcome(rows: int, bad: int) -> None:
    """End the command with status 1 if some rows could not be classified."""
    if not rows:
        say("there were no texts")
    if bad:
        say(f"{bad} {'row' if bad == 1 else 'rows'} could not be classified")
        raise typer.Exit(1)


def _write_all(
    results: Iterable[Classified | BadRow], write: Write, earlier: int, total: int | None, stream: TextIO
) -> tuple[int, int]:
    """Write results as they come, with a progress bar; returns how many there were, and how many of them failed."""
    done = failed = 0
    with progress_bar() as progress:
        task = progress.add_task("classifying", total=total, completed=earlier)
        # Lines on a terminal and a bar over them disturb each other.
        progress.disable = progress.disable or (stream is sys.stdout and sys.stdout.isatty())
        for result in results:
            write(result)
            done += 1
            failed += isinstance(result, BadRow)
            progress.advance(task)
    return done, failed


@dataclass(frozen=True)
class _Engine:
    """What classifies rows."""

    identity: str
    labels: tuple[str, ...]
    answers: tuple[str, ...]
    classify: Callable[[Iterable[Row | BadRow]], Iterator[Classified | BadRow]]


def _here(bundle: Path | None, workers: int, strip: Strip, windows: Windows | None) -> _Engine:
    """A bundle's model in this process. Ends the command if it cannot be used."""
    from machine.cores import usable_cores
    from models.classifier import Classifier, SelfCheckFailed

    try:
        classifier = Classifier.open(bundle_folder(bundle))
        classifier.self_check()
    except (BundleError, SelfCheckFailed) as error:
        fail(str(error), 1)
    threads, strips = workers or usable_cores(), strip is Strip.HTML
    answers = classifier.problem.columns

    def classify_all(rows: Iterable[Row | BadRow]) -> Iterator[Classified | BadRow]:
        return classify_rows(classifier, rows, threads, strip=strips, windows=windows)

    return _Engine(classifier.fingerprint, classifier.labels, answers, classify_all)


def _elsewhere(url: str, connections: int, scores: bool, strip: Strip, bundle: Path | None) -> _Engine:
    """A server's model. Raises `RemoteError`."""
    from commands.remote import RemoteClassifier

    if bundle is not None:
        fail("give --bundle or --url, not both")
    remote = RemoteClassifier(url, scores=scores, strip=strip is Strip.HTML)

    def classify_all(rows: Iterable[Row | BadRow]) -> Iterator[Classified | BadRow]:
        try:
            yield from in_chunks(rows, remote.classify, connections)
        finally:
            remote.close()

    return _Engine(f"{url} {remote.identity}", remote.labels, remote.answers, classify_all)


def _files(texts: list[str] | None, file: list[Path] | None, table: TableFormat, output: Path | None) -> list[Path]:
    """The files to read, which may be standard input; none if there are texts."""
    if texts:
        if file:
            fail("give texts or --file, not both")
        check_used(table, file, "--file")
        return []
    files = file or [STANDARD_INPUT[0]]
    check_files(files, None if output in STANDARD_OUTPUT else output)
    if any(path in STANDARD_INPUT for path in files) and sys.stdin.isatty():
        stderr.print("reading texts from the terminal, one a line; end with Ctrl-D")
    return files


def _argument(number: int, text: str) -> Row | BadRow:
    reason = fault_of(text, "text")
    return BadRow("argument", number, reason) if reason else Row("argument", number, text)
