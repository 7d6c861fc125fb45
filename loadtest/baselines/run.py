"""`python -m loadtest.baselines.run`: ours and the baselines, on one model, on this machine, in one run.

Each round visits every system, in another order: starts its server, offers it the same rates as the others (shares of what ours can
do, measured first), and searches for the highest rate at which p99 stays within the bound. A server that was overloaded is started
anew before the next measurement, since work for clients that left may be left in it. In the first round, all label written tickets.

The generator runs in this process, and shares the machine with the server, as it does for all systems alike; the CPU of both is
recorded. The result goes to docs/performance.json, and from there to the page and its chart (`page`).
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter, process_time
from typing import IO, Final, Self

import numpy as np
import orjson
import psutil

from loadtest.answers import OK
from loadtest.baselines import page
from loadtest.baselines.comparison import (
    MOSEC,
    OURS,
    OURS_WINDOW,
    PROBE,
    SHARES,
    SYSTEMS,
    Agreement,
    Alone,
    Comparison,
    Highest,
    Point,
    rotated,
    write_comparison,
)
from loadtest.baselines.load import alone, labels, offer, saturate, short_tickets
from loadtest.baselines.models import FOLDER, LABELLED, Bundles, made
from loadtest.baselines.search import bracket, highest
from loadtest.corpus import tickets
from loadtest.measure import this_machine
from loadtest.processes import ServerFailed, allow_many_files, running_server
from loadtest.run import QUIET as QUIET_SERVER
from loadtest.samples import Sample
from loadtest.settings import check_defaults

BOUND = 0.25  # seconds
# How long a client waits for an answer at the fixed rates. In the search, the bound has decided long before.
PATIENCE, PROBE_PATIENCE = 5.0, 1.0
# Capacity is the most of so many undisturbed stretches: noise only ever takes from it.
CAPACITY_CLIENTS, CAPACITY_SECONDS, CAPACITY_STRETCHES = 64, 3.0, 4
ALONE_TEXTS = 60
# A measurement during which others took more cores than this was disturbed: it is made again, and the least disturbed one counts.
QUIET = 0.25
WARM_RATE, WARM_SECONDS = 40.0, 1.0
LABEL_CLIENTS = 16
PACKAGES: Final = ("onnxruntime", "tokenizers", "starlette", "uvicorn", "uvloop", "mosec")


@dataclass(frozen=True, slots=True)
class System:
    """A server as it is started; `ready_path` is answered with 200 once it has come up."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    ready_path: str = "/ready"


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    url: str
    process: psutil.Process


@dataclass(frozen=True, slots=True)
class CPU:
    """CPU seconds used so far, and when that was: by a server's processes, by this one, by all of the machine and what its host
    took.
    """

    at: float
    server: float
    client: float
    machine: float

    @classmethod
    def now(cls, server: Server) -> Self:
        """At this moment."""
        family = [server.process, *server.process.children(recursive=True)]
        times = [process.cpu_times() for process in family]
        return cls(perf_counter(), sum(one.user + one.system for one in times), process_time(), _busy())

    @property
    def others(self) -> float:
        """Of a difference: the cores that all else took."""
        return max(0.0, self.machine - self.server - self.client) / self.at

    def __sub__(self, earlier: Self) -> Self:
        return type(self)(
            self.at - earlier.at, self.server - earlier.server, self.client - earlier.client, self.machine - earlier.machine
        )


def _busy() -> float:
    """CPU seconds that all of this machine has not been idle, or could not be, its host being busy."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure; times in seconds. `attempts` is how often at most a measurement is made until it is undisturbed."""

    repeats: int
    seconds: float
    probe_seconds: float
    attempts: int


def systems(bundles: Bundles) -> dict[str, System]:
    """All that are compared, by name."""
    python = sys.executable
    ours, packed = [python, "-m", "commands", "serve"], {"BUNDLE": str(bundles.packed)}
    known = {
        OURS: System(OURS, ours, packed),
        OURS_WINDOW: System(OURS_WINDOW, ours, packed | {"BATCH_IDLE_FLUSH": "false"}),
        MOSEC: System(MOSEC, [python, "-m", "loadtest.baselines.mosec_server", str(bundles.padded)], {}, "/"),
    }
    for recipe in SYSTEMS[len(known) :]:
        known[recipe] = System(recipe, [python, "-m", "loadtest.baselines.server", recipe, str(bundles.padded)], {})
    return known


