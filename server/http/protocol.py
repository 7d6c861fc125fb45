"""uvicorn's HTTP protocol, with what a public server needs: everything that a client sends is bounded, and errors are ours.

Whatever the route and whatever has been answered already, each phase of a connection has a bound in bytes and in time:

| phase | bytes | time |
| --- | --- | --- |
| between requests: nothing, or empty lines | `HEAD_BYTES` | `KEEP_ALIVE_SECONDS` |
| request line and headers | `HEAD_BYTES` | `KEEP_ALIVE_SECONDS` |
| body, while the application reads it | `MAX_BODY_BYTES` and `DISCARDED_BYTES` (`server.http.body`) | `BODY_TIMEOUT_MS` |
| body, after an early answer or on a route that reads none | the same | `BODY_TIMEOUT_MS` and `LINGER_SECONDS` |
| body that is read line by line (`server.http.lines`), in a line | `MAX_BODY_BYTES` and `DISCARDED_BYTES` | `BODY_TIMEOUT_MS` |
| the same, between two lines | `MAX_BODY_BYTES` of blank lines | `KEEP_ALIVE_SECONDS` |
| chunk sizes, chunk extensions and trailers | `HEAD_BYTES` and `FRAMING_RATIO` times the body | as the body |
| requests sent before the answer to the one before them | `PIPELINED_REQUESTS` | |
| after a refusal or the last answer, thrown away | `DISCARDED_BYTES` | `LINGER_SECONDS` |
| reading the answers | | `KEEP_ALIVE_SECONDS`, once 64 KiB wait for it or the connection is to be closed |

A body of lines has no other bound, neither in bytes nor in time. While the application reads no line, its client's time stands
still.

Bytes are counted by what was read at once, so a bound may be passed by one read (256 KiB).
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import orjson
import structlog
from starlette.types import ASGIApp
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from server.http.access import RequestContext, request_context
from server.http.body import DISCARDED_BYTES
from server.http.connection import CONNECTION, FAULT
from server.http.errors import RequestError
from server.http.request_id import HEADER, new_request_id

log = structlog.stdlib.get_logger("supportbot.access")

# Request line and headers together; as much as common proxies allow.
HEAD_BYTES = 64 * 1024
# A chunk of one byte takes six bytes on the wire, or thirteen from a client that writes its size in eight digits.
FRAMING_RATIO = 16
# How many requests of one connection may wait for the one before them. One read may bring thousands.
PIPELINED_REQUESTS = 100
# How long a client that was refused, or had its last answer, may go on sending before its connection is closed.
LINGER_SECONDS = 1.0
END_OF_HEAD = b"\r\n\r\n"
# Not allowed, but whoever sends it has sent all of its head, and is to hear of it now.
END_OF_HEAD_IN_LINE_FEEDS = b"\n\n"
# RFC 3986, 3.2: a name, an IPv4 or IPv6 address, perhaps a port.
HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
# RFC 9112, 3.2.2: a target in absolute form, as proxies get it, whose path is empty.
ABSOLUTE_WITHOUT_PATH = re.compile(rb"(https?://[^/?#]+)(?=[?#]|$)", re.IGNORECASE)
UPGRADE = re.compile(rb"\r\nupgrade:[^\r\n]*(?=\r\n)", re.IGNORECASE)


def without_upgrade(data: bytes) -> bytes:
    """Take `Upgrade` headers out of the request's head that `data` begins with.

    Java's HttpClient and `curl --http2` offer an upgrade to HTTP/2 with every first request. A server may ignore the offer (RFC
    9110, 7.8), and this one upgrades to nothing; but the parser takes what follows the head for the new protocol.
    """
    end = data.find(END_OF_HEAD)
    if end < 0 or b"\nupgrade:" not in data[:end].lower():  # a tenth of what the expression takes
        return data
    return UPGRADE.sub(b"", data[: end + 2]) + data[end + 2 :]


# The headers of every answer, a list that uvicorn makes anew each second, and their lines.
_common: tuple[object, bytes] = (None, b"")


def common_lines(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The lines of the headers that all answers have, which are the same for all answers of a second."""
    global _common  # noqa: PLW0603 - a cache of one
    known, lines = _common
    if known is not headers:
        lines = b"".join([b"%b: %b\r\n" % header for header in headers])
        _common = headers, lines
    return lines


