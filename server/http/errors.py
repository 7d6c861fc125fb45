"""The answer to a request that cannot be answered: one shape, `{"error": {"code", "message", "request_id"}}`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.responses import Response
from starlette.types import Scope

from server.http.rendering import render_json
from server.http.request_id import request_id_of


@dataclass
class RequestError(Exception):
    """Raised when a request cannot be accepted as it is; `code` is stable and for programs, `message` for people."""

    status: int
    code: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


def render_error(scope: Scope, error: RequestError) -> Response:
    """The error as a response, with the id of the request."""
    body = {"error": {"code": error.code, "message": error.message, "request_id": request_id_of(scope)}}
    return render_json(body, error.status, error.headers)
