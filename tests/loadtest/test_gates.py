from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.arrivals import Pace
from loadtest.gates import Bounds, GatesError, check, read_gates
from loadtest.measure import summarize
from loadtest.monitor import Reading
from loadtest.report import write_report
from loadtest.results import Gate
from loadtest.scenarios import SCENARIOS
from loadtest.summary import describe
from tests.loadtest.test_measure import BEGIN, run, sample


def gates_file(folder: Path, text: str) -> Path:
    path = folder / "gates.toml"
    path.write_text(text)
    return path


def broken(gates: list[Gate]) -> list[tuple[str, float, float]]:
    return [
        (gate.name, gate.bound, round(math.nan if gate.measured is None else gate.measured, 2)) for gate in gates if not gate.passed
    ]


GOOD = summarize(run([sample(number / 10, 10) for number in range(99)]))


def test_a_run_within_its_bounds_breaks_no_gate() -> None:
    gates = check(GOOD, Bounds(min_achieved=0.99, max_p99_passes={"all": 3}))
    assert [gate.name for gate in gates] == ["error rate", "achieved over offered", "p99 in passes"]
    assert broken(gates) == []


def test_an_error_breaks_the_error_rate_even_if_no_bound_is_given() -> None:
    result = summarize(run([sample(number / 10, 10, "429" if number == 5 else "ok") for number in range(100)]))
    assert broken(check(result, Bounds())) == [("error rate", 0.0, 0.01)]
    assert broken(check(result, Bounds(max_error_rate=0.01))) == []


def test_what_a_scenario_expects_is_no_error() -> None:
    result = summarize(run([sample(1), sample(2, 1, "429")], "overload"))
    assert broken(check(result, Bounds())) == []


def test_too_few_answers_break_the_achieved_rate() -> None:
    result = summarize(run([sample(number / 10, 10 if number < 80 else 9000) for number in range(100)]))
    assert broken(check(result, Bounds(min_achieved=0.9))) == [("achieved over offered", 0.9, 0.8)]


def test_a_slow_p99_breaks_its_bound_in_passes_of_the_idle_server() -> None:
    # 40 ms, where one pass takes 5.
    result = summarize(run([sample(number / 10, 40) for number in range(100)]))
    assert broken(check(result, Bounds(max_p99_passes={"all": 7}))) == [("p99 in passes", 7, 8)]
    assert broken(check(result, Bounds(max_p99_passes={"all": 9}))) == []


def test_a_disturbance_of_a_few_seconds_does_not_break_the_p99_but_is_in_the_result() -> None:
    result = summarize(run([sample(number / 100, 2000 if 300 <= number < 600 else 10) for number in range(1000)]))
    assert broken(check(result, Bounds(max_p99_passes={"all": 3}))) == []
    assert result.latency
    assert result.latency.p99 > 1900
    # Where one pass takes 5 ms.
    assert broken(check(result, Bounds(max_slowest_passes=399))) == [("slowest answer in passes", 399, 400)]
    assert broken(check(result, Bounds(max_slowest_passes=401))) == []


def test_the_p99_may_be_that_of_a_group() -> None:
    samples = [
        sample(number / 10, 400 if number % 2 else 40, group="bulk" if number % 2 else "interactive") for number in range(100)
    ]
    bounds = Bounds(max_p99_passes={"interactive": 9})
    assert broken(check(summarize(run(samples, "mixed")), bounds)) == []
    assert broken(check(summarize(run(samples, "mixed")), Bounds(max_p99_passes={"all": 9}))) == [("p99 in passes", 9, 80)]
    slow = [each._replace(answered=each.answered + 0.02) for each in samples]
    assert broken(check(summarize(run(slow, "mixed")), bounds)) == [("p99 of interactive in passes", 9, 12)]


def test_memory_that_grows_after_the_first_five_minutes_breaks_its_bound() -> None:
    readings = [Reading(BEGIN + at, 0.0, 0.0, 1e8 + 1e6 * (2 * min(at, 300) + (at > 300)), None) for at in range(360)]
    readings[-1] = replace(readings[-1], server_rss=756e6)
    result = summarize(replace(run([sample(1)], seconds=360), readings=readings))
    # 700 MB after five minutes, 756 at the end.
    assert broken(check(result, Bounds(max_memory_growth=0.05))) == [("memory growth", 0.05, 0.08)]
    assert broken(check(result, Bounds(max_memory_growth=0.1))) == []


