"""`POST /classify`, the native dialect: parsing, limits, and the shape of the answer."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Annotated, Any, Final, Literal, NoReturn

import orjson
from pydantic import BaseModel, ConfigDict, FailFast, Field, ValidationError
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from batching import Priority
from models.json_text import loads_lenient
from models.types import Prediction
from server.http.body import read_body, unless_disconnected
from server.http.content import fault_of
from server.http.errors import RequestError
from server.http.marks import DIALECT, LOG
from server.http.rendering import send_json
from server.http.request_id import request_id_of
from server.request import ClassifyRequest, blank_text
from server.service import Service, Timing

NATIVE: Final = "native"
TIMEOUT_HEADER: Final = "X-Timeout-Ms"
PRIORITY_HEADER: Final = "X-Priority"
_OPTION_HEADERS: Final = frozenset(name.lower().encode() for name in (TIMEOUT_HEADER, PRIORITY_HEADER))

# pydantic's own words, where they speak of Python rather than of JSON.
_MESSAGES = {
    "model_type": "must be a JSON object",
    "list_type": "must be a list of strings",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "float_type": "must be a number",
    "greater_than": "must be over 0",
    "literal_error": "must be interactive or bulk",
}


class _Body(BaseModel):
    model_config = ConfigDict(strict=True)

    text: str = ""
    # pydantic would make a deep copy of a list given as the default, for each request.
    texts: Annotated[list[str], FailFast()] = Field(default_factory=list)
    scores: bool = False
    timeout_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    priority: Literal["interactive", "bulk"] | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """What headers may ask for: a timeout in seconds, a priority; None where they do not."""

    timeout: float | None = None
    priority: Priority | None = None


_NO_OPTIONS: Final = Options()


def parse_options(headers: Headers) -> Options:
    """Parse the headers that may say what the body may say, too. Raises `RequestError`."""
    if not any(name in _OPTION_HEADERS for name, _ in headers.raw):
        return _NO_OPTIONS  # as nearly always
    return Options(_timeout(headers), _priority(headers))


def parse_classify(content: bytes, max_texts: int, options: Options) -> ClassifyRequest:
    """Parse a request body. Raises `RequestError` with the status and code that fit."""
    try:
        raw = loads_lenient(content)
    except orjson.JSONDecodeError as error:
        if (fault := fault_of(content)) is not None:
            raise fault from error
        raise RequestError(400, "malformed_json", f"the body is not JSON: {error.msg} (character {error.pos})") from error
    if isinstance(raw, dict) and (unknown := next((name for name in raw if name not in _Body.model_fields), None)) is not None:
        raise RequestError(422, "invalid_field", f"{unknown[:100]}: is not a known field")
    try:
        body = _Body.model_validate(raw)
    except ValidationError as error:
        _refuse(error)
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
    priority = Priority(body.priority or options.priority or Priority.INTERACTIVE)
    return ClassifyRequest(texts, single, body.scores, timeout, priority)


def _timeout(headers: Headers) -> float | None:
    value = _single(headers, TIMEOUT_HEADER)
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,6})?", value) or not float(value):
        raise RequestError(422, "invalid_field", f"{TIMEOUT_HEADER}: must be a number of milliseconds over 0")
    return float(value) / 1000


def _priority(headers: Headers) -> Priority | None:
    value = _single(headers, PRIORITY_HEADER)
    try:
        return None if value is None else Priority(value)
    except ValueError:
        raise RequestError(422, "invalid_field", f"{PRIORITY_HEADER}: must be interactive or bulk") from None


def _single(headers: Headers, name: str) -> str | None:
    values = headers.getlist(name)
    if len(values) > 1:
        raise RequestError(422, "invalid_field", f"{name}: is there {len(values)} times")
    return values[0] if values else None


def _refuse(error: ValidationError) -> NoReturn:
    detail = error.errors(include_input=False, include_url=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    message = _MESSAGES.get(detail["type"], detail["msg"])
    raise RequestError(422, "invalid_field", f"{place or 'the body'}: {message}") from error


def classify_answer(
    request: ClassifyRequest,
    predictions: Sequence[Prediction],
    truncated: Sequence[bool],
    labels: Sequence[str],
    identity: str,
    latency: float,
) -> Mapping[str, Any]:
    """The answer's body; `latency` in seconds. Probabilities are rounded to 6 decimals, far below what INT8 can tell apart."""
    confidences = [round(prediction.confidence, 6) for prediction in predictions]
    answer: dict[str, Any] = (
        {"prediction": predictions[0].label, "confidence": confidences[0]}
        if request.single
        else {"predictions": [prediction.label for prediction in predictions], "confidences": confidences}
    )
    if request.scores:
        scores = [
            {label: round(score, 6) for label, score in zip(labels, prediction.scores, strict=True)} for prediction in predictions
        ]
        answer["scores"] = scores[0] if request.single else scores
    if any(truncated):
        answer["truncated"] = True if request.single else list(truncated)
    answer["latency_ms"] = round(latency * 1000, 3)
    answer["model"] = identity
    return answer


class Classify:
    """`POST /classify`: one text or several. An ASGI application: Starlette's wrapper for functions costs some 5 us a request."""

    def __init__(self, service: Service) -> None:
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
        wanted = parse_classify(content, settings.max_texts_per_request, options)
        scope[LOG] = {"texts": len(wanted.texts)}
        with self._service.admitted(wanted, started) as admitted:
            answer = await unless_disconnected(request, self._service.classify(admitted))
        self._service.note(wanted, answer, request_id_of(scope))
        latency = perf_counter() - started
        body = classify_answer(wanted, answer.predictions, answer.truncated, classifier.labels, classifier.identity, latency)
        headers = {"Server-Timing": _server_timing(answer.timing, latency)}
        if self._service.is_leaving:
            headers["Connection"] = "close"
        await send_json(send, body, headers)


def _server_timing(timing: Timing, total: float) -> str:
    """The Server-Timing header (W3C), durations in milliseconds."""
    return (
        f"tokenize;dur={timing.tokenize * 1000:.3f}, queue;dur={timing.queue * 1000:.3f},"
        f" inference;dur={timing.inference * 1000:.3f}, total;dur={total * 1000:.3f}"
    )
