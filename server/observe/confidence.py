"""How sure the model is, and which labels it gives: since the start, and over the last minute, hour and day.

Theory of operation. An answered text is counted in one tally, that of the present second. When the second is over, or when
somebody looks, the tally is added to three rings of 60 buckets, of 1 second, 1 minute and 24 minutes, and is empty again.
Seconds are counted from the start, so that every second lies in one bucket of each ring.

1. A window sums the bucket of now and the 59 before it. It therefore covers between 59/60 and 60/60 of its span: all texts of the
   last 59, 3,540 or 84,960 seconds, none older than 60, 3,600 or 86,400. Right after the start it covers the time since then.
2. A bucket carries its number. One with an old number is empty to whoever looks, and is cleared by whoever writes; so idle hours,
   or a clock that jumps days, cost nothing.
3. A confidence is counted in millionths, as it is rounded in answers. Sums are integers and do not drift; what is compared with a
   bound (histogram, low confidence) is the number that the client saw.

Memory is fixed: 180 buckets, each with a count for every label. All of it is used on the event loop's thread only.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

# Upper bounds of the histogram's bins, inclusive as in Prometheus: a bin has the confidences over the bound before it (the first
# one from 0) up to its own.
BOUNDS: Final = tuple(bin_ / 20 for bin_ in range(1, 21))

# Buckets in a window, and the seconds that each of them covers.
BUCKETS: Final = 60
WINDOWS: Final[Mapping[str, int]] = {"1m": 1, "1h": 60, "24h": 1_440}

_MILLION: Final = 1_000_000
_BOUNDS_IN_MILLIONTHS: Final = tuple(round(bound * _MILLION) for bound in BOUNDS)


@dataclass(frozen=True, slots=True)
class Totals:
    """Since the start. `histogram` has a count for each of `BOUNDS`, not added up; `confidence_sum` is exact to 6 decimals."""

    seconds: float
    texts: int
    labels: Mapping[str, int]
    histogram: tuple[int, ...]
    confidence_sum: float
    low: int


@dataclass(frozen=True, slots=True)
class Window:
    """What a window saw in the `seconds` it covers; mean and shares to 6 decimals, and None where it saw no text."""

    seconds: float
    texts: int
    mean: float | None
    low_share: float | None
    label_shares: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All figures of one moment; windows by the names in `WINDOWS`."""

    totals: Totals
    windows: Mapping[str, Window]


class _Tally:
    """Counts of the texts of one bucket; `millionths` is the sum of their confidences."""

    __slots__ = ("labels", "low", "millionths", "number")

    def __init__(self, labels: int) -> None:
        self.number = 0
        self.millionths = 0
        self.low = 0
        self.labels = [0] * labels

    def clear(self, number: int) -> None:
        """Begin anew, as the bucket of this number."""
        self.number = number
        self.millionths = 0
        self.low = 0
        self.labels = [0] * len(self.labels)

    def add(self, other: _Tally) -> None:
        """Add another's counts."""
        self.millionths += other.millionths
        self.low += other.low
        self.labels = [ours + theirs for ours, theirs in zip(self.labels, other.labels, strict=True)]


class _Ring:
    """The last `BUCKETS` buckets of `width` seconds each."""

    def __init__(self, width: int, labels: int) -> None:
        self._width = width
        self._buckets = [_Tally(labels) for _ in range(BUCKETS)]

    def add(self, second: int, tally: _Tally) -> None:
        """Add the counts of this second."""
        number = second // self._width
        bucket = self._buckets[number % BUCKETS]
        if bucket.number != number:
            bucket.clear(number)
        bucket.add(tally)

    def first_second(self, second: int) -> int:
        """The first second that the window covers when it is looked at in this one."""
        return max(0, second // self._width - BUCKETS + 1) * self._width

    def recent(self, second: int) -> Iterable[_Tally]:
        """The buckets of the window that ends with this second."""
        first = self.first_second(second) // self._width
        return (bucket for bucket in self._buckets if bucket.number >= first)


class Confidence:
    """Counts answered texts. A confidence below `low` (to 6 decimals) is a low one; `clock` gives seconds and never goes back."""

    def __init__(self, labels: Sequence[str], low: float, clock: Callable[[], float]) -> None:
        self.low = round(low, 6)
        self._low_in_millionths = round(low * _MILLION)
        self._clock = clock
        self._started = clock()
        self._index = {label: index for index, label in enumerate(labels)}
        # All mutable state, beside the buckets themselves.
        self._second = 0
        self._present = _Tally(len(labels))
        self._before = _Tally(len(labels))
        self._histogram = [0] * len(BOUNDS)
        self._rings = {name: _Ring(width, len(labels)) for name, width in WINDOWS.items()}

    def observe(self, label: str, confidence: float) -> None:
        """Count an answered text; `confidence` is from 0 to 1. Takes well under a microsecond."""
        second = int(self._clock() - self._started)
        if second > self._second:
            self._put_away(second)
        present = self._present
        millionths = round(confidence * _MILLION)
        present.labels[self._index[label]] += 1
        present.millionths += millionths
        if millionths < self._low_in_millionths:
            present.low += 1
        self._histogram[bisect_left(_BOUNDS_IN_MILLIONTHS, millionths)] += 1

    def snapshot(self) -> Snapshot:
        """The figures as of now."""
        seconds = self._clock() - self._started
        self._put_away(int(seconds))
        totals = Totals(
            seconds=seconds,
            texts=sum(self._before.labels),
            labels=dict(zip(self._index, self._before.labels, strict=True)),
            histogram=tuple(self._histogram),
            confidence_sum=self._before.millionths / _MILLION,
            low=self._before.low,
        )
        return Snapshot(totals, {name: self._window(ring, seconds) for name, ring in self._rings.items()})

    def report(self, model: str) -> Mapping[str, object]:
        """The figures as of now, as the body of `GET /confidence`: seconds to 1 decimal, means and shares to 6."""
        snapshot = self.snapshot()
        totals = snapshot.totals
        return {
            "model": model,
            "low_confidence_below": self.low,
            "since_start": {
                "seconds": round(totals.seconds, 1),
                "texts": totals.texts,
                "mean": _share(self._before.millionths, totals.texts * _MILLION),
                "low_share": _share(totals.low, totals.texts),
                "labels": dict(totals.labels),
                "histogram": {"up_to": list(BOUNDS), "texts": list(totals.histogram)},
            },
            "windows": {
                name: {
                    "seconds": round(window.seconds, 1),
                    "texts": window.texts,
                    "mean": window.mean,
                    "low_share": window.low_share,
                    "label_shares": dict(window.label_shares),
                }
                for name, window in snapshot.windows.items()
            },
        }

    def _put_away(self, second: int) -> None:
        """Move the counts of the present second to where they stay, and go on with this second, which may be the same."""
        present = self._present
        if any(present.labels):
            for ring in self._rings.values():
                ring.add(self._second, present)
            self._before.add(present)
            present.clear(0)
        self._second = second

    def _window(self, ring: _Ring, seconds: float) -> Window:
        total = _Tally(len(self._index))
        for bucket in ring.recent(int(seconds)):
            total.add(bucket)
        texts = sum(total.labels)
        return Window(
            seconds=seconds - ring.first_second(int(seconds)),
            texts=texts,
            mean=_share(total.millionths, texts * _MILLION),
            low_share=_share(total.low, texts),
            label_shares={label: _share(count, texts) for label, count in zip(self._index, total.labels, strict=True)},
        )


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None
