"""`POST /classify` with lines: a fake model and the real application, most of it over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import Message
from structlog.testing import capture_logs
from uvicorn import Config
from uvicorn.server import ServerState

from models.fake import FakeClassifier
from models.types import Encoding
from server.api.stream import LINES_IN_FLIGHT
from server.http.protocol import Limits, protocol_with
from server.settings import Settings
from tests.server.chaos import ChaosClassifier
from tests.server.conftest import Application, Gate, real_server, running, until, wait_until_ready

SettingsMaker = Callable[..., Settings]
NDJSON = {"Content-Type": "application/x-ndjson"}
HEAD = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def line(number: int, **more: object) -> bytes:
    return json.dumps({"id": number, "text": f"payment {number}", **more}).encode() + b"\n"


def chunk(*lines: bytes) -> bytes:
    data = b"".join(lines)
    return b"%x\r\n%b\r\n" % (len(data), data)


def parsed(response: httpx2.Response) -> list[dict[str, Any]]:
    return [json.loads(found) for found in response.text.splitlines()]


async def sent(app: Application, body: bytes, **headers: str) -> list[dict[str, Any]]:
    response = await app.client.post(
        "/classify", content=body, headers=NDJSON | {name.replace("_", "-"): v for name, v in headers.items()}
    )
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/x-ndjson"
    return parsed(response)


@dataclass
class Connection:
    """A client's side; answers are read chunk by chunk."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def chunk(self) -> bytes:
        """A piece of the answer; empty at its end. Raises `IncompleteReadError` if it breaks off."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def lines(self) -> tuple[list[dict[str, Any]], bool]:
        """All lines, and whether the answer has its end."""
        data = b""
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while piece := await self.chunk():
                data += piece
            return [json.loads(found) for found in data.splitlines()], True
        return [json.loads(found) for found in data.splitlines()], False


@asynccontextmanager
async def connected(app: Application) -> AsyncIterator[Connection]:
    """The application on a port of its own, spoken to by our own protocol, and a client's connection to it."""
    limits = Limits(app.service.settings.max_body_bytes, app.service.settings.body_timeout_ms / 1000)
    config = Config(app.app, log_config=None, timeout_keep_alive=60)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(lambda: protocol_with(limits)(config, state, {}), "127.0.0.1", 0)
    # Buffers that do not grow, or a client could send many megabytes that nobody reads.
    with socket.socket() as own:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            own.setsockopt(socket.SOL_SOCKET, option, 64 * 1024)
        own.connect(server.sockets[0].getsockname())
        reader, writer = await asyncio.open_connection(sock=own.dup())
    try:
        yield Connection(reader, writer)
    finally:
        writer.transport.abort()
        server.close()
        await until(lambda: not state.tasks)


async def test_every_line_is_answered_in_order_with_what_it_had_beside_its_text(settings: SettingsMaker) -> None:
    async with running(settings()) as app:
        body = b"".join(line(number, tags=["a", number]) for number in range(1000))
        found = await sent(app, body)
        assert found == [
            {"line": number + 1, "id": number, "tags": ["a", number], "prediction": "billing", "confidence": 0.8}
            for number in range(1000)
        ]
        statistics = app.service.statistics()
        assert statistics is not None
        assert (statistics.accepted, statistics.accepted_bulk) == (1000, 1000)
        assert statistics.peak_queued <= LINES_IN_FLIGHT


BAD = [
    (b"nonsense", "malformed_json", {}),
    (b"\xff", "malformed_json", {}),
    (b"[1]", "invalid_field", {}),
    (b'"text"', "invalid_field", {}),
    (b'{"id": 7}', "invalid_field", {"id": 7}),
    (b'{"id": 7, "text": 3}', "invalid_field", {"id": 7}),
    (b'{"id": 7, "text": "\\n"}', "blank_text", {"id": 7}),
    (b'{"id": 7, "text": "a", "prediction": "b"}', "invalid_field", {"id": 7}),
    (b'{"text": "a", "id": ' + b"[" * 500 + b"]" * 500 + b"}", "invalid_field", {}),
    (b'{"id": 7, "text": "' + b"a" * 3_000 + b'"}', "line_too_long", {}),
]


