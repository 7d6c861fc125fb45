"""A machine whose costs are known, and steps as the simulation has them."""

from __future__ import annotations

import random
from collections.abc import Sequence

from batching import BatchPolicy
from batching.simulation import Item, Machine, simulate
from capacity.load import Costs, Step
from capacity.model import Model


def by_tokens(lengths: Sequence[int]) -> float:
    return 0.001 + 0.0001 * sum(lengths)


POLICY = BatchPolicy(max_items=8, max_cost=200, workers=2)
LENGTHS = [random.Random(1).randint(5, 60) for _ in range(500)]
MACHINE = Machine(cores=2, slowdown=1.2, loop_item=0.0005, loop_pass=0.0008, client_item=0.0003, pass_wait=0.002)
# A rate that keeps that machine busy.
FULL = 560.0
MODEL = Model(MACHINE, POLICY, by_tokens, LENGTHS)


def step_of(rate: float, seconds: float, rest: float = 0.0, seed: int = 1) -> Step:
    """A step on the machine as the simulation has it, with its costs, and a rest that is in no cost."""
    generator, moment, moments = random.Random(seed), 0.0, list[float]()
    while (moment := moment + generator.expovariate(rate)) < seconds:
        moments.append(moment)
    texts = [index % len(LENGTHS) for index in range(len(moments))]
    items = [Item(LENGTHS[text], at) for text, at in zip(texts, moments, strict=True)]
    done = simulate(items, POLICY, by_tokens, MACHINE)
    passes, pass_seconds = len(done) / len(items), sum(one.ended - one.started for one in done) / len(items)
    slowdown = 1.0 if rate < 50 else MACHINE.slowdown
    costs = Costs(slowdown * (0.0005 + 0.0008 * passes), 0.0, slowdown * 0.0003, passes, pass_seconds, others=0.0)
    return Step(rate, moments, texts, [item.latency + rest for item in items], given_up=False, costs=costs)
