"""Steps of load on a server: latencies from the intended start, and what the step took of the machine.

All requests are for one text. They come at random moments (Poisson), whatever became of the earlier ones (open loop); one that is
not answered as it should be counts as a latency without end. The generator is `loadtest.light`, in this process.
"""

from __future__ import annotations

import asyncio
import gc
import math
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Final

import orjson
import uvloop

from capacity.cpu import CpuTimes
from loadtest.answers import OK, Reference
from loadtest.arrivals import Pace, poisson
from loadtest.light import closed_loop, open_loop
from loadtest.processes import ServerFailed, ServerProcess
from loadtest.samples import Sample
from loadtest.scenarios import Request
from loadtest.scrape import scrape

# The share of requests that may be late while p99 is within its bound.
LATE_SHARE: Final = 0.01
# Of a closed loop, where nothing is known of the server's workers.
CLIENTS: Final = 64
# Connections that are there before an open loop begins; more are opened as they are needed.
CONNECTIONS: Final = 32
# Answers of a server that is overloaded, and no more than that.
EXPECTED: Final = frozenset({OK, "429", "504"})
# After a step, for what was given up to leave the server.
PAUSE_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU seconds for each request: of the server's event loop, of its other threads, of the client.

    `passes` are for each request, too, and `pass_seconds` what these took by the server's clock.
    `others` is the cores that everything else on the machine took meanwhile.
    """

    loop: float
    workers: float
    client: float
    passes: float
    pass_seconds: float
    others: float


@dataclass(frozen=True, slots=True)
class Step:
    """Requests at a rate a second: when they were to start, and which texts they held, by index.

    `latencies` are in seconds, in the same order, infinite without a good answer; some are missing when the step was `given_up`
    because its p99 was certain to be over the bound. `costs` are known of a server of our own.
    """

    rate: float
    moments: Sequence[float]
    texts: Sequence[int]
    latencies: Sequence[float]
    given_up: bool
    costs: Costs | None

    @property
    def p50(self) -> float:
        """In seconds."""
        return percentile(sorted(self.latencies), 50)

    @property
    def p99(self) -> float:
        """In seconds."""
        return percentile(sorted(self.latencies), 99)

    def meets(self, bound: float) -> bool:
        """True if p99 is within so many seconds."""
        return not self.given_up and self.p99 <= bound


def percentile(ascending: Sequence[float], percent: float) -> float:
    """By nearest rank; infinite of nothing."""
    return ascending[math.ceil(len(ascending) * percent / 100) - 1] if ascending else math.inf


class Load:
    """Puts load on one server; `process` is its own if it is ours. The texts are sent in turn, again and again.

    So many `clients` saturate it.

    All methods raise `ServerFailed` when the server has ended, or fails more requests than may be late.
    """

    def __init__(self, url: str, texts: Sequence[str], process: ServerProcess | None = None, clients: int = CLIENTS) -> None:
        self._url = url
        self._clients = clients
        self._process = process
        requests = [Request(orjson.dumps({"text": text})) for text in texts]
        self._coming = cycle(enumerate(requests))
        self._seed = 0

    def saturate(self, seconds: float) -> float:
        """Good answers a second while so many clients send as soon as they are answered that the server is never without work."""
        outcomes: Counter[str] = Counter()
        requests = (request for _, request in self._coming)

        def record(sample: Sample) -> None:
            outcomes[sample.outcome] += 1

        started = time.perf_counter()
        with _quiet_collector():
            uvloop.run(closed_loop(self._url, requests, Reference(), record, clients=self._clients, seconds=seconds))
        rate = outcomes[OK] / (time.perf_counter() - started)
        self._check(outcomes)
        if not rate:
            raise ServerFailed(f"{self._url}: not one good answer in {seconds:.1f} s")
        return rate

    def offer(self, rate: float, seconds: float, bound: float = math.inf) -> Step:
        """Offer requests at a rate; given up as soon as their p99 is certain to be over the bound."""
        self._seed += 1
        moments = list(poisson([Pace("", seconds, rate)], self._seed)) or [0.0]
        chosen = list(islice(self._coming, len(moments)))
        calls = [(moment, request) for moment, (_, request) in zip(moments, chosen, strict=True)]
        recorder = _Recorder(bound, math.floor(len(moments) * LATE_SHARE))
        before = self._usage()
        with _quiet_collector():
            try:
                uvloop.run(_run(open_loop(self._url, calls, Reference(), recorder, connections=CONNECTIONS), recorder.is_hopeless))
            except OSError as error:
                self._check({})
                raise ServerFailed(f"{self._url}: {error}") from error
        self._check(recorder.outcomes)
        latencies = [latency for _, latency in sorted(recorder.latencies)]
        costs = _costs(before, self._usage(), len(latencies))
        time.sleep(PAUSE_SECONDS)
        texts = [index for index, _ in chosen]
        return Step(rate, moments, texts, latencies, recorder.is_hopeless.is_set(), costs)

    def _usage(self) -> _Usage | None:
        if self._process is None:
            return None
        self._process.check()
        snapshot = scrape(self._url)
        if snapshot is None:
            raise ServerFailed(f"{self._url}/metrics: no answer")
        return _Usage(time.perf_counter(), snapshot.passes, snapshot.pass_seconds, CpuTimes.now(self._process.pid))

    def _check(self, outcomes: Mapping[str, int]) -> None:
        if self._process is not None:
            self._process.check()
        failures = {name: number for name, number in outcomes.items() if name not in EXPECTED}
        if sum(failures.values()) > LATE_SHARE * sum(outcomes.values()):
            said = ", ".join(f"{number} {name}" for name, number in failures.items())
            raise ServerFailed(f"of {sum(outcomes.values())} requests failed: {said}")


@dataclass(frozen=True, slots=True)
class _Usage:
    """At a moment: the passes since the server's start and the seconds that they took, and the CPU times."""

    at: float
    passes: float
    pass_seconds: float
    cpu: CpuTimes


def _costs(before: _Usage | None, after: _Usage | None, requests: int) -> Costs | None:
    if before is None or after is None or not requests:
        return None
    used = after.cpu - before.cpu
    return Costs(
        loop=used.loop / requests,
        workers=used.workers / requests,
        client=used.client / requests,
        passes=(after.passes - before.passes) / requests,
        pass_seconds=(after.pass_seconds - before.pass_seconds) / requests,
        others=used.others / (after.at - before.at),
    )


class _Recorder:
    """Takes samples as they come, and sees when all hope is lost: more were late than are `allowed`."""

    def __init__(self, bound: float, allowed: int) -> None:
        self._bound = bound
        self._allowed = allowed
        self._late = 0
        # With the moment at which each request was to start.
        self.latencies: list[tuple[float, float]] = []
        self.outcomes: Counter[str] = Counter()
        self.is_hopeless = asyncio.Event()

    def __call__(self, sample: Sample, /) -> None:
        self.outcomes[sample.outcome] += 1
        latency = sample.answered - sample.intended if sample.outcome == OK else math.inf
        self.latencies.append((sample.intended, latency))
        self._late += latency > self._bound
        if self._late > self._allowed:
            self.is_hopeless.set()


async def _run(loop: Coroutine[Any, Any, None], is_hopeless: asyncio.Event) -> None:
    """The loop, until its end or until it is hopeless."""
    tasks = [asyncio.create_task(loop), asyncio.create_task(is_hopeless.wait())]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):  # CancelledError is none
            raise result


@contextmanager
def _quiet_collector() -> Iterator[None]:
    """Without cyclic garbage collection, which would make requests late; what a step makes has no cycles."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
