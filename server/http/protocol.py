"""uvicorn's HTTP protocol, with what a public server needs: bounded heads, our errors, no body lost to an `Upgrade` header."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import orjson
import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from server.http.access import request_context
from server.http.body import CONNECTION
from server.http.request_id import HEADER, new_request_id

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


class AnswerWriter:
    """The transport as uvicorn's cycle of one request uses it: the answer's head waits for the body, and both leave at once.

    uvicorn writes them one after the other, which costs a system call more, and wakes the client for a head without its body. The
    answer to HEAD has no body to wait for and needs the transport itself.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        """Write, or keep if it is the head."""
        if self._head is None and not data.startswith(b"HTTP/1.1 1"):  # `100 Continue` is awaited
            self._head = data
        elif self._head:
            self._transport.write(self._head + data)
            self._head = b""
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Write what was kept, and close."""
        if self._head:
            self._transport.write(self._head)
        self._transport.close()

    def is_closing(self) -> bool:
        """True when nothing more can be written."""
        return self._transport.is_closing()


class Protocol(HttpToolsProtocol):
    """One connection. Beyond uvicorn's own, its state is where in a message it is, and the part of a head that is held back.

    The application finds it in the scope (`server.http.body.Connection`). `on_lost` is called when the client leaves; it belongs to
    the request that is worked on, of which there is one at a time.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._is_between_messages = True
        self._is_in_head = False
        self._is_refused = False
        self._head_bytes = 0
        self._held = b""
        self._head_timer: asyncio.TimerHandle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self.is_lost = False
        self.on_lost: Callable[[], None] | None = None
        super().connection_made(transport)  # type: ignore[arg-type]
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._forget_head_timer()
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        super().connection_lost(exc)
        self.is_lost = True
        if self.on_lost is not None:
            self.on_lost()

    def has_whole_body(self) -> bool:
        """True when nothing of the body of the request that is worked on is still to come."""
        # The latest request's, if several are pipelined; an earlier one is whole, or there would be no later one.
        return not self.cycle.more_body

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
        self.scope[CONNECTION] = self  # type: ignore[literal-required]

    def on_headers_complete(self) -> None:
        """The parser found the end of a request's head."""
        self._is_in_head = False
        self._forget_head_timer()
        if self.parser.should_upgrade():
            # A pipelined request, whose head was not held back. Its body would be taken for something else, the next request even.
            self._refuse(400, "malformed_request", "an Upgrade header is not supported in a pipelined request")
            return
        super().on_headers_complete()
        if self.scope["method"] != "HEAD":
            self.cycle.transport = AnswerWriter(self.transport)  # type: ignore[assignment]

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
        request_id = new_request_id()
        log.warning("refused before it was a request", status=status, code=code, request_id=request_id)
        latest: RequestResponseCycle | None = getattr(self, "cycle", None)
        if latest is not None and not latest.response_complete and not latest.more_body:
            # Earlier requests on this connection are still being worked on: they get their answers, then it is closed.
            latest.keep_alive = False
            return
        if (latest is None or latest.response_complete) and (context := request_context(self.app)) is not None:
            context.note_refused(status)  # else it was in a request's body, and that request is counted
        body = orjson.dumps({"error": {"code": code, "message": message, "request_id": request_id}})
        headers = {"content-type": "application/json", "content-length": len(body), "connection": "close", HEADER: request_id}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(STATUS_LINE[status] + lines.encode() + b"\r\n" + body)
        # What the client is still sending is read and thrown away for a moment, or it would meet a reset in place of the answer.
        self.transport.write_eof()
        self._linger_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)
