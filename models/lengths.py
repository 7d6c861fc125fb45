"""How long texts are: counts by length, and what follows from them. The server imports this too: no numpy, no model.

A length is in tokens, special tokens included, as `max_length` is. Of a text that was cut, only the length up to the cut is known.
Such texts are kept apart: they count as longer than every limit that is asked about, and `Lengths.horizon` is how far that is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson

# No bundle reads more (`models.bundle.Manifest`), so no length beyond it has to be told from another.
LONGEST: Final = 8192
# The share of texts that may well be cut before a higher limit is worth a thought.
MOST_TRUNCATED: Final = 0.005


@dataclass(frozen=True, slots=True)
class LengthSummary:
    """Lengths in tokens, all 0 without texts; `truncated` is the share, 0 to 1, of texts that are over the limit."""

    texts: int
    mean: float
    p50: int
    p90: int
    p95: int
    p99: int
    longest: int
    truncated: float


def summarize(counts: Sequence[int], truncated: int) -> LengthSummary:
    """The summary of texts counted by length: `counts[n]` texts have n tokens; `truncated` of them are over the limit."""
    texts = sum(counts)
    if not texts:
        return LengthSummary(0, 0.0, 0, 0, 0, 0, 0, 0.0)
    mean = sum(length * count for length, count in enumerate(counts)) / texts
    p50, p90, p95, p99, longest = (percentile(counts, percent) for percent in (50, 90, 95, 99, 100))
    return LengthSummary(texts, mean, p50, p90, p95, p99, longest, truncated / texts)


def percentile(counts: Sequence[int], percent: int) -> int:
    """The smallest length that `percent` per cent of the texts do not exceed; 0 without texts."""
    # In integers: 0.95 * 20 is not always 19.
    wanted, seen = sum(counts) * percent, 0
    for length, count in enumerate(counts):
        seen += count
        if count and seen * 100 >= wanted:
            return length
    return 0


@dataclass(frozen=True, slots=True)
class Bin:
    """So many texts have `first` to `last` tokens."""

    first: int
    last: int
    texts: int


class Lengths:
    """Texts counted by length, up to `LONGEST` tokens."""

    def __init__(self) -> None:
        self._whole = [0] * (LONGEST + 1)
        self._cut = [0] * (LONGEST + 1)

    def add(self, tokens: int, *, cut: bool) -> None:
        """Count a text of 0 to `LONGEST` tokens; `cut` if it has more than these. Raises `IndexError` beyond."""
        (self._cut if cut else self._whole)[tokens] += 1

    @property
    def counts(self) -> list[int]:
        """How many texts have each length, cut ones at the length up to their cut."""
        return [whole + cut for whole, cut in zip(self._whole, self._cut, strict=True)]

    @property
    def texts(self) -> int:
        """How many there are."""
        return sum(self._whole) + self.cut

    @property
    def cut(self) -> int:
        """How many have more tokens than were counted."""
        return sum(self._cut)

    @property
    def horizon(self) -> int:
        """The highest limit for which it is known which texts are over it."""
        return percentile(self.counts, 100) if self.cut else LONGEST

    def summary(self, limit: int) -> LengthSummary:
        """All lengths, and the share of texts over `limit`."""
        return summarize(self.counts, self._over(limit))

    def truncated(self, limit: int) -> float:
        """The share of texts, 0 to 1, over `limit`."""
        return self._over(limit) / max(1, self.texts)

    def mean(self, limit: int) -> float:
        """Tokens of a text on average, when texts are cut at `limit`."""
        return self._tokens(limit) / max(1, self.texts)

    def lost(self, limit: int) -> float:
        """The share of all counted tokens, 0 to 1, that lies beyond `limit`."""
        return 1 - self._tokens(limit) / max(1, self._tokens(LONGEST))

    def histogram(self) -> list[Bin]:
        """Bins that end at 8 tokens and its doubles, from the first to the last with texts in it."""
        counts = self.counts
        bins, first, last = [], 1, 8
        while first <= LONGEST:
            bins.append(Bin(first, last, sum(counts[first : last + 1])))
            first, last = last + 1, last * 2
        filled = [number for number, found in enumerate(bins) if found.texts]
        return bins[filled[0] : filled[-1] + 1] if filled else []

    def _over(self, limit: int) -> int:
        return sum(self._whole[limit + 1 :]) + self.cut

    def _tokens(self, limit: int) -> int:
        return sum(min(length, limit) * count for length, count in enumerate(self.counts))


def logged_length(line: bytes) -> tuple[int | None, bool] | None:
    """(tokens, truncated) of a line of the server's prediction log; None if the line is no such record.

    The tokens are None where nobody counted them: the answer came from the cache.
    """
    try:
        record: object = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(record, dict) or "tokens" not in record:
        return None
    tokens, truncated = record["tokens"], record.get("truncated")
    # Not isinstance: a boolean is an integer, too.
    is_length = tokens is None or (type(tokens) is int and 0 < tokens <= LONGEST)
    return (tokens, truncated) if is_length and type(truncated) is bool else None


def percent(share: float) -> str:
    """A share as people read it; what is not nothing never reads as nothing."""
    return "under 0.1 %" if 0 < share < 0.001 else f"{share:.1%}".replace("%", " %")
