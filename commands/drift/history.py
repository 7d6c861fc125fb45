"""What a monitor said over a log: its evidence in each block, and each change of a level's state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from drift import LEVELS, Counts, LevelName, Monitor, State, Timeline, Verdict

HOUR: Final = 3600


@dataclass(frozen=True)
class Change:
    """A level's state became another; `time` is the end of the block, in seconds since 1970."""

    time: float
    before: State
    verdict: Verdict


@dataclass
class History:
    """Of each block: when it began, its texts, and the evidence of each level, 1 being an alarm. And the counts of each hour."""

    timeline: Timeline
    times: list[float] = field(default_factory=list)
    texts: list[int] = field(default_factory=list)
    evidence: dict[LevelName, list[float]] = field(default_factory=lambda: {level: [] for level in LEVELS})
    changes: list[Change] = field(default_factory=list)
    hours: dict[float, Counts] = field(default_factory=dict)

    @property
    def verdicts(self) -> dict[LevelName, Verdict]:
        """At the end."""
        return self.timeline.monitor.verdicts()

    @property
    def drifted(self) -> list[Verdict]:
        """The levels in drift at the end."""
        return [verdict for verdict in self.verdicts.values() if verdict.state is State.DRIFT]


def follow(monitor: Monitor, blocks: Iterable[tuple[int, Counts]]) -> History:
    """Give a monitor the blocks of a log, all to its end, and note what it says."""
    states = {level: state for level, (state, _) in monitor.standing().items()}

    def closed(number: int, counts: Counts) -> None:
        time = number * timeline.seconds
        history.times.append(time)
        history.texts.append(monitor.layout.texts(counts))
        hour = time // HOUR * HOUR
        history.hours[hour] = history.hours.get(hour, 0) + counts
        for level, (state, evidence) in monitor.standing().items():
            history.evidence[level].append(evidence)
            if state is not states[level]:
                history.changes.append(Change(time + timeline.seconds, states[level], monitor.verdicts()[level]))
                states[level] = state

    timeline = Timeline(monitor, closed)
    history = History(timeline)
    for number, counts in blocks:
        timeline.add(number, counts)
    if timeline.open is not None:
        timeline.close(timeline.open + 1)
    return history