def test_a_run_of_less_than_five_minutes_says_nothing_about_memory_growth() -> None:
    readings = [Reading(BEGIN + at, 0.0, 0.0, 1e8 * (1 + at), None) for at in range(60)]
    result = summarize(replace(run([sample(1)], seconds=60), readings=readings))
    assert [gate.name for gate in check(result, Bounds(max_memory_growth=0.05))] == ["error rate"]


def test_the_change_of_requests_must_be_noticed_in_time_and_not_before(tmp_path: Path) -> None:
    bounds, change = Bounds(max_noticed_seconds=10), 5.0
    paces = [Pace("plain", change, 1.0), Pace("as HTML", change, 1.0)]
    for at, measured, passed, said in (
        (8.0, 3.0, True, "noticed 3.0 s after it"),
        (3.0, -2.0, False, "reported 2.0 s before it: a false alarm"),
        (None, None, False, "not noticed by the server"),
    ):
        readings = [Reading(BEGIN + second, 0.0, 0.0, 1e8, None, drifting=at is not None and second >= at) for second in range(11)]
        result = summarize(replace(run([sample(1)], "drifting", seconds=10), readings=readings, paces=paces))
        (gate,) = (gate for gate in check(result, bounds) if gate.name == "seconds until the change was noticed")
        assert (gate.measured, gate.passed) == (measured if measured is None else pytest.approx(measured), passed)
        assert f"the change was {said}" in describe(result)
        write_report(result, tmp_path)
        assert said in (tmp_path / "drifting.html").read_text(encoding="utf-8")
    assert "the change" not in describe(GOOD)


def test_a_server_that_answers_nothing_breaks_all_that_is_asked_of_it() -> None:
    result = summarize(run([sample(1, 5, "disconnected")]))
    gates = check(result, Bounds(min_achieved=0.5, max_p99_passes={"all": 9}, max_slowest_passes=9))
    assert [(gate.name, gate.measured) for gate in gates if not gate.passed] == [
        ("error rate", 1.0),
        ("achieved over offered", 0.0),
        ("p99 in passes", None),
        ("slowest answer in passes", None),
    ]


def test_a_server_that_does_not_tell_what_a_pass_takes_breaks_what_is_measured_in_passes() -> None:
    result = GOOD.model_copy(update={"pass_ms": None})
    gates = check(result, Bounds(max_p99_passes={"all": 9}, max_slowest_passes=9))
    assert [gate.name for gate in gates if not gate.passed] == ["p99 in passes", "slowest answer in passes"]
    assert "BROKEN p99 in passes: not measured, bound 9" in describe(result.model_copy(update={"gates": gates}))


def test_nothing_is_asked_of_refusals_that_did_not_come() -> None:
    bounds = Bounds(max_p99_passes={"200": 9, "429": 1})
    gates = check(summarize(run([sample(1)], "overload")), bounds)
    assert [(gate.name, gate.passed) for gate in gates] == [("error rate", True), ("p99 of 200 in passes", True)]
    refused = check(summarize(run([sample(1), sample(2, 40, "429")], "overload")), bounds)
    assert broken(refused) == [("p99 of 429 in passes", 1, 8)]


def test_the_file_of_the_repository_bounds_every_scenario() -> None:
    assert list(read_gates()) == [*SCENARIOS, "closed"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[stedy]", "stedy: no such scenario"),
        ("[steady]\nmax_errors = 1", "steady.max_errors: Extra inputs are not permitted"),
        ("[steady]\nmax_error_rate = 2", "steady.max_error_rate: Input should be less than or equal to 1"),
        ("[steady]\nmin_achieved = '1'", "steady.min_achieved: Input should be a valid number"),
        ("[steady]\nmax_p99_passes = {all = nan}", "steady.max_p99_passes.all: Input should be"),
        ("[steady]\nmax_p99_passes = {bulk = 9}", "steady.max_p99_passes: no such group: bulk"),
        ("steady = 1", "steady: "),
        ("[steady", "gates.toml: "),
    ],
)
def test_a_file_with_a_mistake_is_refused_and_the_mistake_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(GatesError) as caught:
        read_gates(gates_file(tmp_path, text))
    assert said in str(caught.value)
    assert "gates.toml" in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(GatesError, match=r"none\.toml"):
        read_gates(tmp_path / "none.toml")
