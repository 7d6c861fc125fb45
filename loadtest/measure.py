"""From the samples of a run to its result.

Latency counts from the intended start of a request, and is that of the answers as they should be: status 200, nothing wrong in
them. What went otherwise is counted, and its time is not mixed in, because a refusal in a millisecond would make a server look
fast; only `groups` has a row for each other status, by which one can see that refusals are quick and deadlines are kept.

Requests belong to the second, the phase and the stretch in which they were to start; answers, as a rate, to when they came.
"""

from __future__ import annotations

import datetime as dt
import math
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]
from numpy.typing import NDArray

from loadtest.answers import OK, Reference
from loadtest.arrivals import Pace
from loadtest.monitor import Reading
from loadtest.results import Machine, Percentiles, Phase, Result, Second
from loadtest.samples import Sample
from loadtest.scenarios import Generator, Scenario
from loadtest.scrape import Snapshot, batches_between
from machine.cores import usable_cores

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
# Moments, in seconds from the beginning, and the CPU seconds used by then.
Progress = tuple[list[float], list[float]]

HERE = "started here"  # as a target: a server that the run itself started
ALL = "all"  # as a group: all good answers
STRETCHES = 10
SHARES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0, "p999": 99.9}
HIGHEST_MICROSECONDS = 600_000_000
SIGNIFICANT_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Run:
    """All that is known of a run. `begin` is its moment of `time.perf_counter`; `target` says which server it was."""

    scenario: Scenario
    generator: Generator
    seed: int
    started: dt.datetime
    target: str
    server_settings: Mapping[str, str]
    reference: Reference
    paces: Sequence[Pace]
    begin: float
    samples: Sequence[Sample]
    readings: Sequence[Reading]
    before: Snapshot | None
    after: Snapshot | None


class Columns:
    """The samples by column; times are in seconds from the beginning of the run."""

    def __init__(self, samples: Sequence[Sample], begin: float, expected: frozenset[str]) -> None:
        self.intended = np.array([sample.intended for sample in samples], dtype=float) - begin
        self.sent = np.array([sample.sent for sample in samples], dtype=float) - begin
        self.answered = np.array([sample.answered for sample in samples], dtype=float) - begin
        self.outcome = np.array([sample.outcome for sample in samples], dtype=object)
        self.group = np.array([sample.group for sample in samples], dtype=object)
        self.good: Mask = self.outcome == OK
        self.failed: Mask = ~(self.good | np.isin(self.outcome, sorted(expected)))
        self.latency = (self.answered - self.intended) * 1000
        self.stages = {
            "tokenize": _column([sample.tokenize_ms for sample in samples]),
            "queue": _column([sample.queue_ms for sample in samples]),
            "inference": _column([sample.inference_ms for sample in samples]),
        }
        self.stages["rest"] = self.latency - sum(self.stages.values())

    def starting(self, begin: float, end: float) -> Mask:
        """Those that were to start in a stretch of time."""
        return (self.intended >= begin) & (self.intended < end)

    def good_rate(self, begin: float, end: float) -> float:
        """Good answers a second that came in a stretch of time."""
        return float(np.count_nonzero(self.good & (self.answered >= begin) & (self.answered < end))) / (end - begin)


