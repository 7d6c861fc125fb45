"""Reading a request body within a limit."""

from __future__ import annotations

from starlette.requests import ClientDisconnect, Request

from server.errors import RequestError

# A client that is still sending when the answer comes may never read it, so a body over the limit is read and thrown away up to
# this many bytes before it is refused; beyond it the connection is simply closed.
DISCARDED_BYTES = 16 * 1024 * 1024


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises `RequestError` (413) when it is longer than `limit` bytes, `ClientDisconnect` when the client left."""
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdecimal() else 0
    if size > limit + DISCARDED_BYTES:
        raise _too_large(limit)
    chunks: list[bytes] = []
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received <= limit:
            chunks.append(chunk)
        elif received > limit + DISCARDED_BYTES:
            break
    if received > limit:
        raise _too_large(limit)
    return b"".join(chunks)


def _too_large(limit: int) -> RequestError:
    message = f"the body is over {limit} bytes"
    return RequestError(413, "body_too_large", message, {"Connection": "close"})


__all__ = ["ClientDisconnect", "read_body"]
