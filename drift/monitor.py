"""Monitoring: blocks of counts in, one verdict a level out. It has no clock: a block is a minute, or what the caller makes one.

    learning   there is no baseline yet, or it has too few texts in the level; nothing is tested
    ok         nothing to say
    watch      evidence that would come by chance once in `watch_days`; it goes by itself, after an hour with less
    drift      evidence that would come by chance once in `false_alarm_days`; it stays until the baseline is replaced, or until the
               evidence has been too little for `watch` for a whole day

Without a baseline, a monitor learns one from the first blocks, and then begins. What a level has no channel for, or too few texts
in the baseline, stays in `learning`. The state is counts and the detectors' logarithms; `save` and `restore` make plain values of
it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from drift.baseline import Baseline, BaselineError, learn
from drift.bounds import lower_share, upper_share
from drift.channels import LEVELS, Counts, Layout, LevelName
from drift.detector import Detector

DAY_SECONDS: Final = 86_400
RECENT_SECONDS: Final = 3_600
INTERVAL_RISK: Final = 0.05
TOLERANCE: Final[Mapping[LevelName, float]] = {"outcome": 0.02}
LOWEST: Final = -1e6  # stands for no evidence in a file
FEWEST_TEXTS: Final = 200  # of a level in the baseline, below which it is not tested


class State(StrEnum):
    """What a level can be in."""

    LEARNING = "learning"
    OK = "ok"
    WATCH = "watch"
    DRIFT = "drift"


@dataclass(frozen=True, slots=True)
class Shift:
    """How much has changed: the share of texts that must have moved into the tail to explain the last hour, with its interval.

    `low` holds for all tails of the level together, with 95 % confidence: at least so much has changed.
    """

    low: float
    share: float
    high: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A level's state. `evidence` is on the way to an alarm: 0 nothing, 1 an alarm (logarithmic).

    `where` is the tail, in words, whose evidence was the strongest when the state began, and `since` the block at which that began
    to rise; both are None where there is none.
    """

    level: LevelName
    state: State
    evidence: float
    since: int | None = None
    channel: str | None = None
    where: str | None = None
    shift: Shift | None = None


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise in days, kept by a threshold in blocks; `replicas` is how many decide on their own."""

    false_alarm_days: float = 365.0
    watch_days: float = 30.0
    block_seconds: float = 60.0
    replicas: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.watch_days <= self.false_alarm_days:
            raise ValueError("watch_days must be more than 0, and at most false_alarm_days")

    def blocks(self, days: float) -> float:
        """As many blocks as there are in so many days, times the replicas."""
        return days * DAY_SECONDS / self.block_seconds * self.replicas


class _Level:
    """The detector of a level, its memory of the last hour and day, and its state."""

    def __init__(self, baseline: Baseline, level: LevelName, promise: Promise, tolerance: float, first: int) -> None:
        self.name = level
        self.first = first  # the monitor's block at which the detector begins
        self.detector = Detector(baseline, level, blocks=promise.blocks(promise.false_alarm_days), tolerance=tolerance)
        self._watch = np.log(promise.blocks(promise.watch_days)) / self.detector.threshold
        self._day, self._hour = (max(1, round(seconds / promise.block_seconds)) for seconds in (DAY_SECONDS, RECENT_SECONDS))
        # All mutable state.
        self.state = State.OK
        self.quiet = 0
        # The tail that showed the present state when it began, and the detector's block at which its evidence began to rise.
        self.onset = (0, 0)
        self._verdict: Verdict | None = None
        self.recent: deque[tuple[int, Counts]] = deque(maxlen=self._hour)

    def advance(self, counts: Counts, stratum: int) -> None:
        """One block further."""
        self._verdict = None
        self.detector.advance(counts, stratum)
        self.recent.append((stratum, counts))
        before, evidence = self.state, self.evidence()
        self.quiet = self.quiet + 1 if evidence < self._watch else 0
        if evidence >= 1:
            self.state = State.DRIFT
        elif self.quiet == 0 and self.state is State.OK:
            self.state = State.WATCH
        elif self.quiet >= (self._day if self.state is State.DRIFT else self._hour):
            self.state = State.OK
        if self.state is not before:
            self.onset = self.detector.leader()

    def evidence(self) -> float:
        """Between 0 and 1."""
        return min(max(self.detector.evidence / self.detector.threshold, 0.0), 1.0)

    def verdict(self) -> Verdict:
        """What to tell of it; found once a block, since it takes some milliseconds."""
        if self._verdict is None:
            self._verdict = self._find_verdict()
        return self._verdict

    def _find_verdict(self) -> Verdict:
        if self.state is State.OK:
            return Verdict(self.name, self.state, self.evidence())
        experts = self.detector.experts
        tail, began = self.onset
        channel = experts.channels[tail]
        mask = experts.tails[tail, experts.wholes[tail] > 0].astype(bool)
        where = channel.describe(mask)
        return Verdict(self.name, self.state, self.evidence(), self.first + began, channel.name, where, self._shift(tail))

    def save(self) -> dict[str, Any]:
        """All mutable state as plain values."""
        return {
            "state": str(self.state),
            "quiet": self.quiet,
            "onset": list(self.onset),
            "first": self.first,
            "block": self.detector.block,
            "log_m": np.maximum(self.detector.log_m, LOWEST).tolist(),
            "rise": self.detector.rise.tolist(),
            "began": self.detector.began.tolist(),
            "recent": [[stratum, counts.tolist()] for stratum, counts in self.recent],
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """As `save` gave it. Raises `ValueError`, `TypeError` or `KeyError` for anything else."""
        detector, shape = self.detector, self.detector.log_m.shape
        log_m, rise = (np.array(saved[name], dtype=np.float64) for name in ("log_m", "rise"))
        began = np.array(saved["began"], dtype=np.int64)
        if not log_m.shape == rise.shape == began.shape == shape or not np.isfinite((log_m, rise)).all():
            raise ValueError("the evidence is that of other experts")
        detector.log_m, detector.rise = np.minimum(log_m, detector.ceilings), np.minimum(rise, detector.ceilings)
        detector.began, detector.block = began, int(saved["block"])
        self.state, self.quiet, self.first = State(saved["state"]), int(saved["quiet"]), int(saved["first"])
        tail, onset = map(int, saved["onset"])
        if not 0 <= tail < len(detector.experts.channels):
            raise ValueError("the onset is that of other experts")
        self.onset = tail, onset
        recent = [(int(stratum), np.array(counts, dtype=np.int64)) for stratum, counts in saved["recent"]]
        if any(counts.shape != (detector.experts.tails.shape[1],) for _, counts in recent):
            raise ValueError("counts of other bins")
        self.recent = deque(recent, maxlen=self.recent.maxlen)
        self._verdict = None

    def _shift(self, tail: int) -> Shift:
        experts = self.detector.experts
        hits, totals, bounds = (np.zeros(len(experts.channels)) for _ in range(3))
        for stratum, counts in self.recent:
            texts = experts.wholes @ counts
            hits, totals, bounds = hits + experts.tails @ counts, totals + texts, bounds + texts * experts.bounds[stratum]
        bounds /= np.maximum(totals, 1)  # that of each text's stratum, on average
        above = hits > bounds * totals  # of the others, no lower bound is above the baseline's upper one
        low = moved(lower_share(hits[above], totals[above], INTERVAL_RISK / len(hits)), bounds[above]).max(initial=0.0)
        share, high = hits[tail] / max(totals[tail], 1), float(upper_share(hits[tail], totals[tail], INTERVAL_RISK))
        return Shift(float(low), *(float(moved(each, bounds[tail])) for each in (share, high)))


def moved(share: npt.ArrayLike, bound: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The share of texts that must have moved into a tail for it to have `share`, when it can have had `bound` by itself."""
    spare = 1 - np.asarray(bound)
    return np.asarray(np.clip(np.asarray(share) - bound, 0, None) / np.where(spare > 0, spare, 1))


