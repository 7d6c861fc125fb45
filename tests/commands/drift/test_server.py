"""The commands and a real server: what it decides, its log and its counts lead to, too; and it accepts the present."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import httpx2
import pytest

from commands.drift.history import follow
from commands.drift.monitoring import layout_and_baseline, new_monitor
from loadtest.corpus import tickets
from server.observe.drift_log import Tally, read_blocks
from tests.commands.drift.logs import run
from tests.server.conftest import real_server, wait_until_ready

SETTINGS = {"DRIFT_BLOCK_SECONDS": "0.1", "DRIFT_LEARN_TEXTS": "400", "DRIFT_LEARN_DAYS": "0.000001", "PREDICTION_LOG": "log.jsonl"}


def ask(url: str, texts: list[str]) -> None:
    httpx2.post(f"{url}/classify", json={"texts": texts}, timeout=30).raise_for_status()


def test_a_server_its_log_and_its_counts_come_to_the_same_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    normal, strange = tickets(1), (f"zx{number} qw qw <br/> {number * 7919 % 10007} lorem ipsum" for number in range(10**6))
    with real_server(tmp_path, **SETTINGS) as server:
        wait_until_ready(server.url)
        deadline = time.monotonic() + 30
        while httpx2.get(f"{server.url}/drift").json()["levels"]["input"]["state"] == "learning":
            ask(server.url, list(islice(normal, 32)))
            assert time.monotonic() < deadline
        while (told := httpx2.get(f"{server.url}/drift").json()["levels"]["input"])["state"] != "drift":
            ask(server.url, list(islice(strange, 32)))
            assert time.monotonic() < deadline
        watched = run("watch", server.url, "--seconds", "0")
        accepted = run("accept", server.url, "--note", "a new kind of customer")
        notes = httpx2.get(f"{server.url}/drift").json()["baseline"]["notes"]
        gone = run("accept", server.url, "--note", "at once")
        other = run("accept", server.url, "--note", "x", "--out", tmp_path / "x.json")
    assert "input  drift" in watched.stdout
    assert told["where"] in watched.stdout
    # The drifting texts that have been counted since the alarm may be too few.
    if accepted.exit_code == 0:
        assert "a new kind of customer" in notes
    else:
        assert "a baseline needs 200" in " ".join(accepted.stderr.split())
    assert (gone.exit_code, "a baseline needs 200" in " ".join(gone.stderr.split())) == (1, True)
    assert other.exit_code == 2
    # To the second: the report shows minutes.
    layout, _ = layout_and_baseline(None)
    monitor = new_monitor(layout, None)
    history = follow(monitor, read_blocks([tmp_path / "log.jsonl"], layout, monitor.promise.block_seconds, Tally()))
    verdict = history.verdicts["input"]
    assert verdict.since is not None
    since = datetime.fromtimestamp(history.timeline.time(verdict.since), UTC).isoformat(timespec="seconds")
    assert (verdict.where, since) == (told["where"], told["since"].replace("Z", "+00:00"))
    reported = run("report", tmp_path / "log.jsonl")
    assert (reported.exit_code, told["where"] in reported.stdout) == (1, True)
