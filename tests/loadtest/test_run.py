"""The load test itself, short: a real server, real Locust."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.server.conftest import clean_environment


def loadtest(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run in a folder without an .env file."""
    command, variables = [sys.executable, "-m", "loadtest.run"], clean_environment() | environment
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, check=False, timeout=90)


def test_a_short_run_prints_percentiles_and_passes(tmp_path: Path) -> None:
    done = loadtest(tmp_path, USERS="4", DURATION="2")
    assert done.returncode == 0, done.stderr
    found = re.search(r"(\d+) requests, 0 failed, .*p50 [\d.]+ ms, p95 [\d.]+ ms, p99 [\d.]+ ms", done.stdout)
    assert found
    assert int(found[1]) > 10


def test_failing_requests_fail_the_run(tmp_path: Path) -> None:
    done = loadtest(tmp_path, USERS="2", DURATION="1", MAX_BODY_BYTES="5")
    assert done.returncode == 1
    assert re.search(r"(\d+) requests, \1 failed", done.stdout)


def test_a_server_that_does_not_start_fails_the_run(tmp_path: Path) -> None:
    done = loadtest(tmp_path, SERVER=f"{sys.executable} -c raise(SystemExit(3))")
    assert done.returncode == 1
    assert "did not become ready" in done.stderr


def test_a_host_that_is_no_url_is_refused(tmp_path: Path) -> None:
    done = loadtest(tmp_path, HOST="localhost:8000")
    assert done.returncode == 1
    assert "must be the URL" in done.stderr
