"""A client that is slow or leaves, where the HTTP protocol is ours and says so itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from server.http.body import read_body, unless_disconnected
from server.http.connection import CONNECTION
from server.http.errors import RequestError


@dataclass
class Connection:
    is_lost: bool = False
    on_lost: Callable[[], None] | None = None
    body: bytes | None = b""

    def take_body(self) -> bytes | None:
        return self.body


async def never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


def request_on(connection: Connection, receive: Callable[[], object] = never) -> Request:
    return Request({"type": "http", "headers": [], CONNECTION: connection}, receive)  # type: ignore[arg-type]


async def test_work_for_a_client_that_stays_is_done_and_the_connection_forgets_it() -> None:
    connection = Connection()

    async def work() -> str:
        assert connection.on_lost is not None
        return "done"

    assert await unless_disconnected(request_on(connection), work()) == "done"
    assert connection.on_lost is None


async def test_work_for_a_client_that_left_before_is_never_begun() -> None:
    async def work() -> None:
        raise AssertionError

    with pytest.raises(ClientDisconnect):
        await unless_disconnected(request_on(Connection(is_lost=True)), work())


async def test_a_client_that_leaves_ends_its_work_and_nothing_else() -> None:
    connection, ended = Connection(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def serve() -> int:
        with pytest.raises(ClientDisconnect):
            await unless_disconnected(request_on(connection), work())
        task = asyncio.current_task()
        assert task is not None
        await asyncio.sleep(0)  # the task itself goes on
        return task.cancelling()

    serving = asyncio.create_task(serve())
    await asyncio.sleep(0)
    assert connection.on_lost is not None
    connection.on_lost()
    assert await serving == 0
    assert ended.is_set()
    assert connection.on_lost is None


async def test_a_cancellation_that_is_not_the_client_s_is_passed_on() -> None:
    serving = asyncio.create_task(unless_disconnected(request_on(Connection()), never()))
    await asyncio.sleep(0)
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_a_body_that_is_still_coming_is_waited_for_as_long_as_patience_lasts_and_no_longer() -> None:
    with pytest.raises(RequestError) as refused:
        await read_body(request_on(Connection(body=None)), limit=10, patience=0.01)
    assert (refused.value.status, refused.value.code) == (408, "body_timeout")


async def test_a_body_over_the_limit_is_refused_also_when_it_is_there_already() -> None:
    with pytest.raises(RequestError) as refused:
        await read_body(request_on(Connection(body=b"x" * 11)), limit=10, patience=1)
    assert refused.value.status == 413
