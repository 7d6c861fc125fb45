"""`supportbot capacity`: the search on a server that is a formula, the model on costs that are known, and the command for real."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import typer
from typer.testing import CliRunner, Result

from batching import BatchPolicy
from batching.simulation import Item, Machine, simulate
from loadtest.processes import ServerFailed
from models.making.pass_times import SERVED_TERMS, draw_batch, fit, formula
from server.capacity.load import Costs, Load, Step, percentile
from server.capacity.model import Model, calibrated
from server.capacity.planning import Measured, Point, Size, Sizing, machines_for, measure, sizes
from server.capacity.report import Report, trust
from server.capacity.search import MOST_RATES, Found, OutOfTime, search
from server.commands.capacity import capacity
from server.service import usable_cores
from tests.loadtest.fake_server import FakeServer, serving
from tests.server.conftest import clean_environment

app = typer.Typer()
app.command()(capacity)
COMMAND = (sys.executable, "-c", "import typer; from server.commands.capacity import capacity; typer.run(capacity)")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


# --- the search


def limited(limit: float, noise: float = 0.0, seed: int = 1) -> tuple[Callable[[float], bool], list[tuple[float, bool]]]:
    """A server that is good up to a limit, as it seems through noise; and what was asked of it."""
    generator, asked = random.Random(seed), list[tuple[float, bool]]()

    def is_good(rate: float) -> bool:
        asked.append((rate, rate * generator.lognormvariate(0, noise) <= limit))
        return asked[-1][1]

    return is_good, asked


@pytest.mark.parametrize("guess", [50.0, 400.0, 500.0, 600.0, 3000.0])
def test_without_noise_the_limit_lies_between_two_rates_that_are_near(guess: float) -> None:
    is_good, _ = limited(510.0)
    found = search(is_good, guess, tolerance=0.04)
    assert found.confirmed is not None
    assert found.rejected is not None
    assert found.confirmed <= 510 < found.rejected
    assert found.ratio <= 1.04


def test_with_noise_it_is_near_takes_a_bounded_number_of_tries_and_reports_no_rejected_rate() -> None:
    for seed in range(200):
        is_good, asked = limited(510.0, noise=0.05, seed=seed)
        found = search(is_good, 600.0, tolerance=0.04)
        assert len(asked) <= 3 * MOST_RATES
        assert found.confirmed is not None
        assert found.confirmed == pytest.approx(510, rel=0.15)
        verdicts = [good for rate, good in asked if rate == found.confirmed]
        assert verdicts.count(True) == 2
        assert found.confirmed < (found.rejected or math.inf)


def test_a_try_that_was_disturbed_decides_nothing() -> None:
    is_good, asked = limited(510.0)
    found = search(lambda rate: is_good(rate) and len(asked) != 1, 500.0, tolerance=0.04)
    assert found.confirmed is not None
    assert found.confirmed >= 500


def test_where_no_rate_or_every_rate_is_good_it_ends_all_the_same() -> None:
    assert search(lambda _: False, 500.0, tolerance=0.04).confirmed is None
    assert search(lambda _: True, 500.0, tolerance=0.04).rejected is None


def test_when_time_is_up_it_says_what_is_known() -> None:
    is_good, asked = limited(510.0)

    def in_time(rate: float) -> bool:
        if len(asked) == 5:
            raise OutOfTime
        return is_good(rate)

    # 500 was good twice, 575 bad twice; of the rate between them, there was one try.
    found = search(in_time, 500.0, tolerance=0.04)
    assert found.confirmed == 500.0
    assert found.rejected == pytest.approx(575.0)


# --- the model


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


def light_and_full(rest: float = 0.002) -> tuple[list[Step], list[Step]]:
    return [step_of(30.0, 10.0, rest, seed) for seed in (1, 2, 3)], [step_of(FULL, 5.0, rest, seed) for seed in (4, 5, 6)]


def test_the_model_finds_the_costs_that_steps_were_made_of() -> None:
    model = calibrated(by_tokens, POLICY, LENGTHS, 2, *light_and_full())
    found = model.machine
    assert found.cores == 2
    assert found.slowdown == pytest.approx(MACHINE.slowdown, rel=0.02)
    assert found.loop_item == pytest.approx(MACHINE.loop_item, rel=0.05)
    assert found.loop_pass == pytest.approx(MACHINE.loop_pass, rel=0.05)
    assert found.client_item == pytest.approx(MACHINE.client_item, rel=0.05)
    assert found.pass_wait == pytest.approx(MACHINE.pass_wait, rel=0.1)
    assert (model.p50_rest, model.p99_rest) == pytest.approx((0.002, 0.002), rel=0.15)


def test_it_predicts_steps_that_it_has_not_seen() -> None:
    model = calibrated(by_tokens, POLICY, LENGTHS, 2, *light_and_full())
    for rate in (100.0, 250.0, 400.0):
        step = step_of(rate, 10.0, rest=0.002, seed=7)
        found = model.replay(step)
        assert found.p50 == pytest.approx(step.p50, rel=0.05)
        assert found.p99 == pytest.approx(step.p99, rel=0.05)


def test_a_round_that_was_disturbed_counts_for_nothing() -> None:
    light, full = light_and_full()
    light[1], full[1] = step_of(30.0, 10.0, rest=0.5), step_of(FULL, 5.0, rest=0.5)
    model = calibrated(by_tokens, POLICY, LENGTHS, 2, light, full)
    assert model.p50_rest == pytest.approx(0.002, rel=0.15)
    assert model.machine.slowdown == pytest.approx(MACHINE.slowdown, rel=0.02)


def test_of_passes_that_are_all_alike_the_loop_has_one_cost() -> None:
    one_by_one = BatchPolicy(max_items=1, max_cost=200, workers=2)
    light, full = light_and_full()
    alike = [[replace(step, costs=Costs(0.0012, 0.0, 0.0001, 1.0, 0.02, 0.0)) for step in steps] for steps in (light, full)]
    machine = calibrated(by_tokens, one_by_one, LENGTHS, 2, *alike).machine
    assert 0.0006 <= machine.loop_item <= 0.0012
    assert machine.loop_pass == 0.0


def test_more_cores_bring_more_until_the_event_loop_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.capacity.planning.CORES", (1, 4, 32))
    one, two, four, most = sizes(MODEL, 0.25, 900.0, cores=2)
    assert [one.cores, two.cores, four.cores, most.cores] == [1, 2, 4, 32]
    assert None not in (one.rate, two.rate, four.rate, most.rate)
    assert (two.rate or 0) > 1.5 * (one.rate or 0)
    assert one.loop < two.loop < four.loop
    assert (most.rate or 0) < 1 / MACHINE.loop_item
    assert most.loop > 0.9


def test_the_client_counts_here_and_not_on_machines_to_buy() -> None:
    here, bought = MODEL.highest_rate(0.25, 300.0), MODEL.with_cores(2).highest_rate(0.25, 300.0)
    assert here is not None
    assert bought is not None
    assert bought > here


def test_a_bound_below_a_single_pass_has_no_rate() -> None:
    assert MODEL.highest_rate(0.0005, 300.0) is None


def test_machines_are_counted_in_whole_ones_and_the_last_is_not_forgotten() -> None:
    assert [machines_for(load, 500.0) for load in (1, 500, 501, 3000)] == [1, 1, 2, 6]


# --- pass times


def test_a_fit_finds_the_coefficients_despite_disturbed_passes() -> None:
    generator, terms = random.Random(1), SERVED_TERMS["packed"]
    batches = [[LENGTHS[index] for index in draw_batch(generator, LENGTHS, 32, 512)] for _ in range(200)]
    true = formula(terms, (0.001, 0.00006))
    seconds = [true(batch) * (3.0 if index % 10 == 0 else 1.0) for index, batch in enumerate(batches)]
    coefficients, errors = fit([terms(batch) for batch in batches], seconds)
    assert coefficients == pytest.approx([0.001, 0.00006], rel=0.02)
    assert sorted(errors)[100] < 0.02


def test_drawn_batches_keep_to_the_limits_and_are_of_all_sizes() -> None:
    generator = random.Random(1)
    batches = [[LENGTHS[index] for index in draw_batch(generator, LENGTHS, 8, 100)] for _ in range(300)]
    assert {len(batch) for batch in batches} >= {1, 2, 4}
    assert all(len(batch) == 1 or sum(batch) <= 100 for batch in batches)
    assert max(map(len, batches)) <= 8


# --- what is said


def point(error: float, others: float = 0.0) -> Point:
    return Point(100.0, 0.010, 0.050, 0.010, 0.050 * (1 + error), others)


def test_it_says_how_far_to_trust_the_simulation() -> None:
    def said(*points: Point, here: float | None = 500.0) -> str:
        return trust(Sizing(2, MODEL, points, here, []), 510.0)

    assert "within 12%" in said(point(0.02), point(-0.12))
    assert "500 (-2%)" in said(point(0.0))
    assert "off by up to 40%" in said(point(-0.4))
    assert "quiet machine" not in said(point(0.0, others=0.01))
    assert "0.30 cores" in said(point(0.0, others=0.30))
    assert "highest" not in said(point(0.0), here=None)


def test_what_was_found_can_be_written_down() -> None:
    failed = Step(900.0, [0.1], [0], [math.inf], given_up=True, costs=None)
    measured = Measured(600.0, [step_of(300.0, 1.0), failed], Found(300.0, 900.0))
    sizing = Sizing(2, MODEL, [point(0.1)], 500.0, [Size(1, 150.0, 0.1), Size(2, None, 0.0)])
    written = Report("fake@1", 0.25, 1000.0, measured, sizing).as_json()
    assert (written["highest"], written["rejected"], written["machines"]) == (300.0, 900.0, 4)
    assert [found["met"] for found in written["tries"]] == [True, False]
    assert written["simulation"]["points"][0]["simulated_p99_ms"] == pytest.approx(55.0)
    assert [size["machines"] for size in written["simulation"]["sizes"]] == [7, None]
    without = Report("fake@1", 0.25, None, measured, None).as_json()
    assert (without["machines"], without["simulation"]) == (None, None)


# --- load


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


# --- the command


def test_what_is_wrong_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("body\nhello\n", encoding="utf-8")
    for arguments, reason in (
        (("--json", tmp_path / "none" / "out.json"), "none: no such folder"),
        (("--json", tmp_path), "not a regular file"),
        (("--url", "localhost:8000"), "must be the URL of a server"),
        (("--url", "http://127.0.0.1:99999"), "must be the URL of a server"),
        (("--url", "http://192.0.2.1:8000"), "say --remote"),
        (("--url", "http://example.org"), "say --remote"),
        (("--url", "http://127.0.0.1:9", "--bundle", tmp_path), "--bundle is for a server that is started here"),
        (("--remote",), "--remote is about --url"),
        (("--data", tmp_path / "none.csv"), "none.csv: No such file"),
        (("--data", data), "no column 'text'"),
        (("--slo-p99-ms", "0"), "slo-p99-ms"),
        (("--seconds", "1"), "seconds"),
        (("--load", "0"), "load"),
    ):
        result = run(*arguments)
        assert (result.exit_code, reason in result.stderr) == (2, True), (arguments, result.stderr)


def test_a_bundle_that_is_none_and_a_server_that_is_not_there_fail_the_command(tmp_path: Path) -> None:
    for arguments in (("--bundle", tmp_path), ("--url", "http://127.0.0.1:9")):
        result = run(*arguments, "--seconds", "5")
        assert (result.exit_code, "error:" in result.stderr) == (1, True)


def test_a_running_server_is_measured_and_nothing_is_simulated(tmp_path: Path) -> None:
    written = tmp_path / "out.json"
    data = tmp_path / "data.txt"
    data.write_text("one\ntwo\n", encoding="utf-8")
    with serving(FakeServer(delay=0.02)) as url:
        result = run("--url", f"{url}/", "--seconds", "5", "--load", "100000", "--data", data, "--json", written)
    assert result.exit_code == 0, result.stderr
    assert "2 different texts" in result.stderr
    assert "texts/s with p99 within 250 ms" in result.stdout
    found = json.loads(written.read_bytes())
    assert found["simulation"] is None
    assert found["machines"] == math.ceil(100_000 / found["highest"])
    assert f"100000 texts/s need {found['machines']} of them" in result.stdout


def test_a_short_run_measures_simulates_and_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("server.capacity.planning.CORES", (1,))
    written = tmp_path / "out.json"
    result = run("--seconds", "5", "--load", "2000", "--json", written, "--slo-p99-ms", "10000")
    assert result.exit_code == 0, result.stderr
    found = json.loads(written.read_bytes())
    assert found["highest"] > 0
    assert len(found["simulation"]["points"]) == 3
    assert {size["cores"] for size in found["simulation"]["sizes"]} == {1, usable_cores()}
    # In so short a run either of the two may be found to be nothing.
    assert found["simulation"]["costs"]["loop_item"] + found["simulation"]["costs"]["loop_pass"] > 0
    assert "The simulation is" in result.stderr


@contextmanager
def started(folder: Path) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """The command as a process, and the server that it has started."""
    process = subprocess.Popen(
        [*COMMAND, "--seconds", "60"], cwd=folder, env=clean_environment(), stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 30
        while not (children := psutil.Process(process.pid).children()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield process, children[0]
    finally:
        process.kill()
        process.wait(10)
        assert process.stderr is not None
        process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_when_it_is_stopped_its_server_ends_too(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path) as (process, server):
        process.send_signal(number)
        assert process.wait(30) != 0
        assert not server.is_running()


def test_when_its_server_dies_it_says_so_and_fails(tmp_path: Path) -> None:
    with started(tmp_path) as (process, server):
        os.kill(server.pid, signal.SIGKILL)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "the server has ended" in said
