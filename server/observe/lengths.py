"""Lengths of the texts in traffic, and what they say about the bundle's limit and the batch limits.

All mutable state is in `LengthStatistics`, which belongs to one thread, the event loop's: a count for each length, so that memory
does not grow with traffic and every figure is exact. Advice is given on evidence: after the first 1,000 texts, and at each power of
ten if it is another by then.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from models.lengths import MOST_TRUNCATED, LengthSummary, logged_length, percent, summarize
from models.passes import MOST_TOKENS, RUN_COST

FIRST_REPORT: Final = 1_000
# How much of the end of prediction logs is looked at, some 5,000 records; with short ones, this many.
LOG_BYTES: Final = 1 << 20
LOG_LINES: Final = 10_000
# A batch limit is worth changing when passes would take this much less time.
WORTH: Final = 0.05


@dataclass(frozen=True, slots=True)
class Advice:
    """A setting that traffic speaks against, a value to begin with where there is one, and why. Equal if these two are."""

    setting: str
    value: int | None
    sentence: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class LengthReport:
    """The lengths so far and what they advise."""

    summary: LengthSummary
    advice: tuple[Advice, ...]

    @property
    def recommendation(self) -> str | None:
        """The advice as a sentence; None without any."""
        return "; ".join(advice.sentence for advice in self.advice) or None

    def facts(self) -> dict[str, object]:
        """The figures and the recommendation, for a log line."""
        figures = {name: round(value, 4) for name, value in asdict(self.summary).items()}
        return figures | {"recommendation": self.recommendation}


class LengthStatistics:
    """Counts texts by their length in tokens, which is at most `limit`. Not thread-safe."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._counts = [0] * (limit + 1)
        self._truncated = 0
        self._texts = 0
        self._next_report = FIRST_REPORT
        self._reported: tuple[Advice, ...] | None = None

    def observe(self, tokens: int, truncated: bool) -> None:
        """Count a text of 0 to `limit` tokens; `truncated` if it had more. Raises `IndexError` beyond the limit."""
        self._counts[tokens] += 1
        self._texts += 1
        if truncated:
            self._truncated += 1

    @property
    def counts(self) -> Sequence[int]:
        """How many texts had each length, from 0 to `limit` tokens; truncated ones count as `limit`."""
        return self._counts

    @property
    def truncated(self) -> int:
        """How many texts had more than `limit` tokens."""
        return self._truncated

    def due(self) -> bool:
        """True when it is time for `take_report`."""
        return self._texts >= self._next_report

    def summary(self) -> LengthSummary:
        """The lengths so far; those of truncated texts count as `limit`."""
        return summarize(self._counts, self._truncated)

    def report(self, max_texts: int, max_tokens: int) -> LengthReport:
        """The lengths so far and what they advise, given BATCH_MAX_TEXTS and BATCH_MAX_TOKENS."""
        summary = self.summary()
        return LengthReport(summary, advise(summary, self._limit, max_texts, max_tokens))

    def take_report(self, max_texts: int, max_tokens: int) -> LengthReport | None:
        """The report that is due; None if its advice is that of the last one. The next is due at the next power of ten."""
        while self.due():
            self._next_report *= 10
        report = self.report(max_texts, max_tokens)
        if report.advice == self._reported:
            return None
        self._reported = report.advice
        return report


def advise(summary: LengthSummary, limit: int, max_texts: int, max_tokens: int) -> tuple[Advice, ...]:
    """What lengths speak for: a higher limit of the bundle, larger batches. Nothing on no texts.

    A high limit costs short texts nothing, so a lower one is never advised.
    """
    if not summary.mean:
        return ()
    found = (_limit_advice(summary, limit), _batch_advice(summary, max_texts, max_tokens))
    return tuple(advice for advice in found if advice is not None)


def _limit_advice(summary: LengthSummary, limit: int) -> Advice | None:
    if summary.truncated <= MOST_TRUNCATED:
        return None
    sentence = (
        f"{percent(summary.truncated)} of the texts are over the limit of {limit} tokens and are cut: see with `supportbot lengths`"
        " what a bundle built with a higher --max-length would cost"
    )
    return Advice("--max-length", None, sentence)


def _batch_advice(summary: LengthSummary, max_texts: int, max_tokens: int) -> Advice | None:
    """Advice where batches are so small that starting a pass, which costs as much as `RUN_COST` tokens, weighs on them.

    A full pass has `MOST_TOKENS`; batches beyond that gain nothing. (With 8 tokens a text, MiniLM-L6 takes 818 us a text in batches
    of 4, 714 of 8, 679 of 32, 671 of 64.)
    """
    full = min(max_tokens, MOST_TOKENS)
    by_texts = max_texts * summary.mean
    if RUN_COST / by_texts - RUN_COST / full > WORTH:
        wanted = 1 << (math.ceil(full / summary.mean) - 1).bit_length()  # the next power of two
        return Advice(
            "BATCH_MAX_TEXTS",
            wanted,
            f"batches end at {max_texts} texts, which have some {by_texts:.0f} tokens: set BATCH_MAX_TEXTS={wanted}",
        )
    # Two typical texts do not fit, so most batches are one text, too short to be worth a pass of its own.
    if 2 * summary.p50 > max_tokens and RUN_COST / summary.mean - RUN_COST / MOST_TOKENS > WORTH:
        return Advice(
            "BATCH_MAX_TOKENS",
            MOST_TOKENS,
            f"half of the texts have {summary.p50} tokens or more, so most batches of {max_tokens} tokens are a single text: set"
            f" BATCH_MAX_TOKENS={MOST_TOKENS}, or let `supportbot tune --data` find a value",
        )
    return None


def from_prediction_log(paths: Sequence[Path], limit: int, lines: int = LOG_LINES) -> LengthStatistics:
    """Lengths of the last texts of an earlier run, at most `lines` of them, out of the last MiB of its prediction logs.

    `paths` are the newest first. Files that are not there, and lines that are no records, are passed over. A text over `limit`
    counts as truncated; one that was cut at a lower limit tells nothing about this one, and is passed over, too.
    """
    found = LengthStatistics(limit)
    left = LOG_BYTES
    for path in paths:
        content = _tail(path, left)
        left -= len(content)
        for line in reversed(content.splitlines()):
            if not lines:
                return found
            tokens, truncated = logged_length(line) or (None, False)
            if tokens is not None and (tokens >= limit or not truncated):
                found.observe(min(tokens, limit), truncated or tokens > limit)
                lines -= 1
    return found


def _tail(path: Path, size: int) -> bytes:
    """The last `size` bytes of a file; nothing of one that cannot be read. The first line may be part of one."""
    try:
        if not path.is_file():  # opening a pipe would wait for its writer
            return b""
        with path.open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - size))
            return stream.read(size)
    except OSError:
        return b""