@pytest.mark.parametrize(("bad", "code", "passed"), BAD, ids=[str(number) for number in range(len(BAD))])
async def test_a_bad_line_fails_alone_with_its_number(
    settings: SettingsMaker, bad: bytes, code: str, passed: dict[str, Any]
) -> None:
    async with running(settings(max_body_bytes=2_000)) as app:
        first, second, third = await sent(app, line(1) + b"\n" + bad + b"\n" + line(2))
        assert [first["prediction"], third["prediction"]] == ["billing", "billing"]
        message = second["error"].pop("message")
        assert message
        assert second == {"line": 3, **passed, "error": {"code": code}}
        metrics = (await app.client.get("/metrics")).text
        assert 'supportbot_stream_lines_total{outcome="answered"} 2.0' in metrics
        assert 'supportbot_stream_lines_total{outcome="failed"} 1.0' in metrics
        assert "supportbot_streams 0.0" in metrics
        assert 'dialect="stream"' in metrics


async def test_a_line_that_the_model_fails_on_fails_alone(settings: SettingsMaker) -> None:
    def fail(encodings: Sequence[Encoding]) -> None:
        if any(len(encoding) == 4 for encoding in encodings):
            raise ValueError

    async with running(settings(), lambda: FakeClassifier(fail)) as app:
        found = await sent(app, line(1) + b'{"text": "four words of failure"}\n' + line(2))
        assert [answer.get("prediction") for answer in found] == ["billing", None, "billing"]
        assert found[1]["error"] == {"code": "model_failure", "message": "the model failed on this text"}


async def test_a_text_that_is_cut_says_so_and_a_text_may_be_long(settings: SettingsMaker) -> None:
    async with running(settings(), lambda: FakeClassifier(max_length=3)) as app:
        found = await sent(app, b'{"text": "a b c d"}\n{"text": "a b c"}\n{"text": "' + b"refund " * 1_000 + b'"}')
        assert [answer.get("truncated") for answer in found] == [True, None, True]


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Encoding": "br"}, 415, "unsupported_content_encoding"),
        ({"Content-Encoding": "gzip, gzip"}, 415, "unsupported_content_encoding"),
        ({"Content-Type": "application/x-ndjson; charset=latin-1"}, 415, "unsupported_charset"),
        ({"X-Priority": "soon"}, 422, "invalid_field"),
    ],
)
async def test_what_cannot_be_a_stream_is_refused(settings: SettingsMaker, headers: dict[str, str], status: int, code: str) -> None:
    async with running(settings()) as app:
        response = await app.client.post("/classify", content=line(1), headers=NDJSON | headers)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_lines_may_come_compressed_and_go_compressed(settings: SettingsMaker, coding: str) -> None:
    async with running(settings()) as app:
        compressor = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
        body = compressor.compress(b"".join(map(line, range(500)))) + compressor.flush()
        headers = NDJSON | {"Content-Encoding": coding, "Accept-Encoding": coding}
        response = await app.client.post("/classify", content=body, headers=headers)
        assert (response.headers["content-encoding"], response.headers["vary"]) == (coding, "accept-encoding")
        assert [answer["id"] for answer in parsed(response)] == list(range(500))
        for accepted in ("identity", "gzip;q=0", "br"):
            response = await app.client.post("/classify", content=line(1), headers=NDJSON | {"Accept-Encoding": accepted})
            assert "content-encoding" not in response.headers
            assert parsed(response)[0]["id"] == 1


async def test_a_compressed_answer_comes_before_the_body_has_ended(settings: SettingsMaker) -> None:
    head = HEAD + b"Accept-Encoding: gzip\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    compressor, decompressor = zlib.compressobj(wbits=31), zlib.decompressobj(31)
    async with running(settings()) as app, connected(app) as client:
        found = b""
        client.writer.write(head)
        for number in range(3):
            client.writer.write(chunk(compressor.compress(line(number)) + compressor.flush(zlib.Z_SYNC_FLUSH)))
            if not number:
                assert b"content-encoding: gzip" in await client.head()
            while f'"id":{number}'.encode() not in found:
                found += decompressor.decompress(await client.chunk())
        client.writer.write(chunk(compressor.flush()) + b"0\r\n\r\n")
        while not decompressor.eof:
            found += decompressor.decompress(await client.chunk())
        assert await client.chunk() == b""
        assert [json.loads(answer)["id"] for answer in found.splitlines()] == [0, 1, 2]


