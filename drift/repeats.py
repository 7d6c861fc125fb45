"""Repeated texts: a text counts once an hour, however often it is sent.

A baseline's bounds take texts for independent of each other. A client that sends one text again and again, or a text that everybody
sends, would make its bins look like drift: at three texts a minute, one text a minute for half an hour is a third of the traffic.

What was seen within the hour is kept as one bit for each value of the hash's lower 20 bits: 128 kB, however much traffic there is.
A new text whose bit another has set is taken for a repeat, too: of 100,000 texts an hour, one in twenty. Which ones these are
depends on the hash alone, so that what is counted stays a fair sample.
"""

from __future__ import annotations

from typing import Final

HASH_BITS: Final = 20


class Repeats:
    """Remembers texts by a hash, with well-mixed lower bits, until the next hour by the clock; it is given the time."""

    def __init__(self, seconds: float = 3600.0) -> None:
        self._seconds = seconds
        # All mutable state.
        self._period = 0
        self._seen = bytearray(1 << (HASH_BITS - 3))

    def is_new(self, key: int, time: float) -> bool:
        """Whether a text with this hash was not seen before within the hour; from now on it was. `time`: seconds since 1970."""
        period = int(time // self._seconds)
        if period != self._period:
            self._period, self._seen = period, bytearray(len(self._seen))
        place, bit = key >> 3 & len(self._seen) - 1, 1 << (key & 7)
        if self._seen[place] & bit:
            return False
        self._seen[place] |= bit
        return True
