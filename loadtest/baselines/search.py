"""The highest rate that holds a bound: by halves, on a scale of ratios, in a bounded number of probes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

# A bracket this narrow is an answer: neither end of it can be told from the other in a few seconds.
NARROW = 1.04
MOST_PROBES = 6
# Where the lowest rate tried does not hold, the search begins at this share of it.
LOWEST_SHARE = 0.1


def bracket(known: Mapping[float, bool], above: float) -> tuple[float, float]:
    """The bracket by rates that are known to hold or not: from the highest below all that do not, to the lowest that does not.

    `above` is a rate that is too high, as far as one may assume.
    """
    too_high = min((rate for rate, holds in known.items() if not holds), default=above)
    low = max((rate for rate, holds in known.items() if holds and rate < too_high), default=0.0)
    return low, too_high


def highest(holds: Callable[[float], bool], low: float, too_high: float) -> tuple[float, float]:
    """Narrow a bracket by trying rates within it. `low` is 0 while no rate is known to hold."""
    bottom = low or too_high * LOWEST_SHARE
    for _ in range(MOST_PROBES):
        if too_high <= bottom * NARROW:
            break
        rate = math.sqrt(bottom * too_high)
        if holds(rate):
            low = bottom = rate
        else:
            too_high = rate
    return low, too_high
