"""The application: everything is given to one constructor, nothing registers itself on import."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from batching import BatcherClosed
from models.types import TextClassifier
from server.api.classify import Classify
from server.api.index import Index
from server.api.operations import Operations
from server.errors import HANDLERS, answering_errors, translate
from server.http.access import RequestContext
from server.service import Service
from server.settings import Settings


def create_app(
    settings: Settings,
    open_classifier: Callable[[], TextClassifier],
    on_ready: Callable[[TextClassifier], None] | None = None,
    on_failed: Callable[[], None] | None = None,
) -> tuple[ASGIApp, Service]:
    """The ASGI application and the service behind it. `open_classifier` runs in a worker thread and may take its time.

    `on_ready` or `on_failed` is called on the event loop, once, when the model is in service or cannot be used.
    """
    service = Service(settings, open_classifier, on_ready, on_failed)
    operations = Operations(service)
    classify = Classify(service)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = Starlette(
        routes=[
            Route("/", Index(service).answer),
            Route("/classify", classify, methods=["POST"]),
            Route("/health", operations.health),
            Route("/ready", operations.ready),
            Route("/metrics", operations.metrics),
            Route("/confidence", operations.confidence),
        ],
        exception_handlers=dict(HANDLERS),
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect has no error body, and is built from a Host header that anyone can send
    direct = _DirectRoute(app, "POST", "/classify", answering_errors(classify))
    context = RequestContext(direct, service.metrics.observe_request, translate(BatcherClosed()), access_log=settings.access_log)
    return context, service


class _DirectRoute:
    """Hands requests of one route straight to its endpoint, and the others to the application, which has the route, too.

    Starlette's middlewares and router take a fifth of the event loop's time for a request, and come to the same here.
    """

    def __init__(self, app: ASGIApp, method: str, path: str, endpoint: ASGIApp) -> None:
        self.app = app
        self._method = method
        self._path = path
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_direct = scope["type"] == "http" and scope["path"] == self._path and scope["method"] == self._method
        await (self._endpoint if is_direct else self.app)(scope, receive, send)
