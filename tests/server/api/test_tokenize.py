"""`POST /tokenize`: what it answers, and that it is bounded and refused as other work is."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from models.fake import FakeClassifier
from models.types import Token
from server.settings import Settings
from tests.server.conftest import Application, running, until

SettingsMaker = Callable[..., Settings]


class SlowSplitter(FakeClassifier):
    """Splits a text when it is let; counts those that it splits, at once and in all."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = threading.Event()
        self.now = self.most = self.done = 0

    def tokens(self, text: str, *, special: bool) -> list[Token]:
        self.now += 1
        self.most = max(self.most, self.now)
        assert self.opened.wait(20)
        self.now -= 1
        self.done += 1
        return super().tokens(text, special=special)


@pytest.fixture
async def app(settings: SettingsMaker) -> AsyncIterator[Application]:
    async with running(settings(max_body_bytes=100_000)) as application:
        yield application


async def split(app: Application, inputs: object, headers: dict[str, str] | None = None, **more: object) -> httpx2.Response:
    return await app.client.post("/tokenize", json={"inputs": inputs, **more}, headers=headers)


def reserved(app: Application) -> int:
    statistics = app.service.statistics()
    assert statistics is not None
    return statistics.reserved


async def test_tokenize_names_each_token_and_its_place(app: Application) -> None:
    for inputs in ("pay me", ["pay me"]):
        answer = (await app.client.post("/tokenize", json={"inputs": inputs, "prompt_name": None})).json()
        assert answer == [
            [
                {"id": 1, "text": "pay", "special": False, "start": 0, "stop": 3},
                {"id": 1, "text": "me", "special": False, "start": 4, "stop": 6},
                {"id": 3, "text": "END", "special": True, "start": None, "stop": None},
            ]
        ]
    without = (await app.client.post("/tokenize", json={"inputs": ["a", "b"], "add_special_tokens": False})).json()
    assert [[token["text"] for token in tokens] for tokens in without] == [["a"], ["b"]]


@pytest.mark.parametrize(("inputs", "status"), [([], 400), (["a"] * 33, 400), ([1], 422), (None, 422), ("a" * 100_001, 413)])
async def test_tokenize_has_the_limits_of_predict(app: Application, inputs: object, status: int) -> None:
    response = await app.client.post("/tokenize", json={"inputs": inputs})
    assert response.status_code == status
    assert response.json()["error_type"] in {"Validation", "Empty"}


@pytest.fixture
def splitter() -> SlowSplitter:
    return SlowSplitter()


