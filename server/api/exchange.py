"""One classification over HTTP, whatever the dialect: what they all share between the bytes that come in and those that go out."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Final, Protocol

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from batching import Priority
from models.types import End, TextClassifier
from server.api.answering import Content, answer_headers, begin, classified, is_usual
from server.api.operation import Operation
from server.api.options import NO_OPTIONS, Options, parse_options
from server.http.body import read_body
from server.http.direct import DirectRequest
from server.http.errors import ErrorBody, RequestError
from server.http.marks import DIALECT, ERROR_BODY, ROUTE
from server.http.rendering import send_bytes
from server.http.request_id import request_id_of
from server.request import ClassifyRequest, blank_text
from server.service import Classification, Service
from server.settings import Settings

# Most dialects have no place in their answers to say that a text was cut, so a header does: the indices of such texts.
TRUNCATED_HEADER: Final = "X-Truncated"
STRIPPED_HEADER: Final = "X-Stripped"
# In how many windows each text was read, if one was read in several.
WINDOWS_HEADER: Final = "X-Windows"


@dataclass(frozen=True, slots=True)
class Dialect:
    """What one kind of client speaks: its name, for metrics and logs, and what errors look like to it."""

    name: str
    error_body: ErrorBody


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose body has been read, and what is needed to understand it."""

    content: bytes
    headers: Headers
    path: Mapping[str, str]
    options: Options
    request_id: str
    classifier: TextClassifier
    settings: Settings

    def request(
        self,
        texts: list[str],
        name: str,
        asked: Options,
        *,
        single: bool = False,
        keep: End | None = None,
        must_fit: bool = False,
    ) -> ClassifyRequest:
        """The request for these texts, which the client calls `name`. Raises `RequestError` for none, too many, or a blank one.

        What the body asked for wins over the headers: these may have been set by a proxy, for all its clients.
        """
        if not texts:
            raise RequestError(400, "empty_texts", f"{name} is empty; send at least one text")
        most = self.settings.max_texts_per_request
        if len(texts) > most:
            raise RequestError(400, "too_many_texts", f"{len(texts)} texts; at most {most} are allowed in one request")
        timeout = self.options.timeout if asked.timeout is None else asked.timeout
        priority = asked.priority or self.options.priority or Priority.INTERACTIVE
        wanted = ClassifyRequest(texts, single, True, timeout, priority, name, keep, must_fit)
        for index, text in enumerate(texts):
            if not text.strip():
                raise blank_text(wanted.place(index))
        return wanted


@dataclass(frozen=True, slots=True)
class Job:
    """A call that was understood: the request, and how to say its answer, which `render` is given with the latency in seconds."""

    request: ClassifyRequest
    render: Callable[[Classification, float], Content]


class Endpoint(Protocol):
    """A route of a dialect: an ASGI application, its place in the routing table, its dialect's name and what the contract says."""

    method: str
    path: str
    name: str
    operation: Operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or raise what `server.errors` has an answer for."""


class Exchange:
    """A route that classifies. `parse` makes a job of a call, or raises `RequestError`; everything else is the same for all.

    An ASGI application: Starlette's wrapper for functions costs some 5 us a request.
    """

    method = "POST"

    def __init__(self, service: Service, dialect: Dialect, path: str, parse: Callable[[Call], Job], operation: Operation) -> None:
        self.path = path
        self.name = dialect.name
        self.operation = operation
        self._service = service
        self._dialect = dialect
        self._parse = parse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or raise what `server.errors` has an answer for."""
        started = perf_counter()
        self._mark(scope)
        settings, request = self._service.settings, Request(scope, receive)
        options = parse_options(request.headers)
        patience = settings.body_timeout_ms / 1000
        content = await read_body(request, settings.max_body_bytes, patience, options.timeout or math.inf)
        await self.answer(request, content, options, started, send)

    async def answer(self, request: Request, content: bytes, options: Options, started: float, send: Send) -> None:
        """Answer a request whose body has been read, perhaps by another endpoint of the same path."""
        self._mark(scope := request.scope)
        service, request_id, path = self._service, request_id_of(scope), scope.get("path_params", {})
        call = Call(content, request.headers, path, options, request_id, service.classifier, service.settings)
        job = self._parse(call)
        answer = await classified(service, request, job.request, started)
        latency = perf_counter() - started
        said = _content(job, answer, latency)
        await send_bytes(scope, send, said.body, said.media_type, {**answer_headers(service, answer, latency), **said.headers})

    def begin(self, request: DirectRequest) -> bool:
        """Answer without a task, if it is a short request without peculiarities; False, with nothing done, otherwise.

        Raises `RequestError`, with nothing done, for a request that is to be refused.
        """
        service, scope, content = self._service, request.scope, request.content
        if service.model is None or not is_usual(scope["headers"], content, service.settings.max_body_bytes):
            return False
        headers = Headers(raw=scope["headers"])
        call = Call(content, headers, {}, NO_OPTIONS, request_id_of(scope), service.model, service.settings)
        job = self._parse(call)
        if not service.is_short(job.request):
            return False
        self._mark(scope)
        return begin(service, request, job.request, partial(_content, job))

    def _mark(self, scope: Scope) -> None:
        scope[DIALECT] = self._dialect.name
        scope[ROUTE] = self.path
        scope[ERROR_BODY] = self._dialect.error_body


def _content(job: Job, answer: Classification, latency: float) -> Content:
    content = job.render(answer, latency)
    headers = dict(content.headers)
    for name, marks in ((TRUNCATED_HEADER, answer.truncated), (STRIPPED_HEADER, answer.stripped)):
        if any(marks):
            headers[name] = ", ".join(str(index) for index, is_marked in enumerate(marks) if is_marked)
    if any(number > 1 for number in answer.windows):
        headers[WINDOWS_HEADER] = ", ".join(map(str, answer.windows))
    return replace(content, headers=headers)


class Page:
    """A route that does not classify: metadata and health, as a dialect's clients ask for them. `route` is `GET /path`."""

    def __init__(
        self, dialect: Dialect, route: str, respond: Callable[[Request], Awaitable[Response]], operation: Operation
    ) -> None:
        self.method, self.path = route.split(" ")
        self.name = dialect.name
        self.operation = operation
        self._dialect = dialect
        self._respond = respond

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or raise what `server.errors` has an answer for."""
        scope[ROUTE] = self.path
        scope[ERROR_BODY] = self._dialect.error_body
        response = await self._respond(Request(scope, receive))
        await response(scope, receive, send)
