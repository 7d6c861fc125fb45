"""What recent passes say of the next ones: pure arithmetic over a window of (cost, seconds).

A pass takes `start + slope * cost` seconds. The line is fitted by Tukey's resistant line (Exploratory Data Analysis, 1977): the
medians of the cheapest and of the dearest third of the passes, so that a few passes that were disturbed do not move it. Passes of
nearly one cost cannot tell start from slope: then there is no line, and whoever would refuse work on it must not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from operator import itemgetter
from statistics import median
from typing import Final

# Recent enough to follow a change of load within a few seconds, and enough passes for medians of thirds.
WINDOW: Final = 96
FEWEST: Final = 24
# The dear third must cost this many times the cheap third; with less, noise in the seconds decides the slope.
SPREAD: Final = 2.0
# A new fit is due when one in so many passes is new.
REFIT: Final = 12
# Of a pass's time, the share that its start may take before it is worth waiting for company.
START_SHARE: Final = 0.2
# Of refining the slope on what is left of the seconds; more change little.
ROUNDS: Final = 3


@dataclass(frozen=True, slots=True)
class Line:
    """Seconds of a pass: `start + slope * cost`."""

    start: float
    slope: float

    def seconds(self, cost: float) -> float:
        """Of one pass."""
        return self.start + self.slope * cost


def resistant_line(passes: list[tuple[float, float]]) -> Line | None:
    """The line through (cost, seconds), or None when they do not determine one: too few, too alike in cost, or no rise."""
    if len(passes) < FEWEST:
        return None
    passes = sorted(passes, key=itemgetter(0))  # by cost alone: the slow ones among equals are not the dear ones
    third = len(passes) // 3
    cheap, dear = passes[:third], passes[-third:]
    cheap_cost, dear_cost = (median(cost for cost, _ in side) for side in (cheap, dear))
    if dear_cost < SPREAD * cheap_cost:
        return None
    slope = 0.0
    for _ in range(ROUNDS):
        cheap_rest, dear_rest = (median(seconds - slope * cost for cost, seconds in side) for side in (cheap, dear))
        slope += (dear_rest - cheap_rest) / (dear_cost - cheap_cost)
    if slope <= 0:
        return None
    return Line(max(0.0, median(seconds - slope * cost for cost, seconds in passes)), slope)


class Pace:
    """The recent passes, and what follows from them. Computed when asked for, as often as a twelfth of the passes is new."""

    def __init__(self) -> None:
        self._passes: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._fitted: Line | None = None
        self._last_sound: Line | None = None
        self._proportional = Line(0.0, 0.0)
        self._new = 0

    def observe(self, cost: float, seconds: float) -> None:
        """A pass over items of this cost ended well after so many seconds."""
        self._passes.append((cost, seconds))
        self._new += 1

    @property
    def is_sound(self) -> bool:
        """True when the passes determine a line, so that work may be refused on it."""
        self._refresh()
        return self._fitted is not None

    @property
    def line(self) -> Line:
        """The fitted line; without one, seconds in proportion to the cost, as in the recent passes; 0 before any pass."""
        self._refresh()
        return self._fitted or self._proportional

    @property
    def worthwhile_cost(self) -> float:
        """The cost from which on the start takes at most `START_SHARE` of a pass, by the last sound line; 0 before there was one.

        Seconds change with the machine's load, but hardly the relation of start and slope. So a line that passes of nearly one cost
        no longer confirm is good enough for this.
        """
        self._refresh()
        line = self._last_sound
        return 0.0 if line is None else line.start / line.slope * (1 / START_SHARE - 1)

    def drain_time(self, cost: float, batch_cost: float, workers: int) -> float:
        """Seconds that `workers` need for `cost` in batches of `batch_cost`."""
        line = self.line
        return (line.start * cost / batch_cost + line.slope * cost) / workers

    def _refresh(self) -> None:
        # A fit takes 0.1 ms, and a lone item that waits at the door has but a pass before it.
        if self._new and self._new * REFIT >= len(self._passes):
            self._new = 0
            self._fitted = resistant_line(list(self._passes))
            self._last_sound = self._fitted or self._last_sound
            self._proportional = Line(0.0, median(seconds / cost for cost, seconds in self._passes))