class AnswerWriter:
    """The transport as uvicorn's cycle of one request uses it: the answer's head waits for the body, and both leave at once.

    uvicorn writes them one after the other, which costs a system call more, and wakes the client for a head without its body. The
    answer to HEAD has no body to wait for. `close` is called when the connection is to end with this answer.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None], *, has_body: bool = True) -> None:
        self._transport = transport
        self._close = close
        # What is kept of the head: None before it, empty once it is written.
        self._head: bytes | None = None if has_body else b""

    def write(self, data: bytes) -> None:
        """Write, or keep if it is the head; nothing on a connection that is being closed."""
        if self._transport.is_closing():
            return
        if self._head is None and not data.startswith(b"HTTP/1.1 1"):  # `100 Continue` is awaited
            self._head = data
        elif self._head:
            self._transport.write(self._head + data)
            self._head = b""
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Write what was kept, and close."""
        if self._head and not self._transport.is_closing():
            self._transport.write(self._head)
        self._close()

    def is_closing(self) -> bool:
        """True when nothing more can be written."""
        return self._transport.is_closing()


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds for a request's body: its bytes, and the seconds in which it must have come."""

    body_bytes: int = 1 << 20
    body_seconds: float = 10.0


class Protocol(HttpToolsProtocol):
    """One connection. Beyond uvicorn's own, its state is where in a message it is, how much of it has come, and the part of a head
    that is held back.

    The application finds it in the scope (`server.http.connection`). `on_lost` is called when the client leaves; it belongs to
    the request that is worked on, of which there is one at a time.
    """

    limits = Limits()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        self._is_between_messages = True
        self._is_in_head = False
        # Nothing more is read as HTTP; and the last answer was written.
        self._is_refused = False
        self._is_ended = False
        self._held = b""
        # Of the present message: its number on this connection; bytes of its head, or of empty lines before it; bytes read in its
        # body, chunk sizes and trailers included; bytes of the body itself.
        self._message = 0
        self._head_bytes = 0
        self._read_bytes = 0
        self._body_bytes = 0
        # True while the application bounds the present message's body by itself.
        self._is_stream = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        # The earliest request without an answer; uvicorn's `cycle` is the latest that came.
        self._worked_on: RequestResponseCycle | None = None
        self._linger_timer: asyncio.TimerHandle | None = None
        self.is_lost = False
        self.on_lost: Callable[[], None] | None = None
        # While the parser works, a request that may begin is to begin when it is through.
        self._is_parsing = self._is_to_begin = False
        self._idle_since = math.inf
        # Only if nothing is wrapped around it, which would be left out.
        self._context = self.app if isinstance(self.app, RequestContext) else None
        super().connection_made(transport)  # type: ignore[arg-type]
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._forget_head_timer()
        self._forget_body_timer()
        for timer in filter(None, (self._write_timer, self._linger_timer, self.timeout_keep_alive_task)):
            timer.cancel()
        super().connection_lost(exc)
        self.pipeline.clear()
        self.is_lost = True
        if self.on_lost is not None:
            self.on_lost()

    def body(self) -> bytes | None:
        """The body of the request that is worked on, which stays where it is; None while some of it is still to come."""
        cycle = self._worked_on
        assert cycle is not None
        return None if cycle.more_body else bytes(cycle.body)

    def take_body(self) -> bytes | None:
        """The body of the request that is worked on; None while some of it is still to come, or when the client has left.

        What uvicorn's cycle does for `receive`, without its messages and its waiting.
        """
        cycle = self._worked_on
        assert cycle is not None
        if cycle.more_body or cycle.disconnected:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()  # so that whoever receives now waits for the client's leaving
        self.flow.resume_reading()
        return body

    def answer(self, status: int, headers: bytes, body: bytes) -> bool:
        """Write the whole answer to the request that is worked on, and let the next one come.

        `headers` are lines, `Content-Length` among them. Returns False, with nothing written, when the answer must be sent as
        messages, because the connection is to end or its client does not read.
        """
        cycle = self._worked_on
        assert cycle is not None
        is_usual = cycle.keep_alive and not (cycle.response_started or cycle.disconnected or self.flow.write_paused)
        if not is_usual or self.transport.is_closing():
            return False
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        self.transport.write(
            b"".join([STATUS_LINE[status], common_lines(self.server_state.default_headers), headers, b"\r\n", body])
        )
        cycle.message_event.set()
        self.on_response_complete()
        return True

    def expect_stream(self) -> None:
        """Leave the body of the request that is worked on to the application, which bounds it as long as it reads.

        Of what this class bounds in a body, chunk sizes and the like remain.
        """
        cycle = self._worked_on
        assert cycle is not None
        if cycle.more_body and not cycle.disconnected:  # else what is read now belongs to the next request
            self._is_stream = True
            self._forget_body_timer()

    def break_off(self) -> None:
        """End the connection without the end of the answer that has begun; what was written before is sent first."""
        cycle = self._worked_on
        assert cycle is not None
        if not cycle.response_complete and not cycle.disconnected:
            cycle.keep_alive, cycle.response_complete = False, True
            cycle.message_event.set()
            self._end()
            self.on_response_complete()

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived. A head is held back until it is whole; what cannot be the beginning of one goes to the parser."""
        if self._is_refused:
            self._read_bytes += len(data)
            if self._read_bytes > DISCARDED_BYTES:
                self._close()
            return
        if self._is_between_messages and (self._held or data[:1].isupper()):
            data, self._held = self._held + data, b""
            end = data.find(END_OF_HEAD)
            if (len(data) if end < 0 else end) > HEAD_BYTES:
                self._refuse_head()
                return
            if end < 0 and END_OF_HEAD_IN_LINE_FEEDS not in data:
                self._held = data
                self._unset_keepalive_if_required()
                self._expect_head()
                return
            data = without_upgrade(data)
        message, was_in_body = self._message, not (self._is_between_messages or self._is_in_head)
        self._is_parsing = True
        super().data_received(data)
        self._is_parsing = False
        if self._is_to_begin:
            self._begin()
        if not self._is_over():
            self._bound(len(data), is_same_message=message == self._message, was_in_body=was_in_body)

    def _bound(self, size: int, *, is_same_message: bool, was_in_body: bool) -> None:
        """Count what was just read, and give the client its time for what is to come.

        What came before the read's message began is counted as little as what came after its end: the bounds are of that order.
        """
        if self._is_in_head:  # a pipelined request's, which the parser has
            self._expect_head()
            self._count_head(size)
        elif not self._is_between_messages:
            self._read_bytes += size if is_same_message and was_in_body else 0
            self._check_body()
        else:
            if self._is_idle():  # after a body that ended after its answer, or empty lines
                self._expect_head()
            if is_same_message and not was_in_body:
                self._count_head(size)  # empty lines, which the parser passes over

    def on_message_begin(self) -> None:
        """The parser found the first byte of a request."""
        self._is_between_messages = False
        self._is_in_head = True
        self._message += 1
        self._head_bytes = self._read_bytes = self._body_bytes = 0
        self._is_stream = False
        super().on_message_begin()
        self.scope[CONNECTION] = self  # type: ignore[literal-required]

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser found a header, or a trailer, which nobody reads and which is not kept."""
        if not self._is_in_head:
            return
        name, value = name.lower(), value.rstrip(b" \t")  # RFC 9110, 5.5; the parser takes blanks off the front only
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The parser found the end of a request's head."""
        self._forget_head_timer()
        if self._is_refused:
            return
        if self.parser.get_method() == b"CONNECT":
            self._refuse(400, "malformed_request", "CONNECT is for proxies, which this server is not")
            return
        if self.parser.should_upgrade():
            # A pipelined request, whose head was not held back. Its body would be taken for something else, the next request even.
            self._refuse(400, "malformed_request", "an Upgrade header is not supported in a pipelined request")
            return
        if (fault := self._fault_of_head()) is not None:
            self._refuse(400, "malformed_request", fault)
            return
        if len(self.pipeline) >= PIPELINED_REQUESTS:
            # Never written: the requests before it get their answers, the last with `Connection: close`.
            self._refuse(429, "too_many_pipelined", f"more than {PIPELINED_REQUESTS} requests wait for their turn")
            return
        self._is_in_head = False
        if not self.url.startswith(b"/"):
            self.url = ABSOLUTE_WITHOUT_PATH.sub(rb"\1/", self.url, count=1)
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._worked_on = cycle
        if self._context is None or app is not self.app:
            self._start_task(cycle, app)
        elif self._is_parsing:
            self._is_to_begin = True  # when the rest of what was read is parsed, which may be the body
        else:
            self.loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Begin with the request that is to be worked on: without a task if it can be, which the application decides."""
        self._is_to_begin = False
        cycle = self._worked_on
        assert cycle is not None
        assert self._context is not None
        is_whole = not (cycle.more_body or cycle.disconnected) and cycle.keep_alive and FAULT not in cycle.scope
        if not is_whole or not self._context.begin(cycle.scope, self):  # type: ignore[arg-type]
            self._start_task(cycle, self.app)

    def _start_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        has_body = cycle.scope["method"] != "HEAD"
        cycle.transport = AnswerWriter(self.transport, self._end, has_body=has_body)  # type: ignore[assignment]
        super()._start_asgi_task(cycle, app)

    def start(self, app: ASGIApp) -> None:
        """Let an application answer the request that is worked on, in a task."""
        assert self._worked_on is not None
        self._start_task(self._worked_on, app)  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        """A part of the current request's body."""
        self._body_bytes += len(body)
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The parser found the end of a request."""
        self._is_between_messages = True
        self._is_stream = False
        self._head_bytes = 0
        self._forget_body_timer()
        if not self._is_refused:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """A request has its answer. Reading goes on, so a pipelined request whose body is not whole has its time from here."""
        if self._is_ended:
            self.server_state.total_requests += 1
            self.flow.resume_reading()  # to throw away what comes
            return
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())
            else:
                self._keep_alive()
        if self._is_stream:  # answered before its end, and no longer read
            self._is_stream = False
            self._check_body()
        elif self._body_timer is not None and not self._is_idle():
            self._forget_body_timer()
            self._check_body()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP; uvicorn calls it when its parser gives up."""
        self._refuse(400, "malformed_request", msg)

    def pause_writing(self) -> None:
        """The client does not read its answers, of which the transport keeps as much as it will."""
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        if self._write_timer is not None and not self.transport.is_closing():
            self._write_timer.cancel()
            self._write_timer = None

    def _keep_alive(self) -> None:
        """Wait for the next request, as long as an idle connection is kept.

        One timer looks again and again as long as requests come: setting and cancelling one for each request costs more.
        """
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = math.inf

    def timeout_keep_alive_handler(self) -> None:
        """Look whether no request came for as long as an idle connection is kept."""
        self.timeout_keep_alive_task = None
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left <= 0:
            self._close()
        elif left < math.inf:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)

    def shutdown(self) -> None:
        """The server stops: the connection ends with the answer to its present request, or now."""
        if self._is_idle():
            self._close()
        else:
            super().shutdown()

    def _fault_of_head(self) -> str | None:
        """What RFC 9112, 3.2 demands of `Host`, and 6.1 of `Transfer-Encoding`; None when both are so."""
        hosts = 0
        for name, value in self.headers:
            if name == b"host":
                hosts += 1
                if not HOST.fullmatch(value):
                    return "the Host header is malformed"
            elif name == b"transfer-encoding" and value.strip().lower() != b"chunked":
                return "Transfer-Encoding must be chunked"
        if hosts == 1 or (not hosts and self.parser.get_http_version() == "1.0"):
            return None
        return "there must be one Host header" if hosts else "the Host header is missing"

    def _is_over(self) -> bool:
        """True when nothing more is read from this connection."""
        return self._is_refused or self.is_lost or self.transport.is_closing()

    def _is_idle(self) -> bool:
        """True when no request is being worked on."""
        latest: RequestResponseCycle | None = self.cycle
        return latest is None or latest.response_complete

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > HEAD_BYTES:
            self._refuse_head()

    def _check_body(self) -> None:
        """Bound what comes of a body that is not whole, and give it its time from here."""
        if self._read_bytes - self._body_bytes > HEAD_BYTES + FRAMING_RATIO * self._body_bytes:
            self._refuse(431, "headers_too_large", f"chunk extensions and trailers are over {HEAD_BYTES} bytes")
        elif self.cycle.response_complete and self._body_bytes > self.limits.body_bytes + DISCARDED_BYTES:
            self._close()  # as long as the application reads, it has the bound
        elif self._body_timer is None and not self._is_stream:
            # The application's own time for the body, if it reads one, ends before, and it has the better answer.
            self._body_timer = self.loop.call_later(self.limits.body_seconds + LINGER_SECONDS, self._body_is_late)

    def _body_is_late(self) -> None:
        self._body_timer = None
        if self.pipeline:
            # Reading pauses while earlier requests of this connection are worked on.
            self._check_body()
        else:
            self._refuse(408, "body_timeout", f"the body was not complete after {self.limits.body_seconds:g} s")

    def _expect_head(self) -> None:
        """Give the client as long for a whole head as an idle connection is kept."""
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.timeout_keep_alive, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self.pipeline or self.flow.read_paused:
            self._expect_head()  # reading pauses while earlier requests of this connection are worked on
        elif self._held or self._is_in_head:
            self._refuse(408, "headers_timeout", f"the headers were not complete after {self.timeout_keep_alive} s")
        else:
            self._close()

    def _forget_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _forget_body_timer(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def _refuse_head(self) -> None:
        self._refuse(431, "headers_too_large", f"request line and headers are over {HEAD_BYTES} bytes")

    def _refuse(self, status: int, code: str, message: str) -> None:
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        self._forget_head_timer()
        self._forget_body_timer()
        if self._is_idle():
            if self._is_between_messages or self._is_in_head:
                self._answer_refusal(status, code, message)
            else:
                self._end()  # it is in the body of a request that has its answer
            return
        # The requests that are worked on get their answers, then the connection is closed.
        latest = self.cycle
        latest.keep_alive = False
        if latest.more_body:
            # The fault is in this one's body: the application answers with it, if it reads bodies at all.
            latest.scope[FAULT] = RequestError(status, code, message)  # type: ignore[literal-required]
            latest.more_body = False
            latest.message_event.set()
        else:
            log.warning("refused before it was a request", status=status, code=code)

    def _answer_refusal(self, status: int, code: str, message: str) -> None:
        self._read_bytes = 0
        request_id = new_request_id()
        log.warning("refused before it was a request", status=status, code=code, request_id=request_id)
        if (context := request_context(self.app)) is not None:
            context.note_refused(status)
        body = orjson.dumps({"error": {"code": code, "message": message, "request_id": request_id}})
        headers = {"content-type": "application/json", "content-length": len(body), "connection": "close", HEADER: request_id}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(STATUS_LINE[status] + lines.encode() + b"\r\n" + body)
        self._end()

    def _end(self) -> None:
        """The last answer is written: close, when the client has nothing more to send.

        If it may have, what it sends is read and thrown away for a moment, or it would meet a reset in place of the answer.
        """
        is_silent = self._is_between_messages and not (self._is_refused or self._held or self.pipeline or self.flow.read_paused)
        if is_silent or self.transport.is_closing():
            self._close()
            return
        self._is_refused = self._is_ended = True
        self._held = b""
        self.pipeline.clear()
        self._forget_head_timer()
        self._forget_body_timer()
        self.transport.write_eof()
        self._linger_timer = self.loop.call_later(LINGER_SECONDS, self._close)

    def _close(self) -> None:
        """Close when what was written is sent, which a client that does not read can put off for a while only."""
        if not self.transport.is_closing():
            self.transport.close()
            self._expect_reading()

    def _expect_reading(self) -> None:
        """Give the client as long to read its answers as an idle connection is kept."""
        if self._write_timer is None:
            self._write_timer = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)


def protocol_with(limits: Limits) -> type[Protocol]:
    """The protocol with other limits than the defaults, as uvicorn wants it: a class."""
    return type("LimitedProtocol", (Protocol,), {"limits": limits})
