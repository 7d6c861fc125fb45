"""`supportbot compare`: the exit status and what is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner
from typer.testing import Result as Ended

from commands.compare import compare
from loadtest.results import Result, write_result
from tests.loadtest.virtual_run import virtual_run

app = typer.Typer()
app.command()(compare)


def run(*arguments: str | Path) -> Ended:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def steady() -> Result:
    return virtual_run(rates=[(300.0, 20.0)])


@pytest.fixture
def before(steady: Result, tmp_path: Path) -> Path:
    return saved(steady, tmp_path / "before.json")


def saved(result: Result, path: Path) -> Path:
    write_result(result, path)
    return path


def test_a_run_compared_with_itself_passes(before: Path) -> None:
    ended = run(before, before)
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert "no change" in ended.stdout
    assert "what else differs" not in ended.stdout


def test_a_slower_run_fails_and_the_figures_are_named(before: Path, tmp_path: Path) -> None:
    after = saved(virtual_run(rates=[(300.0, 20.0)], seed=2, slower=1.3), tmp_path / "after.json")
    ended = run(before, after)
    assert ended.exit_code == 1
    complaints = ended.stderr.splitlines()
    assert [complaint.split(": ")[-2] for complaint in complaints] == ["p50", "p99"]
    assert all("is beyond the bound of +10 % and beyond noise" in complaint for complaint in complaints)
    assert ended.stdout.count("REGRESSION") == 2
    assert run(after, before).exit_code == 0
    assert run(before, after, "--max-p50-rise", "90", "--max-p99-rise", "90").exit_code == 0
    assert "p99" not in run(before, after, "--max-p99-rise", "90").stderr


def test_noise_passes(before: Path, tmp_path: Path) -> None:
    after = saved(virtual_run(rates=[(300.0, 20.0)], seed=2), tmp_path / "after.json")
    bounds = ("--max-p50-rise", "0", "--max-p99-rise", "0", "--max-rate-drop", "0", "--max-failed-rise", "0")
    ended = run(before, after, *bounds)
    assert ended.exit_code == 0, ended.stderr
    assert "within noise" in ended.stdout


def test_fewer_answers_and_more_failures_fail_by_their_own_bounds(steady: Result, before: Path, tmp_path: Path) -> None:
    worse = steady.model_copy(update={"achieved_rate": 0.9 * steady.achieved_rate, "errors": {"504": 600}})
    after = saved(worse, tmp_path / "after.json")
    ended = run(before, after)
    assert ended.exit_code == 1
    assert "answered: -10.0 % is beyond the bound of -5 %" in ended.stderr
    assert "failed: +10 points is beyond the bound of +0.1 points" in ended.stderr
    assert run(before, after, "--max-rate-drop", "11", "--max-failed-rise", "11").exit_code == 0


def test_a_run_that_answered_nothing_fails_and_none_compares_with_it(steady: Result, before: Path, tmp_path: Path) -> None:
    silent = steady.model_copy(
        update={"latency": None, "stretches": [], "achieved_rate": 0.0, "errors": {"timeout": steady.requests}}
    )
    after = saved(silent, tmp_path / "after.json")
    ended = run(before, after)
    assert ended.exit_code == 1
    assert "p99: B has none" in ended.stderr
    ended = run(after, before)
    assert ended.exit_code == 2
    assert "no request was answered" in ended.stderr


def test_what_cannot_be_compared_is_refused(steady: Result, before: Path, tmp_path: Path) -> None:
    burst = saved(steady.model_copy(update={"scenario": "burst"}), tmp_path / "burst.json")
    broken = tmp_path / "broken.json"
    broken.write_text('{"scenario": "steady"}', encoding="utf-8")
    for after, reason in (
        (burst, "different scenarios, steady and burst: --force"),
        (broken, "broken.json: not the result of a load test"),
        (tmp_path / "none.json", "none.json: No such file"),
        (tmp_path, "Is a directory"),
    ):
        ended = run(before, after)
        assert ended.exit_code == 2
        assert reason in ended.stderr
    forced = run(before, burst, "--force")
    assert forced.exit_code == 0
    assert "what else differs" in forced.stdout


def test_another_generator_is_warned_of(steady: Result, before: Path, tmp_path: Path) -> None:
    after = saved(steady.model_copy(update={"generator": "locust"}), tmp_path / "after.json")
    ended = run(before, after)
    assert ended.exit_code == 0
    assert "warning: made by different generators, light and locust" in ended.stderr


def test_json_holds_the_figures_the_warnings_and_the_regressions(before: Path, tmp_path: Path) -> None:
    slower = virtual_run(rates=[(300.0, 20.0)], seed=2, slower=1.3, generator="locust")
    ended = run(before, saved(slower, tmp_path / "after.json"), "--json")
    assert ended.exit_code == 1
    found = json.loads(ended.stdout)
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert found["regressions"] == ["p50", "p99"]
    assert figures["p99"]["outcome"] == "regression"
    assert figures["p99"]["bound"] == 10
    assert figures["p99"]["change"] > figures["p99"]["noise"] > 0
    assert {"name": "generator", "a": "light", "b": "locust"} in found["differences"]
    assert len(found["warnings"]) == 1


def test_what_a_result_says_is_shown_as_it_is(steady: Result, before: Path, tmp_path: Path) -> None:
    after = saved(steady.model_copy(update={"model": "[red]m[/red]", "errors": {"[b]x": 1}}), tmp_path / "after.json")
    ended = run(before, after)
    assert "[red]m[/red]" in ended.stdout
    assert "failed: [b]x" in ended.stdout
