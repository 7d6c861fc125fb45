"""The highest rate that is good enough, found with tries that may err.

A rate is tried until two tries agree, so three times at most: one that was disturbed decides nothing. From a first guess the search
goes up or down, by ratios that grow, until a good and a bad rate enclose the limit, and then halves their ratio.

What it promises: a confirmed rate was good twice, every rejected rate is above every confirmed one, and there are at most
`MOST_RATES` rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

AGREEING: Final = 2
FIRST_STEP, LARGEST_STEP = 1.15, 2.0
# Enough for a limit at a tenth or at ten times of the first guess, to within 4 %.
MOST_RATES: Final = 12


@dataclass(frozen=True, slots=True)
class Found:
    """The highest confirmed and the lowest rejected rate; None where there is none."""

    confirmed: float | None = None
    rejected: float | None = None

    @property
    def ratio(self) -> float:
        """The rejected over the confirmed rate; infinite while either is missing."""
        return self.rejected / self.confirmed if self.rejected and self.confirmed else math.inf


def search(is_good: Callable[[float], bool], guess: float, *, tolerance: float, agreeing: int = AGREEING) -> Found:
    """The limit, known when the rejected rate is within `tolerance` (0.04 for 4 %) of the confirmed one, or time is up.

    `is_good` tries a rate, and may raise `OutOfTime` to end the search with what is known.
    """
    found, step = Found(), FIRST_STEP
    rate = guess
    for _ in range(MOST_RATES):
        try:
            good = _majority(is_good, rate, agreeing)
        except OutOfTime:
            break
        found = Found(rate, found.rejected) if good else Found(found.confirmed, rate)
        if found.ratio <= 1 + tolerance:
            break
        if found.confirmed and found.rejected:
            rate = math.sqrt(found.confirmed * found.rejected)
        else:
            rate = rate * step if good else rate / step
            step = min(step * step, LARGEST_STEP)
    return found


class OutOfTime(Exception):
    """Raised by a try for which there is no time left."""


def _majority(is_good: Callable[[float], bool], rate: float, agreeing: int) -> bool:
    """Try until so many tries agree."""
    good = bad = 0
    while max(good, bad) < agreeing:
        if is_good(rate):
            good += 1
        else:
            bad += 1
    return good == agreeing
