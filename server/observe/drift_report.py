"""What `GET /drift` says: the verdicts, and what people need to judge them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from drift import (
    Baseline,
    Counts,
    Estimate,
    Layout,
    Profile,
    Shift,
    State,
    Timeline,
    Verdict,
    Word,
    attribute,
    changed_words,
    class_mix,
    count_words,
    detectable,
    estimated_accuracy,
    weighted_share,
)

# The hour is kept in so many parts, so that a word is forgotten an hour after it was seen, and not two.
PARTS: Final = 6
# Of the usual texts, before anything is said of words.
FEWEST_USUAL: Final = 200
# A fall of the estimated accuracy that makes a shift a warning.
WORSE: Final = 0.03

TextCounts = npt.NDArray[np.int64]


class WordCounts:
    """In how many texts each word piece stood: in the last `seconds`, and before, while all was well."""

    def __init__(self, pieces: Sequence[str], seconds: float) -> None:
        self._pieces = pieces
        self._seconds = seconds / PARTS
        # All mutable state. A part has its number, its texts and their pieces.
        self._usual = np.zeros(len(pieces), dtype=np.int64)
        self._usual_texts = 0
        self._parts: deque[tuple[int, int, TextCounts]] = deque()

    def add(self, now: float, ids: Sequence[Sequence[int]], *, keep: bool) -> None:
        """Count texts. What is older than `seconds` becomes usual if it is to be kept, and is forgotten otherwise."""
        number = int(now // self._seconds)
        while self._parts and self._parts[0][0] <= number - PARTS:
            _, texts, counts = self._parts.popleft()
            if keep:
                self._usual, self._usual_texts = self._usual + counts, self._usual_texts + texts
        counts, texts = count_words(ids, len(self._pieces)), len(ids)
        if self._parts and self._parts[-1][0] >= number:
            number, before, earlier = self._parts.pop()
            counts, texts = counts + earlier, texts + before
        self._parts.append((number, texts, counts))

    def changed(self) -> tuple[list[Word], list[Word]] | None:
        """The pieces that are more frequent now, and those that are rarer; None without enough usual texts."""
        if self._usual_texts < FEWEST_USUAL or not self._parts:
            return None
        now = np.sum([counts for _, _, counts in self._parts], axis=0)
        texts = sum(texts for _, texts, _ in self._parts)
        return changed_words(now, self._usual, texts, self._usual_texts, self._pieces)


def accuracy_of(layout: Layout, counts: Counts) -> float | None:
    """The estimated accuracy of texts by their counts, shape [width]; None without texts."""
    found = counts[layout.place("error estimate")]
    return estimated_accuracy({"error estimate": found}) if found.sum() else None


def report_of(profile: Profile, timeline: Timeline, recent: Counts, words: WordCounts, examples: Sequence[str]) -> dict[str, Any]:
    """The body of `GET /drift` but for what the server knows; `recent` are the counts of the last hour, shape [width]."""
    monitor, layout = timeline.monitor, profile.layout
    baseline = monitor.baseline
    accuracy, usual = accuracy_of(layout, recent), accuracy_of(layout, baseline.counts.sum(axis=0)) if baseline else None
    worse = accuracy is not None and usual is not None and usual - accuracy > WORSE
    levels = {level: _level(timeline, verdict, worse=worse) for level, verdict in monitor.verdicts().items()}
    levels["input"] |= {"change": _attribution(baseline, recent), "words": _words(words), "examples": list(examples)}
    levels["output"] |= {
        "estimated_accuracy": None if accuracy is None else round(accuracy, 4),
        "estimated_accuracy_of_baseline": None if usual is None else round(usual, 4),
        "class_mix": _class_mix(profile, recent),
    }
    levels["outcome"] |= {"accuracy": _accuracy(layout, monitor.present.counts.sum(axis=0) + timeline.counts)}
    return {
        "promise": {"false_alarm_days": monitor.promise.false_alarm_days, "block_seconds": timeline.seconds},
        "baseline": None
        if baseline is None
        else {"texts": baseline.texts, "strata": baseline.strata, "notes": list(baseline.notes)},
        "unusual_share": _rounded(profile.unusual_share(recent)),
        "since_baseline_or_alarm": {"texts": monitor.present.texts, "blocks": monitor.present.blocks},
        "last_hour_texts": layout.texts(recent),
        "levels": levels,
    }


def _level(timeline: Timeline, verdict: Verdict, *, worse: bool) -> dict[str, Any]:
    since = None if verdict.since is None else datetime.fromtimestamp(timeline.time(verdict.since), UTC)
    return {
        "state": str(verdict.state),
        "severity": _severity(verdict, worse=worse),
        "evidence": round(verdict.evidence, 4),
        "since": None if since is None else since.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "channel": verdict.channel,
        "where": verdict.where,
        "shift": _shift(verdict.shift),
        "detectable": _detectable(timeline, verdict),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _detectable(timeline: Timeline, verdict: Verdict) -> dict[str, int | None] | None:
    """For shares of texts that change: after how many texts an alarm is to be expected; None before the level is tested."""
    monitor = timeline.monitor
    if verdict.state is State.LEARNING or monitor.baseline is None:
        return None
    blocks = monitor.promise.blocks(monitor.promise.false_alarm_days)
    block_texts = monitor.baseline.texts / max(monitor.baseline.blocks, 1)
    tolerance = monitor.tolerance(verdict.level)
    found = detectable(monitor.baseline, verdict.level, blocks=blocks, block_texts=block_texts, tolerance=tolerance)
    return {f"{share:g}": None if texts is None else math.ceil(texts) for share, texts in found.items()}


def _attribution(baseline: Baseline | None, recent: Counts) -> Mapping[str, Any] | None:
    """In texts of which labels the change of the last hour is, and how much of it another mix of labels explains."""
    found = None if baseline is None else attribute(baseline, recent)
    if found is None:
        return None
    return {"labels": {label: round(part, 4) for label, part in found.labels.items()}, "explained_by_mix": round(found.mix, 4)}


def _severity(verdict: Verdict, *, worse: bool) -> str:
    """How much it matters: wrong answers are critical, a shift with a lower estimated accuracy a warning, any other information."""
    if verdict.state is not State.DRIFT:
        return "none"
    return "critical" if verdict.level == "outcome" else "warning" if worse else "information"


def _shift(shift: Shift | None) -> dict[str, float] | None:
    return None if shift is None else {"share": round(shift.share, 4), "low": round(shift.low, 4), "high": round(shift.high, 4)}


def _words(words: WordCounts) -> dict[str, list[dict[str, Any]]] | None:
    if (changed := words.changed()) is None:
        return None
    return {
        name: [{"word": word.text, "now": round(word.now, 4), "before": round(word.before, 4)} for word in found]
        for name, found in zip(("up", "down"), changed, strict=True)
    }


def _accuracy(layout: Layout, counts: Counts) -> Mapping[str, Any] | None:
    """The share of right answers among those with a label, since the baseline or the last alarm."""
    right, wrong = counts[layout.place("error")].tolist()
    if not right + wrong:
        return None
    share = weighted_share(np.repeat((1.0, 0.0), (right, wrong)), np.ones(right + wrong))
    return {"value": round(share.value, 4), "low": round(share.low, 4), "high": round(share.high, 4), "labels": right + wrong}


def _class_mix(profile: Profile, recent: Counts) -> Mapping[str, Any] | None:
    """The shares of the true classes, by the predicted ones and what of them was right among held-out texts."""
    predicted = recent[profile.layout.place("label")]
    if not predicted.sum() or not profile.confusion.sum(axis=0).all():
        return None
    mix: list[Estimate] = class_mix(predicted, profile.confusion)
    return {
        label: {"share": round(each.value, 4), "low": round(each.low, 4), "high": round(each.high, 4)}
        for label, each in zip(profile.labels, mix, strict=True)
    }
