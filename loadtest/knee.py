"""The knee of latency over rate: up to it more load costs little, past it latency runs away.

Kneedle (Satopää, Albrecht, Irwin, Raghavan, "Finding a 'Kneedle' in a Haystack", ICDCS workshops 2011): scale rates and
latencies to 0..1 and take the point that lies furthest under the diagonal. It counts as a knee only if the curve then comes back
towards the diagonal by more than the mean step between rates (the paper's sensitivity 1); a straight line does not. The paper's
smoothing is left out, since each point here is already a percentile of many requests. Instead, a latency that nowhere reaches
twice its lowest counts as flat: scaling to 0..1 would take its noise for a curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MIN_RATES = 4
FLAT = 2.0
SENSITIVITY = 1.0


@dataclass(frozen=True)
class Knee:
    """A rate and the latency there; or, where there is none, a sentence that says why."""

    rate: float | None
    latency: float | None
    reason: str = ""


def find_knee(points: Sequence[tuple[float, float]]) -> Knee:
    """The knee of (rate, latency) points; their order does not matter, of equal rates the slowest counts."""
    curve = sorted(dict(sorted(points)).items())
    if len(curve) < MIN_RATES:
        return _none(f"a knee needs at least {MIN_RATES} different rates with answers, this run has {len(curve)}")
    lowest, highest = min(latency for _, latency in curve), max(latency for _, latency in curve)
    if highest <= FLAT * lowest:
        return _none("latency nowhere reached twice its lowest: the rates did not come near the limit")
    first, span = curve[0][0], curve[-1][0] - curve[0][0]
    below = [(rate - first) / span - (latency - lowest) / (highest - lowest) for rate, latency in curve]
    best = max(range(len(curve)), key=below.__getitem__)
    if best == 0:
        return _none("latency rises most right after the lowest rate: if it bends, then before the lowest rate")
    mean_step = 1 / (len(curve) - 1)
    if min(below[best:]) > below[best] - SENSITIVITY * mean_step:
        return _none("latency rises evenly with the rate, without a bend")
    return Knee(*curve[best])


def _none(reason: str) -> Knee:
    return Knee(None, None, reason)