async def test_it_takes_places_of_class_bulk_and_is_refused_when_there_are_none(
    settings: SettingsMaker, splitter: SlowSplitter
) -> None:
    async with running(settings(queue_max_texts=40), lambda: splitter) as app:
        first = asyncio.create_task(split(app, ["a"] * 32))
        await until(lambda: reserved(app) == 32)
        refused = await split(app, ["a"] * 9)
        assert (refused.status_code, refused.json()["error_type"], refused.json()["code"]) == (429, "Overloaded", "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        # People who wait are not concerned.
        assert (await app.client.post("/classify", json={"texts": ["payment"] * 32})).status_code == 200
        assert (await app.client.post("/classify", json={"texts": ["payment"] * 9, "priority": "bulk"})).status_code == 429
        asked = (split(app, ["a"] * 16, {"X-Priority": "interactive"}), split(app, ["a"] * 16, priority="interactive"))
        urgent = [asyncio.create_task(request) for request in asked]
        await until(lambda: reserved(app) == 64)
        assert (await split(app, ["a"] * 9, priority="interactive")).status_code == 429
        splitter.opened.set()
        assert [(await task).status_code for task in (first, *urgent)] == [200, 200, 200]
        assert reserved(app) == 0


async def test_a_long_text_takes_several_places_and_any_request_is_answered_when_nothing_else_is_there(
    settings: SettingsMaker, splitter: SlowSplitter
) -> None:
    async with running(settings(queue_max_texts=32), lambda: splitter) as app:
        long = asyncio.create_task(split(app, ["a" * 20_000, "a"]))
        await until(lambda: reserved(app) == 12)
        assert (await split(app, "a" * 50_000)).status_code == 429
        splitter.opened.set()
        assert (await long).status_code == 200
        assert (await split(app, ["a" * 90_000] * 5)).status_code == 200


async def test_texts_are_split_one_at_a_time_and_requests_take_turns(settings: SettingsMaker, splitter: SlowSplitter) -> None:
    async with running(settings(), lambda: splitter) as app:
        splitter.opened.set()
        many = asyncio.create_task(split(app, ["a b"] * 32))
        single = asyncio.create_task(split(app, "a"))
        assert (await single).status_code == 200
        assert splitter.done < 32
        assert (await many).status_code == 200
        assert splitter.most == 1


async def test_a_deadline_ends_the_wait_and_the_work(settings: SettingsMaker, splitter: SlowSplitter) -> None:
    async with running(settings(), lambda: splitter) as app:
        for late in (split(app, ["a"] * 8, {"X-Timeout-Ms": "50"}), split(app, ["a"] * 8, timeout_ms=50)):
            response = await late
            assert (response.status_code, response.json()["code"]) == (504, "deadline_exceeded")
        assert reserved(app) == 0
        splitter.opened.set()
        await until(lambda: not splitter.now)
        # The one that had begun; those behind it never do.
        assert splitter.done == splitter.most == 1


async def test_a_deadline_is_not_beyond_the_servers_bound(settings: SettingsMaker, splitter: SlowSplitter) -> None:
    async with running(settings(default_timeout_ms=50, max_timeout_ms=50), lambda: splitter) as app:
        assert (await split(app, "a", timeout_ms=60_000)).status_code == 504
        splitter.opened.set()


async def test_a_draining_server_finishes_what_it_took_and_takes_no_more(settings: SettingsMaker, splitter: SlowSplitter) -> None:
    async with running(settings(drain_linger_ms=50), lambda: splitter) as app:
        accepted = asyncio.create_task(split(app, ["a", "b"]))
        await until(lambda: reserved(app) == 2)
        draining = asyncio.create_task(app.service.drain())
        await until(lambda: app.service.phase().value == "draining")
        refused = await split(app, "a")
        assert (refused.status_code, refused.json()["code"], refused.headers["connection"]) == (503, "draining", "close")
        splitter.opened.set()
        assert (await accepted).status_code == 200
        await draining
        assert app.service.is_drained


async def test_a_server_that_is_leaving_says_so(settings: SettingsMaker) -> None:
    async with running(settings(drain_delay_ms=60_000)) as app:
        drain = asyncio.create_task(app.service.drain())
        await until(lambda: app.service.is_leaving)
        response = await split(app, "a")
        assert (response.status_code, response.headers["connection"]) == (200, "close")
        app.service.skip_drain_delay()
        await drain


async def test_a_client_that_leaves_takes_its_texts_along(settings: SettingsMaker, splitter: SlowSplitter) -> None:
    async with running(settings(), lambda: splitter) as app:
        messages: list[dict[str, Any]] = [{"type": "http.request", "body": json.dumps({"inputs": ["a"] * 8}).encode()}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await until(lambda: splitter.now == 1)
            return {"type": "http.disconnect"}

        scope = {"type": "http", "method": "POST", "path": "/tokenize", "headers": [], "query_string": b""}
        sent: list[object] = []
        await app.app(scope, receive, partial(_keep, sent))
        assert reserved(app) == 0
        splitter.opened.set()
        await until(lambda: not splitter.now)
        assert splitter.done == 1


async def _keep(sent: list[object], message: object) -> None:
    sent.append(message)


async def test_metrics_and_access_log_name_the_dialect(app: Application) -> None:
    with capture_logs() as logs:
        assert (await split(app, ["a", "b"])).status_code == 200
    (line,) = [line for line in logs if line["event"] == "request"]
    assert (line["dialect"], line["texts"]) == ("tei", 2)
    families = text_string_to_metric_families((await app.client.get("/metrics")).text)
    samples = {(sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples}
    assert samples["supportbot_http_request_duration_seconds_count", "/tokenize", "200", "tei"] == 1
