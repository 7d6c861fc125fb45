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


async def send_json(scope: Scope, send: Send, content: object, headers: Mapping[str, str]) -> None:
    """Answer 200 with JSON, as `render_json` does, without the objects in between: for routes that are asked all the time."""
    await send_bytes(scope, send, orjson.dumps(content), "application/json", headers)


async def send_bytes(scope: Scope, send: Send, body: bytes, media_type: str, headers: Mapping[str, str]) -> None:
    """Answer 200 with a body that is there already.

    On our own connection it is written as it is; uvicorn would look for faults in each header with two regular expressions.
    """
    connection: Connection | None = scope.get(CONNECTION)
    if connection is not None and "Connection" not in headers:
        lines = "".join([f"{name.lower()}: {value}\r\n" for name, value in headers.items()])
        is_sound = lines.count("\n") == len(headers)
        lines += f"content-length: {len(body)}\r\ncontent-type: {media_type}\r\n{_ID}: {request_id_of(scope)}\r\n"
        if is_sound and connection.answer(200, lines.encode("latin-1"), body):
            scope[STATUS] = 200
            return
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    raw += ((b"content-length", b"%d" % len(body)), (b"content-type", media_type.encode("latin-1")))
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    await send({"type": "http.response.body", "body": body})
