"""Two results: what is noise and what is not, on servers in virtual time whose speed is known."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import pytest

from loadtest.compare import Bounds, Comparison, Figure, compare, noise_band
from loadtest.results import Percentiles, Result
from tests.loadtest.virtual_run import virtual_run

BOUNDS = Bounds(p50_rise=10, p99_rise=10, rate_drop=5, failed_rise=0.1)
STEADY, BURST = [(300.0, 20.0)], [(60.0, 8.0), (800.0, 4.0), (60.0, 8.0)]


def changed(a: Result, b: Result) -> dict[str, Figure]:
    return {figure.name: figure for figure in compare(a, b, BOUNDS).figures}


def regressions(comparison: Comparison) -> list[str]:
    return [figure.name for figure in comparison.regressions]


@pytest.fixture(scope="module")
def steady() -> Result:
    return virtual_run(rates=STEADY)


def with_latency(run: Result, factor: float, parts: range = range(10)) -> Result:
    """All latencies of some stretches, and of the run, times a factor."""
    assert run.latency is not None

    def scaled(found: Percentiles) -> Percentiles:
        fields = ("mean", "p50", "p90", "p95", "p99", "p999", "max")
        return found.model_copy(update={field: getattr(found, field) * factor for field in fields})

    stretches = [scaled(stretch) if part in parts else stretch for part, stretch in enumerate(run.stretches)]
    return run.model_copy(update={"latency": scaled(run.latency), "stretches": stretches})


def test_a_run_compared_with_itself_has_not_changed(steady: Result) -> None:
    comparison = compare(steady, steady, BOUNDS)
    assert {figure.outcome for figure in comparison.figures} == {"same"}
    assert (comparison.differences, comparison.warnings, comparison.regressions) == ([], [], [])
    assert {"answered", "p50", "p99.9", "max", "failed", "queue p99", "server CPU", "memory at most"} <= {
        figure.name for figure in comparison.figures
    }


@pytest.mark.parametrize("rates", [STEADY, BURST])
def test_runs_of_the_same_server_with_other_seeds_differ_by_noise(rates: list[tuple[float, float]]) -> None:
    runs = [virtual_run(rates=rates, seed=seed) for seed in range(12)]
    outcomes = [changed(a, b)[name].outcome for a, b in pairwise(runs) for name in ("p50", "p99")]
    assert outcomes.count("noise") >= 0.9 * len(outcomes)  # 95 % by the design of the band
    assert sum(bool(compare(a, b, BOUNDS).regressions) for a, b in pairwise(runs)) <= 1


def test_a_slower_server_is_a_regression_whatever_the_seed() -> None:
    for seed in range(6):
        slow = virtual_run(rates=STEADY, seed=seed + 50, slower=1.25)
        assert regressions(compare(virtual_run(rates=STEADY, seed=seed), slow, BOUNDS)) == ["p50", "p99"]


def test_a_faster_server_is_better(steady: Result) -> None:
    found = changed(steady, virtual_run(rates=STEADY, slower=0.8))
    assert (found["p50"].outcome, found["p99"].outcome, found["server CPU"].outcome) == ("better", "better", "better")


def test_a_saturated_server_answers_less_and_refuses_more() -> None:
    before, after = virtual_run(rates=[(600, 10)]), virtual_run(rates=[(600, 10)], slower=1.5)
    assert {"answered", "failed"} <= set(regressions(compare(before, after, BOUNDS)))
    assert changed(before, after)["failed: 429"].outcome == "worse"
    assert changed(after, before)["answered"].outcome == "better"


def test_a_change_within_the_bound_is_worse_but_no_regression(steady: Result) -> None:
    assert changed(steady, with_latency(steady, 1.08))["p99"].outcome == "worse"
    assert changed(steady, with_latency(steady, 1.12))["p99"].outcome == "regression"
    assert changed(steady, with_latency(steady, 1.12))["p90"].outcome == "worse"  # it has no bound
    assert changed(steady, with_latency(steady, 0.92))["p99"].outcome == "better"


def test_one_bad_stretch_of_ten_is_noise(steady: Result) -> None:
    hiccup = with_latency(steady, 3.0, range(1))
    assert hiccup.latency is not None
    found = changed(
        steady, hiccup.model_copy(update={"latency": hiccup.latency.model_copy(update={"p99": hiccup.latency.p99 / 3 * 1.2})})
    )
    assert found["p99"].change == pytest.approx(20)
    assert found["p99"].outcome == "noise"


def test_the_band_is_the_half_width_of_the_paired_t_interval() -> None:
    # The logarithms of the ratios are 0 and 0.1 in turns: deviation 0.0527, over the root of ten 0.01667, times 2.262 0.0377.
    a, b = [10.0] * 10, [10.0, 11.0517] * 5
    assert noise_band(a, b) == pytest.approx(3.842, abs=0.002)
    assert noise_band(a, b, averaged=1) == pytest.approx(12.66, abs=0.01)
    assert noise_band(b, a) == pytest.approx(noise_band(a, b))
    # What differs between the stretches of both alike is no noise.
    assert noise_band([1.0, 10.0, 100.0], [2.0, 20.0, 200.0]) == pytest.approx(0)
    # Two stretches say little: Student's t is 12.7.
    assert noise_band([10.0, 10.0], [10.0, 11.0517]) == pytest.approx(88.8, abs=0.1)


@pytest.mark.parametrize(("a", "b"), [([], []), ([1.0], [1.0]), ([1.0, 2.0], [1.0]), ([0.0, 1.0], [1.0, 1.0])])
def test_where_no_band_can_be_told_there_is_none(a: list[float], b: list[float]) -> None:
    assert noise_band(a, b) is None


def test_a_rise_to_the_double_is_as_far_as_a_drop_to_the_half() -> None:
    def outcome(change: float) -> str:
        return Figure("p99", "ms", 10, 10 * (1 + change / 100), change, noise=100).outcome

    assert [outcome(change) for change in (99, 101, -49, -51)] == ["noise", "worse", "noise", "better"]


def test_a_maximum_rests_on_single_requests_and_has_a_wide_band(steady: Result) -> None:
    found = changed(steady, virtual_run(rates=STEADY, seed=2))
    assert found["max"].noise is not None
    assert found["p50"].noise is not None
    assert found["max"].noise > 3 * found["p50"].noise
    assert found["p99.9"].noise is not None
    assert found["p99.9"].noise > 3 * found["p50"].noise


def test_a_percentile_that_hangs_between_its_stretches_is_not_judged_by_their_closeness() -> None:
    calm = virtual_run(rates=STEADY)
    assert calm.latency is not None
    stretches = [
        stretch.model_copy(update={"p50": 500.0 + part if part < 5 else 5.0 + part / 100})
        for part, stretch in enumerate(calm.stretches)
    ]
    before = calm.model_copy(update={"latency": calm.latency.model_copy(update={"p50": 50.0}), "stretches": stretches})
    after = before.model_copy(update={"latency": calm.latency.model_copy(update={"p50": 150.0})})
    assert changed(before, after)["p50"].outcome == "noise"


def test_few_failures_more_are_noise_and_many_are_not(steady: Result) -> None:
    def outcome(before: int, after: int) -> str:
        runs = [steady.model_copy(update={"errors": {"504": count} if count else {}}) for count in (before, after)]
        return changed(*runs)["failed"].outcome

    assert steady.requests == 6000
    assert [outcome(0, 3), outcome(0, 10), outcome(100, 110), outcome(100, 150)] == ["noise", "regression", "noise", "regression"]
    assert outcome(50, 0) == "better"


def test_what_a_scenario_expects_is_shown_and_not_judged(steady: Result) -> None:
    refused = steady.model_copy(update={"expected": {"429": 3000}})
    assert regressions(compare(steady, refused, BOUNDS)) == []
    assert changed(steady, refused)["expected: 429"].change == pytest.approx(50)


def test_a_run_without_an_answer_is_a_regression(steady: Result) -> None:
    silent = steady.model_copy(
        update={"latency": None, "stretches": [], "achieved_rate": 0.0, "errors": {"timeout": steady.requests}}
    )
    assert regressions(compare(steady, silent, BOUNDS)) == ["answered", "p50", "p99", "failed"]


def test_figures_that_only_one_run_has_are_unknown_and_those_of_neither_are_left_out(steady: Result) -> None:
    unseen = dict.fromkeys(("server_cpu", "server_rss_begin", "server_rss_end", "server_rss_peak"))
    series = [second.model_copy(update={"server_cpu": None, "server_rss": None}) for second in steady.series]
    elsewhere = steady.model_copy(update={**unseen, "series": series, "stages": {}})
    found = changed(steady, elsewhere)
    assert {found[name].outcome for name in ("server CPU", "memory at most", "memory growth", "queue mean")} == {"unknown"}
    assert not any("server" in name or "memory" in name or "queue" in name for name in changed(elsewhere, elsewhere))


def test_without_matching_stretches_the_bound_alone_decides_and_that_is_said(steady: Result) -> None:
    for stretches in ([], steady.stretches[:9]):
        short = with_latency(steady, 1.2).model_copy(update={"stretches": stretches})
        comparison = compare(steady, short, BOUNDS)
        assert regressions(comparison) == ["p50", "p99"]
        assert any("no noise band" in warning for warning in comparison.warnings)


def test_runs_of_different_scenarios_have_no_noise_band(steady: Result) -> None:
    comparison = compare(steady, with_latency(steady, 1.2).model_copy(update={"scenario": "burst"}), BOUNDS)
    assert {figure.name for figure in comparison.figures if figure.noise is not None} == {"failed"}
    assert regressions(comparison) == ["p50", "p99"]
    assert any("no noise band" in warning for warning in comparison.warnings)


def test_seconds_of_which_nothing_is_known_do_not_spoil_the_band_of_cpu_and_memory(steady: Result) -> None:
    def with_gaps(run: Result, gaps: range) -> Result:
        series = [second.model_copy(update={"server_cpu": None}) if second.at in gaps else second for second in run.series]
        late = run.series[-1].model_copy(update={"at": len(run.series), "server_cpu": None, "server_rss": None})
        return run.model_copy(update={"series": [*series, late]})

    other = virtual_run(rates=STEADY, seed=2)
    found = changed(with_gaps(steady, range(3, 4)), with_gaps(other, range(19, 20)))
    assert found["server CPU"].noise == pytest.approx(changed(steady, other)["server CPU"].noise, rel=0.5)
    assert found["memory at most"].noise is not None
    assert changed(with_gaps(steady, range(2, 4)), other)["server CPU"].noise is None  # a whole stretch


def test_other_circumstances_are_named_and_those_that_spoil_the_comparison_warned_of(steady: Result) -> None:
    other = steady.model_copy(
        update={
            "generator": "locust",
            "offered_rate": 400.0,
            "machine": steady.machine.model_copy(update={"cores": 8}),
            "server_settings": {"WORKERS": "2", "BATCH_MAX_TOKENS": "512"},
            "model": "another",
        }
    )
    comparison = compare(steady, other, BOUNDS)
    assert [name for name, _, _ in comparison.differences] == ["generator", "offered rate", "machine", "model", "WORKERS"]
    assert ("WORKERS", "1", "2") in comparison.differences
    assert len(comparison.warnings) == 3
    settings = compare(steady, steady.model_copy(update={"server_settings": {"CACHE": "1"}}), BOUNDS)
    assert settings.differences == [("WORKERS", "1", "not set"), ("BATCH_MAX_TOKENS", "512", "not set"), ("CACHE", "not set", "1")]
    assert settings.warnings == []


def test_comparing_needs_nothing_but_what_serving_needs() -> None:
    code = "import sys, loadtest.compare, loadtest.words; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"hdrh", "matplotlib", "locust", "jinja2", "gevent", "numpy"}.isdisjoint(loaded)
