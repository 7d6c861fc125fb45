"""A thread that looks at the server's and the generator's process while a load test runs, four times a second.

CPU is read as the time used so far, so that what was used between any two moments can be told afterwards. The server's queue is
asked for every other second, by `/metrics`: that holds its event loop for some 5 ms, which as often as that does not show in a p99.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Self

import psutil

from loadtest.scrape import Snapshot, scrape

INTERVAL_SECONDS = 0.25
SCRAPE_EVERY = 8  # readings


@dataclass(frozen=True, slots=True)
class Reading:
    """At a moment of `time.perf_counter`: CPU seconds used so far, memory in bytes, texts in the queue; None where unknown.

    `machine_cpu` is the CPU time of all processes, and what the hypervisor took. `drifting` is as in a `Snapshot`.
    """

    at: float
    client_cpu: float | None
    server_cpu: float | None
    server_rss: float | None
    queued: float | None
    machine_cpu: float | None = None
    drifting: bool | None = None


class Monitor:
    """A context in which readings are taken. A server that is not a process of this machine is read by its own metrics, if any."""

    def __init__(self, url: str, server: int | None, client: int) -> None:
        self.readings: list[Reading] = []
        self._url = url
        self._server = psutil.Process(server) if server is not None else None
        self._client = psutil.Process(client)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        tells, number = True, 0
        while not self._ended.wait(INTERVAL_SECONDS if number else 0):
            snapshot = scrape(self._url) if tells and number % SCRAPE_EVERY == 0 else None
            # A server without metrics is not asked again.
            tells = tells and (number > 0 or snapshot is not None)
            self.readings.append(self._read(snapshot))
            number += 1

    def _read(self, snapshot: Snapshot | None) -> Reading:
        server_cpu, server_rss = _usage(self._server)
        if self._server is None and snapshot is not None:
            server_cpu, server_rss = snapshot.cpu, snapshot.rss
        queued, drifting = (None, None) if snapshot is None else (snapshot.queued, snapshot.drifting)
        return Reading(perf_counter(), _usage(self._client)[0], server_cpu, server_rss, queued, _machine_cpu(), drifting)


def _usage(process: psutil.Process | None) -> tuple[float | None, float | None]:
    """CPU seconds and resident bytes of a process; None for both if it is gone."""
    if process is None:
        return None, None
    try:
        with process.oneshot():
            times = process.cpu_times()
            return times.user + times.system, float(process.memory_info().rss)
    except psutil.Error:
        return None, None


def _machine_cpu() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)
