"""Load on a fake server: what a step measures."""

from __future__ import annotations

import math
import time

import pytest

from capacity.load import Load, percentile
from capacity.planning import measure
from loadtest.processes import ServerFailed
from tests.capacity.machine import MODEL
from tests.loadtest.fake_server import FakeServer, serving


def test_percentiles_are_by_nearest_rank() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 99) == 4.0
    assert percentile([], 50) == math.inf


def test_a_step_knows_its_latencies_in_order_and_is_given_up_when_it_is_hopeless() -> None:
    with serving(FakeServer(delay=0.05)) as url:
        load = Load(url, [f"text {number}" for number in range(50)])
        step = load.offer(100.0, 0.5, 1.0)
        assert not step.given_up
        assert len(step.latencies) == len(step.moments) == len(step.texts)
        assert step.meets(1.0)
        assert not step.meets(0.04)
        started = time.perf_counter()
        hopeless = load.offer(100.0, 20.0, 0.01)
        assert hopeless.given_up
        assert not hopeless.meets(60.0)
        assert time.perf_counter() - started < 15
        # It is as usable as before.
        assert load.offer(100.0, 0.2, 1.0).meets(1.0)


def test_refusals_count_as_late_and_a_server_that_fails_ends_it() -> None:
    with serving(FakeServer(refuses_from=1)) as url:
        assert Load(url, ["a"]).offer(50.0, 0.4, 1.0).given_up
        with pytest.raises(ServerFailed, match="not one good answer"):
            Load(url, ["a"], clients=1).saturate(0.2)
    with serving(FakeServer(dies_at=5)) as url, pytest.raises(ServerFailed, match="disconnected"):
        Load(url, ["a"]).offer(50.0, 0.4)
    with pytest.raises(ServerFailed, match=r"127\.0\.0\.1:9"):
        Load("http://127.0.0.1:9", ["a"]).offer(50.0, 0.2)


def test_a_step_has_a_request_at_least() -> None:
    with serving(FakeServer()) as url:
        assert len(Load(url, ["a"]).offer(0.001, 0.1).latencies) == 1
    assert MODEL.offer(0.0001).p99 < 0.1


def test_measuring_is_bounded_in_time() -> None:
    told: list[float] = []
    with serving(FakeServer(delay=0.02)) as url:
        started = time.perf_counter()
        measured = measure(Load(url, ["a", "b"], clients=2), 0.5, 3.0, told.append)
        assert time.perf_counter() - started < 10
    assert 0 < measured.saturated < 110
    assert measured.found.confirmed is not None
    assert sum(told) <= 3.0
