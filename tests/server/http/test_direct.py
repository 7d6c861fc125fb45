"""Requests that are answered without a task: that they are, and that nobody can tell, whatever becomes of them.

Our protocol is served in this process, around a fake model. `X-Priority: interactive` asks for what a request gets anyway, but
sends it the usual way, in a task.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from batching import QueueFull
from models.fake import FakeClassifier
from server.app import create_app
from server.http.protocol import Protocol
from server.readiness import Phase
from server.service import Service
from server.settings import Settings
from tests.server.conftest import Gate, until

USUAL_WAY = "X-Priority: interactive\r\n"
# A path and a body for each dialect that answers one text.
BODIES: dict[str, tuple[str, object]] = {
    "native": ("/classify", {"text": "payment failed", "scores": True}),
    "native list": ("/classify", {"texts": ["payment failed"]}),
    "native feedback": ("/classify", {"text": "payment failed", "feedback": True}),
    "native doubtful": ("/classify", {"text": "hello", "min_confidence": 0.99}),
    "tei": ("/predict", {"inputs": "payment failed"}),
    "hugging face": ("/", {"inputs": "payment failed"}),
    "sagemaker": ("/invocations", {"inputs": "payment failed"}),
    "vllm": ("/v1/classify", {"input": "payment failed"}),
    "cut": ("/predict", {"inputs": "pay " * 300, "truncate": True}),
}


@dataclass
class Served:
    """What is served, and where."""

    port: int
    state: ServerState
    service: Service

    async def ask(self, path: str, body: object, extra: str = "") -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON body of the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request(path, body, extra))
        try:
            return await answer(reader)
        finally:
            writer.close()

    def requests(self) -> dict[int, int]:
        """How many requests had which status."""
        found: dict[int, int] = {}
        for (_, _, status), histogram in self.service.metrics.requests.items():
            found[status] = found.get(status, 0) + sum(histogram.counts)
        return found


def request(path: str, body: object, extra: str = "") -> bytes:
    content = json.dumps(body)
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{extra}Content-Length: {len(content)}\r\n\r\n{content}".encode()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], Any]:
    async with asyncio.timeout(10):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        return int(head[0].split()[1]), headers, json.loads(await reader.readexactly(int(headers["content-length"])))


Serve = Callable[..., Any]


@pytest.fixture
def serving(settings: Callable[..., Settings]) -> Serve:
    """Serves a fake model with our protocol; settings may be given."""

    @asynccontextmanager
    async def serve(
        on_pass: Callable[[Any], None] = lambda _: None, keep_alive: float = 5, max_length: int = 256, **changes: object
    ) -> AsyncIterator[Served]:
        app, service = create_app(settings(access_log=False, **changes), lambda: FakeClassifier(on_pass, max_length))
        state = ServerState()
        config = Config(app, interface="asgi3", lifespan="off", log_config=None, proxy_headers=False)
        config.timeout_keep_alive = keep_alive  # type: ignore[assignment]
        listener = await asyncio.get_running_loop().create_server(lambda: Protocol(config, state, {}), "127.0.0.1", 0)
        async with listener, service.running():
            await until(lambda: service.readiness.phase is Phase.READY)
            yield Served(listener.sockets[0].getsockname()[1], state, service)
            await service.drain()

    return serve


def alike(answers: Iterable[tuple[int, dict[str, str], Any]]) -> list[str]:
    """Answers without their times and ids."""
    times = r'(dur=|latency_ms"?: |x-[a-z]+-time": ")[\d.]+'
    changing = re.compile(times + r'|(?<=feedback_token": ")[\w-]+|[0-9a-f]{32}|content-length": "\d+')
    return [changing.sub("", json.dumps(found)) for found in answers]


@pytest.mark.parametrize("name", BODIES)
async def test_an_answer_is_the_same_with_a_task_and_without(serving: Serve, name: str) -> None:
    path, body = BODIES[name]
    gate = Gate()
    async with serving(gate) as served:
        for extra, tasks in (("", 0), (USUAL_WAY, 1)):
            asking = asyncio.create_task(served.ask(path, body, extra))
            await until(gate.entered.is_set)
            assert len(served.state.tasks) == tasks
            gate.opened.set()
            status, _, _ = await asking
            assert status == 200
            gate.opened.clear()
            gate.entered.clear()
        gate.opened.set()
        without, with_task = alike([await served.ask(path, body, extra) for extra in ("", USUAL_WAY)])
        assert without == with_task
        assert served.requests() == {200: 4}
        assert served.service.confidence is not None
        assert served.service.confidence.snapshot().totals.texts == 4


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"text": " "}, 422, "blank_text"),
        ({"text": 1}, 422, "invalid_field"),
        ({"text": "a", "wrong": 1}, 422, "invalid_field"),
        ({"texts": []}, 400, "empty_texts"),
        ([], 422, "invalid_field"),
    ],
)
async def test_a_bad_body_is_refused_as_ever(serving: Serve, body: object, status: int, code: str) -> None:
    async with serving() as served:
        without, with_task = [await served.ask("/classify", body, extra) for extra in ("", USUAL_WAY)]
        assert (without[0], without[2]["error"]["code"]) == (status, code)
        assert alike([without]) == alike([with_task])
        statistics = served.service.statistics()
        assert statistics is not None
        assert (statistics.accepted, statistics.reserved) == (0, 0)


@pytest.mark.parametrize("path", ["/classify", "/predict", "/v1/classify"])
async def test_a_model_that_fails_is_told_in_the_dialects_words(serving: Serve, path: str) -> None:
    body = {"/classify": {"texts": ["a"]}, "/predict": {"inputs": "a"}, "/v1/classify": {"input": "a"}}[path]
    gate = Gate(failure=ValueError("no"))
    gate.opened.set()
    async with serving(gate) as served:
        without, with_task = alike([await served.ask(path, body, extra) for extra in ("", USUAL_WAY)])
        assert without == with_task
        assert without.startswith("[500")
        assert "failed on this text" in without


@asynccontextmanager
async def full(serving: Serve) -> AsyncIterator[Served]:
    """A server with a text in its one worker and another in the one place there is; both are answered in the end."""
    gate = Gate()
    async with serving(gate, queue_max_texts=1, batch_max_texts=1, max_texts_per_request=1) as served:
        first = asyncio.create_task(served.ask("/classify", {"text": "payment"}))
        await until(gate.entered.is_set)
        second = asyncio.create_task(served.ask("/classify", {"text": "crash"}))
        await until(lambda: served.service.statistics().queued == 1)
        yield served
        gate.opened.set()
        assert [(await one)[0] for one in (first, second)] == [200, 200]


async def test_a_full_queue_is_told_and_counted_once(serving: Serve) -> None:
    async with full(serving) as served:
        status, headers, _ = await served.ask("/classify", {"text": "refund"})
        assert (status, "retry-after" in headers) == (429, True)
        statistics = served.service.statistics()
        assert statistics is not None
        assert sum(statistics.refused.values()) == 1


async def test_a_deadline_is_kept(serving: Serve) -> None:
    gate = Gate()
    async with serving(gate, default_timeout_ms=50) as served:
        status, _, found = await served.ask("/classify", {"text": "payment"})
        gate.opened.set()
        assert (status, found["error"]["code"]) == (504, "deadline_exceeded")


async def test_a_client_that_leaves_is_dropped_and_counted(serving: Serve) -> None:
    gate = Gate()
    async with serving(gate) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request("/classify", {"text": "payment"}))
        await until(gate.entered.is_set)
        writer.close()
        await until(lambda: served.service.statistics().abandoned == 1)
        assert served.requests() == {499: 1}
        gate.opened.set()
        assert (await served.ask("/classify", {"text": "crash"}))[0] == 200


async def test_pipelined_requests_are_answered_in_order(serving: Serve) -> None:
    async with serving() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        texts = ["payment", "crash", "hello", "refund"] * 5
        writer.write(
            b"".join(request("/classify", {"text": text}, USUAL_WAY if index % 3 == 0 else "") for index, text in enumerate(texts))
        )
        found = [(await answer(reader))[2]["prediction"] for _ in texts]
        assert found == ["billing", "technical", "general", "billing"] * 5
        writer.close()


async def test_what_draining_finds_is_answered_and_what_comes_then_is_not(serving: Serve) -> None:
    gate = Gate()
    async with serving(gate, drain_timeout_ms=5_000) as served:
        asking = asyncio.create_task(served.ask("/classify", {"text": "payment"}))
        await until(gate.entered.is_set)
        draining = asyncio.create_task(served.service.drain())
        await asyncio.sleep(0)
        assert (await served.ask("/classify", {"text": "crash"}))[0] == 503
        gate.opened.set()
        assert (await asking)[0] == 200
        await draining


async def test_a_connection_that_is_to_end_meanwhile_ends_with_the_answer(serving: Serve) -> None:
    gate = Gate()
    async with serving(gate) as served:
        asking = asyncio.create_task(served.ask("/classify", {"text": "payment"}))
        await until(gate.entered.is_set)
        for connection in list(served.state.connections):
            connection.shutdown()
        gate.opened.set()
        status, headers, found = await asking
        assert (status, headers["connection"], found["prediction"]) == (200, "close", "billing")
        assert re.fullmatch("[0-9a-f]{32}", headers["x-request-id"])
        await until(lambda: not served.state.connections)
        assert served.requests() == {200: 1}


async def test_what_cannot_be_finished_before_the_end_is_answered_503(serving: Serve) -> None:
    gate = Gate()
    async with serving(gate, drain_timeout_ms=20) as served:
        asking = asyncio.create_task(served.ask("/classify", {"text": "payment"}))
        await until(gate.entered.is_set)
        await served.service.drain()
        assert (await asking)[0] == 503
        gate.opened.set()


async def test_a_fault_of_ours_in_saying_the_answer_is_a_500(serving: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving() as served:

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr("server.api.classify.classify_answer", broken)
        status, _, found = await served.ask("/classify", {"text": "payment"})
        assert (status, found["error"]["code"]) == (500, "internal_error")


async def test_a_connection_is_kept_as_long_as_requests_come_and_no_longer(serving: Serve) -> None:
    async with serving(keep_alive=0.4) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        for _ in range(3):
            writer.write(request("/classify", {"text": "payment"}))
            assert (await answer(reader))[0] == 200
            await asyncio.sleep(0.25)  # together longer than the bound
        began = asyncio.get_running_loop().time()
        assert await reader.read() == b""
        assert 0.1 <= asyncio.get_running_loop().time() - began < 2
        writer.close()


async def test_a_connection_is_not_idle_while_its_request_is_worked_on(serving: Serve) -> None:
    gate = Gate()
    gate.opened.set()
    async with serving(gate, keep_alive=0.2) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request("/classify", {"text": "payment"}))
        assert (await answer(reader))[0] == 200
        gate.opened.clear()
        writer.write(request("/classify", {"text": "crash"}))
        await asyncio.sleep(0.5)
        gate.opened.set()
        assert (await answer(reader))[2]["prediction"] == "technical"
        writer.close()


async def test_a_refusal_leaves_nothing_to_the_garbage_collector(serving: Serve) -> None:
    async with full(serving) as served:
        gc.collect()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            assert (await served.ask("/classify", {"text": "hello"}))[0] == 429
            gc.collect()
            assert [found for found in gc.garbage if isinstance(found, QueueFull)] == []
        finally:
            gc.set_debug(0)
            gc.garbage.clear()


@pytest.mark.parametrize(
    "path", ["/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer", "/v1/models/{model}:predict"]
)
async def test_a_pattern_of_a_route_is_a_path_like_others(serving: Serve, path: str) -> None:
    body = {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}], "instances": ["a"]}
    async with serving() as served:
        status, _, found = await served.ask(path, body)
        assert (status, "{model}" in json.dumps(found)) == (404, True)


async def test_a_fault_of_ours_in_reading_a_request_is_a_500(serving: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    async with serving() as served:
        monkeypatch.setattr("server.api.classify.parse_classify", broken)
        status, _, found = await served.ask("/classify", {"text": "payment"})
        assert (status, found["error"]["code"]) == (500, "internal_error")
        assert served.requests() == {500: 1}


async def test_a_short_text_that_takes_several_windows_gets_them(serving: Serve) -> None:
    async with serving(max_length=4, long_texts="windows", window_overlap=1) as served:
        _, _, found = await served.ask("/classify", {"text": "so it was a refund that i"})
        assert (found["windows"], "truncated" in found) == (2, False)
        assert served.service.statistics().accepted == 2
        _, _, found = await served.ask("/classify", {"text": "app crashed"})
        assert "windows" not in found
