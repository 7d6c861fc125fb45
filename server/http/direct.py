"""Requests that are answered without a task of their own.

A request whose head and body are here, and which asks for one short text, needs no coroutine: it is parsed and queued in one step,
and answered in the step in which its outcome comes. A task, its wake-ups and the ASGI messages would take a third of the event
loop's time for it. Whatever is not so simple goes the usual way, as an ASGI application in a task: what has a body to wait for,
asks for more, or ends in an error. Both ways share parsing, classifying and rendering, so that they cannot come to differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Protocol

from starlette.types import ASGIApp, Scope

from server.http.connection import STATUS, Connection
from server.http.rendering import head_lines, send_bytes

CLIENT_CLOSED = 499


class DirectRequest:
    """A request on our own connection whose body is whole. `started` is on `perf_counter`'s clock.

    It has one end: `answer`, `fail`, or the client's leaving.
    """

    __slots__ = ("_connection", "_ended", "_in_a_task", "content", "scope", "started")

    def __init__(
        self,
        scope: Scope,
        connection: Connection,
        content: bytes,
        ended: Callable[[Scope, float], None],
        in_a_task: Callable[[ASGIApp, float], ASGIApp],
    ) -> None:
        self.scope = scope
        self.content = content
        self.started = perf_counter()
        self._connection = connection
        self._ended = ended
        self._in_a_task = in_a_task

    def answer(self, body: bytes, media_type: str, headers: Mapping[str, str]) -> None:
        """Answer 200."""
        self._connection.on_lost = None
        if (lines := head_lines(self.scope, len(body), media_type, headers)) is not None and self._connection.answer(
            200, lines, body
        ):
            self.scope[STATUS] = 200
            self._ended(self.scope, self.started)
            return

        async def send_it(scope: Scope, _: object, send: Callable[..., object]) -> None:
            await send_bytes(scope, send, body, media_type, headers)  # type: ignore[arg-type]

        self._go_on(send_it)

    def fail(self, error: Exception) -> None:
        """Answer with what there is for this error."""
        self._connection.on_lost = None

        # Taken out when it is raised: its traceback will hold the frame, which must not hold it, or only the garbage collector ends
        # both. At some 1,000 refusals a second, its full collections stopped the event loop for 100 ms.
        errors = [error]

        async def raise_it(*_: object) -> None:
            raise errors.pop()

        self._go_on(raise_it)

    def on_lost(self, leave: Callable[[], None]) -> None:
        """Call `leave` when the client leaves before its answer."""

        def is_gone() -> None:
            leave()
            self.scope[STATUS] = CLIENT_CLOSED
            self._ended(self.scope, self.started)

        self._connection.on_lost = is_gone

    def _go_on(self, app: ASGIApp) -> None:
        self._connection.start(self._in_a_task(app, self.started))


class DirectEndpoint(Protocol):
    """An endpoint that can answer some requests at once."""

    def begin(self, request: DirectRequest) -> bool:
        """Take the request; False, with nothing done, when it must go the usual way. So it does if this raises."""
