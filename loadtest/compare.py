"""Two results side by side, and whether the second is worse by more than noise.

A figure of one run is one number, and the next run of the same server has another. How far apart two such numbers may be by
chance is taken from the ten stretches of the runs, by two textbook methods (A. M. Law, Simulation Modeling and Analysis, the
chapters on output analysis and on comparing systems). Batch means: neighbouring requests share a queue and so are no independent
samples, but long stretches nearly are. The paired-t interval: stretch i of both runs was the same part of the same plan, so that
what differs between stretches by design cancels out. The band is the half-width of the 95 % interval of the mean logarithm of the
stretches' ratios; a change of the whole run's figure within it is noise.

That holds for a figure that rests on all ten stretches alike. Three kinds do not, and get a wider band:

- In a burst or a ramp, a percentile of the run rests on the few stretches with about its latency. Only these are averaged over.
- A percentile may even hang between its stretches, half of them far below and half far above. A few requests more on one side move
  it far, so the band reaches to the second nearest stretch at least.
- A maximum, or a p99.9 of few requests, rests on single requests. Nothing is averaged over.

The band knows what varies within the runs. What varies between them, another machine or a warmer one, it does not: repeat a run
before you believe it. Shares of failed requests have no stretches; they are compared by the two-proportion z-test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from loadtest.results import STAGES, Result

# Student's t, two-sided 95 %, by degrees of freedom; with more than these the last is a little too careful.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
_Z = 1.96
STRETCHES = 10
# The share of the requests that are slower than a figure, and with how few of them in a stretch it rests on single requests.
_SLOWER = {"p50": 0.5, "p90": 0.1, "p95": 0.05, "p99": 0.01, "p999": 0.001, "max": 0.0, "mean": 1.0}
_FEW = 5
# A stretch has about the latency of the run if within a quarter.
_NEAR = math.log(1.25)

Outcome = Literal["same", "noise", "better", "worse", "regression", "unknown", "shown", ""]


@dataclass(frozen=True)
class Bounds:
    """How much worse the second run may be: rises and the drop in percent, failures in percentage points of all requests."""

    p50_rise: float
    p99_rise: float
    rate_drop: float
    failed_rise: float


@dataclass(frozen=True)
class Figure:
    """One figure of both runs.

    `change` and `noise` are in percent of the first, or in percentage points where the figure is itself a share (`points`); None
    where they are not to be known. `bound` is the change beyond which it is a regression: above zero a rise, below a drop; None for
    a figure that is only shown.
    """

    name: str
    unit: str
    a: float | None
    b: float | None
    change: float | None
    noise: float | None
    bound: float | None = None
    points: bool = False
    more_is_better: bool = False

    @property
    def outcome(self) -> Outcome:
        """What the change means.

        "" for a figure that neither run has, "unknown" for one that only one of them has, "shown" for one without noise and bound,
        of which nobody can tell.
        """
        if self.change is None:
            return self._without_change()
        if self.change == 0:
            return "same"
        if self.noise is None and self.bound is None:
            return "shown"
        if self.noise is not None and abs(self.change) <= self._noise_this_way(self.change):
            return "noise"
        if (self.change > 0) == self.more_is_better:
            return "better"
        return "regression" if self.bound is not None and abs(self.change) > abs(self.bound) else "worse"

    def _without_change(self) -> Outcome:
        if self.a is None and self.b is None:
            return ""
        if self.b is None and self.bound is not None:
            return "regression"
        return "same" if self.a == self.b else "unknown"

    def _noise_this_way(self, change: float) -> float:
        """A ratio of 2 is as far from 1 as one of a half is: a rise of 100 % answers to a drop of 50 %."""
        assert self.noise is not None
        return self.noise if change > 0 or self.points else 100 * self.noise / (100 + self.noise)


@dataclass(frozen=True)
class Comparison:
    """`differences` are circumstances in which the runs differ, each with a name and both values."""

    figures: list[Figure]
    differences: list[tuple[str, str, str]]
    warnings: list[str]

    @property
    def regressions(self) -> list[Figure]:
        """The figures that are worse by more than noise and by more than their bound."""
        return [figure for figure in self.figures if figure.outcome == "regression"]


def compare(a: Result, b: Result, bounds: Bounds) -> Comparison:
    """What changed from the first run to the second."""
    if a.scenario != b.scenario:
        # Their stretches are parts of different plans, which nobody can pair.
        a, b = (run.model_copy(update={"stretches": [], "series": []}) for run in (a, b))
    figures = [
        _rate(a, b, -bounds.rate_drop),
        *(_latency(name, field, a, b, bound) for name, field, bound in _latencies(bounds)),
        *_failures(a, b, bounds.failed_rise),
        *_stages(a, b),
        *_resources(a, b),
    ]
    return Comparison([figure for figure in figures if figure.outcome], _differences(a, b), _warnings(a, b))


def _latencies(bounds: Bounds) -> list[tuple[str, str, float | None]]:
    """Names, fields and bounds."""
    free = [(name, name, None) for name in ("p90", "p95")]
    return [
        ("p50", "p50", bounds.p50_rise),
        *free,
        ("p99", "p99", bounds.p99_rise),
        ("p99.9", "p999", None),
        ("max", "max", None),
        ("mean", "mean", None),
    ]


def _rate(a: Result, b: Result, bound: float) -> Figure:
    noise = noise_band(_of_stretches(a, "count"), _of_stretches(b, "count"))
    change = _change(a.achieved_rate, b.achieved_rate)
    return Figure("answered", "/s", a.achieved_rate, b.achieved_rate, change, noise, bound, more_is_better=True)


def _latency(name: str, field: str, a: Result, b: Result, bound: float | None) -> Figure:
    before, after = (None if run.latency is None else float(getattr(run.latency, field)) for run in (a, b))
    return Figure(name, "ms", before, after, _change(before, after), _latency_noise(field, a, b, before, after), bound)


def _failures(a: Result, b: Result, bound: float) -> list[Figure]:
    """All failures together, which are judged, and each kind of them and of what the scenario expects."""
    kinds = [
        (f"{title}: {name}", before.get(name, 0), after.get(name, 0))
        for title, before, after in (("failed", a.errors, b.errors), ("expected", a.expected, b.expected))
        for name in sorted({*before, *after})
    ]
    return [
        _share("failed", sum(a.errors.values()), sum(b.errors.values()), a, b, bound),
        *(_share(name, before, after, a, b, None) for name, before, after in kinds),
    ]


def _share(name: str, before: int, after: int, a: Result, b: Result, bound: float | None) -> Figure:
    if not (a.requests and b.requests):
        return Figure(name, "%", None, None, None, None)
    first, second = before / a.requests, after / b.requests
    pooled = (before + after) / (a.requests + b.requests)
    noise = _Z * math.sqrt(pooled * (1 - pooled) * (1 / a.requests + 1 / b.requests))
    return Figure(name, "%", 100 * first, 100 * second, 100 * (second - first), 100 * noise, bound, points=True)


def _stages(a: Result, b: Result) -> list[Figure]:
    return [
        Figure(f"{stage} {field}", "ms", before, after, _change(before, after), None)
        for stage in (*STAGES, *sorted({*a.stages, *b.stages}.difference(STAGES)))
        for field in ("mean", "p99")
        for before, after in [tuple(getattr(run.stages[stage], field) if stage in run.stages else None for run in (a, b))]
    ]


def _resources(a: Result, b: Result) -> list[Figure]:
    cost, growth = (_cost(a), _cost(b)), (_growth(a), _growth(b))
    grown = None if growth[0] is None or growth[1] is None else growth[1] - growth[0]
    return [
        _from_series("server CPU", "cores", "server_cpu", a, b, a.server_cpu, b.server_cpu),
        Figure("server CPU an answer", "ms", cost[0], cost[1], _change(*cost), None),
        _from_series("generator CPU", "cores", "client_cpu", a, b, a.client_cpu, b.client_cpu),
        _from_series("memory at most", "MB", "server_rss", a, b, a.server_rss_peak, b.server_rss_peak),
        Figure("memory growth", "%", growth[0], growth[1], grown, None, points=True),
    ]


def _cost(run: Result) -> float | None:
    """Milliseconds of the server's CPU an answer."""
    return None if run.server_cpu is None or not run.achieved_rate else 1000 * run.server_cpu / run.achieved_rate