def summarize(run: Run) -> Result:
    """The result, without gates."""
    columns = Columns(run.samples, run.begin, run.scenario.expected)
    seconds = sum(pace.seconds for pace in run.paces)
    outcomes = Counter(sample.outcome for sample in run.samples)
    good = columns.good
    groups = _groups(columns)
    edges = np.linspace(0, seconds, STRETCHES + 1)
    parts = [columns.starting(*pair) for pair in pairwise(edges)]
    stretches = [percentiles(columns.latency[good & part]) for part in parts]
    rss = [reading.server_rss / 1e6 for reading in run.readings if reading.server_rss is not None]
    return Result(
        scenario=run.scenario.name,
        description=run.scenario.description,
        generator=run.generator,
        started=run.started.isoformat(timespec="seconds"),
        seed=run.seed,
        machine=this_machine(),
        target=run.target,
        model=run.reference.model,
        server_settings=dict(run.server_settings),
        seconds=seconds,
        offered_rate=len(run.samples) / seconds,
        achieved_rate=columns.good_rate(0, seconds),
        requests=len(run.samples),
        texts=sum(sample.texts for sample in run.samples),
        errors={name: number for name, number in outcomes.items() if name != OK and name not in run.scenario.expected},
        expected={name: number for name, number in outcomes.items() if name in run.scenario.expected},
        latency=percentiles(columns.latency[good]),
        service_time=percentiles((columns.answered - columns.sent)[good] * 1000),
        histogram=str(recorded(columns.latency[good]).encode(), "ascii"),
        stretches=[stretch for stretch in stretches if stretch is not None],
        stages=_split(columns),
        groups={name: found for name, mask in groups.items() if (found := percentiles(columns.latency[mask])) is not None},
        series=_series(columns, run, seconds),
        phases=_phases(columns, run.paces),
        batches=batches_between(run.before, run.after),
        server_cpu=mean_cpu(_used(run, "server_cpu"), seconds),
        client_cpu=mean_cpu(_used(run, "client_cpu"), seconds) or 0.0,
        server_rss_begin=rss[0] if rss else None,
        server_rss_end=rss[-1] if rss else None,
        server_rss_peak=max(rss, default=None),
        lateness=percentiles((columns.sent - columns.intended) * 1000),
        pass_ms=run.reference.pass_ms,
        gates=[],
        typical_p99={name: _typical_p99(columns, mask, parts) for name, mask in ({ALL: good} | groups).items() if mask.any()},
        other_cpu=_other_cpu(run, seconds),
        noticed_after=_noticed_after(run),
    )


def _noticed_after(run: Run) -> float | None:
    if run.scenario.later is None:
        return None
    noticed = next((reading.at for reading in run.readings if reading.drifting), None)
    return None if noticed is None else noticed - run.begin - sum(pace.seconds for pace in run.paces[:-1])


def recorded(milliseconds: Floats) -> HdrHistogram:
    """An HDR histogram of microseconds: 1 to ten minutes, three digits."""
    histogram = HdrHistogram(1, HIGHEST_MICROSECONDS, SIGNIFICANT_DIGITS)
    values, counts = np.unique(np.clip(np.rint(milliseconds * 1000), 1, HIGHEST_MICROSECONDS), return_counts=True)
    for value, number in zip(values.tolist(), counts.tolist(), strict=True):
        histogram.record_value(int(value), number)
    return histogram


def percentiles(milliseconds: Floats) -> Percentiles | None:
    """Of an HDR histogram of the values; None if there are none."""
    if not len(milliseconds):
        return None
    found = recorded(milliseconds).get_percentile_to_value_dict(list(SHARES.values()))
    named = {name: found[share] / 1000 for name, share in SHARES.items()}
    highest = float(milliseconds.max())
    # The histogram's values stand for the end of their bucket, which may lie beyond the true maximum.
    bounded = {name: min(value, highest) for name, value in named.items()}
    return Percentiles(count=len(milliseconds), mean=float(milliseconds.mean()), max=highest, **bounded)


def cpu_by_second(used: Progress, seconds: int) -> list[float | None]:
    """Cores used in each second; None where the readings do not reach."""
    if not used[0]:
        return [None] * seconds
    spent = np.diff(np.interp(np.arange(seconds + 1), *used, left=math.nan, right=math.nan))
    return [None if math.isnan(cores) else cores for cores in spent.tolist()]


def mean_cpu(used: Progress, seconds: float) -> float | None:
    """Cores used from the beginning to the end, or to the last reading: a generator is gone with the last answer."""
    if not used[0] or (end := min(seconds, used[0][-1])) <= 0:
        return None
    first, last = np.interp([0.0, end], *used).tolist()
    return float(last - first) / end


def this_machine() -> Machine:
    """Where this process runs."""
    names = [line.partition(":")[2].strip() for line in _cpu_lines() if line.startswith("model name")]
    return Machine(
        processor=names[0] if names else platform.processor() or platform.machine(),
        cores=usable_cores(),
        python=platform.python_version(),
        platform=platform.platform(),
    )


def _cpu_lines() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _column(values: Sequence[float | None]) -> Floats:
    return np.array([math.nan if value is None else value for value in values], dtype=float)


