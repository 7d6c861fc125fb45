"""The numbers that a model of one label or a regression model answers: since the start, and over the last minute, hour and day.

A number has no confidence, so it is its distribution that tells when texts change. Values are counted in millionths, as they are
rounded in answers, so that sums and squares are integers and exact.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from models.problem import Problem
from models.types import Prediction
from server.observe.windows import MILLION, Windowed

# Upper bounds of the histogram's bins, inclusive; the last bin is for what is over all of them. For probabilities in steps of 0.05,
# for numbers of unknown size in steps of 1, 2, 5.
PROBABILITIES: Final = tuple(bin_ / 20 for bin_ in range(1, 21))
_SIZES: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
NUMBERS: Final = (*(-size for size in reversed(_SIZES)), 0.0, *_SIZES)


@dataclass(frozen=True, slots=True)
class ValueWindow:
    """What a window saw in the `seconds` it covers; mean and standard deviation to 6 decimals, None where it saw no text."""

    seconds: float
    texts: int
    mean: float | None
    deviation: float | None


@dataclass(frozen=True, slots=True)
class ValueSnapshot:
    """All figures of one moment: since the start, and by window. `histogram` has a count for each of `bounds` and one for what is
    beyond, not added up; `total` is the sum of all values.
    """

    since_start: ValueWindow
    bounds: tuple[float, ...]
    histogram: tuple[int, ...]
    total: float
    windows: Mapping[str, ValueWindow]


class _Tally:
    """Counts of the texts of one bucket: `millionths` is the sum of their values, `squares` that of their squares."""

    __slots__ = ("millionths", "number", "squares", "texts")

    def __init__(self) -> None:
        self.clear(0)

    def clear(self, number: int) -> None:
        """Begin anew, as the bucket of this number."""
        self.number = number
        self.texts = self.millionths = self.squares = 0

    def add(self, other: _Tally) -> None:
        """Add another's counts."""
        self.texts += other.texts
        self.millionths += other.millionths
        self.squares += other.squares


class Values(Windowed[_Tally]):
    """Counts answered texts of a model that gives numbers; `clock` gives seconds and never goes back."""

    def __init__(self, problem: Problem, clock: Callable[[], float]) -> None:
        super().__init__(_Tally, clock)
        self._bounds = PROBABILITIES if problem.activation == "sigmoid" else NUMBERS
        self._histogram = [0] * (len(self._bounds) + 1)

    def observe(self, prediction: Prediction) -> None:
        """Count an answered text."""
        present = self._now()
        millionths = round(prediction.scores[0] * MILLION)
        present.texts += 1
        present.millionths += millionths
        present.squares += millionths * millionths
        self._histogram[bisect_left(self._bounds, millionths / MILLION)] += 1

    def snapshot(self) -> ValueSnapshot:
        """The figures as of now."""
        seconds, before = self._until_now()
        windows = {name: _window(covered, tally) for name, (covered, tally) in self._windows(seconds).items()}
        total = before.millionths / MILLION
        return ValueSnapshot(_window(seconds, before), self._bounds, tuple(self._histogram), total, windows)

    def report(self, model: str) -> Mapping[str, object]:
        """The figures as of now, as the body of `GET /confidence`: seconds to 1 decimal, means and deviations to 6."""
        snapshot = self.snapshot()
        histogram = {"up_to": list(snapshot.bounds), "texts": list(snapshot.histogram)}
        return {
            "model": model,
            "since_start": _told(snapshot.since_start) | {"histogram": histogram},
            "windows": {name: _told(window) for name, window in snapshot.windows.items()},
        }


def _window(covered: float, tally: _Tally) -> ValueWindow:
    if not tally.texts:
        return ValueWindow(covered, 0, None, None)
    # In whole numbers up to the root: of close values, the difference of large floats would be noise.
    variance = (tally.squares * tally.texts - tally.millionths**2) / tally.texts**2
    mean = tally.millionths / tally.texts / MILLION
    return ValueWindow(covered, tally.texts, round(mean, 6), round(math.sqrt(variance) / MILLION, 6))


def _told(window: ValueWindow) -> dict[str, object]:
    return {
        "seconds": round(window.seconds, 1),
        "texts": window.texts,
        "mean": window.mean,
        "standard_deviation": window.deviation,
    }
