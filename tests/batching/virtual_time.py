"""An event loop whose clock jumps to the next timer when nothing is ready: exact deadlines, no sleeping, hangs seen at once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

R = TypeVar("R")


class Hang(BaseException):
    """Raised by the loop when it would wait for ever: nothing is ready and no timer is set."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self.turns = 0

    def time(self) -> float:
        return self._now

    def block(self, seconds: float) -> None:
        """Time passes within the present callback, as if it computed so long: timers that end meanwhile are late."""
        self._now += seconds

    def _run_once(self) -> None:
        self.turns += 1
        if not self._ready:  # type: ignore[attr-defined]
            timers = [handle.when() for handle in self._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
            if not timers:
                raise Hang
            self._now = max(self._now, min(timers))
        # Else a timer is taken a nanosecond early, again and again if it is set again because it was early.
        self._clock_resolution = math.ulp(self._now)
        super()._run_once()  # type: ignore[misc]


def run_virtual(main: Coroutine[Any, Any, R]) -> R:
    """Run to the end in virtual time; raises `Hang` if it would never end."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def virtual_loop() -> VirtualTimeLoop:
    """The running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop


def turns() -> int:
    """How often the running virtual loop has turned so far."""
    return virtual_loop().turns
