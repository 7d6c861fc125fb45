"""Tallies since the start, and over the last minute, hour and day.

Theory of operation. What is answered is counted in one tally, that of the present second. When the second is over, or when
somebody looks, the tally is added to three rings of 60 buckets, of 1 second, 1 minute and 24 minutes, and is empty again.
Seconds are counted from the start, so that every second lies in one bucket of each ring.

1. A window sums the bucket of now and the 59 before it. It therefore covers between 59/60 and 60/60 of its span: all texts of the
   last 59, 3,540 or 84,960 seconds, none older than 60, 3,600 or 86,400. Right after the start it covers the time since then.
2. A bucket carries its number. One with an old number is empty to whoever looks, and is cleared by whoever writes; so idle hours,
   or a clock that jumps days, cost nothing.

Memory is fixed: 180 buckets. All of it is used on the event loop's thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Generic, Protocol, Self, TypeVar

# Buckets in a window, and the seconds that each of them covers.
BUCKETS: Final = 60
WINDOWS: Final[Mapping[str, int]] = {"1m": 1, "1h": 60, "24h": 1_440}

# Numbers are counted in millionths, as they are rounded in answers: sums are integers and do not drift.
MILLION: Final = 1_000_000


class Tally(Protocol):
    """Counts of the texts of one bucket."""

    number: int
    texts: int

    def clear(self, number: int) -> None:
        """Begin anew, as the bucket of this number."""

    def add(self, other: Self) -> None:
        """Add another's counts."""


T = TypeVar("T", bound=Tally)


class _Ring(Generic[T]):
    """The last `BUCKETS` buckets of `width` seconds each."""

    def __init__(self, width: int, make: Callable[[], T]) -> None:
        self._width = width
        self._buckets = [make() for _ in range(BUCKETS)]

    def add(self, second: int, tally: T) -> None:
        """Add the counts of this second."""
        number = second // self._width
        bucket = self._buckets[number % BUCKETS]
        if bucket.number != number:
            bucket.clear(number)
        bucket.add(tally)

    def first_second(self, second: int) -> int:
        """The first second that the window covers when it is looked at in this one."""
        return max(0, second // self._width - BUCKETS + 1) * self._width

    def recent(self, second: int) -> Iterable[T]:
        """The buckets of the window that ends with this second."""
        first = self.first_second(second) // self._width
        return (bucket for bucket in self._buckets if bucket.number >= first)


class Windowed(Generic[T]):
    """The rings, and the tally of the present second. `make` makes an empty tally; `clock` gives seconds and never goes back."""

    def __init__(self, make: Callable[[], T], clock: Callable[[], float]) -> None:
        self._make = make
        self._clock = clock
        self._started = clock()
        # All mutable state.
        self._second = 0
        self._present = make()
        self._before = make()
        self._rings = {name: _Ring(width, make) for name, width in WINDOWS.items()}

    def _now(self) -> T:
        """The tally of the present second."""
        second = int(self._clock() - self._started)
        if second > self._second:
            self._put_away(second)
        return self._present

    def _put_away(self, second: int) -> None:
        """Move the counts of the present second to where they stay, and go on with this second, which may be the same."""
        present = self._present
        if present.texts:
            for ring in self._rings.values():
                ring.add(self._second, present)
            self._before.add(present)
            present.clear(0)
        self._second = second

    def _until_now(self) -> tuple[float, T]:
        """The seconds since the start, and all that was counted in them."""
        seconds = self._clock() - self._started
        self._put_away(int(seconds))
        return seconds, self._before

    def _windows(self, seconds: float) -> dict[str, tuple[float, T]]:
        """The seconds that each window covers when it is looked at now, and what was counted in them."""
        found = {}
        for name, ring in self._rings.items():
            total = self._make()
            for bucket in ring.recent(int(seconds)):
                total.add(bucket)
            found[name] = (seconds - ring.first_second(int(seconds)), total)
        return found


def share(part: int, whole: int) -> float | None:
    """To 6 decimals; None of nothing."""
    return round(part / whole, 6) if whole else None
