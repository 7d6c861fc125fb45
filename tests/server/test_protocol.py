"""What happens on the wire before there is a request: raw bytes to the real server."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from server.protocol import MAX_HEAD_BYTES, without_h2c
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
        for piece in pieces:
            client.sendall(piece)
        stream = client.makefile("rb")
        status = int(stream.readline().split()[1])
        length = 0
        while (line := stream.readline().strip()) != b"":
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return status, json.loads(stream.read(length)), stream.read() if status >= 400 else b""


@pytest.mark.parametrize("pieces", [(H2C_HEAD + BODY,), (H2C_HEAD, BODY), (H2C_HEAD + BODY[:5], BODY[5:])])
def test_an_offer_to_upgrade_to_http_2_is_ignored_and_the_body_is_read(server: Process, pieces: tuple[bytes, ...]) -> None:
    status, answer, _ = exchange(server, *pieces)
    assert (status, answer["prediction"]) == (200, "billing")


def test_only_a_head_is_ever_changed() -> None:
    assert b"h2c" not in without_h2c(H2C_HEAD + BODY)
    text = b"POST / HTTP/1.1\r\nHost: x\r\n\r\nwhy\r\nUpgrade: h2c\r\n\r\n"
    assert without_h2c(text) == text
    websocket = b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert without_h2c(websocket) == websocket


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


def test_a_head_without_end_is_refused(server: Process) -> None:
    piece = b"X-Long: " + b"a" * 16_000 + b"\r\n"
    head = b"POST /classify HTTP/1.1\r\n"
    status, answer, rest = exchange(server, head, *[piece] * (MAX_HEAD_BYTES // len(piece) + 1))
    error = answer["error"]
    assert isinstance(error, dict)
    assert (status, error["code"], rest) == (431, "headers_too_large", b"")


def test_requests_after_each_other_on_one_connection_are_answered_in_order(server: Process) -> None:
    request = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
    last = request.replace(b"Host: x", b"Host: x\r\nConnection: close").replace(b"payment failed", b"app crashed!!!")
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=10) as client:
        client.sendall(request + request + last)
        answers = client.makefile("rb").read()
    assert answers.count(b"HTTP/1.1 200 OK") == 3
    assert answers.index(b'"billing"') < answers.index(b'"technical"')
