"""`POST /classify` with `Content-Type: application/x-ndjson`: a JSON object a line in, a line out when its turn comes, in order.

Theory of operation. One task reads lines and starts each as soon as the queue has room for it; another, the request's own, waits
for the first line without an answer and writes all answers whose turn has come. Between the two are the lines in flight.

1. There are at most `LINES_IN_FLIGHT`, of at most MAX_BODY_BYTES together but for the last one: memory is bounded, however long the
   stream. A line is in flight until its answer has been taken by the connection.
2. So a client that does not read its answers is not read from: the connection takes no answer, no line leaves, none is started.
3. A full queue makes the stream wait. It fails no line.
4. A bad line, or one that the model fails on, has an error in its place and changes nothing for others.
5. A stream that ends before its body does says so in a last line, with the number of the last line that was answered. Its answer is
   broken off, so that a client which does not look at lines notices, too. If nothing was answered yet, it is an ordinary error.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any, Final, NotRequired

import orjson
import structlog
from pydantic import BaseModel, ConfigDict
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import TypedDict

from batching import BatcherClosed, BatcherStalled, Priority, QueueFull
from models.json_text import loads_lenient
from models.problem import Answer
from server.api.body import validate
from server.api.operation import CLASSIFY_ERRORS, NDJSON, Operation
from server.api.options import Options, parse_options
from server.http.body import unless_disconnected
from server.http.codings import deflater
from server.http.connection import CONNECTION, Connection
from server.http.content import coding_of
from server.http.errors import RequestError
from server.http.lines import Line, LineLimits, read_lines
from server.http.marks import DIALECT, LOG
from server.http.request_id import request_id_of
from server.readiness import NotReady
from server.request import ClassifyRequest, blank_text
from server.service import Admitted, Classification, Service

log = structlog.stdlib.get_logger("supportbot.stream")

NAME: Final = "stream"
MEDIA: Final = frozenset({NDJSON.encode(), b"application/ndjson", b"application/jsonl"})
# Several full batches for each of many workers, and for the queue to choose from.
LINES_IN_FLIGHT: Final = 256
# What the server adds to a line, which has no fields of these names, so that nothing of the client's is lost.
_OURS: Final = frozenset({"line", "prediction", "confidence", "truncated", "stripped", "windows", "error", "stopped"})
# These are no fault of the line's: no later one would be answered either.
_ENDINGS: Final = (NotReady, BatcherClosed, BatcherStalled)


class StreamLine(BaseModel):
    """A line of the request: a text, and whatever else shall be in the line of its answer."""

    model_config = ConfigDict(strict=True, extra="allow")

    text: str


class LineError(TypedDict):
    """Why a line has no answer."""

    code: str
    message: str


class Stopped(TypedDict):
    """Why the stream ended before its body did, and the last line that was answered."""

    line: int
    code: str
    message: str


class StreamAnswer(TypedDict):
    """A line of the answer: `prediction` or `error`, and the fields of its line but for `text`; or `stopped`, which is the last."""

    line: NotRequired[int]
    prediction: NotRequired[Answer]
    confidence: NotRequired[float | list[float]]
    truncated: NotRequired[bool]
    stripped: NotRequired[bool]
    windows: NotRequired[int]
    error: NotRequired[LineError]
    stopped: NotRequired[Stopped]


OPERATION: Final = Operation(
    "Classify a stream of lines",
    StreamAnswer,
    body=StreamLine,
    example={"id": 1, "text": "payment failed"},
    errors=CLASSIFY_ERRORS,
    kind="classify",
    media=(NDJSON,),
    answer_media=(NDJSON,),
)


def is_stream(scope: Scope) -> bool:
    """True for a request whose body is said to be lines of JSON."""
    for name, value in scope["headers"]:
        if name == b"content-type":
            media: bytes = value.partition(b";")[0]
            return media.strip().lower() in MEDIA
    return False


@dataclass(eq=False, slots=True)
class _InFlight:
    """A line that has no answer on the connection yet: its number, its size in bytes, and how its answer begins.

    `outcome` is the error that it is answered with, or the task that classifies its text, which `request` has.
    """

    number: int
    size: int
    opening: bytes
    outcome: RequestError | asyncio.Task[Classification]
    request: ClassifyRequest | None = None

    @property
    def is_done(self) -> bool:
        return isinstance(self.outcome, RequestError) or self.outcome.done()


class Stream:
    """The endpoint. Requests of other media types go to `otherwise`; `translate` says what an exception is answered with."""

    def __init__(self, service: Service, translate: Callable[[Exception], RequestError], otherwise: ASGIApp) -> None:
        self._service = service
        self._translate = translate
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or raise what `server.errors` has an answer for."""
        if not is_stream(scope):
            await self._otherwise(scope, receive, send)
            return
        scope[DIALECT] = NAME
        request, counts = Request(scope, receive), self._service.metrics.streams
        coding, options = coding_of(request.headers), parse_options(request.headers)
        _ = self._service.classifier  # or it is refused here
        run = _Run(self._service, self._translate, request, send, options, coding)
        counts.open += 1
        try:
            work = run.answer()
            reason = await (unless_disconnected(request, work) if CONNECTION in scope else work)
            await run.end(reason)
        finally:
            counts.open -= 1
            scope[LOG] = {"texts": run.answered, "failed_lines": run.failed}


