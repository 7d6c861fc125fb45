"""A real server and several hundred clients that do all that clients do; then the books of both sides are compared.

CHAOS_REQUESTS and CHAOS_SEED choose how many requests, at least two thousand, and which; `pytest -s` shows what became of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from server.settings import DIALECTS
from tests.server.chaos import CLOSED, LEFT, MARKER, MAX_BODY_BYTES, REFUSED, Ask, Crowd, Outcome, Plan
from tests.server.conftest import wait_until_ready
from tests.server.test_process import server_with

REQUESTS = int(os.environ.get("CHAOS_REQUESTS", "10000"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
CLIENTS = 300
# More than are on their way at any time, so that some begin when the server is draining.
LATE = max(CLIENTS + 200, REQUESTS // 20)
# Bounds for a machine that is busy with other things; none of them is near what is usual.
ANSWER_SECONDS = 20
RUN_SECONDS = 180

MODEL = """
from tests.server.chaos import ChaosClassifier
server.serving.open_default_classifier = lambda _: ChaosClassifier()
"""
SETTINGS = {
    "PYTHONPATH": str(Path(__file__).parents[2]),
    "WORKERS": "2",
    "QUEUE_MAX_TEXTS": "200",
    "MAX_BODY_BYTES": str(MAX_BODY_BYTES),
    "BODY_TIMEOUT_MS": "1500",
    "DRAIN_LINGER_MS": "2000",
    # Enough to find every text at fault in a batch of 32, so that no other ever fails with it.
    "BISECT_MAX_PASSES": "64",
}
DRAINING = "503 draining"
# In the log, of requests whose client left.
GONE = 499


@dataclass
class Chaos:
    """What is left of a run: what the clients got, and the log. `requests` are its access lines by request id."""

    outcomes: list[Outcome]
    exit_status: int
    text: str
    lines: list[dict[str, Any]]
    requests: dict[str, dict[str, Any]]
    drained: dict[str, Any]

    def texts(self, status: int, measure: Callable[[Ask], int] = lambda ask: len(ask.labels)) -> int:
        """Of the requests that the server answered with this status, by its own log: how many texts they had together."""
        asks = (outcome.ask for outcome in self.outcomes)
        # One that could not be parsed, because its client left in the body, has no texts that count.
        return sum(
            measure(ask) for ask in asks if (line := self.requests.get(ask.name, {})).get("status") == status and "texts" in line
        )


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Chaos:
    with server_with(tmp_path_factory.mktemp("chaos"), MODEL, **SETTINGS) as server:
        wait_until_ready(server.url)
        port = int(server.url.rpartition(":")[2])
        crowd = Crowd(port, Plan(SEED).asks(REQUESTS), server.popen.terminate, late=LATE, patience=ANSWER_SECONDS)
        started = time.perf_counter()
        asyncio.run(asyncio.wait_for(crowd.run(CLIENTS), RUN_SECONDS))
        seconds = time.perf_counter() - started
        exit_status = server.popen.wait(30)
    lines = [json.loads(line) for line in server.log]
    requests = {line["request_id"]: line for line in lines if line["event"] == "request"}
    (drained,) = (line for line in lines if line["event"] == "drained")
    sys.stdout.write(f"\nseed {SEED}, {REQUESTS} requests, {seconds:.1f} s\n{summary(crowd.outcomes)}\n{drained}\n")
    return Chaos(crowd.outcomes, exit_status, "".join(server.log), lines, requests, drained)


def summary(outcomes: Iterable[Outcome]) -> str:
    """What became of each kind of request, a line for each."""
    kinds: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        kinds.setdefault(outcome.ask.kind, Counter())[outcome.what] += 1
    return "\n".join(
        f"{kind:22}" + ", ".join(f"{what}: {count}" for what, count in sorted(kinds[kind].items())) for kind in sorted(kinds)
    )


def test_every_request_gets_an_answer_that_its_kind_may_get(chaos: Chaos) -> None:
    """Or, at the end, is told of it; nobody waits for ever, and nobody meets a 5xx that is not explained."""

    def is_allowed(outcome: Outcome) -> bool:
        ask = outcome.ask
        at_the_end = {REFUSED, CLOSED} | ({DRAINING} if ask.drains else set())
        return outcome.what in ({LEFT} if ask.leaves else ask.answers) or (outcome.is_late and outcome.what in at_the_end)

    assert len(chaos.outcomes) == REQUESTS
    assert [(outcome.ask.kind, outcome.what, outcome.is_late) for outcome in chaos.outcomes if not is_allowed(outcome)] == []


def test_all_that_can_happen_did(chaos: Chaos) -> None:
    possible = {answer for outcome in chaos.outcomes for answer in outcome.ask.answers} | {LEFT, DRAINING}
    assert possible <= {outcome.what for outcome in chaos.outcomes}
    assert {line["status"] for line in chaos.requests.values()} >= {GONE}
    assert chaos.drained["bisected"] > 0
    assert chaos.drained["abandoned"] > 0
    assert chaos.drained["expired"] > 0


def test_every_label_is_its_own_texts_in_their_order(chaos: Chaos) -> None:
    """10."""
    answered = [outcome for outcome in chaos.outcomes if outcome.what == "200" and outcome.ask.labels]
    for outcome in answered:
        if outcome.ask.spoken is not None:
            labels = outcome.ask.spoken.labels(outcome.body)
        else:
            labels = [outcome.body["prediction"]] if outcome.ask.single else outcome.body["predictions"]
        assert labels == list(outcome.ask.labels)
    spoken = {outcome.ask.spoken.name for outcome in answered if outcome.ask.spoken is not None}
    assert spoken == {name for name in DIALECTS if name != "native"}


def test_the_text_at_fault_is_named_and_fails_alone(chaos: Chaos) -> None:
    """16. That no other fails is in the answers that its kind may get."""
    failed = [outcome for outcome in chaos.outcomes if outcome.what == "500 model_failure"]
    for outcome in failed:
        place = "" if outcome.ask.single else f"texts[{outcome.ask.poisoned[0]}]: "
        assert outcome.body["error"]["message"] == f"{place}the model failed on this text"


def test_who_may_come_again_is_told_when_and_who_must_go_is_told_so(chaos: Chaos) -> None:
    for outcome in chaos.outcomes:
        if outcome.what in {"429 queue_full", "504 deadline_unmeetable", DRAINING}:
            assert int(outcome.headers["retry-after"]) >= 1
        if outcome.what in {DRAINING, "408 body_timeout", "413 body_too_large", "400 malformed_request"}:
            assert outcome.headers["connection"] == "close"


def test_the_log_has_every_answer_once_and_under_its_id(chaos: Chaos) -> None:
    refused = {line["request_id"]: line for line in chaos.lines if line["event"] == "refused before it was a request"}
    assert len(chaos.requests) == sum(line["event"] == "request" for line in chaos.lines)
    for outcome in chaos.outcomes:
        line = chaos.requests.get(outcome.ask.name)
        if (known := refused.get(outcome.headers.get("x-request-id", ""))) is not None:
            assert f"{known['status']} {known['code']}" == outcome.what
            assert line is None
        elif outcome.what in {REFUSED, CLOSED}:
            assert line is None
        elif outcome.what == LEFT:
            # Its answer may have been on its way, or the server may never have seen it.
            assert line is None or line["status"] in {200, GONE, 429, 503}
        else:
            assert outcome.headers["x-request-id"] == outcome.ask.name
            assert line is not None
            assert line["status"] == int(outcome.what.split()[0])
        if line is not None and "texts" in line and outcome.ask.labels:
            assert line["texts"] == len(outcome.ask.labels)


def test_9_the_batchers_books_are_closed_and_agree_with_the_clients(chaos: Chaos) -> None:
    counts = chaos.drained
    open_ended = ("waiting", "queued", "queued_bulk", "queued_cost", "reserved", "in_flight", "running_passes", "hung_passes")
    assert {name: counts[name] for name in open_ended} == dict.fromkeys(open_ended, 0)
    assert counts["hangs"] == counts["deaths"] == 0
    assert counts["accepted"] == counts["answered"] + counts["failed"] + counts["abandoned"] + counts["expired"]
    # A text of a client that left was accepted when its body had been read; one whose deadline came may have been refused for it.
    at_the_door = chaos.texts(504) - counts["unmeetable"] - counts["late"] - counts["late_in_tokenizing"]
    assert counts["accepted"] == chaos.texts(200) + chaos.texts(500) + chaos.texts(GONE) + at_the_door
    assert counts["failed"] == chaos.texts(500, lambda ask: len(ask.poisoned))
    assert counts["answered"] >= chaos.texts(200) + chaos.texts(500) - counts["failed"]
    assert counts["abandoned"] <= chaos.texts(GONE)
    assert counts["expired"] <= at_the_door
    assert counts["coalesced"] >= chaos.texts(200, lambda ask: ask.duplicates)
    bulk = chaos.texts(429, lambda ask: len(ask.labels) if ask.priority == "bulk" else 0)
    assert counts["refused"] == {"interactive": chaos.texts(429) - bulk, "bulk": bulk}


def test_13_the_queue_was_full_and_never_over(chaos: Chaos) -> None:
    assert 200 - 32 < chaos.drained["peak_queued"] <= 200


def test_the_process_ends_by_itself_and_with_status_0(chaos: Chaos) -> None:
    assert chaos.exit_status == 0


def test_the_log_has_no_text_and_no_failure_but_the_poisoned_passes(chaos: Chaos) -> None:
    assert MARKER not in chaos.text.lower()
    assert all(line["level"] in {"info", "warning"} or line["event"] == "pass failed" for line in chaos.lines)
    failures = [line for line in chaos.lines if "exception" in line or "Traceback" in str(line)]
    assert {(line["event"], line["texts"]) for line in failures} == {("pass failed", 1)}
    assert len(failures) == chaos.drained["failed"]
    assert sum("pass failed" in line["event"] for line in chaos.lines) == chaos.drained["failed_passes"]
