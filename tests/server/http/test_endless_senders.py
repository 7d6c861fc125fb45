"""A client that never stops sending, in every phase of a connection: each is ended within its bounds, and nothing is kept."""

from __future__ import annotations

import asyncio
import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from server.http.body import DISCARDED_BYTES
from server.http.protocol import HEAD_BYTES, LINGER_SECONDS
from tests.server.conftest import Process, real_server, wait_until_ready

BODY_SECONDS, KEEP_ALIVE_SECONDS = 0.5, 1
BODY_BYTES = 10_000
# What is on its way between two sockets of one machine, and has been sent but not received.
IN_FLIGHT_BYTES = 8 << 20
# Of the client's kernel; by itself it would grow to half of the above.
SEND_BUFFER_BYTES = 64 * 1024
# For a machine with other things to do.
SLACK_SECONDS = 5.0
MOST_GROWTH = 40e6

HOST = b"Host: x\r\n"
POST, NOPE = b"POST /classify HTTP/1.1\r\n" + HOST, b"POST /nope HTTP/1.1\r\n" + HOST
LENGTH, CHUNKED = b"Content-Length: 1000000000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"
ANSWERED = b'POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{"text": "a"}'
ONE_CHUNK = b"1\r\n{\r\n"
HEAD = HEAD_BYTES, KEEP_ALIVE_SECONDS + LINGER_SECONDS
BODY = BODY_BYTES + DISCARDED_BYTES, BODY_SECONDS + 2 * LINGER_SECONDS
# Between two lines of a stream, there is as much time as between two requests.
BLANK = BODY_BYTES + DISCARDED_BYTES, KEEP_ALIVE_SECONDS + 2 * LINGER_SECONDS
REFUSED = DISCARDED_BYTES, LINGER_SECONDS


@dataclass(frozen=True)
class Phase:
    """What is sent once, and then again and again; and the most bytes and seconds that are granted from there."""

    name: str
    start: bytes
    again: bytes
    granted: tuple[int, float]


