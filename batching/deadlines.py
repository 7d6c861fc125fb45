"""Deadlines: who waits until when, and one timer for the earliest of them.

A timer for each text would be set and cancelled nearly always, which costs more than all else that is done for a deadline. Here the
timer is only moved when an earlier deadline comes; who was answered is forgotten when the front of the line is looked at, which is
whenever somebody joins it. So at most one timer is left when everybody has been answered, and it does nothing.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any

from batching.callers import Caller

Callers = Sequence[Caller[Any, Any]]


class Deadlines:
    """Calls `expire` with callers whose deadline has come and of whom some have no outcome yet. `clock` is that of the deadlines.

    All mutable state is here: those who wait, the earliest deadline first, and the timer with the time that it is set to.
    """

    def __init__(self, clock: Callable[[], float], expire: Callable[[Callers], None]) -> None:
        self._clock = clock
        self._expire = expire
        self._waiting: list[tuple[float, int, Callers]] = []
        self._numbers = count()  # so that equal deadlines are in order, and callers are never compared
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    def add(self, deadline: float, callers: Callers) -> None:
        """These callers have a deadline in common."""
        waiting = self._waiting
        while waiting and _are_done(waiting[0][2]):
            heappop(waiting)
        heappush(waiting, (deadline, next(self._numbers), callers))
        if deadline < self._timer_at:
            self._set_timer(deadline)

    def close(self) -> None:
        """Nobody waits any more."""
        self._waiting.clear()
        self._cancel_timer()

    def _set_timer(self, deadline: float) -> None:
        self._cancel_timer()
        self._timer_at = deadline
        self._timer = asyncio.get_running_loop().call_later(max(0.0, deadline - self._clock()), self._come)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._timer_at = math.inf

    def _come(self) -> None:
        # A timer may fire a little early.
        now = max(self._clock(), self._timer_at)
        self._cancel_timer()
        waiting = self._waiting
        while waiting and (waiting[0][0] <= now or _are_done(waiting[0][2])):
            _, _, callers = heappop(waiting)
            self._expire(callers)
        if waiting:
            self._set_timer(waiting[0][0])


def _are_done(callers: Callers) -> bool:
    for caller in callers:  # noqa: SIM110 - a generator would take twice as long, and this is asked for each request
        if not caller.is_done:
            return False
    return True
