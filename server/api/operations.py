"""What operators and their tools ask: is it alive, is it ready, what has it done."""

from __future__ import annotations

from typing import Any, Final, Literal

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from server.api.operation import Operation
from server.http.rendering import render_json
from server.service import Service


class Healthy(TypedDict):
    """The process is alive."""

    status: Literal["ok"]


class Ready(TypedDict):
    """The server is ready; with the model's name and version."""

    status: Literal["ready"]
    model: str


METRICS_MEDIA: Final = ("text/plain", "application/openmetrics-text")
HEALTH: Final = Operation("Is the process alive?", Healthy)
READY: Final = Operation("Is the server ready to classify?", Ready, errors=frozenset({503}))
METRICS: Final = Operation("Metrics for Prometheus", str, answer_media=METRICS_MEDIA)
CONFIDENCE: Final = Operation("Labels and confidence", dict[str, Any], errors=frozenset({503}))


class Operations:
    """The endpoints, thin: HTTP on one side, the service on the other."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def health(self, _: Request) -> Response:
        """Alive: the event loop turns."""
        return render_json({"status": "ok"})

    async def ready(self, _: Request) -> Response:
        """Ready for work; otherwise 503 and the reason."""
        self._service.check_ready()
        return render_json({"status": "ready", "model": self._service.classifier.identity})

    async def metrics(self, request: Request) -> Response:
        """All metrics, for Prometheus; also while the server is not ready."""
        content, content_type = self._service.metrics.exposition(request.headers.get("accept", ""))
        return Response(content, headers={"Content-Type": content_type})

    async def confidence(self, _: Request) -> Response:
        """Labels and confidence since the start and over the last minute, hour and day."""
        classifier, confidence = self._service.classifier, self._service.confidence
        assert confidence is not None
        return render_json(confidence.report(classifier.identity))
