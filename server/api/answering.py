"""From a request record to an answer over HTTP, in a task or without one: what all dialects share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final

import orjson
from starlette.requests import Request

from server.api.operation import JSON
from server.api.options import PRIORITY_HEADER, TIMEOUT_HEADER
from server.http.body import unless_disconnected
from server.http.direct import DirectRequest
from server.http.marks import LOG
from server.http.request_id import request_id_of
from server.request import ClassifyRequest
from server.service import Classification, Service, Timing

# Who sends one of these headers asks for something, or has a body that must be decoded first.
_ASKING: Final = frozenset({PRIORITY_HEADER.lower().encode(), TIMEOUT_HEADER.lower().encode(), b"content-encoding"})
# What clients say of JSON in UTF-8; the second is what curl says of everything.
_USUAL_TYPES: Final = frozenset({b"application/json", b"application/x-www-form-urlencoded", b"application/json; charset=utf-8"})


@dataclass(slots=True)
class Content:
    """An answer's body, its media type, and headers of the dialect's own."""

    body: bytes
    media_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


def json_content(value: object, headers: Mapping[str, str] | None = None) -> Content:
    """A JSON answer."""
    return Content(orjson.dumps(value), JSON, headers or {})


# Says an answer; it is given the latency in seconds.
Render = Callable[[Classification, float], Content]


async def classified(service: Service, request: Request, wanted: ClassifyRequest, started: float) -> Classification:
    """Admit the request, classify its texts unless the client leaves, count and log; `started` is on `perf_counter`'s clock.

    Raises what `server.errors` has an answer for.
    """
    request.scope[LOG] = {"texts": len(wanted.texts)}
    with service.admitted(wanted, started) as admitted:
        answer = await unless_disconnected(request, service.classify(admitted))
    service.note(wanted, answer, request_id_of(request.scope))
    return answer


def is_usual(headers: Iterable[tuple[bytes, bytes]], content: bytes, most: int) -> bool:
    """True for a body of at most `most` bytes that is plain JSON, with headers that ask for nothing."""
    if len(content) > most or content[:1] != b"{":
        return False
    for name, value in headers:  # noqa: SIM110 - a generator would take twice as long, for each request
        if name in _ASKING or (name == b"content-type" and value not in _USUAL_TYPES):
            return False
    return True


def begin(service: Service, request: DirectRequest, wanted: ClassifyRequest, render: Render) -> bool:
    """Classify a short request (`Service.is_short`) without a task, and answer it when the outcome comes; as `classified` does.

    Returns False, with nothing done, if it must go the usual way after all.
    """
    scope = request.scope
    scope[LOG] = {"texts": 1}

    def answer(outcome: Classification | Exception) -> None:
        if isinstance(outcome, Exception):
            request.fail(outcome)
            return
        try:
            if wanted.feedback:  # whose token is of an answer that is noted
                service.note(wanted, outcome, request_id_of(scope))
            latency = perf_counter() - request.started
            content = render(outcome, latency)
            headers = answer_headers(service, outcome, latency)
        except Exception as error:  # noqa: BLE001 - whatever it is, it has its answer
            request.fail(error)
            return
        request.answer(content.body, content.media_type, {**headers, **content.headers})
        if not wanted.feedback:
            service.note(wanted, outcome, request_id_of(scope))

    try:
        leave = service.begin(wanted, request.started, answer)
    except Exception as error:  # noqa: BLE001 - as above
        request.fail(error)
        return True
    if leave is None:
        return False
    request.on_lost(leave)
    return True


def answer_headers(service: Service, answer: Classification, latency: float) -> dict[str, str]:
    """The headers of every answer with predictions; `latency` in seconds."""
    headers = {"Server-Timing": _server_timing(answer.timing, latency)}
    if service.is_leaving:
        headers["Connection"] = "close"
    return headers


def _server_timing(timing: Timing, total: float) -> str:
    """The Server-Timing header (W3C), durations in milliseconds."""
    return (
        f"tokenize;dur={timing.tokenize * 1000:.3f}, queue;dur={timing.queue * 1000:.3f},"
        f" inference;dur={timing.inference * 1000:.3f}, total;dur={total * 1000:.3f}"
    )
