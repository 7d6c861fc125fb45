"""A body that is read line by line as it comes, however long it is: what is bounded is a line, and the time for it."""

from __future__ import annotations

import asyncio
import codecs
import io
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from starlette.requests import ClientDisconnect, Request

from server.http.body import DISCARDED_BYTES
from server.http.codings import undoing
from server.http.connection import CONNECTION, FAULT, Connection
from server.http.errors import RequestError

# One read may bring a hundred thousand blank ones, for which nothing is waited for; others want to be served meanwhile.
LINES_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class LineLimits:
    """Bounds for a line's bytes, for the seconds from its first byte to its last, and for those between two lines."""

    line_bytes: int
    line_seconds: float
    idle_seconds: float


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a body: its number, from 1, and its bytes without the line's end; None for one that is over the bound."""

    number: int
    content: bytes | None


async def read_lines(request: Request, limits: LineLimits, coding: str = "") -> AsyncGenerator[Line]:
    """The lines of a body, in order. Blank ones are counted, and passed over. A body of a content coding is decompressed.

    The body is read as fast as lines are asked for, and no time is counted while none is. A line that is too long is read and
    thrown away, up to `DISCARDED_BYTES` beyond the bound; all blank ones between two others may be as long as one line.

    Raises `RequestError`: 408 when a line is not whole in its time or none begins, 413 when there is too much to throw away, 400
    when the body cannot be decompressed, or what the protocol found wrong with it; and `ClientDisconnect` when the client left.
    """
    connection: Connection | None = request.scope.get(CONNECTION)
    if connection is not None:
        connection.expect_stream()
    lines, plain = _Lines(limits.line_bytes), undoing(coding)
    # Seconds waited for the line that has begun, and since the last line.
    waited = idle = 0.0
    more = True
    while more:
        message, seconds = await _receive(request, limits, lines.number, waited if lines.size else None, idle)
        waited, idle, more = (waited + seconds if lines.size else 0.0), idle + seconds, message.get("more_body", False)
        body = message.get("body", b"")
        for part in plain.pieces(body):
            for piece in io.BytesIO(part):
                if (line := lines.add(piece)) is not None:
                    idle = 0.0
                    yield line
                if not lines.size:
                    waited = 0.0
                    if not lines.number % LINES_AT_ONCE:
                        await asyncio.sleep(0)
            if part is not body:
                await asyncio.sleep(0)  # a few bytes may have become a thousand times as many
    plain.end()
    if (line := lines.add(b"\n")) is not None:
        yield line


class _Lines:
    """Lines out of pieces, each with a line's end as its last byte or with none. `size` is that of the line that has begun."""

    def __init__(self, limit: int) -> None:
        self.number = self.size = 0
        self._limit = limit
        self._content = bytearray()
        # Bytes of blank lines since the last one that was not.
        self._blank = 0

    def add(self, piece: bytes) -> Line | None:
        """The line that ends with this piece; None if none does, or a blank one. Raises `RequestError`."""
        self.size += len(piece)
        if self.size <= self._limit + len(b"\r\n"):
            self._content += piece
        elif self.size > self._limit + DISCARDED_BYTES:
            raise self._too_long(self.number + 1)
        if not piece.endswith(b"\n"):
            return None
        size, content = self.size, bytes(self._content).strip(b" \t\r\n")
        self._content.clear()
        self.size = 0
        self.number += 1
        if self.number == 1:
            content = content.removeprefix(codecs.BOM_UTF8)
        if size > self._limit + len(b"\r\n") or len(content) > self._limit:
            self._blank = 0
            return Line(self.number, None)
        if content:
            self._blank = 0
            return Line(self.number, content)
        self._blank += size
        if self._blank > self._limit:
            raise self._too_long(self.number)
        return None

    def _too_long(self, number: int) -> RequestError:
        message = f"line {number} goes on far beyond {self._limit} bytes, or the blank lines before it do"
        return RequestError(413, "line_too_long", message)


async def _receive(
    request: Request, limits: LineLimits, number: int, waited: float | None, idle: float
) -> tuple[Mapping[str, Any], float]:
    """(the next message, the seconds that it took); `waited` is None between lines. Raises what `read_lines` raises."""
    patience, left = (
        (limits.idle_seconds, limits.idle_seconds - idle) if waited is None else (limits.line_seconds, limits.line_seconds - waited)
    )
    started = perf_counter()
    try:
        async with asyncio.timeout(max(0.0, left)):
            message = await request.receive()
    except TimeoutError as error:
        what = f"no line came after line {number}" if waited is None else f"line {number + 1} was not complete"
        raise RequestError(408, "body_timeout", f"{what} within {patience:g} s") from error
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    fault: RequestError | None = request.scope.get(FAULT)
    if fault is not None:
        raise fault
    return message, perf_counter() - started
