"""uvicorn's HTTP protocol, with what a public server needs: bounded heads, our errors, no body lost to an `Upgrade` header."""

from __future__ import annotations

import asyncio
import re
import uuid

import orjson
import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from server.request_id import HEADER

log = structlog.stdlib.get_logger("supportbot.access")

# Request line and headers together; as much as common proxies allow.
MAX_HEAD_BYTES = 64 * 1024
# How long a client that was refused may go on sending before its connection is closed.
LINGER_SECONDS = 1.0
END_OF_HEAD = b"\r\n\r\n"
UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*(?=\r\n)", re.IGNORECASE)


def without_upgrade(data: bytes) -> bytes:
    """Take `Upgrade` headers out of the request's head that `data` begins with.

    Java's HttpClient and `curl --http2` offer an upgrade to HTTP/2 with every first request. A server may ignore the offer (RFC
    9110, 7.8), and this one upgrades to nothing; but the parser takes what follows the head for the new protocol.
    """
    end = data.find(END_OF_HEAD)
    if end < 0:
        return data
    return UPGRADE.sub(b"", data[: end + 2]) + data[end + 2 :]


class Protocol(HttpToolsProtocol):
    """One connection. Beyond uvicorn's own, its state is where in a message it is, and the part of a head that is held back."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._is_between_messages = True
        self._is_in_head = False
        self._is_refused = False
        self._head_bytes = 0
        self._held = b""
        self._head_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        super().connection_made(transport)  # type: ignore[arg-type]
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._forget_head_timer()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived. A head is held back until it is whole; what cannot be the beginning of one goes to the parser."""
        if self._is_refused:
            return
        if self._is_between_messages and (self._held or data[:1].isupper()):
            data, self._held = self._held + data, b""
            end = data.find(END_OF_HEAD)
            if (len(data) if end < 0 else end) > MAX_HEAD_BYTES:
                self._refuse_head()
                return
            if end < 0:
                self._held = data
                self._unset_keepalive_if_required()
                self._expect_head()
                return
            data = without_upgrade(data)
        super().data_received(data)
        if self._is_in_head:  # a pipelined request's, which the parser has
            self._expect_head()
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse_head()

    def on_message_begin(self) -> None:
        """The parser found the first byte of a request."""
        self._is_between_messages = False
        self._is_in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """The parser found the end of a request's head."""
        self._is_in_head = False
        self._forget_head_timer()
        if self.parser.should_upgrade():
            # A pipelined request, whose head was not held back. Its body would be taken for something else, the next request even.
            self._refuse(400, "malformed_request", "an Upgrade header is not supported in a pipelined request")
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A part of the current request's body."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The parser found the end of a request."""
        self._is_between_messages = True
        if not self._is_refused:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP; uvicorn calls it when its parser gives up."""
        self._refuse(400, "malformed_request", msg)

    def _expect_head(self) -> None:
        """Give the client as long for a whole head as an idle connection is kept."""
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.timeout_keep_alive, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._held or self._is_in_head:
            self._refuse(408, "headers_timeout", f"the headers were not complete after {self.timeout_keep_alive} s")
        elif not self.transport.is_closing():
            self.transport.close()

    def _forget_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse_head(self) -> None:
        self._refuse(431, "headers_too_large", f"request line and headers are over {MAX_HEAD_BYTES} bytes")

    def _refuse(self, status: int, code: str, message: str) -> None:
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        request_id = uuid.uuid4().hex
        log.warning("refused before it was a request", status=status, code=code, request_id=request_id)
        latest: RequestResponseCycle | None = getattr(self, "cycle", None)
        if latest is not None and not latest.response_complete and not latest.more_body:
            # Earlier requests on this connection are still being worked on: they get their answers, then it is closed.
            latest.keep_alive = False
            return
        body = orjson.dumps({"error": {"code": code, "message": message, "request_id": request_id}})
        headers = {"content-type": "application/json", "content-length": len(body), "connection": "close", HEADER: request_id}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(STATUS_LINE[status] + lines.encode() + b"\r\n" + body)
        # What the client is still sending is read and thrown away for a moment, or it would meet a reset in place of the answer.
        self.transport.write_eof()
        self._linger_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)
