"""The load test itself, short: a real server, both generators."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from loadtest.answers import Reference
from loadtest.options import read_options
from loadtest.processes import ServerFailed
from loadtest.results import Result, read_result
from loadtest.run import RunError, Target, _target, run_scenario
from loadtest.scenarios import SCENARIOS
from loadtest.settings import check_defaults, server_settings
from tests.loadtest.fake_server import FakeServer, serving
from tests.loadtest.test_measure import BEGIN, sample
from tests.server.conftest import clean_environment

OURS = {"SCENARIO", "DURATION", "SOAK", "CAPACITY", "GENERATOR", "SEED", "USERS", "SERVER", "OUT", "ANSWERS", "GATES", "UI_PORT"}


def environment(**variables: str) -> dict[str, str]:
    return {name: value for name, value in clean_environment().items() if name not in OURS} | variables


def loadtest(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run in a folder without an .env file. The only gate is for errors: how fast it is here and now is not for a test to say."""
    command = [sys.executable, "-m", "loadtest.run"]
    (folder / "gates.toml").write_text("[steady]\n")
    variables |= {"GATES": "gates.toml"}
    return subprocess.run(
        command, cwd=folder, env=environment(OUT=".", **variables), capture_output=True, text=True, check=False, timeout=90
    )


def agree(result: Result) -> None:
    """The generator's figures and the server's own say the same, if the server has any."""
    assert result.latency
    if result.batches is not None:
        assert result.batches.requests == result.latency.count
        assert result.batches.passes == sum(result.batches.flushes.values()) == sum(result.batches.sizes.values())


def test_a_short_run_by_locust_writes_its_result_and_prints_it(tmp_path: Path) -> None:
    done = loadtest(tmp_path, CAPACITY="120", DURATION="2", WORKERS="1")
    assert done.returncode == 0, done.stdout + done.stderr
    result = read_result(tmp_path / "steady.json")
    assert (result.scenario, result.generator, result.errors, result.target) == ("steady", "locust", {}, "started here")
    assert 80 < result.requests < 170
    assert result.server_settings == {"ACCESS_LOG": "false", "LOG_LEVEL": "warning", "WORKERS": "1"}
    assert result.model.startswith("supportbot@")
    assert result.server_cpu
    assert result.client_cpu
    assert result.server_rss_peak
    assert result.pass_ms
    assert set(result.stages) == {"tokenize", "queue", "inference", "rest"}
    agree(result)
    printed = rf"steady, by locust: .*\n .* offered, .*; {result.requests} requests, 0 failed\n  p50 [\d.]+ ms, .* p99 [\d.]+ ms"
    assert re.search(printed, done.stdout)
    assert result.other_cpu is not None
    assert "holds  error rate: 0, bound 0" in done.stdout
    assert (tmp_path / "steady.html").exists()


def test_a_short_run_by_the_light_generator_measures_the_capacity_first(tmp_path: Path) -> None:
    done = loadtest(tmp_path, SCENARIO="mixed", GENERATOR="light", DURATION="1")
    assert "Traceback" not in done.stderr
    found = re.search(r"capacity: (\d+) texts/s with 32 clients", done.stdout)
    assert found
    result = read_result(tmp_path / "mixed.json")
    assert (result.generator, result.errors) == ("light", {})
    assert {"bulk", "interactive"} <= set(result.groups)
    assert 0.4 < result.texts / (0.8 * int(found[1])) < 1.6
    agree(result)


def test_a_wrong_label_fails_the_run_and_the_broken_gate_is_named_and_users_make_a_closed_loop(tmp_path: Path) -> None:
    with serving(FakeServer(lies_from=150, delay=0.01)) as url:
        done = loadtest(tmp_path, HOST=url, USERS="4", GENERATOR="light", DURATION="1")
    assert done.returncode == 1
    assert re.search(r"\(\d+ wrong_label\)", done.stdout)
    assert re.search(r"BROKEN error rate: 0\.\d+, bound 0", done.stdout)
    result = read_result(tmp_path / "closed.json")
    assert (result.target, result.server_settings, result.batches, result.server_cpu) == (url, {}, None, None)


