"""Python values to JSON responses."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from starlette.responses import Response
from starlette.types import Send


def render_json(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response made by orjson."""
    return Response(orjson.dumps(content), status, dict(headers) if headers else None, "application/json")


async def send_json(send: Send, content: object, headers: Mapping[str, str]) -> None:
    """Answer 200 with JSON, as `render_json` does, without the objects in between: for routes that are asked all the time."""
    await send_bytes(send, orjson.dumps(content), "application/json", headers)


async def send_bytes(send: Send, body: bytes, media_type: str, headers: Mapping[str, str]) -> None:
    """Answer 200 with a body that is there already."""
    raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    raw += ((b"content-length", b"%d" % len(body)), (b"content-type", media_type.encode("latin-1")))
    await send({"type": "http.response.start", "status": 200, "headers": raw})
    await send({"type": "http.response.body", "body": body})
