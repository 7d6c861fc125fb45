"""What drift detection reads from the prediction log: when a text was answered, and its bins.

A line's `drift` is what the server counted of the text (`Layout.encode`). Lines without it were not counted: answers from the
cache, texts repeated within the hour, bulk jobs. Texts and hashes are not looked at.

True labels, where somebody has them, come in a file of `request_id` and `label`. A request of several texts has a row for each, in
their order. What was labelled must have been drawn at random: labels of complaints would show more errors than there are.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from drift import Counts, Layout, block_of, outcome_values
from drift.channels import Bins
from models.tables import BadRow, Kind, TableError, TableFormat, kind_of, open_text, read_rows

CHUNK_LINES: Final = 4096
SHOWN_FAULTS: Final = 5

Labels = Mapping[str, Sequence[str]]


@dataclass
class Tally:
    """What became of the lines of logs: counts of lines, and the first faults in words."""

    counted: int = 0
    uncounted: int = 0
    other_layout: int = 0
    bad: int = 0
    labelled: int = 0
    with_text: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def lines(self) -> int:
        """All of them."""
        return self.counted + self.uncounted + self.other_layout + self.bad

    def add_fault(self, source: str, line: int, reason: str) -> None:
        """A line that is not one of the prediction log's."""
        self.bad += 1
        if len(self.faults) < SHOWN_FAULTS:
            self.faults.append(f"{source}:{line}: {reason}")


@dataclass(frozen=True)
class Logged:
    """Counted texts in the order of their lines: seconds since 1970, shape [texts], and bins, shape [texts, channels]."""

    times: npt.NDArray[np.float64]
    bins: Bins


def read_log(path: Path, layout: Layout, tally: Tally, labels: Labels | None = None) -> Iterator[Logged]:
    """The counted texts of a log, `-` being standard input, a few thousand lines at a time; gzipped or not.

    Raises `TableError` if it cannot be read.
    """
    labelling = _Labelling(layout, labels) if labels else None
    with open_text(path) as file:
        numbered = enumerate(file, start=1)
        while lines := list(islice(numbered, CHUNK_LINES)):
            yield _texts(file.name, lines, layout, tally, labelling)


def read_labels(path: Path, layout: Layout, tally: Tally) -> dict[str, list[str]]:
    """True labels by request, in the order of the request's texts. Raises `TableError` if there are none that the model knows."""
    known = label_names(layout)
    found: dict[str, list[str]] = {}
    with open_text(path) as file:
        is_json = any(line and line.lstrip().startswith("{") for line in file.peek(1))
        kind = kind_of(file.name, TableFormat()) or (Kind.JSONL if is_json else Kind.CSV)
        for row in read_rows(file, TableFormat(kind, text_column="request_id"), labelled=True):
            if isinstance(row, BadRow):
                tally.add_fault(row.source, row.line, row.reason)
            elif row.label not in known:
                tally.add_fault(row.source, row.line, f"label {row.label!r} is none of {', '.join(known)}")
            else:
                found.setdefault(row.text, []).append(str(row.label))
    if not found:
        raise TableError("\n".join(tally.faults) or f"{path}: no labels")
    return found


def read_blocks(
    paths: Sequence[Path], layout: Layout, seconds: float, tally: Tally, labels: Labels | None = None
) -> Iterator[tuple[int, Counts]]:
    """Blocks by number, rising as far as the lines of each log do, and their counts; those of several logs side by side.

    So logs may be the files of one server in any order, or those of replicas. Raises `TableError`.
    """
    return heapq.merge(
        *(_blocks(read_log(path, layout, tally, labels), layout, seconds) for path in paths), key=lambda block: block[0]
    )


def _blocks(logged: Iterator[Logged], layout: Layout, seconds: float) -> Iterator[tuple[int, Counts]]:
    for texts in logged:
        numbers = np.array([block_of(time, seconds) for time in texts.times.tolist()], dtype=np.int64)
        if not len(numbers):
            continue
        starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
        for start, stop in zip(starts, [*starts[1:], len(numbers)], strict=True):
            yield int(numbers[start]), layout.count_bins(texts.bins[start:stop])


class _Labelling:
    """Finds what is known of texts whose true label is."""

    def __init__(self, layout: Layout, labels: Labels) -> None:
        self._layout = layout
        self._labels = labels
        self._numbers = {name: number for number, name in enumerate(label_names(layout))}
        self._seen = Counter[str]()

    def of(self, record: Mapping[str, Any]) -> tuple[int, int, float] | None:
        """Predicted and true label and confidence of a line; None without a true label. Raises `ValueError` or `KeyError`."""
        request = record["request_id"]
        labels = self._labels.get(request)
        if labels is None:
            return None
        number = self._seen[request]
        self._seen[request] += 1
        if number >= len(labels):
            return None
        return self._numbers[record["label"]], self._numbers[labels[number]], float(record["confidence"])

    def bins(self, known: Sequence[tuple[int, int, float]]) -> Bins:
        """The bins of such texts, shape [texts, channels], -1 in all channels but those of the outcome."""
        predicted, true, confidence = np.array(known).reshape(-1, 3).T
        names = list(self._numbers)
        return self._layout.bins(outcome_values(names, predicted.astype(np.int64), true.astype(np.int64), confidence))


class _Line(NamedTuple):
    """A line that counts: its number, when it was, its code, and what `_Labelling.of` knows."""

    number: int
    time: float
    code: str
    known: tuple[int, int, float] | None


def label_names(layout: Layout) -> tuple[str, ...]:
    """The labels of the model whose channels these are; none if there is no such channel."""
    return next((channel.categories for channel in layout.channels if channel.name == "label"), ())


def _texts(
    source: str, lines: Sequence[tuple[int, str | None]], layout: Layout, tally: Tally, labelling: _Labelling | None
) -> Logged:
    found: list[_Line] = []
    for number, line in lines:
        try:
            record = orjson.loads(line or "")
            time, code = _time(record["time"]), record.get("drift")
            known = labelling.of(record) if labelling else None
        except (ValueError, TypeError, KeyError, AttributeError):
            tally.add_fault(source, number, "not a line of the prediction log")
            continue
        if code is None and known is None:
            tally.uncounted += 1
        elif isinstance(code, str) and not code.startswith(layout.mark):
            tally.other_layout += 1
        else:
            tally.with_text += "text" in record
            found.append(_Line(number, time, layout.mark if code is None else code, known))
    try:
        bins = layout.decode([each.code for each in found])
    except (ValueError, AttributeError):
        found = [each for each in found if _is_sound(each, source, layout, tally)]
        bins = layout.decode([each.code for each in found])
    places = [place for place, each in enumerate(found) if each.known is not None]
    if labelling and places:
        bins[places] = np.maximum(bins[places], labelling.bins([each.known for each in found if each.known is not None]))
    tally.labelled += len(places)
    tally.counted += len(found)
    return Logged(np.array([each.time for each in found]), bins)


def _time(written: str) -> float:
    """Seconds since 1970. Raises `ValueError` for a time that does not say of which zone it is."""
    time = datetime.fromisoformat(written)
    if time.tzinfo is None:
        raise ValueError("no time zone")
    return time.timestamp()


def _is_sound(line: _Line, source: str, layout: Layout, tally: Tally) -> bool:
    try:
        layout.decode([line.code])
    except (ValueError, AttributeError):
        tally.add_fault(source, line.number, "'drift' is no code")
        return False
    return True
