"""The answer to a request that cannot be answered: `{"error": {"code", "message", "request_id"}}`, or as its dialect says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.types import Scope

from server.http.marks import ERROR_BODY
from server.http.rendering import render_json
from server.http.request_id import request_id_of


@dataclass
class RequestError(Exception):
    """Raised when a request cannot be accepted as it is; `code` is stable and for programs, `message` for people."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


# Makes an error's JSON body; it is given the error and the request's id.
ErrorBody = Callable[[RequestError, str], object]


def native_error_body(error: RequestError, request_id: str) -> object:
    """Our own shape."""
    return {"error": {"code": error.code, "message": error.message, "request_id": request_id}}


def render_error(scope: Scope, error: RequestError) -> Response:
    """The error as a response, in the shape that the scope's dialect has."""
    body_of: ErrorBody = scope.get(ERROR_BODY, native_error_body)
    return render_json(body_of(error, request_id_of(scope)), error.status, error.headers)
