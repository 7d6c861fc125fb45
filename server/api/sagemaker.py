"""`GET /ping` and `POST /invocations`: what Amazon SageMaker asks of a container."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from server.api.exchange import Dialect, Endpoint, Exchange, Page
from server.api.operation import Operation, TextError
from server.api.pipeline import OPERATION, error_body, parse_pipeline
from server.service import Service

NAME: Final = "sagemaker"
DIALECT: Final = Dialect(NAME, error_body)


def endpoints(service: Service) -> list[Endpoint]:
    """The routes."""

    async def ping(_: Request) -> Response:
        service.check_ready()
        return Response()

    return [
        Page(DIALECT, "GET /ping", ping, Operation("Is it ready?", None, TextError, errors=frozenset({503}))),
        Exchange(service, DIALECT, "/invocations", parse_pipeline, OPERATION),
    ]
