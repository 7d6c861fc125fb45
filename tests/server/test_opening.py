"""The bundle that is served: what names none stops the start, and what is not there yet is tried again if so wanted."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest
from structlog.testing import capture_logs

from models.bundle import MODEL, BundleError
from models.fake import FakeClassifier
from server.opening import LONGEST_PAUSE_SECONDS, check_bundle, open_patiently
from server.settings import Settings, SettingsError
from tests.server.conftest import Process, real_server, wait_until_ready

SettingsMaker = Callable[..., Settings]


def test_a_bundle_that_is_none_stops_the_start(settings: SettingsMaker, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for name, what in (("none", "no such folder"), ("file", "not a folder"), ("empty", "not a bundle, it has no manifest.json")):
        with pytest.raises(SettingsError, match=f"BUNDLE={tmp_path / name}: {what}"):
            check_bundle(settings(bundle=tmp_path / name))
        check_bundle(settings(bundle=tmp_path / name, bundle_timeout=1))
    check_bundle(settings())


class Patience:
    """A clock that only waiting moves, and a model that comes after some tries."""

    def __init__(self, tries: int) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self.told: list[str] = []
        self._tries = tries

    def wait(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    def open(self) -> FakeClassifier:
        if len(self.pauses) < self._tries:
            raise BundleError("no manifest.json")
        return FakeClassifier()

    def run(self, seconds: float) -> FakeClassifier:
        found = open_patiently(self.open, seconds, self.told.append, self.wait, lambda: self.now)
        assert isinstance(found, FakeClassifier)
        return found


def test_pauses_grow_to_a_bound_and_each_try_is_told_and_logged() -> None:
    patience = Patience(tries=8)
    with capture_logs() as logs:
        patience.run(1_000)
    assert patience.pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert max(patience.pauses) == LONGEST_PAUSE_SECONDS
    assert patience.told == ["BundleError: no manifest.json"] * 8
    assert [line["next_try_in_seconds"] for line in logs] == patience.pauses
    assert {(line["event"], line["log_level"], line["reason"]) for line in logs} == {
        ("model cannot be used yet", "warning", "BundleError: no manifest.json")
    }


def test_it_is_given_up_when_the_time_is_over_after_one_more_try() -> None:
    patience = Patience(tries=99)
    with pytest.raises(BundleError):
        patience.run(10)
    assert patience.pauses == [1, 2, 4, 3]


def test_without_a_time_there_is_one_try() -> None:
    patience = Patience(tries=1)
    with pytest.raises(BundleError):
        patience.run(0)
    assert patience.told == []


def events(server: Process, event: str) -> list[dict[str, object]]:
    return [found for line in server.log if (found := json.loads(line))["event"] == event]


def test_a_bundle_that_comes_late_is_served(tmp_path: Path, bundle_copy: Path) -> None:
    late = tmp_path / "late"
    with real_server(tmp_path, BUNDLE=str(late), BUNDLE_TIMEOUT="60") as server:
        deadline = time.monotonic() + 20
        while not events(server, "model cannot be used yet"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        waiting = httpx2.get(f"{server.url}/ready")
        assert (waiting.status_code, waiting.json()["error"]["code"]) == (503, "not_ready")
        assert "cannot be used yet" in waiting.json()["error"]["message"]
        shutil.copytree(bundle_copy, tmp_path / "whole")
        (tmp_path / "whole").rename(late)
        deadline = time.monotonic() + 20
        while httpx2.get(f"{server.url}/ready").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert server.stop() == 0


def test_a_bundle_that_does_not_hold_and_is_not_replaced_in_time_ends_the_server(tmp_path: Path, bundle_copy: Path) -> None:
    (bundle_copy / MODEL).write_bytes(b"damaged")
    with real_server(tmp_path, BUNDLE=str(bundle_copy), BUNDLE_TIMEOUT="0.5") as server:
        assert server.popen.wait(20) == 2
    assert events(server, "model cannot be used yet")
    assert events(server, "model cannot be used")


def test_a_bundle_that_is_not_there_stops_the_start_with_status_2(tmp_path: Path) -> None:
    with real_server(tmp_path, BUNDLE="/nope") as server:
        assert server.popen.wait(20) == 2
    assert server.log[-1] == "error: BUNDLE=/nope: no such folder\n"


def test_a_signal_ends_the_waiting(tmp_path: Path) -> None:
    with real_server(tmp_path, BUNDLE="/nope", BUNDLE_TIMEOUT="600") as server:
        assert httpx2.get(f"{server.url}/health").status_code == 200
        assert server.stop() == 0


def test_after_sigterm_it_serves_for_the_delay_and_a_second_signal_ends_it(tmp_path: Path) -> None:
    with real_server(tmp_path, DRAIN_DELAY_MS="60000") as server:
        wait_until_ready(server.url)
        server.popen.terminate()
        deadline = time.monotonic() + 10
        while httpx2.get(f"{server.url}/ready").status_code != 503:
            assert time.monotonic() < deadline
        time.sleep(0.6)  # longer than two signals in one breath are apart
        assert httpx2.post(f"{server.url}/classify", json={"text": "payment failed"}).json()["prediction"] == "billing"
        assert server.stop() == 0
    assert len(events(server, "leaving")) == 1


def test_ctrl_c_has_no_delay(tmp_path: Path) -> None:
    with real_server(tmp_path, DRAIN_DELAY_MS="60000") as server:
        wait_until_ready(server.url)
        server.popen.send_signal(2)
        assert server.popen.wait(20) == 0
    assert events(server, "leaving") == []
