"""A machine as the simulation sees it, from measured costs, and what it predicts.

- A pass takes what passes take in this process, alone (`models.making.pass_times`).
- The event loop takes some seconds for each request and some for each pass: the straight line through its CPU time a request over
  passes a request, at a light load and at the highest rate, whose batches are of different sizes.
- The client takes CPU time on the same cores. For machines to buy, it is left out.
- A pass holds its worker for longer than it works: threads are woken, and wait for the interpreter and for a core. By how much is
  what passes take by the server's clock at a light load, beyond the simulated ones.
- How much slower everything is while all cores are busy: as much as makes the simulated median at the highest rate the measured
  one. Caches and memory that are shared are in this, and what costs time without being anybody's work: switching between threads.
- What p50 and p99 are beyond the simulated ones at a light load is added at all loads.

So the model is fixed at both ends. The points between them, by which it is judged, have no part in it. They are simulated with the
very moments and texts that were sent, so that chance plays the same game in both.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Final

from batching import BatchPolicy
from batching.simulation import Item, Machine, Pass, PassSeconds, simulate
from capacity.load import Costs, Step, percentile
from capacity.search import search
from loadtest.arrivals import Pace, poisson

# A rate is tried for so many seconds, but no more texts than that; the first share, while the queue fills, does not count.
SECONDS: Final = 12.0
MOST_TEXTS: Final = 6_000
FILLING_SHARE: Final = 0.2
TOLERANCE: Final = 0.03
SEED: Final = 1
MOST_SLOWDOWN: Final = 2.0
HALVINGS: Final = 8
# Passes a request that differ by less determine no line.
LEAST_RANGE: Final = 0.1


@dataclass(frozen=True, slots=True)
class Simulated:
    """Of a rate: p50 and p99 in seconds, and the share of time in which the event loop was busy."""

    p50: float
    p99: float
    loop: float


@dataclass(frozen=True, slots=True)
class Model:
    """One machine with one server. `lengths` are those of the texts by their index, in tokens.

    `p50_rest` and `p99_rest` are the seconds by which latencies are longer than the work explains.
    """

    machine: Machine
    policy: BatchPolicy
    pass_seconds: PassSeconds
    lengths: Sequence[int]
    p50_rest: float = 0.0
    p99_rest: float = 0.0

    def replay(self, step: Step) -> Simulated:
        """What a step should have been like."""
        return self._simulated(step.moments, step.texts, 0.0)

    def pass_wait(self, step: Step, costs: Costs) -> float:
        """By how many seconds a pass of a step took longer than it should have, on average; 0 at least."""
        _, passes = self._run(step.moments, step.texts)
        measured = costs.pass_seconds * len(step.texts)
        return max(0.0, (measured - sum(one.ended - one.started for one in passes)) / len(passes))

    def offer(self, rate: float) -> Simulated:
        """What a rate is like in the long run."""
        seconds = min(SECONDS, MOST_TEXTS / rate)
        moments = list(poisson([Pace("", seconds, rate)], SEED)) or [0.0]
        texts = list(islice(cycle(range(len(self.lengths))), len(moments)))
        return self._simulated(moments, texts, FILLING_SHARE)

    def highest_rate(self, bound: float, guess: float) -> float | None:
        """The highest rate with p99 within so many seconds; None where even very low ones are over it."""
        return search(lambda rate: self.offer(rate).p99 <= bound, guess, tolerance=TOLERANCE, agreeing=1).confirmed

    def with_cores(self, cores: int) -> Model:
        """The same server on so many cores like these, a worker on each, and the client elsewhere."""
        machine = replace(self.machine, cores=cores, client_item=0.0)
        return replace(self, machine=machine, policy=replace(self.policy, workers=cores))

    def _simulated(self, moments: Sequence[float], texts: Sequence[int], filling: float) -> Simulated:
        items, passes = self._run(moments, texts)
        latencies = sorted(item.latency for item in items[int(len(items) * filling) :])
        busy = len(items) * self.machine.loop_item + len(passes) * self.machine.loop_pass
        return Simulated(
            percentile(latencies, 50) + self.p50_rest,
            percentile(latencies, 99) + self.p99_rest,
            busy / max(one.ended for one in passes),
        )

    def _run(self, moments: Sequence[float], texts: Sequence[int]) -> tuple[list[Item], list[Pass]]:
        items = [Item(self.lengths[text], moment) for moment, text in zip(moments, texts, strict=True)]
        return items, simulate(items, self.policy, self.pass_seconds, self.machine)


def calibrated(
    pass_seconds: PassSeconds, policy: BatchPolicy, lengths: Sequence[int], cores: int, light: Sequence[Step], full: Sequence[Step]
) -> Model:
    """The model of this machine, by steps of a light load and of the highest rate, all with their costs known."""
    least, most = 1.0, MOST_SLOWDOWN
    for _ in range(HALVINGS):
        slowdown = (least + most) / 2
        model = _slowed(slowdown, pass_seconds, policy, lengths, cores, light, full)
        if statistics.median(model.replay(step).p50 - step.p50 for step in full) < 0:
            least = slowdown
        else:
            most = slowdown
    return _slowed(least, pass_seconds, policy, lengths, cores, light, full)


def _slowed(
    slowdown: float,
    pass_seconds: PassSeconds,
    policy: BatchPolicy,
    lengths: Sequence[int],
    cores: int,
    light: Sequence[Step],
    full: Sequence[Step],
) -> Model:
    """The model with that slowdown. What was measured while all cores were busy is given as what it would be without."""
    quiet_costs = [step.costs for step in light if step.costs is not None]
    full_costs = [step.costs for step in full if step.costs is not None]
    loops = [(costs.passes, costs.loop) for costs in quiet_costs] + [(costs.passes, costs.loop / slowdown) for costs in full_costs]
    client = statistics.median(costs.client for costs in full_costs) / slowdown
    model = Model(Machine(cores, slowdown, *_line(loops), client), policy, pass_seconds, lengths)
    pass_wait = statistics.median(model.pass_wait(step, step.costs) for step in light if step.costs is not None)
    model = replace(model, machine=replace(model.machine, pass_wait=pass_wait))
    pairs = [(step, model.replay(step)) for step in light]
    return replace(
        model,
        p50_rest=max(0.0, statistics.median(step.p50 - simulated.p50 for step, simulated in pairs)),
        p99_rest=max(0.0, statistics.median(step.p99 - simulated.p99 for step, simulated in pairs)),
    )


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(intercept, slope) of the least squares; neither is below 0, and of points on a vertical the slope is 0."""
    x, y = zip(*points, strict=True)
    if max(x) - min(x) < LEAST_RANGE:
        return statistics.fmean(y), 0.0
    slope, intercept = statistics.linear_regression(x, y)
    return max(0.0, intercept), max(0.0, slope)
