"""Which pieces of words have become more frequent, or rarer: evidence for people, without keeping any text.

Counts are of texts that hold a piece, not of its occurrences, so that one sender's thousand repetitions in a text count once.
Pieces are compared by the logarithm of their odds with an informative Dirichlet prior (Monroe, Colaresi and Quinn, 2008), over its
standard error. Shown are those that stand in 20 texts at least, on the side where they are frequent, and that hold no digit:
neither a name that one customer has nor a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt

FEWEST_TEXTS: Final = 20
PRIOR_TEXTS: Final = 50.0
LEAST_Z: Final = 3.0

TextCounts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Word:
    """A piece, the shares of texts that hold it now and in the baseline, and how sure the difference is, in standard errors."""

    text: str
    now: float
    before: float
    z: float


def count_words(ids: Sequence[Sequence[int]], vocabulary: int) -> TextCounts:
    """How many of these texts hold each piece, shape [vocabulary]; sums of such counts are those of all texts."""
    lengths = [len(each) for each in ids]
    flat = np.fromiter(chain.from_iterable(ids), np.int64, sum(lengths))
    pairs = np.unique(np.repeat(np.arange(len(ids)), lengths) * vocabulary + flat)
    return np.bincount(pairs % vocabulary, minlength=vocabulary)


def changed_words(
    now: TextCounts, before: TextCounts, texts_now: int, texts_before: int, pieces: Sequence[str], most: int = 10
) -> tuple[list[Word], list[Word]]:
    """The pieces that have become more frequent, and those that have become rarer, most certain first.

    `pieces` are the strings of the vocabulary. Raises `ValueError` for counts of another vocabulary.
    """
    if not now.shape == before.shape == (len(pieces),):
        raise ValueError("the counts are of another vocabulary")
    a, b, n, m = _floats(now), _floats(before), max(texts_now, 1), max(texts_before, 1)
    with_it = (a + b + 0.01) / (n + m + 0.02) * PRIOR_TEXTS
    without = PRIOR_TEXTS - with_it
    odds = np.log((a + with_it) / (n - a + without)) - np.log((b + with_it) / (m - b + without))
    z = odds / np.sqrt(1 / (a + with_it) + 1 / (n - a + without) + 1 / (b + with_it) + 1 / (m - b + without))

    def shown(order: npt.NDArray[np.int64], frequent: TextCounts) -> list[Word]:
        found: list[Word] = []
        for index in order.tolist():
            if abs(z[index]) < LEAST_Z or len(found) == most:
                break
            if frequent[index] >= FEWEST_TEXTS and not any(letter.isdigit() for letter in pieces[index]):
                found.append(Word(pieces[index], a[index] / n, b[index] / m, float(z[index])))
        return found

    rising = np.argsort(-z, kind="stable")
    up = shown(rising[z[rising] > 0], now)
    falling = rising[::-1]
    return up, shown(falling[z[falling] < 0], before)


def _floats(counts: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float64]:
    return counts.astype(np.float64)