def _growth(run: Result) -> float | None:
    return _change(run.server_rss_begin, run.server_rss_end)


def _from_series(name: str, unit: str, field: str, a: Result, b: Result, before: float | None, after: float | None) -> Figure:
    noise = noise_band(_of_series(a, field), _of_series(b, field))
    return Figure(name, unit, before, after, _change(before, after), noise)


def _change(before: float | None, after: float | None) -> float | None:
    """In percent."""
    return None if not before or after is None else 100 * (after / before - 1)


# Noise


def noise_band(a: Sequence[float], b: Sequence[float], averaged: int = STRETCHES) -> float | None:
    """How far a figure rises by chance, in percent, by its values in the stretches of both runs; it rests on `averaged` of them.

    None where that cannot be said: fewer than two stretches, another number of them, or a value that has no logarithm.
    """
    if len(a) != len(b) or len(a) < 2 or min(*a, *b) <= 0:
        return None
    ratios = [math.log(after / before) for before, after in zip(a, b, strict=True)]
    student = _T[min(len(ratios) - 1, len(_T)) - 1]
    return 100 * math.expm1(student * stdev(ratios) / math.sqrt(min(averaged, len(ratios))))


def _latency_noise(field: str, a: Result, b: Result, before: float | None, after: float | None) -> float | None:
    if not (before and after):
        return None
    stretches = _of_stretches(a, field), _of_stretches(b, field)
    near = [
        abs(math.log(first / before)) < _NEAR and abs(math.log(second / after)) < _NEAR
        for first, second in zip(*stretches, strict=False)
        if first > 0 and second > 0
    ]
    fewest = min((stretch.count for stretch in (*a.stretches, *b.stretches)), default=0)
    single = fewest * _SLOWER[field] < _FEW
    band = noise_band(*stretches, averaged=1 if single else max(1, sum(near)))
    if band is None:
        return None
    return max(band, *(_second_nearest(figure, values) for figure, values in zip((before, after), stretches, strict=True)))


