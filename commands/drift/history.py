"""What a monitor said over a log: its evidence in each block, and each change of a level's state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from drift import LEVELS, Attribution, Counts, LevelName, Monitor, State, Timeline, Verdict, attribute, detectable

HOUR: Final = 3600


@dataclass(frozen=True)
class Change:
    """A level's state became another; `time` is the end of the block, in seconds since 1970."""

    time: float
    before: State
    verdict: Verdict


class History:
    """Of each block: when it began, its texts, and the evidence of each level, 1 being an alarm. And the counts of each hour.

    Blocks are given to its `timeline`.
    """

    def __init__(self, monitor: Monitor) -> None:
        self.timeline = Timeline(monitor, self._closed)
        self.times: list[float] = []
        self.texts: list[int] = []
        self.evidence: dict[LevelName, list[float]] = {level: [] for level in LEVELS}
        self.changes: list[Change] = []
        self.hours: dict[float, Counts] = {}
        self._states = self._current()

    @property
    def verdicts(self) -> dict[LevelName, Verdict]:
        """At the end."""
        return self.timeline.monitor.verdicts()

    @property
    def drifted(self) -> list[Verdict]:
        """The levels in drift at the end."""
        return [verdict for verdict in self.verdicts.values() if verdict.state is State.DRIFT]

    def forget(self) -> None:
        """Keep nothing but the state that each level is in: for a history without end."""
        self.times, self.texts, self.changes, self.hours = [], [], [], {}
        self.evidence = {level: [] for level in LEVELS}

    @property
    def began(self) -> float | None:
        """When the earliest change that lasts began, in seconds since 1970."""
        return min(
            (self.timeline.time(verdict.since) for verdict in self.verdicts.values() if verdict.since is not None), default=None
        )

    def attribution(self) -> Attribution | None:
        """Where the texts since then differ, in whole hours: `drift.attribute`."""
        baseline, began = self.timeline.monitor.baseline, self.began
        if baseline is None or began is None:
            return None
        since = [counts for hour, counts in self.hours.items() if hour + HOUR > began]
        return attribute(baseline, np.sum(since, axis=0)) if since else None

    def resume(self) -> None:
        """The timeline goes on from a state that it was restored to: no change of this history."""
        self._states = self._current()

    def detectable(self) -> dict[LevelName, dict[float, float | None]]:
        """Of each level that is tested, what `drift.detectable` says for the traffic so far."""
        monitor = self.timeline.monitor
        promise, block_texts = monitor.promise, sum(self.texts) / max(len(self.texts), 1)
        return {
            level: detectable(
                monitor.baseline,
                level,
                blocks=promise.blocks(promise.false_alarm_days),
                block_texts=block_texts,
                tolerance=monitor.tolerance(level),
            )
            for level, (state, _) in monitor.standing().items()
            if monitor.baseline is not None and state is not State.LEARNING
        }

    def _current(self) -> dict[LevelName, State]:
        return {level: state for level, (state, _) in self.timeline.monitor.standing().items()}

    def _closed(self, number: int, counts: Counts) -> None:
        monitor, time = self.timeline.monitor, number * self.timeline.seconds
        self.times.append(time)
        self.texts.append(monitor.layout.texts(counts))
        hour = time // HOUR * HOUR
        self.hours[hour] = self.hours.get(hour, 0) + counts
        for level, (state, evidence) in monitor.standing().items():
            self.evidence[level].append(evidence)
            if state is not self._states[level]:
                self.changes.append(Change(time + self.timeline.seconds, self._states[level], monitor.verdicts()[level]))
                self._states[level] = state


def follow(monitor: Monitor, blocks: Iterable[tuple[int, Counts]]) -> History:
    """Give a monitor the blocks of a log, all to its end, and note what it says."""
    history = History(monitor)
    for number, counts in blocks:
        history.timeline.add(number, counts)
    if history.timeline.open is not None:
        history.timeline.close(history.timeline.open + 1)
    return history
