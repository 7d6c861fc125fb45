"""The outermost layer, in plain ASGI: gives each request its id, measures it, logs one line, has the last word on errors."""

from __future__ import annotations

from time import perf_counter

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.request_id import HEADER, assign_request_id

log = structlog.stdlib.get_logger("supportbot.access")

# What a client that has gone would have been answered; it never sees it, the log does (the number is nginx's).
CLIENT_CLOSED_REQUEST = 499


class RequestContext:
    """Wraps an ASGI application. The log line has method, path, status and times; never the query, a header or a text."""

    def __init__(self, app: ASGIApp, *, access_log: bool) -> None:
        self._app = app
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        request_id = assign_request_id(scope)
        status = CLIENT_CLOSED_REQUEST

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            if status == CLIENT_CLOSED_REQUEST:
                raise  # nothing was answered: the server in front of us closes the connection and says so
            # The answer was sent, only its story is missing. Tracebacks show code, not values, so no text can leak.
            log.exception("unexpected error", request_id=request_id)
        finally:
            if self._access_log:
                log.info(
                    "request",
                    method=scope["method"],
                    path=scope["path"],
                    status=status,
                    ms=round((perf_counter() - started) * 1000, 2),
                    request_id=request_id,
                    **scope.get("supportbot.log", {}),
                )