def _second_nearest(figure: float, values: Sequence[float]) -> float:
    """How far that one of the stretches is, in percent."""
    return 100 * math.expm1(sorted(abs(math.log(value / figure)) for value in values)[1])


def _of_stretches(run: Result, field: str) -> list[float]:
    return [float(getattr(stretch, field)) for stretch in run.stretches]


def _of_series(run: Result, field: str) -> list[float]:
    """The means of ten stretches of the run's seconds; none where nothing is known of one of them."""
    seconds = run.series[: int(run.seconds)]
    parts = [seconds[len(seconds) * part // STRETCHES : len(seconds) * (part + 1) // STRETCHES] for part in range(STRETCHES)]
    known = [[value for second in part if (value := getattr(second, field)) is not None] for part in parts]
    return [fmean(values) for values in known] if all(known) else []


# Circumstances


def _circumstances(run: Result) -> dict[str, str]:
    machine = run.machine
    return {
        "scenario": run.scenario,
        "generator": run.generator,
        "offered rate": f"{run.offered_rate:.1f}/s",
        "seconds": f"{run.seconds:g}",
        "seed": str(run.seed),
        "machine": f"{machine.processor}, {machine.cores} cores",
        "platform": f"Python {machine.python}, {machine.platform}",
        "server": run.target,
        "model": run.model,
        **run.server_settings,
    }


def _differences(a: Result, b: Result) -> list[tuple[str, str, str]]:
    before, after = _circumstances(a), _circumstances(b)
    found = [(name, before.get(name, "not set"), after.get(name, "not set")) for name in (*before, *(after.keys() - before.keys()))]
    return [(name, first, second) for name, first, second in found if first != second]


def _warnings(a: Result, b: Result) -> list[str]:
    found = []
    if a.generator != b.generator:
        found.append(f"made by different generators, {a.generator} and {b.generator}: some of the change may be theirs")
    if abs(b.offered_rate / a.offered_rate - 1) > 0.02 if a.offered_rate else b.offered_rate:
        found.append(f"offered {a.offered_rate:.1f}/s and {b.offered_rate:.1f}/s: another load has other latencies")
    if a.machine != b.machine:
        found.append("made on different machines, or by different software on it")
    if len(a.stretches) != len(b.stretches) or len(a.stretches) < 2:
        found.append("the runs' stretches cannot be paired: there is no noise band, and the bounds alone decide")
    return found
