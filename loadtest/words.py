"""Numbers as a report says them."""

from __future__ import annotations

NOTHING = "\N{EN DASH}"


def milliseconds(value: float | None) -> str:
    """Three digits, since no more are meant: 0.42, 18.6, 204, 1,250."""
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def per_second(value: float) -> str:
    """A rate."""
    return f"{value:,.0f}/s" if value >= 100 else f"{value:.1f}/s"


def percent(part: float, whole: float) -> str:
    """A share; "0 %" only for none, and never 100.0 % for less than all."""
    if not whole:
        return NOTHING
    share = 100 * part / whole
    if 0 < share < 0.01:
        return "< 0.01 %"
    if 99.9 < share < 100:
        return f"{int(share * 1000) / 1000:.3f} %"
    return f"{share:.3g} %"


def short(value: float) -> str:
    """A bound or what was measured against it, whatever its unit."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
