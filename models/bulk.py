"""Classifying many texts without a server: chunks of rows in worker threads, results in the order of the rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from models.markup import is_html, plain_text
from models.tables import BadRow, Row, TableError
from models.types import BlankTextError, Encoding, TextClassifier
from models.windows import Windows

# Rows that one worker takes at a time: enough for texts of near length to meet, few enough that results come steadily.
CHUNK = 256


@dataclass(frozen=True, slots=True)
class Classified:
    """A row with its answer by field (`models.problem.Problem.record`), and the scores in the order of the labels, or none;
    `truncated` if its text was longer than the model reads, `stripped` if it was HTML and what one sees of it was classified,
    `windows` as many as it was read in.
    """

    row: Row
    answer: Mapping[str, object]
    scores: tuple[float, ...]
    truncated: bool
    stripped: bool
    windows: int = 1


def classify_rows(
    classifier: TextClassifier,
    rows: Iterable[Row | BadRow],
    workers: int,
    *,
    strip: bool = False,
    windows: Windows | None = None,
) -> Iterator[Classified | BadRow]:
    """Classify rows as they come, in bounded memory; a row that cannot be classified comes back as a `BadRow` in its place. With
    `strip`, what a person sees of HTML documents is classified; with `windows`, texts over the model's limit are read in several.

    When `rows` raises a `TableError`, it is raised after the rows before it have been classified.
    """
    return in_chunks(rows, partial(_classify_chunk, classifier, strip=strip, windows=windows), workers)


def in_chunks(
    rows: Iterable[Row | BadRow], classify: Callable[[list[Row | BadRow]], list[Classified | BadRow]], workers: int
) -> Iterator[Classified | BadRow]:
    """The same, by any function that classifies some rows; it is called in threads."""
    pending: deque[Future[list[Classified | BadRow]]] = deque()
    faults: list[TableError] = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            for chunk in _chunks(rows, faults):
                pending.append(pool.submit(classify, chunk))
                if len(pending) > 2 * workers:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            for future in pending:  # whoever takes no more results need not wait for them
                future.cancel()
    for fault in faults:
        raise fault


def _chunks(rows: Iterable[Row | BadRow], faults: list[TableError]) -> Iterator[list[Row | BadRow]]:
    """Up to `CHUNK` rows at a time; ends at a fault, which it adds to `faults`."""
    chunk: list[Row | BadRow] = []
    try:
        for row in rows:
            chunk.append(row)
            if len(chunk) == CHUNK:
                yield chunk
                chunk = []
    except TableError as error:
        faults.append(error)
    if chunk:
        yield chunk


def _classify_chunk(
    classifier: TextClassifier, chunk: list[Row | BadRow], *, strip: bool, windows: Windows | None
) -> list[Classified | BadRow]:
    encoded = [row if isinstance(row, BadRow) else _encode(classifier, row, windows, strip=strip) for row in chunk]
    predictions = iter(classifier.predict([one for pair in encoded if not isinstance(pair, BadRow) for one in pair[1]]))
    results: list[Classified | BadRow] = []
    for pair in encoded:
        if isinstance(pair, BadRow):
            results.append(pair)
            continue
        row, encodings = pair
        parts = [next(predictions) for _ in encodings]
        prediction = parts[0] if windows is None or len(parts) == 1 else classifier.joined(parts, windows.join)
        answer, is_cut, is_stripped = classifier.problem.record(prediction), encodings[-1].truncated, strip and is_html(row.text)
        results.append(Classified(row, answer, prediction.scores, is_cut, is_stripped, len(parts)))
    return results


def _encode(classifier: TextClassifier, row: Row, windows: Windows | None, *, strip: bool) -> tuple[Row, list[Encoding]] | BadRow:
    text = plain_text(row.text) if strip else row.text
    try:
        return row, [classifier.encode(text)] if windows is None else classifier.windows(text, windows.overlap, windows.most)
    except BlankTextError as error:
        return BadRow(row.source, row.line, str(error))