@contextmanager
def started(system: System, log: IO[bytes]) -> Generator[Server, None, None]:
    """Start a system's server and warm it. Raises `ServerFailed`."""
    with running_server(system.command, {**QUIET_SERVER, **system.environment}, log, system.ready_path) as server:
        offer(server.url, WARM_RATE, WARM_SECONDS, 0, PROBE_PATIENCE)
        yield Server(server.url, psutil.Process(server.pid))


class Visit:
    """One system in one round, while entered. Its mutable state: the server, if one runs, and the points measured."""

    def __init__(self, system: System, repeat: int, capacity: float, plan: Plan, log: IO[bytes]) -> None:
        self.points: list[Point] = []
        self._system = system
        self._repeat = repeat
        self._capacity = capacity
        self._plan = plan
        self._log = log
        self._server: Server | None = None
        self._running = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def run(self) -> Highest:
        """Measure at the moderate rates, search, then overload; the searched rate."""
        for load in ("light", "half", "80 %"):
            self._measure(load, SHARES[load] * self._capacity)
        too_high = SHARES["overload"] * self._capacity
        low, too_high = bracket({point.rate: point.holds for point in self.points}, too_high)
        rate, too_high = highest(lambda rate: self._measure(PROBE, rate).holds, low, too_high)
        self._measure("overload", SHARES["overload"] * self._capacity)
        return Highest(system=self._system.name, repeat=self._repeat, rate=rate, too_high=too_high)

    def alone(self) -> Alone:
        """Measure without other load, and at saturation by short texts."""
        url = self._started().url
        return Alone(
            system=self._system.name,
            repeat=self._repeat,
            short_ms=alone(url, short_tickets(), ALONE_TEXTS, PATIENCE) * 1000,
            ticket_ms=alone(url, tickets(self._repeat), ALONE_TEXTS, PATIENCE) * 1000,
            short_rate=saturate(url, short_tickets(), CAPACITY_CLIENTS, CAPACITY_SECONDS),
        )

    def labels(self, texts: Sequence[str]) -> list[str]:
        """What the system calls these texts."""
        return labels(self._started().url, texts, LABEL_CLIENTS)

    def _measure(self, load: str, rate: float) -> Point:
        tries: list[Point] = []
        while not tries or (tries[-1].other_cpu > QUIET and len(tries) < self._plan.attempts):
            point = self._try(load, rate)
            say(f"  {self._system.name:>12} {load:>8} {describe(point)}")
            tries.append(point)
            if not point.holds:
                self._stop()
        self.points.append(min(tries, key=lambda point: point.other_cpu))
        return self.points[-1]

    def _try(self, load: str, rate: float) -> Point:
        server = self._started()
        probing = load == PROBE
        seconds, patience = (self._plan.probe_seconds, PROBE_PATIENCE) if probing else (self._plan.seconds, PATIENCE)
        gc.collect()
        before = CPU.now(server)
        samples = offer(server.url, rate, seconds, self._seed(), patience)
        used = CPU.now(server) - before
        return Point(
            system=self._system.name,
            load=load,
            repeat=self._repeat,
            rate=rate,
            seconds=seconds,
            server_cpu=used.server / used.at,
            client_cpu=used.client / used.at,
            other_cpu=used.others,
            **counted(samples, seconds),
        )

    def _seed(self) -> int:
        """The same for all systems, another for each measurement of a visit."""
        return 1000 * self._repeat + len(self.points) + 1

    def _started(self) -> Server:
        if self._server is None:
            self._server = self._running.enter_context(started(self._system, self._log))
        return self._server

    def _stop(self) -> None:
        self._server = None
        self._running.close()


def counted(samples: Sequence[Sample], seconds: float) -> dict[str, float | None]:
    """The fields of a point that its samples tell; the run began when the first was to start, and was to last so long."""
    good = [sample for sample in samples if sample.outcome == OK]
    latencies = np.array([sample.answered - sample.intended for sample in good])
    p50, p99 = (np.percentile(latencies, [50, 99]) * 1000).tolist() if good else (None, None)
    end = min((sample.intended for sample in samples), default=0.0) + seconds
    return {
        "sent": len(samples),
        "answered": len(good),
        "in_time": int((latencies <= BOUND).sum()),
        "refused": sum(sample.status not in {0, 200} for sample in samples),
        "achieved": sum(sample.answered <= end for sample in good) / seconds,
        "p50": p50,
        "p99": p99,
    }


