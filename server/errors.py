"""Errors to answers: one shape, `{"error": {"code", "message", "request_id"}}`, and one table from exceptions to statuses."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Scope

from batching import BatcherClosed, PassFailed, QueueFull
from server.readiness import NotReady, Phase
from server.rendering import render_json
from server.request_id import request_id_of

RETRY_AFTER_LOADING = 2
RETRY_AFTER_STOPPING = 5


@dataclass
class RequestError(Exception):
    """Raised when a request cannot be accepted as it is; `code` is stable and for programs, `message` for people."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


def _of_http(error: Exception) -> RequestError:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    return RequestError(status.value, status.name.lower(), status.phrase, error.headers or {})


def _of_queue_full(error: Exception) -> RequestError:
    assert isinstance(error, QueueFull)
    seconds = max(1, math.ceil(error.retry_after))
    return RequestError(429, "queue_full", "too many texts are waiting; try again later", {"Retry-After": str(seconds)})


def _of_not_ready(error: Exception) -> RequestError:
    assert isinstance(error, NotReady)
    if error.phase is Phase.DRAINING:
        return _stopping(error)
    return RequestError(503, "not_ready", str(error), {"Retry-After": str(RETRY_AFTER_LOADING)})


def _stopping(_: Exception) -> RequestError:
    # The client should take its next request to another server, so its connection is not kept.
    headers = {"Retry-After": str(RETRY_AFTER_STOPPING), "Connection": "close"}
    return RequestError(503, "draining", "the server is shutting down", headers)


def _model_failure(_: Exception) -> RequestError:
    return RequestError(500, "model_failure", "the model failed on this request")


def _internal(_: Exception) -> RequestError:
    return RequestError(500, "internal_error", "an unexpected error happened; the server's log has it under the request id")


def _gone(_: Exception) -> RequestError:
    # To nobody; the log shows it. The number is nginx's.
    return RequestError(499, "client_closed_request", "the client left before its answer")


def _itself(error: Exception) -> RequestError:
    assert isinstance(error, RequestError)
    return error


# What each exception is answered with; the first class that fits. The rest of the server only raises.
TABLE = (
    (RequestError, _itself),
    (HTTPException, _of_http),
    (ClientDisconnect, _gone),
    (QueueFull, _of_queue_full),
    (NotReady, _of_not_ready),
    (BatcherClosed, _stopping),
    (PassFailed, _model_failure),
    (Exception, _internal),
)


def error_response(scope: Scope, error: Exception) -> Response:
    """The answer that the table has for an exception."""
    translate = next(translate for kind, translate in TABLE if isinstance(error, kind))
    answer = translate(error)
    body = {"error": {"code": answer.code, "message": answer.message, "request_id": request_id_of(scope)}}
    return render_json(body, answer.status, answer.headers)


async def answer_error(request: Request, error: Exception) -> Response:
    """Starlette's exception handler for everything in the table."""
    return error_response(request.scope, error)


HANDLERS = {kind: answer_error for kind, _ in TABLE}
