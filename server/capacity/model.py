"""A machine as the simulation sees it, from measured costs, and what it predicts.

- A pass takes what passes take in this process, alone (`models.build.pass_times`).
- How much slower everything is while all cores are busy: the CPU time of the server's passes at saturation, over what they would
  have taken alone.
- The event loop takes some seconds for each request and some for each pass: the straight line through its CPU time a request over
  passes a request, at rates from light to saturated, whose batches are of different sizes.
- The client takes CPU time on the same cores. For machines to buy, it is left out.
- What is left of the latencies at a light load, the kernel's and the interpreter's ways of switching between threads above all, is
  added to each answer, drawn at random.

The points by which the model is judged have no part in this. They are simulated with the very moments and texts that were sent, so
that chance plays the same game in both.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from typing import Final

from batching import BatchPolicy
from batching.simulation import Item, Machine, Pass, PassSeconds, simulate
from loadtest.arrivals import Pace, poisson
from server.capacity.load import Saturation, Step, percentile
from server.capacity.search import search

# How often each answer counts, each time with what is left drawn anew.
DRAWS: Final = 5
# A rate is tried for so many seconds, but no more texts than that; the first share, while the queue fills, does not count.
SECONDS: Final = 12.0
MOST_TEXTS: Final = 6_000
FILLING_SHARE: Final = 0.2
TOLERANCE: Final = 0.03
SEED: Final = 1
# Texts that are there from the start, to see what passes cost at saturation.
SATURATED_TEXTS: Final = 2_000
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
    """One machine with one server. `lengths` are those of the texts by their index, in tokens; `rests` are seconds."""

    machine: Machine
    policy: BatchPolicy
    pass_seconds: PassSeconds
    lengths: Sequence[int]
    rests: Sequence[float] = (0.0,)

    def replay(self, steps: Sequence[Step]) -> Simulated:
        """What these steps, together, should have been like."""
        return self._judged([self._run(step.moments, step.texts) for step in steps], 0.0)

    def offer(self, rate: float) -> Simulated:
        """What a rate is like in the long run."""
        seconds = min(SECONDS, MOST_TEXTS / rate)
        moments = list(poisson([Pace("", seconds, rate)], SEED)) or [0.0]
        texts = list(islice(cycle(range(len(self.lengths))), len(moments)))
        return self._judged([self._run(moments, texts)], FILLING_SHARE)

    def highest_rate(self, bound: float, guess: float) -> float | None:
        """The highest rate with p99 within so many seconds; None where even very low ones are over it."""
        return search(lambda rate: self.offer(rate).p99 <= bound, guess, tolerance=TOLERANCE, agreeing=1).confirmed

    def with_cores(self, cores: int) -> Model:
        """The same server on so many cores like these, a worker on each, and the client elsewhere."""
        machine = replace(self.machine, cores=cores, client_item=0.0)
        return replace(self, machine=machine, policy=replace(self.policy, workers=cores))

    def left_over(self, steps: Iterable[Step]) -> list[float]:
        """What each latency in these steps was beyond the simulated one, in seconds; those of failed requests are left out."""
        rests: list[float] = []
        for step in steps:
            items, _ = self._run(step.moments, step.texts)
            found = (latency - item.latency for latency, item in zip(step.latencies, items, strict=True))
            rests += filter(math.isfinite, found)
        return rests

    def _run(self, moments: Sequence[float], texts: Sequence[int]) -> tuple[list[Item], list[Pass]]:
        items = [Item(self.lengths[text], moment) for moment, text in zip(moments, texts, strict=True)]
        return items, simulate(items, self.policy, self.pass_seconds, self.machine)

    def _judged(self, runs: Sequence[tuple[list[Item], list[Pass]]], filling: float) -> Simulated:
        generator = random.Random(SEED)
        counted = [item.latency for items, _ in runs for item in items[int(len(items) * filling) :]]
        latencies = sorted(latency + rest for latency in counted for rest in generator.choices(self.rests, k=DRAWS))
        seconds = sum(max(one.ended for one in passes) for _, passes in runs)
        busy = sum(len(items) * self.machine.loop_item + len(passes) * self.machine.loop_pass for items, passes in runs)
        return Simulated(percentile(latencies, 50), percentile(latencies, 99), busy / seconds)


def calibrated(
    pass_seconds: PassSeconds,
    policy: BatchPolicy,
    lengths: Sequence[int],
    cores: int,
    light: Sequence[Step],
    busy: Sequence[Step],
    saturated: Sequence[Saturation],
) -> Model:
    """The model of this machine, by steps of light load, steps near the limit, and saturation, all with their costs known.

    Costs that were seen while the cores were busy are given as what they would be without.
    """
    full = [one.costs for one in saturated if one.costs is not None]
    alone = _saturated_passes(pass_seconds, policy, lengths)
    slowdown = max(1.0, statistics.fmean(costs.workers for costs in full) / alone)
    quiet_costs = [step.costs for step in light if step.costs is not None]
    busy_costs = [step.costs for step in busy if step.costs is not None and not step.given_up] + full
    loops = [(costs.passes, costs.loop) for costs in quiet_costs] + [(costs.passes, costs.loop / slowdown) for costs in busy_costs]
    loop_item, loop_pass = _line(loops)
    client = statistics.median(step.costs.client for step in busy if step.costs is not None and not step.given_up) / slowdown
    model = Model(Machine(cores, slowdown, loop_item, loop_pass, client), policy, pass_seconds, lengths)
    return replace(model, rests=model.left_over(light))


def _saturated_passes(pass_seconds: PassSeconds, policy: BatchPolicy, lengths: Sequence[int]) -> float:
    """Seconds of passes for each text, were they alone, in batches as they are when more texts are waiting than fit."""
    items = [Item(length, 0.0) for length in islice(cycle(lengths), SATURATED_TEXTS)]
    passes = simulate(items, replace(policy, max_queued=len(items), max_queued_cost=sum(item.cost for item in items)), pass_seconds)
    return sum(one.ended - one.started for one in passes) / len(items)


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """(intercept, slope) of the least squares; neither is below 0, and of points on a vertical the slope is 0."""
    x, y = zip(*points, strict=True)
    if max(x) - min(x) < LEAST_RANGE:
        return statistics.fmean(y), 0.0
    slope, intercept = statistics.linear_regression(x, y)
    return max(0.0, intercept), max(0.0, slope)
