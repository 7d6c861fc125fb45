"""A monitor's place in time: blocks by number, hours as strata, gaps filled. It has no clock; times are given to it.

Block n holds what was answered from n * seconds up to (n + 1) * seconds after 1970. So servers, their logs and their replicas cut
time at the same places, and blocks of the same number add up. A block's stratum is its part of the day, in UTC: with 24 strata, the
hour.

1. The monitor gets every block once, in order, also the empty ones between: to it, each is a step in time.
2. More than a day without any text counts as a day. Where the clock was set back by more than a day, blocks go on from there.
3. What comes later than its block was closed, since the clock was set back a little, counts in the block that is open.
4. So the same texts at the same times make the same blocks, in a server as from its log.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from drift.baseline import BaselineError
from drift.channels import Counts
from drift.monitor import DAY_SECONDS, Monitor

MOST_STARTS: Final = 100


def block_of(time: float, seconds: float) -> int:
    """The number of the block of a time, in seconds since 1970."""
    return int(time // seconds)


def stratum_of(time: float, strata: int) -> int:
    """The part of the day, of so many, in which a time lies, in UTC."""
    return int(time % DAY_SECONDS * strata // DAY_SECONDS)


class Timeline:
    """Gives a monitor its blocks; `closed` is called with the number of each and its counts, after the monitor has taken it in.

    The first block is that of the first text. The length of a block is that of the monitor's promise.
    """

    def __init__(self, monitor: Monitor, closed: Callable[[int, Counts], None] = lambda *_: None) -> None:
        self.monitor = monitor
        self.seconds = monitor.promise.block_seconds
        self._closed = closed
        self._day = max(1, round(DAY_SECONDS / self.seconds))
        # All mutable state. `_starts`: from which of the monitor's blocks on, numbers rise one by one from which.
        self.open: int | None = None
        self.counts = self._nothing()
        self._starts: list[tuple[int, int]] = []

    def _nothing(self) -> Counts:
        return np.zeros(self.monitor.layout.width, dtype=np.int64)

    def add(self, number: int, counts: Counts) -> None:
        """Count texts of this block, shape [width]; closes the blocks before it."""
        self.close(number)
        if self.open is None or number < self.open - self._day:
            self._begin(number)
        self.counts = self.counts + counts

    def close(self, before: int) -> None:
        """Close all blocks before this one: its time has begun. Without any text so far, there is none."""
        if self.open is None or before <= self.open:
            return
        last = min(before, self.open + self._day)
        for _ in range(self.open, last):
            self._close_one()
        if before > last:
            self._begin(before)

    def _close_one(self) -> None:
        assert self.open is not None
        number, counts = self.open, self.counts
        self.monitor.advance(counts, self.stratum(number))
        self.open, self.counts = number + 1, self._nothing()
        self._closed(number, counts)

    def _begin(self, number: int) -> None:
        if self.open is not None and self.counts.any():
            self._close_one()
        self.open = number
        self._starts = [*self._starts[-MOST_STARTS + 1 :], (self.monitor.block, number)]

    def stratum(self, number: int) -> int:
        """The stratum of a block."""
        return stratum_of(number * self.seconds, self.monitor.present.strata)

    def time(self, block: int) -> float:
        """When one of the monitor's blocks began, such as a verdict's `since`: in seconds since 1970.

        Raises `ValueError` before the first block.
        """
        if not self._starts:
            raise ValueError("there is no block yet")
        began, number = next((start for start in reversed(self._starts) if start[0] <= block), self._starts[0])
        return (number + block - began) * self.seconds

    def save(self) -> dict[str, Any]:
        """All state, with the monitor's, as plain values."""
        return {
            "block_seconds": self.seconds,
            "open": self.open,
            "counts": self.counts.tolist(),
            "starts": [list(start) for start in self._starts],
            "monitor": self.monitor.save(),
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `save` gave.

        Raises `BaselineError`, and changes nothing, if it does not fit, or is nothing of the kind.
        """
        try:
            seconds, opened = float(saved["block_seconds"]), saved["open"]
            counts = np.array(saved["counts"], dtype=np.int64)
            starts = [(int(block), int(number)) for block, number in saved["starts"]]
            opened = None if opened is None else int(opened)
            monitor = saved["monitor"]
        except (ValueError, TypeError, KeyError) as error:
            raise BaselineError(f"not the state of a timeline: {error!r}") from error
        if seconds != self.seconds:
            raise BaselineError(f"the state has blocks of {seconds:g} seconds, not of {self.seconds:g}")
        if counts.shape != self.counts.shape or (opened is None) != (not starts):
            raise BaselineError("not the state of a timeline over these channels")
        self.monitor.restore(monitor)
        self.open, self.counts, self._starts = opened, counts, starts
