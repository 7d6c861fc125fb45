"""Receiving from a client that may be slow, send too much, or leave."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from server.http.connection import CONNECTION, FAULT, Connection
from server.http.content import decode, too_large
from server.http.errors import RequestError

R = TypeVar("R")

# A client that is still sending when the answer comes may never read it, so a body over the limit is read and thrown away up to
# this many bytes before it is refused; beyond it the connection is simply closed.
DISCARDED_BYTES = 16 * 1024 * 1024


async def read_body(request: Request, limit: int, patience: float, own_timeout: float = math.inf) -> bytes:
    """The whole body, in UTF-8 and not compressed (`server.http.content`).

    Raises `RequestError`: 413 when it is longer than `limit` bytes, compressed or not, 408 when it is not complete after `patience`
    seconds, 504 when the request's `own_timeout` is shorter than that and over, 400 or 415 when it cannot be decoded, or what the
    protocol found wrong with it; and `ClientDisconnect` when the client left.
    """
    return decode(await _whole_body(request, limit, patience, own_timeout), request.headers, limit)


async def _whole_body(request: Request, limit: int, patience: float, own_timeout: float) -> bytes:
    connection: Connection | None = request.scope.get(CONNECTION)
    if connection is not None and (body := connection.take_body()) is not None:
        _check(request, len(body), limit)
        return body
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else 0
    if size > limit + DISCARDED_BYTES:
        raise too_large(limit)
    try:
        async with asyncio.timeout(min(patience, own_timeout)):
            return await _receive(request, limit)
    except TimeoutError as error:
        if own_timeout < patience:
            message = "the request's timeout came before its body was complete"
            raise RequestError(504, "deadline_exceeded", message, {"Connection": "close"}) from error
        message = f"the body was not complete after {patience:g} s"
        raise RequestError(408, "body_timeout", message, {"Connection": "close"}) from error


async def _receive(request: Request, limit: int) -> bytes:
    chunks: list[bytes] = []
    received = 0
    more = True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        received += len(chunk)
        if received <= limit:
            chunks.append(chunk)
        elif received > limit + DISCARDED_BYTES:
            break
        more = message.get("more_body", False)
    _check(request, received, limit)
    return b"".join(chunks)


def _check(request: Request, received: int, limit: int) -> None:
    fault: RequestError | None = request.scope.get(FAULT)
    if fault is not None:
        raise fault
    if received > limit:
        raise too_large(limit)


async def unless_disconnected(request: Request, work: Coroutine[Any, Any, R]) -> R:
    """Do `work` for a client whose body has been read; when it leaves, cancel the work and raise `ClientDisconnect`."""
    connection: Connection | None = request.scope.get(CONNECTION)
    if connection is None:
        return await _unless_told(request, work)
    if connection.is_lost:
        work.close()
        raise ClientDisconnect
    task = asyncio.current_task()
    assert task is not None
    is_gone = False

    def leave() -> None:
        nonlocal is_gone
        is_gone = True
        task.cancel()

    connection.on_lost = leave
    try:
        return await work
    except asyncio.CancelledError:
        if not is_gone:
            raise
        task.uncancel()
        raise ClientDisconnect from None
    finally:
        connection.on_lost = None


async def _unless_told(request: Request, work: Coroutine[Any, Any, R]) -> R:
    """The same on a server that tells of a client's leaving by a message only; it takes two tasks, and some 30 us."""
    working = asyncio.create_task(work)
    # After the body, the next message can only be http.disconnect.
    leaving = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()
        del leaving, working  # an error holds this frame, and the task the error
