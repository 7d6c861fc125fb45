"""The application: everything is given to one constructor, nothing registers itself on import."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from batching import BatcherClosed
from models.types import TextClassifier
from server.api import classify as native
from server.api import (
    docs,
    feedback,
    hugging_face,
    index,
    kserve,
    model_list,
    open_inference,
    operations,
    sagemaker,
    semantic_router,
    stream,
    tei,
    vllm,
)
from server.api import drift as drift_api
from server.api.classify import Classify
from server.api.docs import Docs
from server.api.exchange import Endpoint, Exchange
from server.api.index import Index
from server.api.openapi import PATH as OPENAPI
from server.api.openapi import Described, OpenApi
from server.api.operations import Operations
from server.api.stream import Stream
from server.errors import HANDLERS, answering_errors, translate
from server.http.access import RequestContext
from server.http.errors import ErrorBody
from server.http.marks import ERROR_BODY
from server.service import Service
from server.settings import Settings

CLASSIFY: Final = "/classify"
# What the contract says of our pages.
PAGES: Final = {
    "/": index.OPERATION,
    "/health": operations.HEALTH,
    "/ready": operations.READY,
    "/metrics": operations.METRICS,
    "/confidence": operations.CONFIDENCE,
    "/drift": drift_api.REPORT,
    "/drift/counts": drift_api.COUNTS,
}


def dialect_endpoints(service: Service) -> list[Endpoint]:
    """The routes of the dialects that are served, without those on `CLASSIFY`. Of two for one path, the first one counts."""
    served = service.settings.served_dialects()
    found: list[Endpoint] = []
    # First, because Vertex AI's operators choose its paths, and may choose another dialect's.
    for module in (kserve, tei, hugging_face, sagemaker, open_inference):
        if module.NAME in served:
            found += module.endpoints(service)
    if vllm.NAME in served:
        found.append(vllm.exchange(service, "/v1/classify"))
    if served & {vllm.NAME, kserve.NAME}:
        found += model_list.endpoints(service)
    return found


def others_on_classify(service: Service) -> Mapping[str, Exchange]:
    """What the dialects that are served have on `CLASSIFY`, by the field that tells their requests from ours."""
    served = service.settings.served_dialects()
    found: dict[str, Exchange] = {}
    if semantic_router.NAME in served:
        found["inputs"] = semantic_router.exchange(service, CLASSIFY)
    if vllm.NAME in served:
        found["input"] = found["messages"] = vllm.exchange(service, CLASSIFY)
    return found


def error_bodies(service: Service) -> Mapping[str, ErrorBody]:
    """What an error looks like on a path that begins so and is no route: as the clients who ask for such paths read it."""
    served = service.settings.served_dialects()
    known = (("/v2/", open_inference), ("/v1/models/", kserve))
    return {start: module.DIALECT.error_body for start, module in known if module.NAME in served}


def described_routes(endpoints: Sequence[Endpoint], others: Mapping[str, Exchange]) -> list[Described]:
    """All routes, for the contract; of two for one path and method, the first."""
    on_classify = [others[name].operation for name in ("inputs", "input") if name in others]
    found = {
        ("POST", CLASSIFY): Described("POST", CLASSIFY, native.NATIVE, [native.OPERATION, *on_classify, stream.OPERATION]),
        ("POST", feedback.PATH): Described("POST", feedback.PATH, native.NATIVE, [feedback.OPERATION]),
        ("POST", "/drift/accept"): Described("POST", "/drift/accept", native.NATIVE, [drift_api.ACCEPT]),
        **{("GET", path): Described("GET", path, native.NATIVE, [operation]) for path, operation in PAGES.items()},
    }
    for endpoint in endpoints:
        described = Described(endpoint.method, endpoint.path, endpoint.name, [endpoint.operation])
        found.setdefault((endpoint.method, endpoint.path), described)
    return list(found.values())


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
    pages, page, drift, others = Operations(service), Docs(), drift_api.Drift(service), others_on_classify(service)
    native_classify = Classify(service, others)
    classify = Stream(service, translate, native_classify)
    endpoints = dialect_endpoints(service)
    service.metrics.routes |= {endpoint.path for endpoint in endpoints}

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = Starlette(
        routes=[
            *(Route(endpoint.path, endpoint, methods=[endpoint.method]) for endpoint in endpoints),
            Route("/", Index(service).answer),
            Route(CLASSIFY, classify, methods=["POST"]),
            Route("/health", pages.health),
            Route("/ready", pages.ready),
            Route("/metrics", pages.metrics),
            Route("/confidence", pages.confidence),
            Route(feedback.PATH, feedback.FeedbackRoute(service).take, methods=["POST"]),
            Route("/drift", drift.report),
            Route("/drift/counts", drift.counts),
            Route("/drift/accept", drift.accept, methods=["POST"]),
            Route(OPENAPI, OpenApi(described_routes(endpoints, others)).answer),
            Route(docs.PATH, page.page),
            Route(docs.FILE_PATH, page.file),
        ],
        exception_handlers=dict(HANDLERS),
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # a redirect has no error body, and is built from a Host header that anyone can send
    # Only the router knows what a path with a pattern in it stands for.
    exchanges: dict[str, Exchange] = {
        endpoint.path: endpoint for endpoint in reversed(endpoints) if isinstance(endpoint, Exchange) and "{" not in endpoint.path
    }
    by_path: dict[str, ASGIApp] = {CLASSIFY: classify, **exchanges}
    direct = _DirectRoutes(app, {path: answering_errors(endpoint) for path, endpoint in by_path.items()}, error_bodies(service))
    context = RequestContext(
        direct,
        service.metrics.observe_request,
        translate(BatcherClosed()),
        access_log=settings.access_log,
        direct={CLASSIFY: native_classify, **exchanges},
        answering=answering_errors,
    )
    return context, service


class _DirectRoutes:
    """Hands POST requests for some paths straight to their endpoints, and all others to the application, which has these, too.

    Starlette's middlewares and router take a fifth of the event loop's time for a request, and come to the same here.
    `error_bodies` are those of paths that begin so, unless a route has its own.
    """

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, ASGIApp], error_bodies: Mapping[str, ErrorBody]) -> None:
        self.app = app
        self._endpoints = endpoints
        self._error_bodies = error_bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if scope["method"] == "POST" and (endpoint := self._endpoints.get(path)) is not None:
                await endpoint(scope, receive, send)
                return
            for start, body in self._error_bodies.items():
                if path.startswith(start):
                    scope[ERROR_BODY] = body
        await self.app(scope, receive, send)
