"""The outermost layer, in plain ASGI: gives each request its id, measures it, logs one line, has the last word on errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter
from types import MappingProxyType

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.http.connection import STATUS, Connection
from server.http.direct import DirectEndpoint, DirectRequest
from server.http.errors import RequestError, render_error
from server.http.marks import DIALECT, LOG, ROUTE
from server.http.request_id import HEADER, assign_request_id, request_id_of

log = structlog.stdlib.get_logger("supportbot.access")

# In the log, the status of a request that got no answer at all.
NOT_ANSWERED = 0
_HEADER = HEADER.lower().encode()


def _as_it_is(app: ASGIApp) -> ASGIApp:
    return app


class RequestContext:
    """Wraps an ASGI application. `observe` is told route, dialect, status and seconds of each request (`server.http.marks`);
    `stopping` is the answer to a request that is cancelled because the process ends. POST requests for the paths of `direct` are
    offered to its endpoints first, by our own connection (`server.http.direct`); `answering` makes an application answer what it
    raises.

    The log line has method, path, status and times; never the query, a header or a text.
    """

    def __init__(
        self,
        app: ASGIApp,
        observe: Callable[[str, str, int, float], None],
        stopping: RequestError,
        *,
        access_log: bool,
        direct: Mapping[str, DirectEndpoint] = MappingProxyType({}),
        answering: Callable[[ASGIApp], ASGIApp] = _as_it_is,
    ) -> None:
        self.app = app
        self._observe = observe
        self._stopping = stopping
        self._access_log = access_log
        self._direct = direct
        self._answering = answering

    def note_refused(self, status: int) -> None:
        """Count what was refused by the protocol before there was a request, which has no route and no time."""
        self._observe("", "", status, 0.0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection scope."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        assign_request_id(scope)
        await self._handle(self.app, perf_counter(), scope, receive, send)

    def begin(self, scope: Scope, connection: Connection) -> bool:
        """Take a request whose body is whole without a task; False, with nothing done, when it must go the usual way."""
        endpoint = self._direct.get(scope["path"]) if scope["method"] == "POST" else None
        content = None if endpoint is None else connection.body()
        if endpoint is None or content is None:
            return False
        assign_request_id(scope)
        try:
            return endpoint.begin(DirectRequest(scope, connection, content, self._note, self._in_a_task))
        except Exception:  # noqa: BLE001 - whatever it is, it is met again in the task, where it has its answer
            return False

    def _in_a_task(self, app: ASGIApp, started: float) -> ASGIApp:
        """The application for a request that began without a task and goes on in one."""
        return partial(self._handle, self._answering(app), started)

    async def _handle(self, app: ASGIApp, started: float, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = request_id_of(scope)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                scope[STATUS] = message["status"]
                message["headers"] = [*message.get("headers", ()), (_HEADER, request_id.encode())]
            await send(message)

        try:
            await app(scope, receive, send_with_id)
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
            self._note(scope, started)

    def _note(self, scope: Scope, started: float) -> None:
        """The request has ended: measure it, and log its line."""
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
                request_id=request_id_of(scope),
                **({"dialect": dialect} if dialect else {}),
                **scope.get(LOG, {}),
            )


def request_context(app: object) -> RequestContext | None:
    """The request context inside what a server has wrapped around it, if there is one."""
    while app is not None and not isinstance(app, RequestContext):
        app = getattr(app, "app", None)
    return app