LINES = b"POST /classify HTTP/1.1\r\nContent-Type: application/x-ndjson\r\n" + HOST
LINE = b"a" * 4_000 + b"\r\n"
PHASES = [
    Phase("nothing", b"", b"", HEAD),
    Phase("empty lines", b"", b"\r\n" * 2_000, HEAD),
    Phase("empty lines after an answer", ANSWERED, b"\r\n" * 2_000, HEAD),
    Phase("request line", b"GET /", b"a" * 4_000, HEAD),
    Phase("headers", POST + b"X: ", b"a" * 4_000, HEAD),
    Phase("many headers", POST, b"X: " + LINE, HEAD),
    Phase("pipelined head", ANSWERED + b"GET /health HTTP/1.1\r\n", b"X: " + LINE, HEAD),
    Phase("body of /classify, by length", POST + LENGTH, b"a" * 4_000, BODY),
    Phase("body of /classify, in chunks", POST + CHUNKED, b"fa0\r\n" + b"a" * 4_000 + b"\r\n", BODY),
    Phase("body of a route that is not there, by length", NOPE + LENGTH, b"a" * 4_000, BODY),
    Phase("body of a route that is not there, in chunks", NOPE + CHUNKED, b"fa0\r\n" + b"a" * 4_000 + b"\r\n", BODY),
    Phase("body of a method that is not there", b"POST /health HTTP/1.1\r\n" + HOST + LENGTH, b"a" * 4_000, BODY),
    Phase("body after an early 422", POST + b"X-Priority: soon\r\n" + LENGTH, b"a" * 4_000, BODY),
    Phase("body of GET", b"GET /health HTTP/1.1\r\n" + HOST + LENGTH, b"a" * 4_000, BODY),
    Phase("body of HEAD", b"HEAD /health HTTP/1.1\r\n" + HOST + CHUNKED, b"fa0\r\n" + b"a" * 4_000 + b"\r\n", BODY),
    Phase("body that waits for 100", POST + b"Expect: 100-continue\r\n" + LENGTH, b"", BODY),
    Phase("body in tiny chunks", NOPE + CHUNKED, b"1\r\na\r\n" * 600, (6 * BODY[0], BODY[1])),
    Phase("chunk size", POST + CHUNKED, b"0" * 4_000, (HEAD_BYTES, BODY[1])),
    Phase("chunk extension of /classify", POST + CHUNKED + b"1;x=", b"a" * 4_000, (HEAD_BYTES, BODY[1])),
    Phase("chunk extension of a route that is not there", NOPE + CHUNKED + b"1;x=", b"a" * 4_000, (HEAD_BYTES, BODY[1])),
    Phase("trailers of /classify", POST + CHUNKED + ONE_CHUNK + b"0\r\n", b"X: " + LINE, (HEAD_BYTES, BODY[1])),
    Phase("trailers of a route that is not there", NOPE + CHUNKED + ONE_CHUNK + b"0\r\n", b"X: " + LINE, (HEAD_BYTES, BODY[1])),
    Phase("line of a stream, by length", LINES + LENGTH, b"a" * 4_000, BODY),
    Phase("line of a stream, in chunks", LINES + CHUNKED, b"fa0\r\n" + b"a" * 4_000 + b"\r\n", BODY),
    Phase("blank lines of a stream", LINES + LENGTH, b" \n" * 2_000, BLANK),
    Phase("line of a stream after an answer", LINES + LENGTH + b'{"text": "a"}\n', b"a" * 4_000, BODY),
    Phase("chunk extension in a stream", LINES + CHUNKED + b"1;x=", b"a" * 4_000, (HEAD_BYTES, BLANK[1])),
    Phase("trailers of a stream", LINES + CHUNKED + ONE_CHUNK + b"0\r\n", b"X: " + LINE, (HEAD_BYTES, BLANK[1])),
    Phase("nothing between the lines of a stream", LINES + LENGTH, b"", BLANK),
    Phase("what is not HTTP", b"nonsense\r\n\r\n", b"a" * 4_000, REFUSED),
    Phase("after a refusal", b"GET / HTTP/1.1\r\n\r\n", b"a" * 4_000, REFUSED),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with real_server(
        tmp_path_factory.mktemp("server"),
        BODY_TIMEOUT_MS=str(BODY_SECONDS * 1000),
        KEEP_ALIVE_SECONDS=str(KEEP_ALIVE_SECONDS),
        MAX_BODY_BYTES=str(BODY_BYTES),
        ACCESS_LOG="false",
    ) as process:
        wait_until_ready(process.url)
        yield process


async def send_for_ever(port: int, phase: Phase, pause: float) -> tuple[int, float]:
    """Bytes and seconds until the server has ended it. With a pause, what is sent again is sent byte by byte."""
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    reader, writer = await asyncio.open_connection(sock=client)
    ended = asyncio.create_task(until_the_end(reader))
    started, sent = time.monotonic(), 0
    try:
        writer.write(phase.start)
        while not ended.done():
            if pause or not phase.again:
                piece = phase.again[sent % len(phase.again) :][:1] if phase.again else b""
                writer.write(piece)
                await asyncio.wait((ended,), timeout=pause or 0.1)
            else:
                piece = phase.again
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            sent += len(piece)
            assert sent < 1 << 31
            assert time.monotonic() - started < 60, phase.name
    except ConnectionError:
        pass
    finally:
        ended.cancel()
        writer.transport.abort()
    return sent, time.monotonic() - started


async def until_the_end(reader: asyncio.StreamReader) -> None:
    """Read what is answered until the server closes the connection."""
    try:
        while await reader.read(65_536):
            pass
    except ConnectionError:
        pass


def resident(server: Process) -> float:
    found = re.search(r"^process_resident_memory_bytes (\S+)$", httpx2.get(f"{server.url}/metrics").text, re.MULTILINE)
    assert found
    return float(found[1])


@pytest.mark.parametrize("pause", [0.0, 0.05], ids=["as fast as it can", "a byte now and then"])
def test_every_phase_is_bounded_in_bytes_and_in_time_and_nothing_is_kept(server: Process, pause: float) -> None:
    port, before = int(server.url.rpartition(":")[2]), resident(server)

    async def all_at_once() -> list[tuple[int, float]]:
        return await asyncio.gather(*(send_for_ever(port, phase, pause) for phase in PHASES))

    found = list(zip(PHASES, asyncio.run(all_at_once()), strict=True))
    for phase, (sent, seconds) in found:
        print(f"{phase.name}: {sent} of {phase.granted[0]} bytes, {seconds:.1f} of {phase.granted[1]:.1f} s")  # noqa: T201
    for phase, (sent, seconds) in found:
        most_bytes, most_seconds = phase.granted
        assert sent <= most_bytes + IN_FLIGHT_BYTES, phase.name
        assert seconds <= most_seconds + SLACK_SECONDS, phase.name
    assert resident(server) - before < MOST_GROWTH
    assert httpx2.post(f"{server.url}/classify", json={"text": "payment failed"}).json()["prediction"] == "billing"


def test_a_client_that_never_reads_its_answers_is_not_kept(server: Process) -> None:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        client.setblocking(False)
        poll = select.poll()
        poll.register(client, select.POLLHUP | select.POLLERR)
        deadline = time.monotonic() + 30
        while not (events := poll.poll(50)):
            assert time.monotonic() < deadline
            with suppress(BlockingIOError):
                client.send(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        assert events
    assert httpx2.get(f"{server.url}/health").status_code == 200


def sent_but_not_read(port: int, client: socket.socket) -> int:
    """How many bytes of the server's the kernel keeps for a client (proc(5), /proc/net/tcp: tx_queue)."""
    own = f"0100007F:{client.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines():
        _, local, remote, _, queues, *_ = line.split()
        if (local, remote) == (f"0100007F:{port:04X}", own):
            return int(queues.partition(":")[0], 16)
    return 0


def is_established(port: int, client: socket.socket) -> bool:
    """True while the server keeps the connection of a client and has not closed it."""
    own = f"0100007F:{client.getsockname()[1]:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()]
    return any(line[1:4] == [f"0100007F:{port:04X}", own, "01"] for line in lines)


def test_a_client_that_leaves_a_little_of_its_answers_unread_is_not_kept(server: Process) -> None:
    """What is too little for the transport to complain, 64 KiB, must not keep a connection that is to be closed."""
    port = int(server.url.rpartition(":")[2])
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        client.connect(("127.0.0.1", port))
        # One answer after the other, until the kernel has no room for the whole of one: the transport has the rest.
        unsent, growth, last_growth = 0, 1, 0
        while growth > 0.9 * last_growth:
            client.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.05)
            now = sent_but_not_read(port, client)
            unsent, growth, last_growth = now, now - unsent, growth
        assert is_established(port, client)
        deadline = time.monotonic() + 3 * KEEP_ALIVE_SECONDS + SLACK_SECONDS
        while is_established(port, client):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_none_of_it_is_an_error_of_the_server(server: Process) -> None:
    assert [line for line in server.log if '"level":"error"' in line or "Traceback" in line] == []
