from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram  # type: ignore[import-untyped]

from loadtest.answers import LEFT, OK, Reference
from loadtest.arrivals import Pace
from loadtest.measure import Run, percentiles, summarize
from loadtest.monitor import Reading
from loadtest.results import ResultError, read_result, write_result
from loadtest.samples import Sample
from loadtest.scenarios import SCENARIOS

BEGIN = 1000.0


def sample(at: float, latency_ms: float = 10.0, outcome: str = OK, late_ms: float = 1.0, group: str = "") -> Sample:
    """A request that was to start `at` seconds from the beginning."""
    status = 200 if outcome == OK else int(outcome) if outcome.isdigit() else 0
    timing = (1.0, 2.0, 3.0, 6.5) if status == 200 else (None, None, None, None)
    sent, answered = BEGIN + at + late_ms / 1000, BEGIN + at + latency_ms / 1000
    return Sample(BEGIN + at, sent, answered, status, outcome, 1, group, *timing)


def run(samples: list[Sample], scenario: str = "steady", seconds: float = 10.0) -> Run:
    return Run(
        scenario=SCENARIOS[scenario],
        generator="light",
        seed=1,
        started=dt.datetime(2026, 11, 25, 12, tzinfo=dt.UTC),
        target="started here",
        server_settings={"WORKERS": "1"},
        reference=Reference("m@1", pass_ms=5.0),
        paces=[Pace("all", seconds, 10)],
        begin=BEGIN,
        samples=samples,
        readings=[],
        before=None,
        after=None,
    )


def test_percentiles_are_those_of_the_values_to_three_digits() -> None:
    values = np.random.default_rng(1).lognormal(2, 1, 20_000)
    found = percentiles(values)
    assert found is not None
    ranked = np.sort(values)
    for share, value in ((0.5, found.p50), (0.9, found.p90), (0.95, found.p95), (0.99, found.p99), (0.999, found.p999)):
        rank = round(share * len(ranked))
        assert ranked[rank - 2] * 0.999 <= value <= ranked[rank] * 1.001
    assert (found.count, found.max, found.mean) == pytest.approx((20_000, values.max(), values.mean()))
    assert percentiles(np.array([])) is None


def test_latency_is_from_the_intended_start_and_service_time_from_the_sending() -> None:
    result = summarize(run([sample(second + 0.5, latency_ms=500, late_ms=490) for second in range(10)]))
    assert result.latency
    assert result.service_time
    assert result.lateness
    assert (result.latency.p50, result.service_time.p50, result.lateness.p50) == pytest.approx((500, 10, 490), rel=2e-3)


def test_the_histogram_can_be_read_back() -> None:
    result = summarize(run([sample(0.1, 10), sample(0.2, 30)]))
    histogram = HdrHistogram.decode(result.histogram)
    assert histogram.get_total_count() == 2
    assert histogram.get_value_at_percentile(100) == pytest.approx(30_000, rel=2e-3)


def test_the_rest_is_what_the_server_does_not_tell_of() -> None:
    result = summarize(run([sample(0.1, latency_ms=20)]))
    assert {name: round(stage.p50, 1) for name, stage in result.stages.items()} == {
        "tokenize": 1.0,
        "queue": 2.0,
        "inference": 3.0,
        "rest": 14.0,
    }


def test_a_server_that_tells_nothing_has_no_stages() -> None:
    assert summarize(run([sample(0.1)._replace(tokenize_ms=None, queue_ms=None, inference_ms=None)])).stages == {}


def test_errors_are_told_from_what_the_scenario_expects_and_their_time_is_not_mixed_in() -> None:
    samples = [sample(1, 10), sample(2, 1, "429"), sample(3, 90, LEFT), sample(4, 60_000, "timeout")]
    steady, overload, impatient = (summarize(run(samples, name)) for name in ("steady", "overload", "impatient"))
    assert steady.errors == {"429": 1, LEFT: 1, "timeout": 1}
    assert (overload.expected, overload.errors) == ({"429": 1}, {LEFT: 1, "timeout": 1})
    assert (impatient.expected, impatient.errors) == ({LEFT: 1}, {"429": 1, "timeout": 1})
    assert steady.latency
    assert (steady.latency.count, steady.latency.max) == pytest.approx((1, 10))
    assert (sum(second.failed for second in steady.series), sum(second.failed for second in overload.series)) == (3, 2)
    assert {name: row.max for name, row in overload.groups.items()} == {"200": pytest.approx(10), "429": pytest.approx(1)}


