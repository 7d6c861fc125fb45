"""The outermost layer, in plain ASGI: gives each request its id, measures it, logs one line, has the last word on errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.http.connection import STATUS
from server.http.errors import RequestError, render_error
from server.http.marks import DIALECT, LOG, ROUTE
from server.http.request_id import HEADER, assign_request_id

log = structlog.stdlib.get_logger("supportbot.access")

# In the log, the status of a request that got no answer at all.
NOT_ANSWERED = 0
_HEADER = HEADER.lower().encode()


class RequestContext:
    """Wraps an ASGI application. `observe` is told route, dialect, status and seconds of each request (`server.http.marks`);
    `stopping` is the answer to a request that is cancelled because the process ends.

    The log line has method, path, status and times; never the query, a header or a text.
    """

    def __init__(
        self, app: ASGIApp, observe: Callable[[str, str, int, float], None], stopping: RequestError, *, access_log: bool
    ) -> None:
        self.app = app
        self._observe = observe
        self._stopping = stopping
        self._access_log = access_log

    def note_refused(self, status: int) -> None:
        """Count what was refused by the protocol before there was a request, which has no route and no time."""
        self._observe("", "", status, 0.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection scope."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        request_id = assign_request_id(scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope[STATUS] = message["status"]
                message["headers"] = [*message.get("headers", ()), (_HEADER, request_id.encode())]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except asyncio.CancelledError:
            # At the end of the process, whatever still runs is cancelled: a client that never finished its body, say.
            if STATUS in scope:
                raise
            await render_error(scope, self._stopping)(scope, receive, send_with_id)
        except Exception:
            if STATUS not in scope:
                raise  # nothing was answered: uvicorn answers and says so
            # The answer was sent, only its story is missing. Tracebacks show code and the exception's message, not values.
            log.exception("unexpected error", request_id=request_id)
        finally:
            seconds = perf_counter() - started
            status = scope.get(STATUS, NOT_ANSWERED)
            dialect: str = scope.get(DIALECT, "")
            self._observe(scope.get(ROUTE) or scope["path"], dialect, status, seconds)
            if self._access_log:
                log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"][:200],
                    status=status,
                    ms=round(seconds * 1000, 2),
                    request_id=request_id,
                    **({"dialect": dialect} if dialect else {}),
                    **scope.get(LOG, {}),
                )


def request_context(app: object) -> RequestContext | None:
    """The request context inside what a server has wrapped around it, if there is one."""
    while app is not None and not isinstance(app, RequestContext):
        app = getattr(app, "app", None)
    return app
