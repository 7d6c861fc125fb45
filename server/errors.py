"""From exceptions to answers: one table. The rest of the server only raises."""

from __future__ import annotations

import random
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from batching import (
    BatcherClosed,
    BatcherStalled,
    DeadlineExceeded,
    DeadlineUnmeetable,
    PassFailed,
    PassTimedOut,
    QueueFull,
    WorkerDied,
    WrongResultCount,
)
from server.http.errors import RequestError, render_error
from server.readiness import NotReady, Phase

RETRY_AFTER_LOADING = 2
RETRY_AFTER_STOPPING = 5
JITTER = 0.1


def _of_http(error: Exception) -> RequestError:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    return RequestError(status.value, status.name.lower(), status.phrase, error.headers or {})


def _of_queue_full(error: Exception) -> RequestError:
    assert isinstance(error, QueueFull)
    return RequestError(429, "queue_full", "too many texts are waiting; try again later", _retry_after(error.retry_after))


def _retry_after(seconds: float) -> dict[str, str]:
    """The header, in whole seconds as it must be, a little apart: not all refused clients shall come back at the same moment.

    Rounded to the nearest, not up: there is room long before everything has drained.
    """
    return {"Retry-After": str(max(1, round(seconds * random.uniform(1 - JITTER, 1 + JITTER))))}


def _of_unmeetable(error: Exception) -> RequestError:
    assert isinstance(error, DeadlineUnmeetable)
    message = f"an answer is expected to take {error.expected * 1000:.0f} ms, more than the request's timeout leaves"
    return RequestError(504, "deadline_unmeetable", message, _retry_after(error.expected))


def _of_deadline(_: Exception) -> RequestError:
    return RequestError(504, "deadline_exceeded", "the request's timeout came before its answer")


def _of_pass_timeout(_: Exception) -> RequestError:
    return RequestError(504, "pass_timeout", "the model did not answer within its bound")


def _of_stalled(_: Exception) -> RequestError:
    message = "the model hangs in all its workers; the server must be restarted"
    return RequestError(503, "stalled", message, {"Retry-After": str(RETRY_AFTER_STOPPING)})


def _of_not_ready(error: Exception) -> RequestError:
    assert isinstance(error, NotReady)
    if error.phase is Phase.DRAINING:
        return _stopping(error)
    if error.phase is Phase.LEAVING:
        return RequestError(503, "draining", str(error), {"Retry-After": str(RETRY_AFTER_STOPPING), "Connection": "close"})
    code = "stalled" if error.phase is Phase.STALLED else "not_ready"
    return RequestError(503, code, str(error), {"Retry-After": str(RETRY_AFTER_LOADING)})


def _stopping(_: Exception) -> RequestError:
    # The client should take its next request to another server, so its connection is not kept.
    headers = {"Retry-After": str(RETRY_AFTER_STOPPING), "Connection": "close"}
    return RequestError(503, "draining", "the server is shutting down", headers)


def _model_failure(error: Exception) -> RequestError:
    assert isinstance(error, PassFailed)
    if error.items > 1 or isinstance(error, (WorkerDied, WrongResultCount)):
        return RequestError(500, "model_failure", "the model failed on a batch with this request")
    place = "" if error.index is None else f"texts[{error.index}]: "
    return RequestError(500, "model_failure", f"{place}the model failed on this text")


def _internal(_: Exception) -> RequestError:
    return RequestError(500, "internal_error", "an unexpected error happened; the server's log has it under the request id")


def _gone(_: Exception) -> RequestError:
    # To nobody; the log shows it. The number is nginx's.
    return RequestError(499, "client_closed_request", "the client left before its answer")


def _itself(error: Exception) -> RequestError:
    assert isinstance(error, RequestError)
    return error


# What each exception is answered with; the first class that fits.
TABLE = (
    (RequestError, _itself),
    (HTTPException, _of_http),
    (ClientDisconnect, _gone),
    (QueueFull, _of_queue_full),
    (DeadlineUnmeetable, _of_unmeetable),
    (DeadlineExceeded, _of_deadline),
    (NotReady, _of_not_ready),
    (BatcherClosed, _stopping),
    (BatcherStalled, _of_stalled),
    (PassTimedOut, _of_pass_timeout),
    (PassFailed, _model_failure),
    (Exception, _internal),
)
FORESEEN = tuple(kind for kind, _ in TABLE if kind is not Exception)


def translate(error: Exception) -> RequestError:
    """What the table has for an exception."""
    return next(of_kind for kind, of_kind in TABLE if isinstance(error, kind))(error)


def error_response(scope: Scope, error: Exception) -> Response:
    """The answer that the table has for an exception."""
    return render_error(scope, translate(error))


def answering_errors(app: ASGIApp) -> ASGIApp:
    """The application with the table's answers for what it raises; what is not foreseen is raised again, for the log."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except Exception as error:
            await error_response(scope, error)(scope, receive, send)
            if not isinstance(error, FORESEEN):
                raise

    return answered


async def answer_error(request: Request, error: Exception) -> Response:
    """Starlette's exception handler for everything in the table."""
    return error_response(request.scope, error)


HANDLERS = {kind: answer_error for kind, _ in TABLE}