class Monitor:
    """Three levels over one stream of blocks: see above.

    Without a `baseline` it learns one, until it has `learn_texts` texts and `learn_blocks` blocks. `strata` is how many strata the
    caller will name. `tolerance` is the rise of a tail's share that is nobody's business, by level; 2 points of errors by default.
    """

    def __init__(
        self,
        layout: Layout,
        baseline: Baseline | None = None,
        *,
        promise: Promise = Promise(),
        strata: int = 1,
        learn_texts: int = 20_000,
        learn_blocks: int = 7 * 1440,
        tolerance: Mapping[LevelName, float] | None = None,
    ) -> None:
        self.layout = layout
        self.promise = promise
        self._learn = learn_texts, learn_blocks
        self._tolerance: dict[LevelName, float] = {**TOLERANCE, **(tolerance or {})}
        # All mutable state, with that of the levels. `present` is what was counted since the last baseline or alarm.
        self.block = 0
        self.present = learn(layout, [], strata)
        self.baseline: Baseline | None = None
        self._levels: dict[LevelName, _Level] = {}
        if baseline is not None:
            self.use(baseline)

    def tolerance(self, level: LevelName) -> float:
        """The rise of a tail's share that is nobody's business."""
        return self._tolerance.get(level, 0.0)

    def use(self, baseline: Baseline) -> None:
        """Compare with this baseline from the next block on, without any evidence so far.

        Raises `BaselineError` if it counts other things.
        """
        if baseline.layout.fingerprint != self.layout.fingerprint:
            raise BaselineError("the baseline has other channels or bins than what is monitored")
        self.baseline = baseline
        self.present = learn(self.layout, [], baseline.strata)
        self._levels = {
            level: _Level(baseline, level, self.promise, self.tolerance(level), self.block)
            for level in LEVELS
            if any(baseline.counts[:, self.layout.place(channel.name)].sum() >= FEWEST_TEXTS for channel in self.layout.at(level))
        }

    def accept(self, note: str) -> Baseline:
        """Take what was counted since the last alarm, or else since the last baseline, as normal; the note is kept.

        Raises `BaselineError` if that is fewer than 200 texts. The fewer they are, the less can be noticed afterwards.
        """
        if self.present.texts < FEWEST_TEXTS:
            raise BaselineError(f"{self.present.texts} texts since the last alarm or baseline; a baseline needs {FEWEST_TEXTS}")
        earlier = self.baseline.notes if self.baseline else ()
        accepted = replace(self.present, notes=(*earlier, note))
        self.use(accepted)
        return accepted

    def advance(self, counts: Counts, stratum: int = 0) -> None:
        """Take in the counts of a block, shape [width].

        Raises `BaselineError`, and changes nothing, for a stratum that there is not.
        """
        before = {name for name, level in self._levels.items() if level.state is State.DRIFT}
        self.present = self.present + learn(self.layout, [(stratum, counts)], self.present.strata)
        for level in self._levels.values():
            level.advance(counts, stratum)
        self.block += 1
        if {name for name, level in self._levels.items() if level.state is State.DRIFT} - before:
            self.present = learn(self.layout, [], self.present.strata)
        texts, blocks = self._learn
        if self.baseline is None and self.present.texts >= texts and self.present.blocks >= blocks:
            self.accept(f"learned from the first {self.present.blocks} blocks")

    def verdicts(self) -> dict[LevelName, Verdict]:
        """Each level's verdict at present; `since` counts this monitor's blocks."""
        learning = {level: Verdict(level, State.LEARNING, 0.0) for level in LEVELS}
        return learning | {level: mine.verdict() for level, mine in self._levels.items()}

    def standing(self) -> dict[LevelName, tuple[State, float]]:
        """Each level's state and evidence at present: what verdicts say, without the reasons, which take longer to find."""
        learning = dict.fromkeys(LEVELS, (State.LEARNING, 0.0))
        return learning | {level: (mine.state, mine.evidence()) for level, mine in self._levels.items()}

    def save(self) -> dict[str, Any]:
        """All state as plain values, for a file."""
        return {
            "block": self.block,
            "present": self.present.to_json(),
            "baseline": self.baseline.to_json() if self.baseline else None,
            "levels": {name: level.save() for name, level in self._levels.items()},
        }

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go on from what `save` gave.

        Raises `BaselineError`, and changes nothing, if it is of other channels, or nothing of the kind.
        """
        try:
            present = Baseline.from_json(saved["present"])
            other = Monitor(self.layout, promise=self.promise, strata=present.strata, tolerance=self._tolerance)
            if saved["baseline"]:
                other.use(Baseline.from_json(saved["baseline"]))
            other.block, other.present = int(saved["block"]), other.present + present
            for name, level in other._levels.items():
                level.restore(saved["levels"][name])
        except BaselineError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BaselineError(f"not a monitor's state: {error!r}") from error
        self.block, self.present, self.baseline, self._levels = other.block, other.present, other.baseline, other._levels
