"""What drift detection would do on an operator's own traffic: false alarms if nothing changes, delays if texts are mixed in.

A stream is the log's hours in another order, each replayed minute by minute, and none twice: whatever a few texts have by chance
would else come again and again, and be no chance any more. An hour keeps its place in the day, so that bursts, repeats and the
rhythm of the day stay as they are. Where the log has less than two days, any hour may follow any other.

Without a baseline, the hours are divided at random: one half makes the baseline, streams are drawn from the other, and that several
times, since one division may be lucky. A stream is never compared with a baseline of its own texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from drift import Baseline, Counts, Layout, LevelName, Monitor, Promise, State
from drift.channels import Bins
from drift.detector import Detector, advance

HOUR: Final = 3600
DAY: Final = 24 * HOUR
DIVISIONS: Final = 8
LEAST_HOURS: Final = 4

Array = npt.NDArray[np.float64]


class TooShortError(ValueError):
    """Raised for a log that has too little to be divided."""


@dataclass(frozen=True)
class Delays:
    """Of each stream, the minutes and the texts until a level's first alarm; infinite where there was none."""

    minutes: Array
    texts: Array

    @property
    def alarms(self) -> int:
        """Streams with an alarm."""
        return int(np.isfinite(self.minutes).sum())


class Traffic:
    """The counted texts of a log, by hour and block: bins, shape [texts, channels], at times, in seconds since 1970.

    `hours` are those with texts, since 1970; `blocks` is how many an hour has.
    """

    def __init__(self, layout: Layout, times: Array, bins: Bins, seconds: float) -> None:
        order = np.argsort(times, kind="stable")
        times, self.layout, self.seconds = times[order], layout, seconds
        self.bins = bins[order]
        self.texts = len(times)
        numbers = (times // seconds).astype(np.int64)
        self.blocks = round(HOUR / seconds)
        self.hours = np.unique((times // HOUR).astype(np.int64))
        # Where each block of each hour begins among the texts: [hours, blocks + 1].
        edges = self.hours[:, None] * self.blocks + np.arange(self.blocks + 1)
        self._edges = np.searchsorted(numbers, edges)
        self.strata = 24 if times[-1] - times[0] >= 2 * DAY else 1

    def knows(self, level: LevelName) -> bool:
        """Whether any text has a bin in a channel of this level."""
        numbers = [number for number, channel in enumerate(self.layout.channels) if channel.level == level]
        return bool((self.bins[:, numbers] >= 0).any())

    def stratum(self, hour: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Of hours."""
        return np.asarray(hour) % 24 * self.strata // 24

    def of_block(self, hour: int, block: int) -> slice:
        """The texts of a block; `hour` is a place in `hours`."""
        return slice(int(self._edges[hour, block]), int(self._edges[hour, block + 1]))

    def baseline(self, hours: Sequence[int]) -> Baseline:
        """What some of the hours, by their places, have counted."""
        counts = np.zeros((self.strata, self.layout.width), dtype=np.int64)
        for hour in hours:
            texts = slice(int(self._edges[hour, 0]), int(self._edges[hour, -1]))
            counts[self.stratum(self.hours[hour])] += self.layout.count_bins(self.bins[texts])
        return Baseline(self.layout, counts, ("hours of the log, drawn at random",), len(hours) * self.blocks)

    def divide(self, rng: np.random.Generator) -> tuple[list[int], list[int]]:
        """Two halves of the hours, each with half of those of each hour of the day."""
        halves: tuple[list[int], list[int]] = [], []
        strata = self.stratum(self.hours)
        for stratum in np.unique(strata):
            places = rng.permutation(np.flatnonzero(strata == stratum)).tolist()
            half = len(places) // 2 + int(len(places) % 2 and rng.integers(2))
            halves[0].extend(places[:half])
            halves[1].extend(places[half:])
        return halves


def simulate(
    traffic: Traffic,
    baseline: Baseline | None,
    promise: Promise,
    *,
    days: int,
    streams: int,
    mix: Bins | None = None,
    share: float = 0.0,
    seed: int = 0,
    on_hour: Callable[[], None] = lambda: None,
) -> dict[LevelName, Delays]:
    """Streams of so many days at most, with this share of texts replaced by those of `mix`: the first alarm of each level.

    `on_hour` is called after each hour of a division's streams, which are simulated side by side. Raises `TooShortError`.
    """
    if baseline is None and len(traffic.hours) < LEAST_HOURS:
        raise TooShortError(f"the log has texts in {len(traffic.hours)} hours; to divide it, {LEAST_HOURS} are needed")
    found: dict[LevelName, list[tuple[Array, Array]]] = {}
    for division in range(DIVISIONS):
        rng = np.random.default_rng((seed, division))
        if baseline is None:
            learned, replayed = traffic.divide(rng)
            compared = traffic.baseline(learned)
        else:
            compared, replayed = baseline, list(range(len(traffic.hours)))
        replay = _Replay(traffic, replayed, mix, share, rng)
        for level, delays in _first_alarms(replay, compared, promise, days, -(-streams // DIVISIONS), on_hour).items():
            found.setdefault(level, []).append(delays)
    return {
        level: Delays(*(np.concatenate([each[k] for each in parts]) for k in (0, 1)))
        for level, parts in found.items()
    }  # fmt: skip


@dataclass(frozen=True)
class _Replay:
    """Draws hours to replay, and gives their blocks."""

    traffic: Traffic
    hours: Sequence[int]
    mix: Bins | None
    share: float
    rng: np.random.Generator

    def counts(self, streams: int, days: int) -> Iterator[tuple[int, Counts]]:
        """The hour of the day of each block, and the counts of all streams, shape [streams, width]."""
        orders = [self._order(days) for _ in range(streams)]
        for number, chosen in enumerate(zip(*orders, strict=True)):
            for block in range(self.traffic.blocks):
                yield number % 24, np.stack([self._block(hour, block) for hour in chosen])

    def _order(self, days: int) -> list[int | None]:
        """Places of hours, each once, in a random order; None where there is no such hour of the day left."""
        if self.traffic.strata == 1:
            return list(self.rng.permutation(self.hours)[: days * 24].tolist())
        of_day = self.traffic.hours[list(self.hours)] % 24
        columns = [self.rng.permutation(np.array(self.hours)[of_day == hour]).tolist() for hour in range(24)]
        longest = min(days, max(map(len, columns)))
        return [column[day] if day < len(column) else None for day in range(longest) for column in columns]

    def _block(self, hour: int | None, block: int) -> Counts:
        if hour is None:
            return np.zeros(self.traffic.layout.width, dtype=np.int64)
        bins = self.traffic.bins[self.traffic.of_block(hour, block)]
        if self.mix is not None and len(bins):
            replaced = np.flatnonzero(self.rng.random(len(bins)) < self.share)
            bins = bins.copy()
            bins[replaced] = self.mix[self.rng.integers(len(self.mix), size=len(replaced))]
        return self.traffic.layout.count_bins(bins)


def _first_alarms(
    replay: _Replay, baseline: Baseline, promise: Promise, days: int, streams: int, on_hour: Callable[[], None]
) -> dict[LevelName, tuple[Array, Array]]:
    monitor = Monitor(baseline.layout, baseline, promise=promise)
    levels = [
        level for level, (state, _) in monitor.standing().items() if state is not State.LEARNING and replay.traffic.knows(level)
    ]
    detectors = [
        Detector(baseline, level, blocks=promise.blocks(promise.false_alarm_days), tolerance=monitor.tolerance(level))
        for level in levels
    ]
    log_ms = [np.full((streams, len(detector.ceilings)), -np.inf) for detector in detectors]
    minutes, texts = (np.full((len(levels), streams), np.inf) for _ in range(2))
    seen = np.zeros(streams)
    for number, (hour, counts) in enumerate(replay.counts(streams, days), start=1):
        seen += [baseline.layout.texts(each) for each in counts]
        stratum = hour * baseline.strata // 24
        for index, detector in enumerate(detectors):
            log_e = detector.experts.evidence(counts, stratum, detector.cap)
            log_ms[index] = np.minimum(advance(log_ms[index], log_e), detector.ceilings)
            alarms = (detector.experts.mean(log_ms[index]) >= detector.threshold) & np.isinf(minutes[index])
            minutes[index][alarms] = number * replay.traffic.seconds / 60
            texts[index][alarms] = seen[alarms]
        if number % replay.traffic.blocks == 0:
            on_hour()
            if np.isfinite(minutes).all():
                break
    return {level: (minutes[index], texts[index]) for index, level in enumerate(levels)}
