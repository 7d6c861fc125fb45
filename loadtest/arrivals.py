"""When requests are to start: at random moments (Poisson), at a rate that changes by steps; and an alarm that rings on time.

The moments are laid down before anything is sent and do not depend on answers: that is what makes a load open. Latency counts from
them. A closed loop, where a client waits for its answer before it sends again, sends least while the server is slowest, and so
leaves most of a stall out of its percentiles (coordinated omission).

Timers of event loops count whole milliseconds (uvloop, libev, epoll): they would make requests up to a millisecond late, which is
as much as the server itself adds at light load. A timer of the Linux kernel is late by some 50 microseconds, and can be waited for
like a socket, in asyncio and in gevent.
"""

from __future__ import annotations

import ctypes
import os
import random
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_TFD_TIMER_ABSTIME = 1


@dataclass(frozen=True, slots=True)
class Pace:
    """A stretch of time, in seconds, at one rate of requests a second."""

    name: str
    seconds: float
    rate: float


def poisson(paces: Sequence[Pace], seed: int) -> Iterator[float]:
    """The moments, in seconds from the start, one pace after another; the same for the same seed.

    A Poisson process has no memory, so that each pace may begin afresh.
    """
    generator = random.Random(seed)
    begin = 0.0
    for pace in paces:
        end = begin + pace.seconds
        moment = begin
        while pace.rate > 0 and (moment := moment + generator.expovariate(pace.rate)) < end:
            yield moment
        begin = end


class Alarm:
    """A kernel timer: readable, like a socket, from the moment that was set. Moments are those of `time.perf_counter`."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        self._check(self._descriptor)

    def fileno(self) -> int:
        """The file descriptor to wait for."""
        return self._descriptor

    def set(self, moment: float) -> None:
        """Ring at that moment, or at once if it is past."""
        nanoseconds = max(1, round(moment * 1e9))
        seconds, rest = divmod(nanoseconds, 10**9)
        self._check(self._libc.timerfd_settime(self._descriptor, _TFD_TIMER_ABSTIME, struct.pack("4q", 0, 0, seconds, rest), None))

    def clear(self) -> None:
        """Silence an alarm that rings; it must."""
        os.read(self._descriptor, 8)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)

    @staticmethod
    def _check(result: int) -> None:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