def describe(point: Point) -> str:
    """A point in a line."""
    latency = f"p50 {point.p50:.1f} ms, p99 {point.p99:.1f}" if point.p50 is not None else "no answer"
    return (
        f"{point.rate:6.0f}/s: {point.achieved:.0f}/s answered, {latency}, {1 - point.in_time / point.sent:.1%} late or never;"
        f" CPU {point.server_cpu:.2f} + {point.client_cpu:.2f}, others {point.other_cpu:.2f}"
    )


def agreements(found: Mapping[str, Sequence[str]], right: Sequence[str]) -> list[Agreement]:
    """How many of each system's labels are those of ours, and how many are right."""
    ours = found[OURS]
    return [
        Agreement(
            system=name,
            texts=len(right),
            same=sum(one == other for one, other in zip(given, ours, strict=True)),
            right=sum(one == other for one, other in zip(given, right, strict=True)),
        )
        for name, given in found.items()
    ]


def measure_capacity(server: Server, attempts: int) -> float:
    """Texts a second that the server can do."""
    rates: list[float] = []
    undisturbed = 0
    while undisturbed < CAPACITY_STRETCHES and len(rates) < CAPACITY_STRETCHES * attempts:
        before = CPU.now(server)
        rates.append(saturate(server.url, tickets(len(rates)), CAPACITY_CLIENTS, CAPACITY_SECONDS))
        undisturbed += (CPU.now(server) - before).others <= QUIET
    return max(rates)


def compare(bundles: Bundles, plan: Plan, log: IO[bytes]) -> Comparison:
    """Measure everything."""
    beginning = dt.datetime.now(dt.UTC)
    known = systems(bundles)
    with started(known[OURS], log) as server:
        capacity = measure_capacity(server, plan.attempts)
    say(f"ours can do {capacity:.0f} texts/s with {CAPACITY_CLIENTS} clients")
    rows = [orjson.loads(line) for line in LABELLED.read_bytes().splitlines()]
    points: list[Point] = []
    found: list[Highest] = []
    lone: list[Alone] = []
    given: dict[str, list[str]] = {}
    for repeat in range(plan.repeats):
        for name in rotated(SYSTEMS, repeat):
            with Visit(known[name], repeat, capacity, plan, log) as visit:
                if repeat == 0:
                    given[name] = visit.labels([row["text"] for row in rows])
                lone.append(visit.alone())
                found.append(visit.run())
            points += visit.points
            say(f"  {name:>12} holds p99 under {BOUND * 1000:.0f} ms up to {found[-1].rate:.0f} texts/s (round {repeat + 1})")
    return Comparison(
        started=beginning.isoformat(timespec="seconds"),
        machine=this_machine(),
        packages={name: version(name) for name in PACKAGES},
        repeats=plan.repeats,
        seconds=plan.seconds,
        probe_seconds=plan.probe_seconds,
        patience=PATIENCE,
        bound_ms=BOUND * 1000,
        capacity=capacity,
        points=points,
        highest=found,
        alone=lone,
        agreement=agreements(given, [row["label"] for row in rows]),
    )


def say(line: str) -> None:
    """A line of progress, on standard output."""
    print(line, flush=True)  # noqa: T201 - the output of the program


def main(arguments: list[str]) -> None:
    """Make what is missing, measure, write the result and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="rounds (3)")
    parser.add_argument("--seconds", type=float, default=8.0, help="at each fixed rate (8)")
    parser.add_argument("--probe-seconds", type=float, default=5.0, help="at each rate of the search (5)")
    parser.add_argument("--attempts", type=int, default=2, help="at most, until a measurement is undisturbed by other work (2)")
    parser.add_argument(
        "--out", type=Path, default=page.RESULT, help=f"the result ({page.RESULT}); the page is written from that only"
    )
    options = parser.parse_args(arguments)
    # Clients of an overloaded server hold thousands of connections.
    allow_many_files()
    plan = Plan(options.repeats, options.seconds, options.probe_seconds, options.attempts)
    try:
        check_defaults()
        bundles = made()
        gc.disable()  # and collected between measurements: a pause of the generator would be counted as latency
        with (FOLDER / "servers.log").open("w+b") as log:
            comparison = compare(bundles, plan, log)
    except ServerFailed as error:
        sys.exit(str(error))
    write_comparison(comparison, options.out)
    if options.out == page.RESULT:
        page.write(comparison)


if __name__ == "__main__":
    main(sys.argv[1:])