def test_classes_are_groups_of_their_good_answers() -> None:
    samples = [
        sample(1, 10, group="bulk"),
        sample(2, 20, group="bulk"),
        sample(3, 30, group="interactive"),
        sample(4, 1, "429", group="bulk"),
    ]
    groups = summarize(run(samples, "mixed")).groups
    assert {name: row.count for name, row in groups.items()} == {"bulk": 2, "interactive": 1, "200": 3, "429": 1}


def test_rates_count_the_answers_that_came_in_time() -> None:
    samples = [sample(at / 10, 10) for at in range(90)] + [sample(9 + at / 10, 5000) for at in range(10)]
    result = summarize(run(samples))
    assert (result.offered_rate, result.achieved_rate) == (10.0, 9.0)
    assert (result.requests, result.texts, result.seconds) == (100, 100, 10.0)


def test_seconds_go_on_to_the_last_answer() -> None:
    result = summarize(run([sample(0.5, 100), sample(0.9, 300), sample(9.5, 2000)]))
    assert [second.at for second in result.series] == list(range(12))
    assert [second.offered for second in result.series] == [2, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    assert [second.answered for second in result.series] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
    assert result.series[0].max == pytest.approx(300)
    assert result.series[1].p50 is None


def test_phases_and_stretches_have_what_was_to_start_in_them() -> None:
    samples = [sample(1, 10), sample(2, 10), sample(7, 700), sample(9, 100, "429")]
    result = summarize(replace(run(samples), paces=[Pace("slow", 6, 1), Pace("fast", 4, 2)]))
    slow, fast = result.phases
    assert (slow.name, slow.begin, slow.seconds, slow.offered_rate, slow.achieved_rate, slow.failed) == (
        "slow",
        0,
        6,
        2 / 6,
        2 / 6,
        0,
    )
    assert (fast.name, fast.begin, fast.seconds, fast.offered_rate, fast.achieved_rate, fast.failed) == (
        "fast",
        6,
        4,
        2 / 4,
        1 / 4,
        1,
    )
    assert fast.latency
    assert fast.latency.count == 1
    assert [round(stretch.max) for stretch in result.stretches] == [10, 10, 700]


def test_cpu_and_memory_are_those_between_the_readings_nearest_to_each_second() -> None:
    # The generator uses half a core; the server one core in the first second, two from then on, and grows.
    readings = [
        Reading(
            *(BEGIN + at, at * 0.5 + 3, min(at, 1) + max(0, at - 1) * 2 + 7, 1e8 + at * 1e6),
            queued=4.0 if at.is_integer() else None,
            machine_cpu=at * 3,
        )
        for at in (quarter / 4 for quarter in range(-4, 17))
    ]
    result = summarize(replace(run([sample(1)], seconds=4), readings=readings))
    assert [second.server_cpu for second in result.series] == pytest.approx([1, 2, 2, 2])
    assert [second.client_cpu for second in result.series] == pytest.approx([0.5] * 4)
    assert [second.queued for second in result.series] == [4] * 4
    assert (result.server_cpu, result.client_cpu, result.other_cpu) == pytest.approx((7 / 4, 0.5, 3 - 7 / 4 - 0.5))
    assert (result.server_rss_begin, result.server_rss_end, result.server_rss_peak) == pytest.approx((99, 104, 104))


def test_without_readings_there_is_no_cpu() -> None:
    result = summarize(run([sample(1)]))
    assert (result.server_cpu, result.server_rss_peak, result.series[0].server_cpu, result.other_cpu) == (None, None, None, None)


def test_a_run_in_which_everything_failed_has_a_result() -> None:
    result = summarize(run([sample(1, 5, "disconnected"), sample(2, 5, "disconnected")]))
    assert (result.latency, result.achieved_rate, result.errors, result.stretches) == (None, 0.0, {"disconnected": 2}, [])


def test_a_result_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    result = summarize(run([sample(second + 0.1, second) for second in range(1, 9)]))
    write_result(result, tmp_path / "steady.json")
    assert read_result(tmp_path / "steady.json") == result
    (tmp_path / "other.json").write_text('{"format_version": 1}')
    with pytest.raises(ResultError, match=r"other\.json: not the result of a load test: scenario"):
        read_result(tmp_path / "other.json")
    with pytest.raises(ResultError, match="No such file"):
        read_result(tmp_path / "none.json")
