"""`GET /`: what is running here, and where to go on."""

from __future__ import annotations

from importlib import metadata
from typing import Final, Literal, NotRequired

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from models.problem import ProblemType
from server.api.operation import Operation
from server.http.rendering import render_json
from server.service import Service

NAME = "SupportBot"
LINKS = {name: f"/{name}" for name in ("classify", "health", "ready", "metrics", "confidence", "docs")}


class IndexAnswer(TypedDict):
    """What is running here. `status` is always the same: it is where KServe's client of protocol v1 looks whether it is alive."""

    name: str
    version: str
    status: Literal["alive"]
    state: Literal["starting", "ready", "stalled", "failed", "leaving", "draining"]
    model: str | None
    labels: list[str]
    problem_type: ProblemType | None
    thresholds: NotRequired[list[float]]
    links: dict[str, str]


OPERATION: Final = Operation("What is running here, and where to go on", IndexAnswer)


class Index:
    """Name, version, state, model and links. It answers 200 whatever the state, with `model` null until there is one."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._version = metadata.version("supportbot")

    async def answer(self, _: Request) -> Response:
        """The endpoint."""
        service, model = self._service, self._service.model
        return render_json(
            {
                "name": NAME,
                "version": self._version,
                "status": "alive",
                "state": service.phase().value,
                "model": None if model is None else model.identity,
                "labels": [] if model is None else list(model.labels),
                "problem_type": None if model is None else model.problem.type,
                **({"thresholds": list(model.problem.thresholds)} if model is not None and model.problem.thresholds else {}),
                "links": LINKS,
            }
        )
