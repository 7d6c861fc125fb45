"""The application: everything is given to one constructor, nothing registers itself on import."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import perf_counter

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from models.types import TextClassifier
from server.access import RequestContext
from server.body import read_body, unless_disconnected
from server.errors import HANDLERS
from server.rendering import render_json
from server.request_id import request_id_of
from server.schemas import classify_answer, parse_classify, parse_options
from server.service import Service, Timing
from server.settings import Settings


def create_app(settings: Settings, open_classifier: Callable[[], TextClassifier]) -> tuple[ASGIApp, Service]:
    """The ASGI application and the service behind it. `open_classifier` runs in a worker thread and may take its time."""
    service = Service(settings, open_classifier)
    routes = Routes(service)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = Starlette(
        routes=[
            Route("/classify", Classify(service), methods=["POST"]),
            Route("/health", routes.health),
            Route("/ready", routes.ready),
            Route("/metrics", routes.metrics),
            Route("/confidence", routes.confidence),
        ],
        exception_handlers=dict(HANDLERS),
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect has no error body, and is built from a Host header that anyone can send
    return RequestContext(app, service.metrics.observe_request, access_log=settings.access_log), service


class Routes:
    """The endpoints, thin: HTTP on one side, the service on the other."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def health(self, _: Request) -> Response:
        """Alive: the event loop turns."""
        return render_json({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        """Ready for work; otherwise 503 and the reason."""
        classifier = self._service.classifier
        self._service.check_passes()
        return render_json({"status": "ready", "model": classifier.identity})

    async def metrics(self, request: Request) -> Response:
        """All metrics, for Prometheus; also while the server is not ready."""
        content, content_type = self._service.metrics.exposition(request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": content_type})

    async def confidence(self, _: Request) -> Response:
        """Labels and confidence since the start and over the last minute, hour and day."""
        classifier, confidence = self._service.classifier, self._service.confidence
        assert confidence is not None
        return render_json(confidence.report(classifier.identity))


class Classify:
    """`POST /classify`: one text or several. An ASGI application: Starlette's wrapper for functions costs some 5 us a request."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._settings = service.settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or raise what `server.errors` has an answer for."""
        started = perf_counter()
        settings, request = self._settings, Request(scope, receive)
        options = parse_options(request.headers)
        patience = settings.body_timeout_ms / 1000
        content = await read_body(request, settings.max_body_bytes, patience, options.timeout or math.inf)
        classifier = self._service.classifier
        wanted = parse_classify(content, settings.max_texts_per_request, options)
        scope["supportbot.log"] = {"texts": len(wanted.texts)}
        with self._service.admitted(wanted, started) as admitted:
            answer = await unless_disconnected(request, self._service.classify(admitted))
        self._service.note(wanted, answer, request_id_of(scope))
        latency = perf_counter() - started
        body = classify_answer(wanted, answer.predictions, answer.truncated, classifier.labels, classifier.identity, latency)
        await render_json(body, headers={"Server-Timing": _server_timing(answer.timing, latency)})(scope, receive, send)


def _server_timing(timing: Timing, total: float) -> str:
    """The Server-Timing header (W3C), durations in milliseconds."""
    return (
        f"tokenize;dur={timing.tokenize * 1000:.3f}, queue;dur={timing.queue * 1000:.3f},"
        f" inference;dur={timing.inference * 1000:.3f}, total;dur={total * 1000:.3f}"
    )
