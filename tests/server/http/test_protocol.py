"""What happens on the wire before there is a request: raw bytes to the real server."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.server import ServerState

from server.http.connection import CONNECTION
from server.http.protocol import HEAD_BYTES, PIPELINED_REQUESTS, AnswerWriter, Protocol, common_lines, without_upgrade
from tests.server.conftest import Process, real_server, wait_until_ready

BODY = b'{"text": "payment failed"}'
H2C_HEAD = (
    b"POST /classify HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with real_server(tmp_path_factory.mktemp("server")) as process:
        wait_until_ready(process.url)
        yield process


def exchange(server: Process, *pieces: bytes) -> tuple[int, dict[str, object], bytes]:
    """Send pieces one by one; returns status and JSON body of the first answer, and what came after it."""
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            client.sendall(piece)
            time.sleep(0.02 if len(pieces) > 1 else 0)  # so that the pieces arrive as pieces; together they must do as well
        stream = client.makefile("rb")
        status = int(stream.readline().split()[1])
        length = 0
        while (line := stream.readline().strip()) != b"":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return status, json.loads(stream.read(length)), stream.read() if status >= 400 else b""


@pytest.mark.parametrize(
    "pieces",
    [
        (H2C_HEAD + BODY,),
        (H2C_HEAD, BODY),
        (H2C_HEAD + BODY[:5], BODY[5:]),
        (H2C_HEAD[:30], H2C_HEAD[30:] + BODY),
        (H2C_HEAD[:100], H2C_HEAD[100:-1], H2C_HEAD[-1:] + BODY),
        (H2C_HEAD.replace(b"h2c", b"websocket") + BODY,),
        (H2C_HEAD.replace(b"h2c", b"h2c, TLS/1.0") + BODY,),
    ],
)
def test_an_offer_to_upgrade_to_http_2_is_ignored_and_the_body_is_read(server: Process, pieces: tuple[bytes, ...]) -> None:
    status, answer, _ = exchange(server, *pieces)
    assert (status, answer["prediction"]) == (200, "billing")


def test_only_a_head_is_ever_changed() -> None:
    assert b"h2c" not in without_upgrade(H2C_HEAD + BODY)
    text = b"POST / HTTP/1.1\r\nHost: x\r\n\r\nwhy\r\nUpgrade: h2c\r\n\r\n"
    assert without_upgrade(text) == text
    assert without_upgrade(b"POST / HTTP/1.1\r\nUpgrade: h2c\r\n") == b"POST / HTTP/1.1\r\nUpgrade: h2c\r\n"  # not whole yet


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"this is not HTTP\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"POST /classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # the beginning of TLS
    ],
)
def test_what_is_not_http_gets_the_usual_error_and_a_closed_connection(server: Process, request_bytes: bytes) -> None:
    status, answer, rest = exchange(server, request_bytes)
    error = answer["error"]
    assert isinstance(error, dict)
    assert (status, error["code"], rest) == (400, "malformed_request", b"")


def test_what_was_refused_before_it_was_a_request_is_counted(server: Process) -> None:
    def refused(route: str, dialect: str) -> float:
        text = httpx2.get(f"{server.url}/metrics").text
        name = f'supportbot_http_request_duration_seconds_count{{dialect="{dialect}",route="{route}",status="400"}} '
        return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))

    before, before_classify = refused("other", ""), refused("/classify", "native")
    exchange(server, b"nonsense\r\n\r\n")
    assert refused("other", "") == before + 1
    # Here there is a request, which is counted as such.
    exchange(server, b"POST /classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert (refused("other", ""), refused("/classify", "native")) == (before + 1, before_classify + 1)


def test_a_head_without_end_is_refused(server: Process) -> None:
    piece = b"X-Long: " + b"a" * 16_000 + b"\r\n"
    head = b"POST /classify HTTP/1.1\r\n"
    status, answer, rest = exchange(server, head, *[piece] * (HEAD_BYTES // len(piece) + 1))
    error = answer["error"]
    assert isinstance(error, dict)
    assert (status, error["code"], rest) == (431, "headers_too_large", b"")


@pytest.mark.parametrize("size", [HEAD_BYTES + 1, 2 * HEAD_BYTES])
def test_a_head_that_is_too_large_is_refused_even_if_it_comes_whole(server: Process, size: int) -> None:
    start = b"GET /health HTTP/1.1\r\nX-Long: "
    status, answer, _ = exchange(server, start + b"a" * (size - len(start)) + b"\r\n\r\n")
    error = answer["error"]
    assert isinstance(error, dict)
    assert (status, error["code"]) == (431, "headers_too_large")


def test_requests_after_each_other_on_one_connection_are_answered_in_order(server: Process) -> None:
    request = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
    last = request.replace(b"Host: x", b"Host: x\r\nConnection: close").replace(b"payment failed", b"app crashed!!!")
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10) as client:
        client.sendall(request + request + last)
        answers = client.makefile("rb").read()
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert answers.index(b'"billing"') < answers.index(b'"technical"')


def everything(server: Process, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10) as client:
        client.sendall(request)
        return client.makefile("rb").read()


POST = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
LAST = POST.replace(b"Host: x", b"Host: x\r\nConnection: close")


def test_a_body_is_never_taken_for_a_request(server: Process) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    head = b"POST /classify HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
    answers = everything(server, POST + head + smuggled)
    assert answers.count(b"HTTP/1.1 ") == 1
    assert b'"billing"' in answers
    assert not any("/smuggled" in line for line in server.log)


def test_garbage_after_a_request_does_not_cost_it_its_answer(server: Process) -> None:
    answers = everything(server, POST + b"garbage\r\n\r\n")
    assert answers.startswith(b"HTTP/1.1 200 OK")
    assert answers.count(b"HTTP/1.1 ") == 1


def test_a_pipelined_head_that_never_ends_is_not_kept(tmp_path: Path) -> None:
    with real_server(tmp_path, KEEP_ALIVE_SECONDS="1") as impatient:
        wait_until_ready(impatient.url)
        answers = everything(impatient, POST + b"GET /hea")
    assert answers.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/1.1 408 " in answers


@pytest.mark.parametrize(("beginning", "end"), [(b"", b""), (b"POST /classify HTT", b"HTTP/1.1 408 ")])
def test_a_client_that_sends_no_whole_head_is_not_kept(tmp_path: Path, beginning: bytes, end: bytes) -> None:
    with real_server(tmp_path, KEEP_ALIVE_SECONDS="1") as impatient:
        wait_until_ready(impatient.url)
        answer = everything(impatient, beginning)
        assert answer[: len(end)] == end
        assert bool(answer) is bool(end)


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.written.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed


def test_an_answer_s_head_and_body_leave_at_once_and_what_follows_as_it_comes() -> None:
    transport = Transport()
    writer = AnswerWriter(transport, transport.close)
    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert transport.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    assert len(transport.written) == 1
    writer.write(b"body")
    writer.write(b"more")
    assert transport.written[1:] == [b"HTTP/1.1 200 OK\r\n\r\nbody", b"more"]


def test_a_head_whose_body_never_comes_is_written_before_the_end() -> None:
    transport = Transport()
    writer = AnswerWriter(transport, transport.close)
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    writer.close()
    assert (transport.written, writer.is_closing()) == ([b"HTTP/1.1 200 OK\r\n\r\n"], True)


def test_the_head_of_an_answer_without_a_body_is_written_at_once() -> None:
    transport = Transport()
    writer = AnswerWriter(transport, transport.close, has_body=False)
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    assert transport.written == [b"HTTP/1.1 200 OK\r\n\r\n"]


def test_an_empty_body_lets_the_head_go() -> None:
    transport = Transport()
    writer = AnswerWriter(transport, transport.close)
    writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
    writer.write(b"")
    assert transport.written == [b"HTTP/1.1 204 No Content\r\n\r\n"]


def test_head_is_answered_on_a_connection_that_stays(server: Process) -> None:
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10) as client:
        for _ in range(2):
            client.sendall(b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b""
            while not received.endswith(b"\r\n\r\n"):
                received += client.recv(4096)
            assert received.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_client_that_leaves_over_a_real_connection_is_noticed_while_its_text_waits(tmp_path: Path) -> None:
    with real_server(tmp_path, BATCH_IDLE_FLUSH="false", BATCH_WINDOW_MS="20000") as process:
        wait_until_ready(process.url)
        address = ("127.0.0.1", int(process.url.rpartition(":")[2]))
        with socket.create_connection(address, timeout=10) as client:
            client.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
            wait_for_metric(process, "supportbot_queued_texts", 1)
        wait_for_metric(process, "supportbot_dropped_texts_total", 1)
        assert process.stop() == 0
    assert '"status": 499' in "".join(process.log) or '"status":499' in "".join(process.log)


def test_a_body_that_does_not_come_is_given_up(tmp_path: Path) -> None:
    with real_server(tmp_path, BODY_TIMEOUT_MS="200") as process:
        wait_until_ready(process.url)
        head = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(BODY)
        status, answer, _ = exchange(process, head + BODY[:5])
        assert process.stop() == 0
    error = answer["error"]
    assert isinstance(error, dict)
    assert (status, error["code"]) == (408, "body_timeout")


def wait_for_metric(process: Process, name: str, wanted: float) -> None:
    """Wait until the samples of a metric add up to a value."""
    deadline = time.monotonic() + 10
    while True:
        lines = httpx2.get(f"{process.url}/metrics").text.splitlines()
        if sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name}{{")) == wanted:
            return
        assert time.monotonic() < deadline, name
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (b"", "the Host header is missing"),
        (b"Host: a\r\nHost: a\r\n", "there must be one Host header"),
        (b"Host: a\r\nhost: b\r\n", "there must be one Host header"),
        (b"Host: a b\r\n", "the Host header is malformed"),
        (b"Host: a/b\r\n", "the Host header is malformed"),
        (b"Host: a@b\r\n", "the Host header is malformed"),
        (b"Host: a\r\nTransfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding must be chunked"),
        (b"Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", ""),
        (b"Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n", ""),
        (b"Host: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n", ""),
        (b"Host: a\r\nContent-Length: +2\r\n", ""),
        (b"Host: a\r\n folded: line\r\n", ""),
        (b"Host : a\r\n", ""),
        (b"Host: a\n\nGET", ""),
    ],
)
def test_a_head_that_http_1_1_does_not_allow_is_refused_and_nothing_after_it_is_read(
    server: Process, lines: bytes, message: str
) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
    answers = everything(server, b"POST /classify HTTP/1.1\r\n" + lines + b"\r\n" + smuggled)
    assert answers.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answers.count(b"HTTP/1.1 ") == 1
    assert message.encode() in answers
    assert not any("/smuggled" in line for line in server.log)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: [::1]:8000\r\nConnection: close\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: ex%C3%A4mple.org:80\r\nConnection: close\r\n\r\n",
        b"GET http://example.org/health HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n",
        b"GET http://example.org HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n",
        b"GET http://example.org?a=/b HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x \t\r\nConnection: close \r\n\r\n",
        b"GET /health HTTP/1.0\r\n\r\n",
    ],
)
def test_a_head_that_http_allows_is_answered(server: Process, head: bytes) -> None:
    assert everything(server, head).startswith(b"HTTP/1.1 200 OK\r\n")


def test_trailers_are_read_and_not_kept(server: Process) -> None:
    chunks = b"%x\r\n%s\r\n0\r\nX-Checksum: 1\r\nHost: y\r\nHost: z\r\n\r\n" % (len(BODY), BODY)
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answers = everything(server, head + chunks + LAST)
    assert answers.count(b"HTTP/1.1 200 OK") == 2
    assert answers.count(b'"billing"') == 2


def test_a_connection_goes_on_after_a_body_that_came_after_its_answer(server: Process) -> None:
    """And it is not kept for ever when nothing more comes."""
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10) as client:
        client.sendall(b"POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n")
        answer = client.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 404 Not Found\r\n")
        for byte in (b"a", b"b", b"c"):
            client.sendall(byte)
            time.sleep(0.02)
        client.sendall(b"\r\n" + LAST)
        assert b'"billing"' in client.makefile("rb").read()


def test_connect_and_other_versions_are_refused_at_once(server: Process) -> None:
    assert b"CONNECT is for proxies" in everything(server, b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert everything(server, b"GET /health HTTP/1.1\nHost: x\n\n").startswith(b"HTTP/1.1 400 ")
    assert everything(server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_a_pipelined_body_has_its_time_from_the_moment_at_which_it_can_be_sent(tmp_path: Path) -> None:
    """While an earlier request is worked on, nothing is read; here that takes nearly all of the time that a body has."""
    settings = {"BODY_TIMEOUT_MS": "1000", "BATCH_IDLE_FLUSH": "false", "BATCH_WINDOW_MS": "1800"}
    with real_server(tmp_path, **settings) as process:
        wait_until_ready(process.url)
        with socket.create_connection(("127.0.0.1", int(process.url.rpartition(":")[2])), timeout=10) as client:
            client.sendall(POST + LAST[:-5])
            assert client.recv(65_536).startswith(b"HTTP/1.1 200 OK")
            time.sleep(0.5)
            client.sendall(POST[-5:])
            assert client.makefile("rb").read().startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("route", ["/classify", "/nope"])
@pytest.mark.parametrize("rest", [b"zz\r\n", b"1\r\nabc\r\n"])
def test_a_body_that_breaks_off_in_its_framing_gets_one_answer_and_is_no_error_of_the_server(
    server: Process, route: str, rest: bytes
) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nX-Request-Id: broken-chunk\r\nTransfer-Encoding: chunked\r\n\r\n" % route.encode()
    answers = everything(server, head + b"1\r\n{\r\n" + rest + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answers.startswith(b"HTTP/1.1 404" if route == "/nope" else b"HTTP/1.1 400")
    assert answers.count(b"HTTP/1.1 ") == 1
    assert b"x-request-id: broken-chunk" in answers
    assert not [line for line in server.log if '"level":"error"' in line or "Traceback" in line or "/smuggled" in line]


def test_a_body_that_goes_on_after_a_last_answer_does_not_cost_the_client_its_answer(server: Process) -> None:
    """Closing with unread bytes in hand resets the connection, and the client may lose what was sent before."""
    size = 5_000_000
    head = b"POST /nope HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
    assert everything(server, head + b"a" * size).startswith(b"HTTP/1.1 404 Not Found\r\n")


def test_requests_beyond_the_last_one_do_not_cost_it_its_answer(server: Process) -> None:
    answers = everything(server, POST + LAST + POST * 1_000)
    assert answers.count(b"HTTP/1.1 200 OK") == 2


def test_requests_that_wait_for_their_turn_on_a_connection_are_bounded(server: Process) -> None:
    """All that were accepted get their answers, the last of which says that the connection ends."""
    answers = everything(server, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 5_000)
    assert answers.count(b"HTTP/1.1 200 OK") == PIPELINED_REQUESTS + 1
    assert answers.count(b"connection: close") == 1


@pytest.mark.parametrize(
    ("pieces", "answered"),
    [
        # While reading pauses for a second request, the rest of the third head cannot come; here for longer than a head may take.
        ((POST, POST + LAST[:30], LAST[30:]), 3),
        # A head that was refused costs the request before it nothing, also when the head's time is over.
        ((POST, b"GET / HTTP/1.1\r\nX: ", b"a" * HEAD_BYTES), 1),
    ],
)
def test_a_head_s_time_costs_no_request_its_answer(tmp_path: Path, pieces: tuple[bytes, ...], answered: int) -> None:
    settings = {"KEEP_ALIVE_SECONDS": "1", "BATCH_IDLE_FLUSH": "false", "BATCH_WINDOW_MS": "1500"}
    with real_server(tmp_path, **settings) as process:
        wait_until_ready(process.url)
        with socket.create_connection(("127.0.0.1", int(process.url.rpartition(":")[2])), timeout=10) as client:
            for piece in pieces:
                client.sendall(piece)
                time.sleep(0.1)
            assert client.makefile("rb").read().count(b"HTTP/1.1 200 OK") == answered


@pytest.mark.parametrize("is_closing", [True, False])
async def test_a_client_that_reads_a_little_and_stops_is_not_kept_when_the_connection_is_to_be_closed(*, is_closing: bool) -> None:
    transport, protocol = Transport(), object.__new__(Protocol)
    state = {"transport": transport, "flow": FlowControl(transport), "loop": asyncio.get_running_loop(), "_write_timer": None}
    vars(protocol).update(state, timeout_keep_alive=60)
    protocol.pause_writing()
    timer = protocol._write_timer
    assert timer is not None
    if is_closing:
        transport.close()
    protocol.resume_writing()
    assert timer.cancelled() is not is_closing
    timer.cancel()


class Reading(Transport):
    """It has all that is to be read."""

    def pause_reading(self) -> None:
        """Nothing more comes."""

    resume_reading = pause_reading


async def working_on(requests: bytes, app: ASGIApp) -> tuple[Protocol, Reading]:
    """A connection that has read these requests and works on the first."""
    protocol, transport = Protocol(Config(app, interface="asgi3", lifespan="off", log_config=None), ServerState(), {}), Reading()
    protocol.connection_made(transport)
    protocol.data_received(requests)
    return protocol, transport


async def test_an_answer_of_one_piece_goes_to_the_request_that_is_worked_on_and_the_next_one_begins() -> None:
    bodies: list[bytes | None] = []

    async def app(scope: Scope, _receive: Receive, _send: Send) -> None:
        connection = scope[CONNECTION]
        bodies.append(connection.take_body())
        await asyncio.sleep(0)
        assert connection.answer(200, b"content-length: 2\r\n", b"ok")

    protocol, transport = await working_on(POST.replace(b"payment", b"1234567") + POST + POST[:-1], app)
    while protocol.tasks:
        await asyncio.gather(*protocol.tasks)
    assert bodies == [BODY.replace(b"payment", b"1234567"), BODY, None]  # the last one is not whole
    assert transport.written == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"] * 3
    assert not transport.is_closed


@pytest.mark.parametrize("reason", ["the last answer", "begun", "left", "not read", "closing"])
async def test_an_answer_of_one_piece_is_not_written_where_uvicorn_has_more_to_do(reason: str) -> None:
    may_end = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await may_end.wait()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    protocol, transport = await working_on(POST, app)
    cycle = protocol.cycle
    cycle.keep_alive = reason != "the last answer"
    cycle.response_started = reason == "begun"
    cycle.disconnected = reason == "left"
    protocol.flow.write_paused = reason == "not read"
    transport.is_closed = reason == "closing"
    assert not protocol.answer(200, b"content-length: 2\r\n", b"ok")
    assert not transport.written
    assert not cycle.response_complete
    for task in protocol.tasks:
        task.cancel()


async def test_requests_that_wait_are_forgotten_when_the_client_leaves() -> None:
    started, may_end = asyncio.Event(), asyncio.Event()

    async def busy(_scope: Scope, _receive: Receive, send: Send) -> None:
        started.set()
        await may_end.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    protocol, transport = await working_on(POST * 3, busy)
    await asyncio.wait_for(started.wait(), timeout=5)
    assert len(protocol.pipeline) == 2
    transport.close()
    protocol.connection_lost(ConnectionResetError())
    assert not protocol.pipeline
    may_end.set()
    await asyncio.gather(*protocol.tasks)


def test_the_lines_of_all_answers_are_those_of_the_second() -> None:
    first, second = [(b"date", b"one"), (b"x", b"y")], [(b"date", b"two")]
    assert [common_lines(headers) for headers in (first, first, second, first)] == [
        b"date: one\r\nx: y\r\n",
        b"date: one\r\nx: y\r\n",
        b"date: two\r\n",
        b"date: one\r\nx: y\r\n",
    ]
