"""`supportbot drift watch` of replicas that tell counts as servers do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from drift import Recent
from tests.commands.drift.logs import LAYOUT, minutes, run, without_blanks, write_baseline, write_log


@contextmanager
def replica(tell: Callable[[int | None], Any]) -> Iterator[str]:
    """A server whose `GET /drift/counts` answers what `tell` gives; with None, it has no such route."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            since = parse_qs(parts.query).get("since")
            told = tell(int(since[0]) if since else None) if parts.path == "/drift/counts" else None
            content = json.dumps(told).encode()
            self.send_response(200 if told is not None else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def shared(count: int, changed_from: int, replicas: int) -> list[Recent]:
    """What replicas would tell that have shared these minutes among them."""
    recents = [Recent(LAYOUT, 60.0) for _ in range(replicas)]
    for minute in minutes(count, changed_from):
        for number, recent in enumerate(recents):
            recent.add(minute.number, LAYOUT.count_bins(minute.bins[np.arange(12) % replicas == number]))
    return recents


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_baseline(tmp_path_factory.mktemp("baseline") / "baseline.json")


def test_four_replicas_together_decide_in_the_minute_in_which_the_log_of_one_server_does(tmp_path: Path, baseline: Path) -> None:
    alone = run("report", write_log(tmp_path / "log", minutes(300, 200)), "--baseline", baseline)
    with ExitStack() as stack:
        urls = [stack.enter_context(replica(recent.tell)) for recent in shared(300, 200, 4)]
        result = run("watch", *urls, "--baseline", baseline, "--seconds", "0")
    assert result.exit_code == 1, result.output
    changes = [" ".join(line.split()) for line in without_blanks(alone.stdout.partition("changes")[2])[2:]]
    said = [" ".join(line.split()) for line in without_blanks(result.stdout)]
    assert said[: len(changes)] == changes
    assert [line.split()[:2] for line in said[len(changes) :]] == [["input", "drift"], ["output", "ok"], ["outcome", "ok"]]


def test_one_that_does_not_answer_is_said_once_and_the_others_are_watched(baseline: Path) -> None:
    with replica(shared(60, 1000, 1)[0].tell) as good, replica(lambda _: None) as off, replica(lambda _: {"blocks": 1}) as odd:
        gone = "http://127.0.0.1:9"
        result = run("watch", good, off, odd, gone, "--baseline", baseline, "--seconds", "0.25", "--every", "0.1")
    assert result.exit_code == 0, result.output
    assert f"{off}: no drift detection there (404); the others are watched without it" in result.stderr
    assert f"{odd}: not the counts of a replica" in result.stderr
    assert f"{gone}: does not answer" in result.stderr
    assert len(result.stderr.splitlines()) == 3
    nobody = run("watch", gone, "--seconds", "0")
    assert (nobody.exit_code, "no replica could be asked" in nobody.stderr) == (2, True)


def test_without_a_baseline_the_channels_are_those_of_the_replicas() -> None:
    with replica(shared(60, 1000, 1)[0].tell) as good:
        result = run("watch", good, "--seconds", "0")
    assert result.exit_code == 0, result.output
    assert without_blanks(result.stdout) == ["input  learning", "output  learning", "outcome  learning"]


def test_it_goes_on_from_its_state(tmp_path: Path, baseline: Path) -> None:
    state = tmp_path / "state.json"
    (early,), (late,) = shared(202, 200, 1), shared(300, 200, 1)
    with replica(early.tell) as url:
        before = run("watch", url, "--baseline", baseline, "--state", state, "--seconds", "0")
    assert before.exit_code == 0, before.output
    with replica(late.tell) as url:
        # It is the same server a while later; its address is another only here.
        content = json.loads(state.read_bytes())
        content["next"] = {url: next(iter(content["next"].values()))}
        state.write_text(json.dumps(content), encoding="utf-8")
        after = run("watch", url, "--baseline", baseline, "--state", state, "--seconds", "0")
        whole = run("watch", url, "--baseline", baseline, "--seconds", "0")
    assert (after.exit_code, after.stdout) == (1, whole.stdout)
    state.write_text("{}", encoding="utf-8")
    broken = run("watch", "http://127.0.0.1:9", "--baseline", baseline, "--state", state, "--seconds", "0")
    assert (broken.exit_code, "not the state of replicas" in broken.stderr) == (2, True)


def test_wrong_addresses_are_refused(tmp_path: Path) -> None:
    for arguments, reason in (
        (("localhost:8000",), "must be the URL of a server"),
        (("http://127.0.0.1:99999",), "must be the URL of a server"),
        (("http://127.0.0.1:9", "http://127.0.0.1:9"), "named twice"),
        (("http://127.0.0.1:9", "--state", tmp_path / "no" / "state"), "no: no such folder"),
    ):
        result = run("watch", *arguments, "--seconds", "0")
        assert (result.exit_code, reason in result.stderr) == (2, True), (arguments, result.stderr)