async def test_a_compressed_body_that_breaks_off_ends_the_stream_and_its_answer_has_no_end(settings: SettingsMaker) -> None:
    head = HEAD + b"Accept-Encoding: gzip\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = gzip.compress(line(1) + b"{")[:-8]
    async with running(settings()) as app, connected(app) as client:
        client.writer.write(head + chunk(body) + b"0\r\n\r\n")
        await client.head()
        decompressor, found = zlib.decompressobj(31), b""
        with suppress(asyncio.IncompleteReadError):
            while piece := await client.chunk():
                found += decompressor.decompress(piece)
        assert client.reader.at_eof()
        assert not decompressor.eof
        assert [json.loads(answer) for answer in found.splitlines()][1] == {
            "stopped": {"line": 1, "code": "malformed_body", "message": "the body is cut off: its gzip data has no end"}
        }


async def test_lines_have_no_deadline_but_one_that_is_asked_for(settings: SettingsMaker) -> None:
    gate = Gate()
    async with running(settings(default_timeout_ms=1, max_timeout_ms=1), lambda: FakeClassifier(gate)) as app:
        patient = asyncio.create_task(sent(app, line(1)))
        await asyncio.to_thread(gate.entered.wait, 10)
        found = await sent(app, line(2), X_Timeout_Ms="1")
        assert found[0]["error"]["code"] == "deadline_exceeded"
        gate.opened.set()
        assert (await patient)[0]["prediction"] == "billing"


@pytest.mark.parametrize("bound", [{"queue_max_texts": 4, "max_texts_per_request": 4}, {"queue_max_tokens": 300}])
async def test_a_full_queue_makes_streams_wait_and_fails_no_line(settings: SettingsMaker, bound: dict[str, int]) -> None:
    """Its classifier tells all words apart, so that no two texts share their tokens, and their places."""
    async with running(settings(batch_max_texts=8, **bound), ChaosClassifier) as app:
        bodies = (b"".join(map(line, range(first, first + 200))) for first in (0, 200, 400))
        for first, found in enumerate(await asyncio.gather(*(sent(app, body) for body in bodies))):
            expected = [(first * 200 + number, "billing") for number in range(200)]
            assert [(answer["id"], answer.get("prediction")) for answer in found] == expected


async def test_lines_may_be_of_class_interactive(settings: SettingsMaker) -> None:
    async with running(settings()) as app:
        await sent(app, line(1) + line(2), X_Priority="interactive")
        statistics = app.service.statistics()
        assert statistics is not None
        assert (statistics.accepted, statistics.accepted_bulk) == (2, 0)


async def test_an_answer_comes_before_the_body_has_ended_and_the_connection_is_kept(settings: SettingsMaker) -> None:
    async with running(settings()) as app, connected(app) as client:
        client.writer.write(CHUNKED + chunk(line(1)))
        assert b"200 OK" in await client.head()
        size = int(await client.reader.readuntil(b"\r\n"), 16)
        assert json.loads(await client.reader.readexactly(size))["id"] == 1
        await client.reader.readexactly(2)
        client.writer.write(chunk(line(2)) + b"0\r\n\r\n" + CHUNKED + chunk(line(3)) + b"0\r\n\r\n")
        assert [answer["id"] for answer in (await client.lines())[0]] == [2]
        await client.head()
        assert await client.lines() == ([{"line": 1, "id": 3, "prediction": "billing", "confidence": 0.8}], True)


async def test_lines_in_flight_are_bounded_and_no_more_is_read(settings: SettingsMaker) -> None:
    gate = Gate()
    async with running(settings(), lambda: FakeClassifier(gate)) as app, connected(app) as client:
        total, piece = 20_000, b"".join(line(0, more="x" * 450) for _ in range(100))

        async def send() -> None:
            client.writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % (len(piece) * total // 100))
            for _ in range(total // 100):
                client.writer.write(piece)
                await client.writer.drain()

        sending = asyncio.create_task(send())
        await asyncio.to_thread(gate.entered.wait, 10)
        statistics = app.service.statistics
        await until(lambda: (now := statistics()) is not None and now.accepted == LINES_IN_FLIGHT)
        await asyncio.sleep(0.3)
        # Sent in full, it would be 10 MB: the rest waits at the client.
        assert not sending.done()
        now = statistics()
        assert now is not None
        assert now.accepted == LINES_IN_FLIGHT
        gate.opened.set()
        # Now the client reads nothing: 20,000 answers are more than all buffers hold.
        await asyncio.sleep(1)
        assert not sending.done()
        await client.head()
        found, is_whole = await client.lines()
        assert is_whole
        assert [answer["line"] for answer in found] == list(range(1, total + 1))
        await sending


async def test_a_line_is_in_flight_until_its_answer_has_been_taken(settings: SettingsMaker) -> None:
    taken, left = asyncio.Event(), 100

    async def receive() -> Message:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": b"".join(map(line, range(10))), "more_body": left > 0}

    async def send(_: Message) -> None:
        await taken.wait()

    headers = [(b"content-type", b"application/x-ndjson")]
    scope = {"type": "http", "method": "POST", "path": "/classify", "headers": headers, "query_string": b""}
    async with running(settings(answer_cache_texts=10)) as app:
        statistics = app.service.metrics.streams
        answering = asyncio.ensure_future(app.app(scope, receive, send))
        await until(lambda: 100 - left >= LINES_IN_FLIGHT // 10)
        await asyncio.sleep(0.05)
        # All are answered but the last few, from the cache; none is taken.
        assert 100 - left == -(-LINES_IN_FLIGHT // 10)
        taken.set()
        await answering
        assert statistics.answered == 1_000


async def test_large_lines_in_flight_are_bounded_in_bytes(settings: SettingsMaker) -> None:
    gate = Gate()
    async with running(settings(max_body_bytes=10_000), lambda: FakeClassifier(gate)) as app, connected(app) as client:
        client.writer.write(CHUNKED + chunk(*(line(number, more="x" * 4_000) for number in range(20))) + b"0\r\n\r\n")
        await asyncio.to_thread(gate.entered.wait, 10)
        statistics = app.service.statistics
        await until(lambda: (now := statistics()) is not None and now.accepted == 3)
        await asyncio.sleep(0.05)
        now = statistics()
        assert now is not None
        assert now.accepted == 3
        gate.opened.set()
        await client.head()
        assert len((await client.lines())[0]) == 20


async def test_a_client_that_leaves_takes_its_lines_along(settings: SettingsMaker) -> None:
    gate = Gate()
    async with running(settings(batch_max_texts=1), lambda: FakeClassifier(gate)) as app:
        async with connected(app) as client:
            client.writer.write(CHUNKED + chunk(*map(line, range(50))))
            await asyncio.to_thread(gate.entered.wait, 10)
            await until(lambda: (now := app.service.statistics()) is not None and now.accepted == 50)
            client.writer.transport.abort()
            await until(lambda: (now := app.service.statistics()) is not None and now.abandoned == 50)
            now = app.service.statistics()
            assert now is not None
            assert (now.queued, now.reserved, now.waiting) == (0, 0, 0)
            gate.opened.set()
        assert app.service.metrics.streams.open == 0


async def test_a_line_that_was_never_begun_gives_its_place_back(settings: SettingsMaker) -> None:
    async def receive() -> Message:
        answering.cancel()  # so it ends before the task of the line has its first step
        return {"type": "http.request", "body": line(1), "more_body": True}

    async def send(_: Message) -> None:
        raise AssertionError

    headers = [(b"content-type", b"application/x-ndjson")]
    scope = {"type": "http", "method": "POST", "path": "/classify", "headers": headers, "query_string": b""}
    async with running(settings()) as app:
        answering = asyncio.ensure_future(app.app(scope, receive, send))
        with suppress(asyncio.CancelledError, AssertionError):
            await answering
        statistics = app.service.statistics()
        assert statistics is not None
        assert (statistics.reserved, statistics.accepted) == (0, 0)


async def test_a_server_that_is_leaving_says_so(settings: SettingsMaker) -> None:
    async with running(settings(drain_delay_ms=60_000)) as app:
        drain = asyncio.create_task(app.service.drain())
        await until(lambda: app.service.is_leaving)
        response = await app.client.post("/classify", content=line(1), headers=NDJSON)
        assert (response.headers["connection"], parsed(response)[0]["prediction"]) == ("close", "billing")
        app.service.skip_drain_delay()
        await drain


async def test_a_server_that_hangs_ends_streams(settings: SettingsMaker) -> None:
    gate = Gate()
    async with running(settings(pass_timeout_ms=50, batch_max_texts=1), lambda: FakeClassifier(gate)) as app:
        texts = ("payment", "crash", "hello", "payment crash", "crash payment")
        found = await sent(app, b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts))
        assert [answer["error"]["code"] for answer in found[:2]] == ["pass_timeout"] * 2
        assert [(answer["stopped"]["line"], answer["stopped"]["code"]) for answer in found[2:]] == [(2, "stalled")]
        refused = await app.client.post("/classify", content=line(1), headers=NDJSON)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stalled")
        gate.opened.set()


async def test_draining_finishes_what_was_read_says_where_it_stopped_and_is_no_whole_answer(settings: SettingsMaker) -> None:
    gate = Gate()
    async with running(settings(batch_max_texts=1), lambda: FakeClassifier(gate)) as app, connected(app) as client:
        client.writer.write(CHUNKED + chunk(*map(line, range(10)), b"\n", b'{"text": "not wh'))
        await asyncio.to_thread(gate.entered.wait, 10)
        await until(lambda: (now := app.service.statistics()) is not None and now.accepted == 10)
        draining = asyncio.create_task(app.service.drain())
        await asyncio.sleep(0)
        gate.opened.set()
        await client.head()
        found, is_whole = await client.lines()
        await draining
        assert app.service.is_drained
        assert [answer["id"] for answer in found[:-1]] == list(range(10))
        assert found[-1] == {"stopped": {"line": 10, "code": "draining", "message": "the server is shutting down"}}
        assert not is_whole


async def test_a_stream_without_an_answer_yet_is_refused_as_any_request(settings: SettingsMaker) -> None:
    async with running(settings()) as app, connected(app) as client:
        client.writer.write(CHUNKED)
        await until(lambda: app.service.metrics.streams.open == 1)
        await app.service.drain()
        head = await client.head()
        assert b" 503 " in head
        assert b"connection: close" in head.lower()
        assert b'"draining"' in await client.reader.read()


@pytest.mark.parametrize(
    ("rest", "code", "at"),
    [
        (chunk(b'{"text": '), "body_timeout", "line 2 was not complete within 0.1 s"),
        (b"nonsense\r\n", "malformed_request", "Invalid HTTP request received."),
    ],
)
async def test_a_body_that_goes_wrong_ends_the_stream_after_its_lines(
    settings: SettingsMaker, rest: bytes, code: str, at: str
) -> None:
    async with running(settings(body_timeout_ms=100)) as app, connected(app) as client:
        client.writer.write(CHUNKED + chunk(line(1)))
        await client.head()
        client.writer.write(rest)
        found, is_whole = await client.lines()
        assert found[0]["id"] == 1
        assert found[1] == {"stopped": {"line": 1, "code": code, "message": at}}
        assert not is_whole


async def test_a_stream_may_take_longer_than_a_body(settings: SettingsMaker) -> None:
    async with running(settings(body_timeout_ms=50, max_body_bytes=1_000)) as app, connected(app) as client:
        client.writer.write(CHUNKED)
        for number in range(20):
            client.writer.write(chunk(line(number, more="x" * 900)))
            await asyncio.sleep(0.1)
        client.writer.write(b"0\r\n\r\n")
        await client.head()
        found, is_whole = await client.lines()
        assert is_whole
        assert [answer["id"] for answer in found] == list(range(20))


async def test_every_answered_line_is_in_the_prediction_log_and_in_the_confidence(settings: SettingsMaker, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    async with running(settings(prediction_log=path)) as app:
        with capture_logs() as logs:
            await sent(app, line(1) + b"nonsense\n" + line(2), X_Request_Id="import-1")
        (request,) = [entry for entry in logs if entry["event"] == "request"]
        assert (request["dialect"], request["texts"], request["failed_lines"]) == ("stream", 2, 1)
        outcomes = []
        for index in range(4):
            feedback = {"request_id": "import-1", "index": index, "label": "technical"}
            outcomes.append((await app.client.post("/feedback", json=feedback)).json()["accepted"])
        assert outcomes == [1, 0, 1, 0]
        assert (await app.client.get("/confidence")).json()["since_start"]["texts"] == 2
    logged = [json.loads(found) for found in path.read_text(encoding="utf-8").splitlines()]
    assert [record["request_id"] for record in logged] == ["import-1", "import-1"]


def test_sigterm_ends_a_stream_at_a_line_and_the_process_in_good_order(tmp_path: Path) -> None:
    with real_server(tmp_path) as server, socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as client:
        wait_until_ready(server.url)
        client.sendall(CHUNKED + chunk(line(1)))
        client.settimeout(30)
        data = b""
        while b"billing" not in data:
            data += client.recv(65_536)
        server.popen.terminate()
        while piece := client.recv(65_536):
            data += piece
        assert b'"stopped":{"line":1,"code":"draining"' in data
        assert not data.endswith(b"0\r\n\r\n")
        assert server.popen.wait(20) == 0
    assert [found for found in server.log if '"level":"error"' in found or "Traceback" in found] == []
