"""`POST /v1/models/M:predict` with `instances`: KServe's first protocol, which TensorFlow Serving and Vertex AI share.

Vertex AI names the routes itself, in `AIP_PREDICT_ROUTE` and `AIP_HEALTH_ROUTE`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from models.types import Prediction
from server.api.answering import Content, json_content
from server.api.body import parse_json, validate
from server.api.exchange import Call, Dialect, Endpoint, Exchange, Job, Page
from server.api.naming import check_model
from server.api.operation import CLASSIFY_ERRORS, Operation, TextError
from server.api.options import BodyOptions
from server.api.pipeline import Parameters, error_body
from server.api.scores import Score, chosen, ranked, values
from server.http.rendering import render_json
from server.service import Classification, Service

NAME: Final = "kserve"
DIALECT: Final = Dialect(NAME, error_body)
# What the one field of an instance that is an object may be called: by TEI on Vertex AI, by us, by others.
_FIELDS: Final = ("inputs", "text", "content")


def _text_of(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        given = [value[name] for name in _FIELDS if name in value]
        if len(given) == 1 and isinstance(given[0], str):
            return given[0]
    return None


def _check_instances(value: object) -> object:
    if not isinstance(value, list):
        raise PydanticCustomError("instances_type", "must be a list")
    for index, item in enumerate(value):
        if _text_of(item) is None:
            raise PydanticCustomError("instance", f'[{index}] must be a string, or an object with a string as "inputs" or "text"')
    return value


class KServeBody(BodyOptions):
    """One text or several: each a string, or an object that has it in one field."""

    instances: Annotated[list[str | dict[str, Any]], BeforeValidator(_check_instances)]
    parameters: Parameters | None = None


class KServePrediction(TypedDict):
    """The label and its probability; of a model that gives numbers, the number. `truncated` only if the text was cut."""

    label: str
    score: float
    truncated: NotRequired[bool]


class KServeAnswer(TypedDict):
    """For each instance, in their order; a list for each where `top_k` asks for one, and of a multi-label model."""

    predictions: list[KServePrediction | list[Score]]


class Ready(TypedDict):
    """It is ready."""

    status: Literal["ready"]


OPERATION: Final = Operation(
    "Classify texts, as KServe and Vertex AI do",
    KServeAnswer,
    TextError,
    KServeBody,
    {"instances": ["payment failed", {"inputs": "app crashed"}]},
    CLASSIFY_ERRORS | {404},
    "classify",
)


def parse(call: Call) -> Job:
    """For each instance what is answered, or the `top_k` most probable labels if the parameters say how many."""
    if "model" in call.path:
        check_model(call.classifier, call.path["model"], call.path.get("version"))
    body = validate(KServeBody, parse_json(call.content))
    parameters, problem = body.parameters or Parameters(), call.classifier.problem

    def predicted(prediction: Prediction, *, cut: bool) -> KServePrediction | list[Score]:
        numbers = values(prediction, parameters.function(problem))
        if parameters.top_k is not None:
            return ranked(problem.labels, numbers, parameters.top_k)
        answered = chosen(problem, prediction, numbers)
        if problem.gives_several_labels:
            return answered
        best = answered[0]
        found = KServePrediction(label=best["label"], score=best["score"])
        if cut:
            found["truncated"] = True
        return found

    def render(answer: Classification, _: float) -> Content:
        pairs = zip(answer.predictions, answer.truncated, strict=True)
        return json_content(KServeAnswer(predictions=[predicted(prediction, cut=cut) for prediction, cut in pairs]))

    texts = [text for text in map(_text_of, body.instances) if text is not None]
    return Job(call.request(texts, "instances", body.options()), render)


def endpoints(service: Service) -> list[Endpoint]:
    """The routes, Vertex AI's own among them if there are any."""
    found: list[Endpoint] = [
        Exchange(service, DIALECT, "/v1/models/{model}:predict", parse, OPERATION),
        Exchange(service, DIALECT, "/v1/models/{model}/versions/{version}:predict", parse, OPERATION),
    ]
    settings = service.settings

    async def health(_: Request) -> Response:
        service.check_ready()
        return render_json(Ready(status="ready"))

    if settings.aip_predict_route is not None:
        found.append(Exchange(service, DIALECT, settings.aip_predict_route, parse, OPERATION))
    if settings.aip_health_route is not None:
        operation = Operation("Is it ready?", Ready, TextError, errors=frozenset({503}))
        found.append(Page(DIALECT, f"GET {settings.aip_health_route}", health, operation))
    return found