class _Run:
    """One stream."""

    def __init__(
        self,
        service: Service,
        translate: Callable[[Exception], RequestError],
        request: Request,
        send: Send,
        options: Options,
        coding: str,
    ) -> None:
        self._service = service
        self._problem = service.classifier.problem
        self._translate = translate
        self._request = request
        self._send = send
        self._coding = coding
        self._deflater = deflater(request.headers.get("accept-encoding", ""))
        self._timeout = math.inf if options.timeout is None else options.timeout
        self._priority = options.priority or Priority.BULK
        self._request_id = request_id_of(request.scope)
        self._most_bytes = service.settings.max_body_bytes
        # All mutable state. Lines in flight, oldest first, those whose answers are being written not among them but counted.
        self._lines: deque[_InFlight] = deque()
        self._in_flight = self._bytes = 0
        self._has_line, self._has_room = asyncio.Event(), asyncio.Event()
        self._is_begun = False
        self._last = 0
        self.answered = self.failed = 0

    async def answer(self) -> RequestError | None:
        """Read, classify and answer lines; returns why not all of them, if so."""
        reading = asyncio.create_task(self._read())
        reading.add_done_callback(lambda _: self._has_line.set())
        stopping = asyncio.create_task(self._service.until_draining())
        stopping.add_done_callback(lambda _: reading.cancel())
        try:
            return await self._write(reading)
        finally:
            tasks = [reading, stopping, *(line.outcome for line in self._lines if isinstance(line.outcome, asyncio.Task))]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def end(self, reason: RequestError | None) -> None:
        """End the answer, and say why if it is too early. Raises the reason if nothing was answered."""
        if reason is None:
            await self._write_block(b"", more=False)
            return
        if not self._is_begun:
            reason.headers = {**reason.headers, "Connection": "close"}
            raise reason
        stopped = {"line": self._last, "code": reason.code, "message": reason.message}
        log.warning("stream stopped", request_id=self._request_id, line=self._last, code=reason.code)
        connection: Connection | None = self._request.scope.get(CONNECTION)
        await self._write_block(orjson.dumps({"stopped": stopped}) + b"\n", more=connection is not None)
        if connection is not None:
            connection.break_off()

    # --- lines in

    async def _read(self) -> None:
        """Start every line; raises what keeps it from going on."""
        settings = self._service.settings
        limits = LineLimits(settings.max_body_bytes, settings.body_timeout_ms / 1000, settings.keep_alive_seconds)
        async with aclosing(read_lines(self._request, limits, self._coding)) as lines:
            async for line in lines:
                arrived = perf_counter()
                await self._service.room(self._priority)
                started = self._start(line, arrived)
                self._lines.append(started)
                self._in_flight += 1
                self._bytes += started.size
                self._has_line.set()
                while self._in_flight >= LINES_IN_FLIGHT or self._bytes >= self._most_bytes:
                    self._has_room.clear()
                    await self._has_room.wait()

    def _start(self, line: Line, arrived: float) -> _InFlight:
        """The line in flight, with a place in the queue. Raises one of `_ENDINGS`."""
        size = len(line.content or b"")
        passed: dict[str, Any] = {}
        opening = _opening(line.number, {})
        try:
            text = self._parse(line, passed)
            opening = _opening(line.number, passed)
            request = ClassifyRequest([text], single=True, scores=False, timeout=self._timeout, priority=self._priority)
            admitted = self._service.admitted(request, arrived)
        except _ENDINGS:
            raise
        except Exception as error:  # noqa: BLE001 - the line fails alone
            with suppress(RequestError):
                opening = _opening(line.number, passed)
            return _InFlight(line.number, size, opening, self._translated(error))
        task = asyncio.create_task(self._classify(admitted, arrived))
        # Not in the task, which never begins if it is cancelled before.
        task.add_done_callback(partial(_give_back, admitted))
        return _InFlight(line.number, size, opening, task, request)

    def _parse(self, line: Line, passed: dict[str, Any]) -> str:
        """The line's text; its other fields are put into `passed`. Raises `RequestError`."""
        if line.content is None:
            raise RequestError(413, "line_too_long", f"the line is over {self._most_bytes} bytes")
        try:
            raw = loads_lenient(line.content)
        except orjson.JSONDecodeError as error:
            raise RequestError(400, "malformed_json", f"the line is not JSON: {error.msg} (character {error.pos})") from error
        if not isinstance(raw, dict):
            raise RequestError(422, "invalid_field", "the line: must be a JSON object")
        passed.update((name, value) for name, value in raw.items() if name != "text" and name not in _OURS)
        if not _OURS.isdisjoint(raw):
            taken = next(name for name in raw if name in _OURS)
            raise RequestError(422, "invalid_field", f"{taken}: is a field of the answer; give yours another name")
        text = validate(StreamLine, raw).text
        if not text.strip():
            raise blank_text("text")
        return text

    async def _classify(self, admitted: Admitted, arrived: float) -> Classification:
        while True:
            try:
                with admitted:
                    return await self._service.classify(admitted)
            except QueueFull:  # in tokens, which lines that were started meanwhile have taken
                await self._service.room(self._priority)
                admitted = self._service.admitted(admitted.request, arrived)

    # --- lines out

    async def _write(self, reading: asyncio.Task[None]) -> RequestError | None:
        """Write answers until there are no more; the reason, if the body has not been read to its end."""
        while True:
            if not self._lines:
                if reading.done():
                    return self._reason(reading)
                self._has_line.clear()
                await self._has_line.wait()
                continue
            first = self._lines[0].outcome
            if isinstance(first, asyncio.Task) and not first.done():
                await asyncio.wait((first,))
            block, size, number = [], 0, 0
            ending: Exception | None = None
            while self._lines and self._lines[0].is_done and ending is None:
                ending = _ending(self._lines[0])
                if ending is None:
                    line = self._lines.popleft()
                    block.append(self._rendered(line))
                    size, number, self._last = size + line.size, number + 1, line.number
            if block:
                await self._write_block(b"".join(block))
            self._in_flight -= number
            self._bytes -= size
            self._has_room.set()
            if ending is not None:
                return self._translate(ending)

    def _reason(self, reading: asyncio.Task[None]) -> RequestError | None:
        if reading.cancelled():
            return self._translate(BatcherClosed())
        error = reading.exception()
        if error is None:
            return None
        if isinstance(error, ClientDisconnect) or not isinstance(error, Exception):
            raise error
        return self._translated(error)

    def _translated(self, error: Exception) -> RequestError:
        found = self._translate(error)
        if found.code == "internal_error":
            log.error("unexpected error in a stream", request_id=self._request_id, exc_info=error)
        return found

    def _rendered(self, line: _InFlight) -> bytes:
        """The answer to a line that has its outcome, and count it."""
        error = line.outcome if isinstance(line.outcome, RequestError) else None
        answer: dict[str, object] = {}
        if isinstance(line.outcome, asyncio.Task):
            failure = line.outcome.exception()
            if failure is None:
                found = line.outcome.result()
                assert line.request is not None
                self._service.note(line.request, found, self._request_id, line.number - 1)
                (prediction,) = found.predictions
                answer = self._problem.told(prediction)
                if found.truncated[0]:
                    answer["truncated"] = True
                if found.stripped[0]:
                    answer["stripped"] = True
                if found.windows[0] > 1:
                    answer["windows"] = found.windows[0]
            else:
                assert isinstance(failure, Exception)
                error = self._translated(failure)
        if error is not None:
            answer["error"] = {"code": error.code, "message": error.message}
        self.failed += error is not None
        self.answered += error is None
        self._service.metrics.streams.count(failed=error is not None)
        return b"%b,%b\n" % (line.opening, orjson.dumps(answer)[1:])

    async def _write_block(self, block: bytes, *, more: bool = True) -> None:
        if not self._is_begun:
            self._is_begun = True
            headers = [(b"content-type", NDJSON.encode())]
            if self._deflater is not None:
                headers += ((b"content-encoding", self._deflater.coding.encode()), (b"vary", b"accept-encoding"))
            if self._service.is_leaving:
                headers.append((b"connection", b"close"))
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        if self._deflater is not None:
            block = self._deflater.block(block) + (b"" if more else self._deflater.end())
        await self._send({"type": "http.response.body", "body": block, "more_body": more})


def _opening(number: int, passed: Mapping[str, Any]) -> bytes:
    """How the answer to a line begins, up to what is not known yet. Raises `RequestError` for what can be read but not written."""
    try:
        return orjson.dumps({"line": number, **passed})[:-1]
    except orjson.JSONEncodeError as error:
        raise RequestError(422, "invalid_field", "the line: is nested too deeply") from error


def _ending(line: _InFlight) -> Exception | None:
    """What ends the stream before this line, if its outcome does."""
    if isinstance(line.outcome, RequestError):
        return None
    error = line.outcome.exception()
    return error if isinstance(error, _ENDINGS) else None


def _give_back(admitted: Admitted, task: asyncio.Task[Classification]) -> None:
    """Give the place back that a line's task did not use, and look at its outcome, which nobody may want any more."""
    admitted.__exit__(None, None, None)
    with suppress(asyncio.CancelledError):
        task.exception()