def test_a_server_that_does_not_start_fails_the_run(tmp_path: Path) -> None:
    done = loadtest(tmp_path, SERVER=f"{sys.executable} -c raise(SystemExit(3))")
    assert done.returncode == 1
    assert "did not become ready" in done.stderr


def test_a_host_that_is_no_url_and_one_that_does_not_answer_are_errors_in_a_line(tmp_path: Path) -> None:
    for host, said in (("localhost:8000", "must be the URL"), ("http://127.0.0.1:1", "no answer to a known text")):
        done = loadtest(tmp_path, HOST=host)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_locust_s_page_runs_the_scenario_when_it_is_started_there(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with serving(FakeServer()) as url:
        variables = environment(HOST=url, CAPACITY="200", DURATION="1", UI_PORT=str(port))
        process = subprocess.Popen(
            [sys.executable, "-m", "loadtest.run", "--ui"],
            cwd=tmp_path,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            page = f"http://127.0.0.1:{port}"
            until(lambda: bool(get(page)))
            get(f"{page}/swarm", b"")
            until(lambda: json.loads(get(f"{page}/stats/requests"))["state"] == "stopped")
            stats = json.loads(get(f"{page}/stats/requests"))["stats"]
        finally:
            process.send_signal(signal.SIGINT)
            output = process.communicate(timeout=20)
    assert [(row["name"], row["num_failures"]) for row in stats] == [("/classify", 0), ("Aggregated", 0)]
    assert stats[0]["num_requests"] > 50
    assert process.returncode == 0, output


def get(url: str, data: bytes | None = None) -> bytes:
    with urllib.request.urlopen(url, data, timeout=10) as response:  # noqa: S310 - our own
        content: bytes = response.read()
    return content


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another process will bring about."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if condition():
                return
        time.sleep(0.05)
    raise AssertionError("it has not come about")


def test_the_settings_of_our_server_are_those_of_the_environment_above_the_env_file(tmp_path: Path) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("workers=3\nBATCH_MAX_TEXTS=16\nPREDICTION_LOG=log.jsonl\nOTHER=1\nQUEUE_MAX_TEXTS=\n", encoding="utf-8")
    environment = {
        "Workers": "1",
        "LOG_FORMAT": "",
        "BATCH_MAX_TEXTS": "",
        "PREDICTION_LOG_SECRET": "secret",
        "SERVER_PASSWORD": "x",
    }
    known = server_settings(environment, env_file)
    # What is private is not passed on with a result.
    assert known == {"WORKERS": "1", "BATCH_MAX_TEXTS": "16", "PREDICTION_LOG": "(set)", "PREDICTION_LOG_SECRET": "(set)"}
    assert server_settings({}, tmp_path / "none") == {}


def test_defaults_are_measured_only_where_nothing_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in server_settings(os.environ):
        monkeypatch.delenv(name)
    check_defaults()
    (tmp_path / ".env").write_text("WORKERS=3\n", encoding="utf-8")
    with pytest.raises(ServerFailed, match=r"^WORKERS: must not be set"):
        check_defaults()


def test_a_load_test_leaves_the_prediction_log_of_real_customers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictions = tmp_path / "predictions.jsonl"
    monkeypatch.setenv("PREDICTION_LOG", str(predictions))
    with _target(read_options({}), SCENARIOS["steady"]) as target:
        said = httpx2.post(f"{target.url}/classify", json={"text": "payment failed"}).json()
        assert said["prediction"] == "billing"
        metrics = httpx2.get(f"{target.url}/metrics").text
    assert "supportbot_prediction_log_records_total" in metrics
    assert not predictions.exists()


def test_a_generator_that_loses_requests_gives_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loadtest.run._generate", lambda *_: [])
    monkeypatch.setattr("loadtest.run.scrape", lambda _: None)
    told = [sample(number / 100) for number in range(50)]
    monkeypatch.setattr("loadtest.run.read_samples", lambda _: (BEGIN, told))
    options = read_options({"DURATION": "10"})
    with pytest.raises(RunError, match=r"^steady: locust was to send \d+ requests and tells of 50$"):
        run_scenario(SCENARIOS["steady"], options, Target("http://127.0.0.1:1"), Reference(), 40.0)
