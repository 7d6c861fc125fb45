"""`GET /v1/models`: the model in service, as the clients of OpenAI's, vLLM's and KServe's servers ask for it.

One object carries what each of them reads, so that none has to be told from the others.
"""

from __future__ import annotations

import time
from typing import Final, Literal

from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from models.types import TextClassifier
from server.api.exchange import Dialect, Endpoint, Page
from server.api.naming import check_model, name_and_version
from server.api.operation import Operation, TextError
from server.http.errors import RequestError
from server.http.rendering import render_json
from server.service import Service


class VersionError(TypedDict):
    """TensorFlow Serving's way to say that nothing is wrong."""

    error_code: Literal["OK"]
    error_message: str


class ModelVersion(TypedDict):
    """TensorFlow Serving's way to say that a model is there."""

    version: str
    state: Literal["AVAILABLE"]
    status: VersionError


class Model(TypedDict):
    """A model, for all of these clients; `created` in seconds since 1970, `max_model_len` in tokens."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: None
    max_model_len: int
    name: str
    ready: bool
    model_version_status: list[ModelVersion]


class ModelList(TypedDict):
    """The models: for OpenAI's clients in `data`, for KServe's in `models`."""

    object: Literal["list"]
    data: list[Model]
    models: list[str]


def error_body(error: RequestError, request_id: str) -> TextError:
    """A string, as KServe's clients read it, with our code and the request's id beside it."""
    return {"error": error.message, "code": error.code, "request_id": request_id}


DIALECT: Final = Dialect("models", error_body)


def endpoints(service: Service) -> list[Endpoint]:
    """The routes."""
    created = int(time.time())

    def described(classifier: TextClassifier) -> Model:
        name, version = name_and_version(classifier)
        fine = VersionError(error_code="OK", error_message="")
        available = ModelVersion(version=version, state="AVAILABLE", status=fine)
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
        return render_json(ModelList(object="list", data=[described(classifier)], models=[name_and_version(classifier)[0]]))

    async def one(request: Request) -> Response:
        classifier = service.classifier
        check_model(classifier, request.path_params["model"])
        service.check_ready()
        return render_json(described(classifier))

    listing = Operation("The models", ModelList, TextError, errors=frozenset({503}))
    single = Operation("A model", Model, TextError, errors=frozenset({404, 503}))
    return [Page(DIALECT, "GET /v1/models", several, listing), Page(DIALECT, "GET /v1/models/{model}", one, single)]
