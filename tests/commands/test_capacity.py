"""`supportbot capacity` for real."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import typer
from typer.testing import CliRunner, Result

from commands.capacity import capacity
from machine.cores import usable_cores
from tests.loadtest.fake_server import FakeServer, serving
from tests.server.conftest import clean_environment

app = typer.Typer()
app.command()(capacity)
COMMAND = (sys.executable, "-c", "import typer; from commands.capacity import capacity; typer.run(capacity)")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)])


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
    monkeypatch.setattr("capacity.planning.CORES", (1,))
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
