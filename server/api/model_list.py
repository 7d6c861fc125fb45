"""`GET /v1/models`: the model in service, as the clients of OpenAI's, vLLM's and KServe's servers ask for it.

One object carries what each of them reads, so that none has to be told from the others.
"""

from __future__ import annotations

import time
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from models.types import TextClassifier
from server.api.exchange import Dialect, Endpoint, Page
from server.api.naming import check_model, name_and_version
from server.http.errors import RequestError
from server.http.rendering import render_json
from server.service import Service


def error_body(error: RequestError, request_id: str) -> object:
    """A string, as KServe's clients read it, with our code and the request's id beside it."""
    return {"error": error.message, "code": error.code, "request_id": request_id}


DIALECT: Final = Dialect("models", error_body)


def endpoints(service: Service) -> list[Endpoint]:
    """The routes."""
    created = int(time.time())

    def described(classifier: TextClassifier) -> dict[str, object]:
        name, version = name_and_version(classifier)
        available = {"version": version, "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "supportbot",
            "root": classifier.identity,
            "parent": None,
            "max_model_len": classifier.max_length,
            "name": name,
            "ready": True,
            "model_version_status": [available],
        }

    async def several(_: Request) -> Response:
        classifier = service.classifier
        return render_json(
            {"object": "list", "data": [described(classifier)], "models": [name_and_version(classifier)[0]]},
        )

    async def one(request: Request) -> Response:
        classifier = service.classifier
        check_model(classifier, request.path_params["model"])
        service.check_ready()
        return render_json(described(classifier))

    return [Page(DIALECT, "GET", "/v1/models", several), Page(DIALECT, "GET", "/v1/models/{model}", one)]
