"""Charts along time as inline SVG, in the colours of the page they stand in.

Each is drawn twice, wide and narrow, since one drawing scaled down to a phone has text that nobody can read; the page's style shows
the one that fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Final

HOUR: Final = 3600
DAY: Final = 24 * HOUR
STEPS: Final = (
    60,
    300,
    900,
    1800,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    14 * DAY,
    28 * DAY,
    91 * DAY,
)
MOST_POINTS: Final = 400
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 30, 26


@dataclass(frozen=True)
class Series:
    """A line: `points` are times, in seconds since 1970, and values; None is a gap. `colour` is a variable of the style sheet."""

    name: str
    colour: str
    points: Sequence[tuple[float, float | None]]
    dashed: bool = False


def figure(
    name: str, title: str, note: str, series: Sequence[Series], highest: float, written: Callable[[float], str] = "{:g}".format
) -> str:
    """An HTML figure of some series from 0 up to `highest` or a little more, ticks `written` as text."""
    begin = min(time for each in series for time, _ in each.points)
    end = max(time for each in series for time, _ in each.points)
    step = _step(highest)
    drawings = []
    for size, width, height in (("wide", 800, 240), ("narrow", 360, 220)):
        frame = _Frame(begin, max(end, begin + 60), math.ceil(highest / step - 1e-9) * step, step, width, height)
        drawings.append(f'<div class="{size}">{_svg(f"{name}-{size}", title, note, series, frame, written)}</div>')
    return f"<figure><h3>{escape(title)}</h3>{''.join(drawings)}<figcaption>{escape(note)}</figcaption></figure>"


@dataclass(frozen=True)
class _Frame:
    """Where times and values lie in a drawing."""

    begin: float
    end: float
    highest: float
    step: float
    width: int
    height: int

    def x(self, time: float) -> float:
        return LEFT + (time - self.begin) / (self.end - self.begin) * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return self.height - BOTTOM - min(max(value / self.highest, 0.0), 1.0) * (self.height - TOP - BOTTOM)


def _svg(name: str, title: str, note: str, series: Sequence[Series], frame: _Frame, written: Callable[[float], str]) -> str:
    named = f'role="img" aria-labelledby="{name}-title" aria-describedby="{name}-desc"'
    parts = [
        f'<svg viewBox="0 0 {frame.width} {frame.height}" {named}>',
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(note)}</desc>',
    ]
    for number in range(round(frame.highest / frame.step) + 1):
        value = frame.step * number
        y = frame.y(value)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{frame.width - RIGHT}" stroke="var(--grid)"/>')
        parts.append(_text(LEFT - 6, y + 4, written(value), "end"))
    most = 7 if frame.width > 500 else 4
    step = next((step for step in STEPS if (frame.end - frame.begin) / step <= most), STEPS[-1])
    tick = -(-frame.begin // step) * step
    while tick <= frame.end:
        x = frame.x(tick)
        parts.append(f'<path d="M{x:.1f} {frame.height - BOTTOM}v4" stroke="var(--muted)"/>')
        parts.append(_text(min(max(x, LEFT), frame.width - RIGHT - 16), frame.height - 6, _moment(tick, step), "middle"))
        tick += step
    x = LEFT
    for each in series:
        dash = ' stroke-dasharray="4 3"' if each.dashed else ""
        line = f'fill="none" stroke="var(--{each.colour})" stroke-width="1.6"{dash}'
        parts.append(f'<path d="{_path(each.points, frame)}" {line}/><path d="M{x} 12h16" {line}/>')
        parts.append(_text(x + 21, 16, each.name, "start", "ink"))
        x += 36 + round(6.8 * len(each.name))
    return "".join(parts) + "</svg>"


def _step(highest: float) -> float:
    """Between ticks: 1, 2 or 5 times a power of ten, for three to six of them."""
    power = 10.0 ** math.floor(math.log10(highest))
    return next(step * power for step in (0.2, 0.5, 1.0, 2.0) if highest / (step * power) <= 5)


def _text(x: float, y: float, text: str, anchor: str, colour: str = "muted") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="12" fill="var(--{colour})">{escape(text)}</text>'


def _moment(time: float, step: float) -> str:
    when = datetime.fromtimestamp(time, UTC)
    return f"{when:%b} {when.day}" if step >= DAY or (when.hour, when.minute) == (0, 0) else f"{when:%H:%M}"


def _path(points: Sequence[tuple[float, float | None]], frame: _Frame) -> str:
    """Through all points, or through the highest of each few where there are too many."""
    width = -(-len(points) // MOST_POINTS)
    found, gap = [], True
    for first in range(0, len(points), max(width, 1)):
        few = points[first : first + width]
        values = [value for _, value in few if value is not None]
        if values:
            found.append(f"{'M' if gap else 'L'}{frame.x(few[0][0]):.1f} {frame.y(max(values)):.1f}")
        gap = not values
    # A lone point is a line of no length, which round ends make visible.
    return "".join(found) + ("h0" if len(found) == 1 else "")
