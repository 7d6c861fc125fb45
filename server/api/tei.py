"""`POST /predict` and `/tokenize`, `GET /info`: the dialect of text-embeddings-inference (TEI)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from models.types import End
from server.api.answering import Content, json_content
from server.api.body import parse_json, validate
from server.api.exchange import Call, Dialect, Endpoint, Exchange, Job, Page
from server.api.naming import name_and_version
from server.api.operation import CLASSIFY_ERRORS, Operation
from server.api.options import BodyOptions
from server.api.scores import Function, Score, ranked, values
from server.api.tokenize import Tokenize
from server.http.errors import RequestError
from server.http.rendering import render_json
from server.service import Classification, Service

NAME: Final = "tei"
Kind = Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]
_PAIR: Final = 2
_KINDS: Final[dict[int, Kind]] = {429: "Overloaded", 503: "Unhealthy"}
_KINDS_OF_CODES: Final[dict[str, Kind]] = {"empty_texts": "Empty", "blank_text": "Tokenizer"}


class TeiError(TypedDict):
    """An error."""

    error: str
    error_type: Kind
    code: str
    request_id: str


def error_body(error: RequestError, request_id: str) -> TeiError:
    """A string and a type of its own, with our code and the request's id beside them."""
    usual: Kind = "Backend" if error.status >= 500 else "Validation"
    kind = _KINDS_OF_CODES.get(error.code) or _KINDS.get(error.status, usual)
    return {"error": error.message, "error_type": kind, "code": error.code, "request_id": request_id}


DIALECT: Final = Dialect(NAME, error_body)


def _check_inputs(value: object) -> object:
    match value:
        case str() | [str()]:
            return value
        case [str(), str()]:
            # Two texts are meant more often than not (huggingface/text-embeddings-inference#747).
            message = 'two strings are a pair, and this model reads single texts; for two texts send [["a"],["b"]]'
            raise PydanticCustomError("pair", message)
        case [str(), *_]:
            raise PydanticCustomError("flat", 'for several texts send a list of lists, [["a"],["b"],["c"]]')
        case list():
            for index, item in enumerate(value):
                match item:
                    case [str()]:
                        continue
                    case [str(), str()]:
                        raise PydanticCustomError("pair", f"[{index}] is a pair, and this model reads single texts")
                raise PydanticCustomError("item", f"[{index}] must be a list of one string")
            return value
    raise PydanticCustomError("inputs_type", "must be a string or a list of lists of one string")


class TeiBody(BodyOptions):
    """One text, alone or in a list, or a list of lists of one text."""

    inputs: Annotated[str | list[str] | list[list[str]], BeforeValidator(_check_inputs)]
    raw_scores: bool = False
    truncate: bool | None = None
    truncation_direction: Literal["Left", "left", "Right", "right"] | None = None

    def texts(self) -> tuple[list[str], bool]:
        """(the texts, True if the answer is not to be nested)."""
        if isinstance(self.inputs, str):
            return [self.inputs], True
        texts = [item if isinstance(item, str) else item[0] for item in self.inputs]
        return texts, bool(self.inputs) and isinstance(self.inputs[0], str)


def parse(call: Call) -> Job:
    """All labels, the most probable first; logits with `raw_scores`. Of a model of one label, its sigmoid, as TEI has it."""
    body = validate(TeiBody, parse_json(call.content))
    texts, single = body.texts()
    classifier = call.classifier
    labels, function = classifier.labels, Function.NONE if body.raw_scores else Function.of_probability(classifier.problem)
    characters = sum(map(len, texts))
    keep = None if body.truncation_direction is None else End.END if body.truncation_direction in {"Left", "left"} else End.START
    request = call.request(texts, "inputs", body.options(), single=single, keep=keep, must_fit=body.truncate is False)

    def render(answer: Classification, latency: float) -> Content:
        lists = [ranked(labels, values(prediction, function)) for prediction in answer.predictions]
        return json_content(lists[0] if single else lists, _timing_headers(answer, characters, latency))

    return Job(request, render)


def _timing_headers(answer: Classification, characters: int, latency: float) -> Mapping[str, str]:
    """Whole milliseconds, as TEI has them."""
    timing = answer.timing
    seconds = {
        "x-compute-time": latency,
        "x-total-time": latency,
        "x-tokenization-time": timing.tokenize,
        "x-queue-time": timing.queue,
        "x-inference-time": timing.inference,
    }
    return {
        "x-compute-type": "cpu+optimized",
        "x-compute-characters": str(characters),
        "x-compute-tokens": str(sum(answer.tokens)),
        **{name: str(round(value * 1000)) for name, value in seconds.items()},
    }


class TeiLabels(TypedDict):
    """The labels."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class TeiModelType(TypedDict):
    """That it is a classifier."""

    classifier: TeiLabels


class TeiInfo(TypedDict):
    """The model and the limits."""

    model_id: str
    model_sha: None
    model_dtype: str
    served_model_name: str
    model_version: str
    model_type: TeiModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: None
    docker_label: None


def endpoints(service: Service) -> list[Endpoint]:
    """The routes."""

    def described() -> TeiInfo:
        classifier = service.classifier
        name, version = name_and_version(classifier)
        labels = {str(index): label for index, label in enumerate(classifier.labels)}
        indices = {label: index for index, label in enumerate(classifier.labels)}
        return {
            "model_id": name,
            "model_sha": None,
            "model_dtype": "float32",
            "served_model_name": name,
            "model_version": version,
            "model_type": {"classifier": {"id2label": labels, "label2id": indices}},
            "max_concurrent_requests": service.policy.max_queued,
            "max_input_length": classifier.max_length,
            "max_batch_tokens": service.policy.max_cost,
            "max_batch_requests": service.policy.max_items,
            "max_client_batch_size": service.settings.max_texts_per_request,
            "auto_truncate": True,
            "tokenization_workers": service.cores.number,
            "version": metadata.version("supportbot"),
            "sha": None,
            "docker_label": None,
        }

    async def info(_: Request) -> Response:
        return render_json(described())

    example = {"inputs": [["payment failed"], ["app crashed"]]}
    scores = list[Score] | list[list[Score]]
    predicting = Operation("Classify texts", scores, TeiError, TeiBody, example, CLASSIFY_ERRORS, "classify")
    return [
        Exchange(service, DIALECT, "/predict", parse, predicting),
        Page(DIALECT, "GET /info", info, Operation("The model and the limits", TeiInfo, TeiError, errors=frozenset({503}))),
        Tokenize(service, DIALECT, TeiError),
    ]
