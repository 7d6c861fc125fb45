"""uvicorn's HTTP protocol, with what a public server needs: bounded heads, our errors, no loss to `Upgrade: h2c`."""

from __future__ import annotations

import asyncio
import re
import uuid

import orjson
import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from server.request_id import HEADER

log = structlog.stdlib.get_logger("supportbot.access")

# Request line and headers together; as much as common proxies allow.
MAX_HEAD_BYTES = 64 * 1024
END_OF_HEAD = b"\r\n\r\n"
H2C = re.compile(rb"\r\nupgrade:[ \t]*h2c[ \t]*(?=\r\n)", re.IGNORECASE)


def without_h2c(data: bytes) -> bytes:
    """Take `Upgrade: h2c` out of a request's head that `data` begins with.

    Java's HttpClient and `curl --http2` offer this upgrade with every first request. A server may ignore the offer (RFC 9110, 7.8),
    but the parser takes what follows the head for the new protocol, and the body would be lost.
    """
    end = data.find(END_OF_HEAD)
    if end < 0 or b"h2c" not in data[:end]:
        return data
    return H2C.sub(b"", data[: end + 2]) + data[end + 2 :]


class Protocol(HttpToolsProtocol):
    """One connection. Beyond uvicorn's own, its state is where in a message the parser is."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._is_between_messages = True
        self._is_in_head = False
        self._head_bytes = 0
        super().connection_made(transport)  # type: ignore[arg-type]

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        super().data_received(without_h2c(data) if self._is_between_messages else data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, "headers_too_large", f"request line and headers are over {MAX_HEAD_BYTES} bytes")

    def on_message_begin(self) -> None:
        """The parser found the first byte of a request."""
        self._is_between_messages = False
        self._is_in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The parser found the end of a request's head."""
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The parser found the end of a request."""
        self._is_between_messages = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP; uvicorn calls it when its parser gives up."""
        self._refuse(400, "malformed_request", msg)

    def _refuse(self, status: int, code: str, message: str) -> None:
        if self.transport.is_closing():
            return
        request_id = uuid.uuid4().hex
        body = orjson.dumps({"error": {"code": code, "message": message, "request_id": request_id}})
        headers = {"content-type": "application/json", "content-length": len(body), "connection": "close", HEADER: request_id}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(STATUS_LINE[status] + lines.encode() + b"\r\n" + body)
        self.transport.close()
        log.warning("refused before it was a request", status=status, code=code, request_id=request_id)
