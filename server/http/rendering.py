"""Python values to JSON responses."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from starlette.responses import Response
from starlette.types import Scope, Send

from server.http.connection import CONNECTION, STATUS, Connection
from server.http.request_id import HEADER, request_id_of

_ID = HEADER.lower()


def render_json(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response made by orjson."""
    return Response(orjson.dumps(content), status, dict(headers) if headers else None, "application/json")


async def send_bytes(scope: Scope, send: Send, body: bytes, media_type: str, headers: Mapping[str, str]) -> None:
    """Answer 200 with a body that is there already.

    On our own connection it is written as it is; uvicorn would look for faults in each header with two regular expressions.
    """
    connection: Connection | None = scope.get(CONNECTION)
    lines = None if connection is None else head_lines(scope, len(body), media_type, headers)
    if connection is not None and lines is not None and connection.answer(200, lines, body):
        scope[STATUS] = 200
        return
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    raw += ((b"content-length", b"%d" % len(body)), (b"content-type", media_type.encode("latin-1")))
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def head_lines(scope: Scope, size: int, media_type: str, headers: Mapping[str, str]) -> bytes | None:
    """The header lines of an answer with a body of `size` bytes; None where somebody else should look at the headers first."""
    if "Connection" in headers:
        return None
    lines = "".join([f"{name.lower()}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers):
        return None
    lines += f"content-length: {size}\r\ncontent-type: {media_type}\r\n{_ID}: {request_id_of(scope)}\r\n"
    return lines.encode("latin-1")