def _split(columns: Columns) -> dict[str, Percentiles]:
    """Where the time of good answers went, as far as the server tells."""
    told = {name: values[columns.good & ~np.isnan(values)] for name, values in columns.stages.items()}
    return {name: found for name, values in told.items() if (found := percentiles(values)) is not None}


def _groups(columns: Columns) -> dict[str, Mask]:
    """The good answers by class of request; and by status, where there are several, all answers of each."""
    good = columns.good
    masks = {group: good & (columns.group == group) for group in sorted(set(columns.group) - {""})}
    statuses = sorted({outcome for outcome in columns.outcome if outcome.isdigit()})
    if statuses:
        masks |= {"200": good} | {status: columns.outcome == status for status in statuses}
    return masks


def _typical_p99(columns: Columns, mask: Mask, parts: Sequence[Mask]) -> float:
    found = [columns.latency[mask & part] for part in parts]
    return float(np.median([np.percentile(latency, 99) for latency in found if len(latency)]))


def _phases(columns: Columns, paces: Sequence[Pace]) -> list[Phase]:
    begins = np.cumsum([0.0, *(pace.seconds for pace in paces)]).tolist()
    return [_phase(columns, pace, begin) for pace, begin in zip(paces, begins, strict=False)]


def _phase(columns: Columns, pace: Pace, begin: float) -> Phase:
    end = begin + pace.seconds
    inside = columns.starting(begin, end)
    return Phase(
        name=pace.name,
        begin=begin,
        seconds=pace.seconds,
        offered_rate=float(np.count_nonzero(inside)) / pace.seconds,
        achieved_rate=columns.good_rate(begin, end),
        failed=int(np.count_nonzero(inside & columns.failed)),
        latency=percentiles(columns.latency[inside & columns.good]),
    )


def _used(run: Run, name: Literal["server_cpu", "client_cpu", "machine_cpu"]) -> Progress:
    read = [(reading.at - run.begin, used) for reading in run.readings if (used := getattr(reading, name)) is not None]
    return [at for at, _ in read], [used for _, used in read]


def _other_cpu(run: Run, seconds: float) -> float | None:
    """Cores that neither the server nor the generator used; None if the server is not a process of this machine."""
    used = [mean_cpu(_used(run, name), seconds) for name in ("machine_cpu", "server_cpu", "client_cpu")]
    if run.target != HERE or any(cores is None for cores in used):
        return None
    machine, *ours = (cores or 0.0 for cores in used)
    return max(0.0, machine - sum(ours))


def _series(columns: Columns, run: Run, seconds: float) -> list[Second]:
    """Second by second, to the last answer."""
    count = math.ceil(max(seconds, float(columns.answered.max(initial=0.0))))
    offered, answered, failed = (
        np.histogram(times, range(count + 1))[0].tolist()
        for times in (columns.intended, columns.answered[columns.good], columns.intended[columns.failed])
    )
    server, client = (cpu_by_second(_used(run, name), count) for name in ("server_cpu", "client_cpu"))
    rss = {math.floor(reading.at - run.begin): reading.server_rss for reading in run.readings if reading.server_rss is not None}
    queued = {math.floor(reading.at - run.begin): reading.queued for reading in run.readings if reading.queued is not None}
    latency = _by_second(columns, count)
    return [
        Second(
            at=at,
            offered=offered[at],
            answered=answered[at],
            failed=failed[at],
            **latency[at],
            server_cpu=server[at],
            client_cpu=client[at],
            server_rss=rss[at] / 1e6 if at in rss else None,
            queued=round(queued[at]) if at in queued else None,
        )
        for at in range(count)
    ]


def _by_second(columns: Columns, seconds: int) -> list[dict[str, float]]:
    """p50, p99 and the maximum of the good answers to what was to start in each second; nothing where there are none."""
    latency, second = columns.latency[columns.good], np.floor(columns.intended[columns.good]).astype(int)
    order = np.argsort(second, kind="stable")
    parts = np.split(latency[order], np.searchsorted(second[order], np.arange(1, seconds)))
    return [
        dict(zip(("p50", "p99", "max"), np.percentile(part, [50, 99, 100]).tolist(), strict=True)) if len(part) else {}
        for part in parts
    ]
