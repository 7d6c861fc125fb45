from __future__ import annotations

import os
import subprocess
import sys
from time import perf_counter

import psutil

from loadtest.monitor import Monitor
from loadtest.scrape import parse_metrics
from tests.loadtest.fake_server import FakeServer, serving
from tests.loadtest.test_scrape import metrics

SPIN = "import time\nwhile time.process_time() < {}: pass"


def spinning(seconds: float) -> subprocess.Popen[bytes]:
    """A process that ends after so many seconds of CPU."""
    return subprocess.Popen([sys.executable, "-c", SPIN.format(seconds)])


def test_the_cpu_of_both_processes_and_of_the_machine_is_read_while_they_run() -> None:
    with serving(FakeServer()) as url, spinning(0.8) as client:
        begin = perf_counter()
        with Monitor(url, os.getpid(), client.pid) as monitor:
            client.wait()
        first, last = monitor.readings[0], [reading for reading in monitor.readings if reading.client_cpu is not None][-1]
    assert begin <= first.at < last.at <= perf_counter()
    assert first.client_cpu is not None
    assert last.client_cpu is not None
    assert 0.2 < last.client_cpu - first.client_cpu < 1
    assert first.server_cpu is not None
    assert first.server_rss is not None
    assert first.server_rss > 1e7
    # The fake has no metrics, and so no queue.
    assert {reading.queued for reading in monitor.readings} == {None}
    assert first.machine_cpu is not None
    assert last.machine_cpu is not None
    assert last.client_cpu - first.client_cpu - 0.1 < last.machine_cpu - first.machine_cpu
    assert last.machine_cpu <= sum(psutil.cpu_times()) - psutil.cpu_times().idle


def test_a_server_elsewhere_is_read_by_its_metrics() -> None:
    snapshot = parse_metrics(metrics(1, 1, 1))
    assert snapshot is not None
    with serving(FakeServer(metrics=metrics(1, 1, 1))) as url, Monitor(url, None, os.getpid()) as monitor, spinning(0.3) as other:
        other.wait()
    reading = monitor.readings[0]
    assert (reading.queued, reading.server_cpu, reading.server_rss) == (12, snapshot.cpu, snapshot.rss)
