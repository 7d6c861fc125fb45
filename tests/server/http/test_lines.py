"""A body read line by line: where lines end, what is too long, and how long each may take."""

from __future__ import annotations

import asyncio
import gzip
import itertools
from collections.abc import Sequence

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from server.http import lines
from server.http.codings import PIECE_BYTES
from server.http.connection import FAULT
from server.http.errors import RequestError
from server.http.lines import Line, LineLimits, read_lines

LIMITS = LineLimits(line_bytes=10, line_seconds=60, idle_seconds=60)


def request(pieces: Sequence[bytes], *, ends: bool = True) -> Request:
    """A request whose body comes in these pieces; without an end, nothing comes after them."""
    left = list(pieces)

    async def receive() -> Message:
        if not left and not ends:
            await asyncio.Event().wait()
        piece = left.pop(0) if left else b""
        return {"type": "http.request", "body": piece, "more_body": bool(left) or not ends}

    return Request({"type": "http", "headers": []}, receive)


async def read(*pieces: bytes) -> list[Line]:
    return [line async for line in read_lines(request(pieces), LIMITS)]


BODY = b"\xef\xbb\xbfone\r\n\n  \ntwo\n" + b"0123456789\r\n" + b"01234567890\n" + b"x" * 50 + b"\nlast"
FOUND = [(1, b"one"), (4, b"two"), (5, b"0123456789"), (6, None), (7, None), (8, b"last")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_lines_are_the_same_in_whatever_pieces_they_come(size: int) -> None:
    pieces = [BODY[first : first + size] for first in range(0, len(BODY), size)]
    assert [(line.number, line.content) for line in await read(*pieces)] == FOUND


async def test_an_empty_body_has_no_lines() -> None:
    assert await read() == await read(b"") == await read(b"\n\n") == []


@pytest.mark.parametrize("piece", [b"x" * 8, b"x\n" + b"x" * 20, b" \n" * 4], ids=["a line", "a line after a line", "blank lines"])
async def test_what_is_thrown_away_is_bounded(monkeypatch: pytest.MonkeyPatch, piece: bytes) -> None:
    monkeypatch.setattr(lines, "DISCARDED_BYTES", 30)
    with pytest.raises(RequestError) as refused:
        await read(*[piece.replace(b"x\n", b"") if number else piece for number in range(100)])
    assert (refused.value.status, refused.value.code) == (413, "line_too_long")


async def test_blank_lines_are_counted_together_only_between_two_others() -> None:
    for between in (b"x\n", b"x" * 20 + b"\n"):
        assert len(await read(*[b"\n" * 9 + between] * 10)) == 10


@pytest.mark.parametrize(
    ("pieces", "limits", "message"),
    [
        ([b"one\ntw"], LineLimits(10, 0.01, 60), "line 2 was not complete within 0.01 s"),
        ([b"one\n"], LineLimits(10, 60, 0.01), "no line came after line 1 within 0.01 s"),
        ([b"one\n", b"\n"], LineLimits(10, 60, 0.01), "no line came after line 2 within 0.01 s"),
    ],
)
async def test_a_line_has_its_time_and_so_has_the_time_between_two(pieces: list[bytes], limits: LineLimits, message: str) -> None:
    found: list[bytes | None] = []

    async def collect() -> None:
        async for line in read_lines(request(pieces, ends=False), limits):
            found.append(line.content)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(RequestError, match=message) as late:
        await collect()
    assert found == [b"one"]
    assert (late.value.status, late.value.code) == (408, "body_timeout")


async def test_a_line_that_comes_byte_by_byte_has_no_more_time() -> None:
    async def receive() -> Message:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b" ", "more_body": True}

    with pytest.raises(RequestError, match="line 1 was not complete"):
        await anext(read_lines(Request({"type": "http", "headers": []}, receive), LineLimits(1 << 20, 0.1, 60)))


def trickling(piece: bytes, monkeypatch: pytest.MonkeyPatch) -> Request:
    """A request whose body has this piece every second, without end; the seconds pass at once."""
    clock = itertools.count()
    monkeypatch.setattr(lines, "perf_counter", lambda: next(clock))

    async def receive() -> Message:
        await asyncio.sleep(0)
        return {"type": "http.request", "body": piece, "more_body": True}

    return Request({"type": "http", "headers": []}, receive)


async def test_blank_lines_are_no_lines_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match="no line came after line 5 within 5 s"):
        async with asyncio.timeout(10):
            await anext(read_lines(trickling(b"\n", monkeypatch), LineLimits(1_000_000, 60, 5)))


async def test_the_time_between_two_lines_begins_anew_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    reading = read_lines(trickling(b"one\n", monkeypatch), LineLimits(10, 60, 5))
    assert [(await anext(reading)).number for _ in range(30)] == list(range(1, 31))


async def test_while_no_line_is_asked_for_no_time_is_counted() -> None:
    reading = read_lines(request([b"one\ntw", b"o\n"]), LineLimits(10, 0.05, 0.05))
    assert await anext(reading) == Line(1, b"one")
    await asyncio.sleep(0.1)
    assert await anext(reading) == Line(2, b"two")


async def test_a_client_that_leaves_and_a_body_that_is_not_http_end_it() -> None:
    async def leave() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        await anext(read_lines(Request({"type": "http", "headers": []}, leave), LIMITS))
    broken = request([b"one\ntwo\n"])
    broken.scope[FAULT] = RequestError(400, "malformed_request", "no chunk")
    with pytest.raises(RequestError, match="no chunk"):
        await anext(read_lines(broken, LIMITS))


async def test_a_compressed_body_has_the_same_lines_and_the_same_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def decompressed(body: bytes) -> list[Line]:
        return [line async for line in read_lines(request([body[:9], body[9:]]), LIMITS, "gzip")]

    assert [(line.number, line.content) for line in await decompressed(gzip.compress(BODY))] == FOUND
    monkeypatch.setattr(lines, "DISCARDED_BYTES", 30)
    with pytest.raises(RequestError, match="line 1 goes on far beyond 10 bytes"):
        await decompressed(gzip.compress(b"x" * 1_000_000))


async def test_a_compressed_body_that_is_cut_off_has_no_last_line() -> None:
    reading = read_lines(request([gzip.compress(b"one\ntwo")[:-8]]), LIMITS, "gzip")
    assert await anext(reading) == Line(1, b"one")
    with pytest.raises(RequestError, match="its gzip data has no end"):
        await anext(reading)


async def test_others_are_served_while_a_few_bytes_become_many_lines() -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(others())
    limits = LineLimits(line_bytes=100_000, line_seconds=60, idle_seconds=60)
    assert [line async for line in read_lines(request([b"\n" * 90_000]), limits)] == []
    assert turns >= 80
    body = gzip.compress(b"x" * 5_000_000 + b"\n")
    assert len([line async for line in read_lines(request([body]), limits, "gzip")]) == 1
    assert turns >= 80 + 5_000_000 // PIECE_BYTES
    other.cancel()
