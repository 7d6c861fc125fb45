"""One process or several on a machine with many cores, in virtual time: when one loop is not enough, and what more queues cost.

    python -m benchmarks.processes                              # all tables, some minutes
    python -m benchmarks.processes --workload "MiniLM, mixed"   # those of one workload

A process has one event loop, one queue, and a worker for each core of its share. The loop has work to do for each request and each
pass, and one thread at a time holds Python's interpreter. So the loop bounds the rate of a process, however many cores there are.
Several processes have as many loops, but then a text waits in one of several queues, perhaps while a worker of another is free.

The queue is the real one. Passes take what was measured (`benchmarks/pass_times.json`), as if caches and memory were no slower with
more cores. Requests have one text each and arrive at random (Poisson). Clients and load balancers are on other machines.

A rate counts as carried if p99 is within the bound and does not grow: a run is too short for a slow backlog to get to the bound.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, product
from typing import Final

import numpy as np

from batching.balance import Balance, by_connection, in_turn, least_loaded
from batching.policy import BatchPolicy
from batching.simulation import Item, Machine, PassSeconds, simulate
from benchmarks.console import say
from benchmarks.simulation import PADDING_FREE, measured
from capacity.search import search
from machine.cores import usable_cores
from models.making.tune import ticket_lengths

# Seconds of an event loop for each request: as measured under load, and what it could be brought to.
LOOPS: Final[Mapping[str, float]] = {"today": 0.33e-3, "goal": 0.20e-3}
TODAY: Final = LOOPS["today"]
# Seconds for each pass that hold the interpreter: 0.1 ms of the loop itself, to hand the pass over and take it back, and the rest
# inside the pass, which was measured with it: index arrays before, probabilities after.
LOOP_PASS: Final = 0.3e-3
INSIDE_PASS: Final = 0.2e-3

# The server's limits, in each process.
POLICY: Final = BatchPolicy(max_items=32, max_cost=512, max_queued_cost=65_536)
BOUND: Final = 0.250
# A run has so many texts, or more, to last so many seconds. The first third, in which queues fill, does not count.
TEXTS: Final = 12_000
SECONDS: Final = 1.2
# Seconds of latency that a second may add from the second third to the last.
GROWTH: Final = 0.05
TOLERANCE: Final = 0.04
# A rate this near to that of one queue for all cores counts as the same.
ENOUGH: Final = 0.9
CORES: Final = (2, 4, 8, 16, 32, 64)
PROCESSES: Final = (1, 2, 4, 8, 16)
LOADS: Final = (0.5, 0.8)
# What is split, as (cores, processes); the connections over which requests come; how often these are assigned anew.
SPLITS: Final = ((8, 2), (16, 2), (16, 4), (32, 4), (32, 8), (64, 8), (64, 16))
BY_CONNECTION: Final = ((16, 2), (32, 4), (64, 8))
CONNECTIONS: Final = (512, 64, 16)
DRAWS: Final = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Workload:
    """Texts of some lengths, and a model that takes so many times MiniLM-L6's seconds for each token."""

    lengths: Callable[[int], Sequence[int]]
    factor: float = 1.0

    def pass_seconds(self, lengths: Sequence[int]) -> float:
        """Of a pass alone on a core, all of it."""
        start, one = _minilm()([]), _minilm()(lengths)
        return start + self.factor * (one - start)


@cache
def _minilm() -> PassSeconds:
    return measured()[PADDING_FREE]


def _short(count: int) -> list[int]:
    return [8] * count


# DistilBERT takes 2.9 times MiniLM's time for a ticket (docs/ladder.md, step 9); the last is for models that are slower still.
WORKLOADS: Final[Mapping[str, Workload]] = {
    "MiniLM, short": Workload(_short),
    "MiniLM, mixed": Workload(ticket_lengths),
    "DistilBERT, mixed": Workload(ticket_lengths, 3.0),
    "5 times MiniLM, mixed": Workload(ticket_lengths, 5.0),
}
# Whose queues are split in the tables.
SPLIT_WORKLOADS: Final = ("MiniLM, mixed", "DistilBERT, mixed")


