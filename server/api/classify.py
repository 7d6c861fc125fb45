"""`POST /classify`, the native dialect: parsing, limits, and the shape of the answer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from time import perf_counter
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import BaseModel, ConfigDict, FailFast, Field
from starlette.requests import Request
from starlette.types import Receive, Scope, Send
from typing_extensions import TypedDict

from batching import Priority
from models.problem import Answer, Problem
from models.types import Prediction, TextClassifier
from server.api.answering import Content, answer_headers, begin, classified, is_usual, json_content
from server.api.body import parse_json, validate
from server.api.exchange import Exchange
from server.api.operation import CLASSIFY_ERRORS, Operation
from server.api.options import NO_OPTIONS, Options, parse_options
from server.http.body import read_body
from server.http.direct import DirectRequest
from server.http.errors import RequestError
from server.http.marks import DIALECT
from server.http.rendering import send_bytes
from server.http.request_id import request_id_of
from server.request import ClassifyRequest, blank_text
from server.service import Classification, Service

NATIVE = "native"
_SHARE: Final = "must be from 0 to 1"


class Body(BaseModel):
    """One text or several."""

    model_config = ConfigDict(strict=True, json_schema_extra={"additionalProperties": False})

    text: str = ""
    # pydantic would make a deep copy of a list given as the default, for each request.
    texts: Annotated[list[str], FailFast()] = Field(default_factory=list)
    scores: bool = False
    timeout_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    priority: Literal["interactive", "bulk"] | None = None
    min_confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    feedback: bool = False
    strip: Literal["none", "html"] | None = None


_FIELDS: Final = frozenset(Body.model_fields)


class ClassifyAnswer(TypedDict):
    """In the singular for `text`, in the plural for `texts`. A prediction is a label, of a multi-label model a list of labels and
    one of confidences, else a number without confidence. `truncated` only if a text was cut, `stripped` only if one was HTML that
    was stripped, `windows` only if one was read in several, `abstained` only if an answer is below `min_confidence`, a token and
    `review` only if `feedback` was asked for. `latency_ms` in milliseconds.
    """

    prediction: NotRequired[Answer]
    confidence: NotRequired[float | list[float]]
    predictions: NotRequired[list[str] | list[list[str]] | list[float]]
    confidences: NotRequired[list[float] | list[list[float]]]
    scores: NotRequired[dict[str, float] | list[dict[str, float]]]
    truncated: NotRequired[Literal[True] | list[bool]]
    stripped: NotRequired[Literal[True] | list[bool]]
    windows: NotRequired[int | list[int]]
    abstained: NotRequired[Literal[True] | list[bool]]
    feedback_token: NotRequired[str]
    feedback_tokens: NotRequired[list[str]]
    review: NotRequired[bool | list[bool]]
    latency_ms: float
    model: str


OPERATION: Final = Operation(
    "Classify one text or several",
    ClassifyAnswer,
    body=Body,
    example={"texts": ["payment failed", "app crashed"], "scores": True},
    errors=CLASSIFY_ERRORS,
    kind="classify",
)


def parse_classify(content: bytes, max_texts: int, options: Options) -> ClassifyRequest:
    """Parse a request body. Raises `RequestError` with the status and code that fit."""
    raw = parse_json(content)
    if isinstance(raw, dict) and not raw.keys() <= _FIELDS:
        unknown = next(name for name in raw if name not in _FIELDS)
        raise RequestError(422, "invalid_field", f"{unknown[:100]}: is not a known field")
    body = validate(Body, raw, greater_than_equal=_SHARE, less_than_equal=_SHARE)
    given = body.model_fields_set & {"text", "texts"}
    if len(given) != 1:
        raise RequestError(422, "invalid_field", 'the body must have either "text" or "texts"')
    single = "text" in given
    texts = [body.text] if single else body.texts
    if not texts:
        raise RequestError(400, "empty_texts", "texts is empty; send at least one text")
    if len(texts) > max_texts:
        raise RequestError(400, "too_many_texts", f"{len(texts)} texts; at most {max_texts} are allowed in one request")
    for index, text in enumerate(texts):
        if not text.strip():
            raise blank_text("text" if single else f"texts[{index}]")
    # The body is the client's own word; a header may have been set by a proxy, for all its clients.
    timeout = options.timeout if body.timeout_ms is None else body.timeout_ms / 1000
    priority = options.priority or Priority.INTERACTIVE if body.priority is None else Priority(body.priority)
    strip = None if body.strip is None else body.strip == "html"
    return ClassifyRequest(
        texts,
        single,
        body.scores,
        timeout,
        priority,
        min_confidence=body.min_confidence,
        feedback=body.feedback,
        strip=strip,
    )


def classify_answer(
    request: ClassifyRequest,
    found: Classification,
    problem: Problem,
    identity: str,
    latency: float,
    tokens: Sequence[tuple[str, bool]] = (),
) -> Mapping[str, Any]:
    """The answer's body; `latency` in seconds, `tokens` for feedback, each with whether the answer was drawn for review.

    Probabilities are rounded to 6 decimals, far below what INT8 can tell apart.
    """
    predictions = found.predictions
    answer: dict[str, Any]
    if request.single:
        answer = problem.told(predictions[0])
    else:
        answer = {"predictions": [problem.answer(prediction) for prediction in predictions]}
        if problem.gives_labels:
            answer["confidences"] = [problem.sureness(prediction) for prediction in predictions]
    if request.scores:
        scores = [
            {label: round(score, 6) for label, score in zip(problem.labels, prediction.scores, strict=True)}
            for prediction in predictions
        ]
        answer["scores"] = scores[0] if request.single else scores
    if request.min_confidence is not None:
        # By the rounded confidence, so that a client who compares for itself comes to the same.
        abstained = [problem.abstains(problem.sureness(prediction), request.min_confidence) for prediction in predictions]
        if any(abstained):
            answer["abstained"] = True if request.single else abstained
    _add_marks(answer, found, single=request.single)
    if tokens and request.single:
        answer["feedback_token"], answer["review"] = tokens[0]
    elif tokens:
        answer["feedback_tokens"], answer["review"] = map(list, zip(*tokens, strict=True))
    answer["latency_ms"] = round(latency * 1000, 3)
    answer["model"] = identity
    return answer


def _add_marks(answer: dict[str, Any], found: Classification, *, single: bool) -> None:
    """Say what became of the texts, where it is not the usual."""
    for name, marks in (("truncated", found.truncated), ("stripped", found.stripped)):
        if True in marks:
            answer[name] = True if single else marks
    if max(found.windows) > 1:
        answer["windows"] = found.windows[0] if single else found.windows


def _check_asked(wanted: ClassifyRequest, problem: Problem) -> None:
    """Raise `RequestError` for what a model of this problem type cannot give: it would seem to be there."""
    if wanted.feedback and not problem.gives_one_label:
        raise RequestError(422, "invalid_field", f"feedback: needs a model that gives one label, and this one is {problem.type}")
    if wanted.min_confidence is not None and not problem.gives_labels:
        raise RequestError(422, "invalid_field", "min_confidence: this model gives a number, which has no confidence")


class Classify:
    """`POST /classify`: one text or several. An ASGI application: Starlette's wrapper for functions costs some 5 us a request.

    Other dialects have requests on the same path; `others` has them by a field that only they have.
    """

    def __init__(self, service: Service, others: Mapping[str, Exchange] = MappingProxyType({})) -> None:
        self._others = others
        self._service = service
        self._settings = service.settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or raise what `server.http.errors` has an answer for."""
        started = perf_counter()
        scope[DIALECT] = NATIVE
        settings, request = self._settings, Request(scope, receive)
        options = parse_options(request.headers)
        patience = settings.body_timeout_ms / 1000
        content = await read_body(request, settings.max_body_bytes, patience, options.timeout or math.inf)
        classifier = self._service.classifier
        try:
            wanted = parse_classify(content, settings.max_texts_per_request, options)
        except RequestError:
            if (other := self._of_other_dialect(content)) is None:
                raise
            await other.answer(request, content, options, started, send)
            return
        if wanted.feedback or wanted.min_confidence is not None:
            _check_asked(wanted, classifier.problem)
        answer = await classified(self._service, request, wanted, started)
        latency = perf_counter() - started
        rendered = self._content(classifier, request_id_of(scope), wanted, answer, latency)
        await send_bytes(scope, send, rendered.body, rendered.media_type, answer_headers(self._service, answer, latency))

    def begin(self, request: DirectRequest) -> bool:
        """Answer without a task, if it is a short request without peculiarities; False, with nothing done, otherwise.

        Raises `RequestError`, with nothing done, for a request that is to be refused, or that is of another dialect.
        """
        service, settings = self._service, self._settings
        if service.model is None or not is_usual(request.scope["headers"], request.content, settings.max_body_bytes):
            return False
        wanted = parse_classify(request.content, settings.max_texts_per_request, NO_OPTIONS)
        if wanted.feedback or wanted.min_confidence is not None:
            _check_asked(wanted, service.model.problem)
        if not service.is_short(wanted):
            return False
        request.scope[DIALECT] = NATIVE
        return begin(service, request, wanted, partial(self._content, service.model, request_id_of(request.scope), wanted))

    def _content(
        self, classifier: TextClassifier, request_id: str, wanted: ClassifyRequest, answer: Classification, latency: float
    ) -> Content:
        tokens = self._tokens(request_id, answer.predictions) if wanted.feedback else ()
        return json_content(classify_answer(wanted, answer, classifier.problem, classifier.identity, latency, tokens))

    def _tokens(self, request_id: str, predictions: Sequence[Prediction]) -> list[tuple[str, bool]]:
        feedback = self._service.feedback
        assert feedback is not None
        return [feedback.token(request_id, index, prediction) for index, prediction in enumerate(predictions)]

    def _of_other_dialect(self, content: bytes) -> Exchange | None:
        """Whose request it is, if it is not one of ours: looked at when it could not be parsed, so that ours lose no time."""
        raw = parse_json(content)
        if not isinstance(raw, dict) or not raw.keys().isdisjoint({"text", "texts"}):
            return None
        return next((exchange for name, exchange in self._others.items() if name in raw), None)