@dataclass(frozen=True, slots=True)
class Host:
    """A machine with so many cores and processes, and event loops that take so many seconds for a request.

    With 0 processes, one queue feeds all cores and no loop is in the way: its seconds are spent in the passes instead. This is what
    splitting is compared with.
    """

    workload: Workload
    cores: int
    processes: int
    loop_item: float = TODAY

    @property
    def full_rate(self) -> float:
        """What the cores can do, loops included: texts a second."""
        return self.cores / (1 / _worker_rate(self.workload) + self.loop_item)

    @property
    def loops_rate(self) -> float:
        """What the loops can do at most: a loop that cannot keep up has a backlog, and so full batches."""
        return (self.processes or math.inf) / (self.loop_item + LOOP_PASS / POLICY.max_items)

    def run(self, rate: float, balance: Balance, seed: int = 1) -> Outcome:
        """Offer a rate."""
        number = int(max(TEXTS, SECONDS * rate))
        moments = np.random.default_rng(seed).exponential(1 / rate, number).cumsum().tolist()
        items = [Item(length, moment) for length, moment in zip(self.workload.lengths(number), moments, strict=True)]
        groups = max(1, self.processes)
        policy = replace(POLICY, workers=self.cores // groups)
        if self.processes:
            machine = Machine(self.cores, loop_item=self.loop_item, loop_pass=LOOP_PASS)
            passes = simulate(items, policy, self._pass_seconds, machine, groups=groups, balance=balance)
        else:
            passes = simulate(items, policy, self._pass_and_loop_seconds, Machine(self.cores))
        busy = [LOOP_PASS * sum(one.group == group for one in passes) for group in range(groups)]
        for one in passes:
            busy[one.group] += self.loop_item * len(one.items)
        seconds = max(one.ended for one in passes)
        return Outcome([item.latency for item in items], moments[-1], max(busy) / seconds)

    def highest_rate(self) -> float:
        """The highest rate that is carried, balanced by request; 0 if none."""
        guess = min(self.full_rate, self.loops_rate)
        return search(lambda rate: self.run(rate, in_turn()).is_carried, guess, tolerance=TOLERANCE, agreeing=1).confirmed or 0.0

    def _pass_seconds(self, lengths: Sequence[int]) -> float:
        return self.workload.pass_seconds(lengths) - INSIDE_PASS

    def _pass_and_loop_seconds(self, lengths: Sequence[int]) -> float:
        return self._pass_seconds(lengths) + LOOP_PASS + self.loop_item * len(lengths)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of texts by age, within so many seconds: their latencies, infinite if refused; how busy the busiest loop was."""

    latencies: Sequence[float]
    seconds: float
    loop: float

    @property
    def p99(self) -> float:
        """Seconds, once the queues have filled."""
        return _p99(self.latencies[len(self.latencies) // 3 :])

    @property
    def is_carried(self) -> bool:
        """Whether p99 is within the bound, and stays there."""
        third = len(self.latencies) // 3
        middle, last = _p99(self.latencies[third : 2 * third]), _p99(self.latencies[2 * third :])
        return self.p99 <= BOUND and last - middle <= GROWTH * self.seconds / 3


def _p99(latencies: Sequence[float]) -> float:
    return sorted(latencies)[int(0.99 * len(latencies))]


@cache
def _worker_rate(workload: Workload) -> float:
    """Texts a second of a worker with full batches."""
    lengths = workload.lengths(3_000)
    policy = replace(POLICY, workers=1, max_queued=len(lengths), max_queued_cost=sum(lengths))
    seconds: PassSeconds = lambda costs: workload.pass_seconds(costs) + LOOP_PASS - INSIDE_PASS  # noqa: E731
    passes = simulate([Item(length, 0.0) for length in lengths], policy, seconds)
    return len(lengths) / passes[-1].ended


def largest_share(connections: int, processes: int, draws: int = 1_000) -> float:
    """How many times its share the process with most connections gets, in the median of random assignments."""
    generator = random.Random(1)
    assigned = ([generator.randrange(processes) for _ in range(connections)] for _ in range(draws))
    return statistics.median(max(map(one.count, range(processes))) for one in assigned) * processes / connections


def one_or_several(workload: Workload, loop_item: float) -> Iterator[str]:
    """How far one process gets, and what the fewest do that can use all cores; p99 in milliseconds at the loads."""
    p99s = " | ".join(f"p99 at {load:.0%}" for load in LOADS)
    yield f"| cores | they can do, texts/s | one process, texts/s | its loop is busy | {p99s} | enough | {p99s} |"
    yield "| --- | --- | --- | --- |" + " --- |" * (2 * len(LOADS) + 1)
    for cores in CORES:
        host = Host(workload, cores, 1, loop_item)
        rate = host.highest_rate()
        one = [f"{rate:.0f} ({rate / host.full_rate:.0%})", f"{host.run(rate, in_turn()).loop:.0%}", *_p99s(host, in_turn)]
        several = replace(host, processes=_enough(host, rate))
        yield _row(str(cores), f"{host.full_rate:.0f}", *one, str(several.processes), *_p99s(several, in_turn))


def _enough(host: Host, one: float) -> int:
    """The fewest processes that carry nearly what one queue for all cores would, where one carries that rate."""
    wanted = ENOUGH * replace(host, processes=0).highest_rate()
    for processes in PROCESSES:
        several = replace(host, processes=processes)
        rate = one if processes == 1 else several.highest_rate() if several.loops_rate >= wanted else 0.0
        if rate >= wanted or 2 * processes > host.cores:
            return processes
    return PROCESSES[-1]


def splitting(workload: Workload) -> Iterator[str]:
    """p99 at the same loads with one queue and with several, balanced by request."""
    yield (
        "| cores | processes | "
        + " | ".join(f"{load:.0%}: {how}" for load, how in product(LOADS, ("in turn", "least loaded")))
        + " |"
    )
    yield "| --- | --- |" + " --- |" * 4
    for before, (cores, processes) in pairwise([(0, 0), *SPLITS]):
        if cores != before[0]:
            for number, what in ((0, "one queue, as many loops as it takes"), (1, "1")):
                yield _row(str(cores), what, *_p99s(Host(workload, cores, number), in_turn, _least_loaded))
        yield _row(str(cores), str(processes), *_p99s(Host(workload, cores, processes), in_turn, _least_loaded))


def _p99s(host: Host, *balances: Callable[[], Balance]) -> list[str]:
    return [_ms([host.run(load * host.full_rate, balance())]) for load in LOADS for balance in balances]


def _least_loaded() -> Balance:
    return least_loaded


def connections(workload: Workload) -> Iterator[str]:
    """p99 when each connection stays with one process."""
    yield "| cores | processes | connections | busiest process | " + " | ".join(f"{load:.0%}" for load in LOADS) + " |"
    yield "| --- | --- | --- | --- |" + " --- |" * len(LOADS)
    for (cores, processes), number in product(BY_CONNECTION, CONNECTIONS):
        host = Host(workload, cores, processes)
        p99s = [_ms([host.run(load * host.full_rate, by_connection(number, draw)) for draw in DRAWS]) for load in LOADS]
        yield _row(str(cores), str(processes), str(number), f"{largest_share(number, processes):.2f} times its share", *p99s)


def _ms(runs: Sequence[Outcome]) -> str:
    """The median p99 in milliseconds, or that most runs were not carried."""
    if sum(one.is_carried for one in runs) <= len(runs) // 2:
        return "over"
    return f"{statistics.median(one.p99 for one in runs) * 1e3:.0f}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def report(name: str) -> list[str]:
    """All lines about a workload."""
    workload = WORKLOADS[name]
    lines = [f"\n## {name}: {_worker_rate(workload):.0f} texts/s a worker"]
    for loop, loop_item in LOOPS.items():
        lines += [f"\n### Event loop {loop}: {loop_item * 1e3:.2f} ms a request\n", *one_or_several(workload, loop_item)]
    if name in SPLIT_WORKLOADS:
        lines += ["\n### p99 in ms, by request\n", *splitting(workload), "\n### p99 in ms, by connection\n", *connections(workload)]
    return lines


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workload", choices=WORKLOADS, action="append", help="may be given several times; all by default")
    names = parser.parse_args().workload or list(WORKLOADS)
    with ProcessPoolExecutor(usable_cores()) as pool:
        for lines in pool.map(report, names):
            for line in lines:
                say(line)


if __name__ == "__main__":
    main()
