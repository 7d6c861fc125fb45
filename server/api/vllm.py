"""`POST /v1/classify`, and `/classify` with `input`: the dialect of vLLM and SGLang."""

from __future__ import annotations

import time
from typing import Annotated, Final, Literal, NotRequired

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from batching import Priority
from models.types import End
from server.api.answering import Content, json_content
from server.api.body import Texts, parse_json, validate
from server.api.exchange import Call, Dialect, Exchange, Job
from server.api.naming import check_model, name_and_version
from server.api.operation import CLASSIFY_ERRORS, Operation
from server.api.options import Options
from server.api.scores import Function, values
from server.http.errors import RequestError
from server.service import Classification, Service

NAME: Final = "vllm"
_ENDS: Final = {"left": End.END, "right": End.START}  # from where it is cut to what is kept
# What is refused, and the remedy: each would change the answer, so it cannot be ignored.
_REFUSED: Final = {
    "messages": "chats are not supported; send the text as `input`",
    "normalize": "was removed from this dialect",
    "softmax": "was removed from this dialect; use `use_activation`",
    "activation": "was removed from this dialect; use `use_activation`",
}


class VllmErrorDetail(TypedDict):
    """What went wrong; `param` is always null."""

    message: str
    type: str
    param: None
    code: str
    request_id: str


class VllmError(TypedDict):
    """An error."""

    error: VllmErrorDetail


def error_body(error: RequestError, request_id: str) -> VllmError:
    """As OpenAI's servers say it, with our code and the request's id."""
    if error.status >= 500:
        kind = "server_error"
    else:
        kind = {404: "not_found_error", 429: "rate_limit_error"}.get(error.status, "invalid_request_error")
    return {"error": {"message": error.message, "type": kind, "param": None, "code": error.code, "request_id": request_id}}


DIALECT: Final = Dialect(NAME, error_body)


def _check_priority(value: object) -> object:
    if type(value) is int or (isinstance(value, str) and value in {"interactive", "bulk"}):
        return value
    raise PydanticCustomError("priority_type", "must be a whole number, interactive or bulk")


class VllmBody(BaseModel):
    """One text or several. `priority` over 0 is our bulk class: in this dialect, lower numbers go first."""

    model_config = ConfigDict(strict=True)

    model: str | None = None
    input: Texts
    use_activation: bool | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1)] | None = None
    truncation_side: Literal["left", "right"] | None = None
    add_special_tokens: bool | None = None
    priority: Annotated[int | Literal["interactive", "bulk"], BeforeValidator(_check_priority)] = 0
    timeout_ms: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    def options(self, *, names_priority: bool) -> Options:
        """The timeout and the priority that were asked for."""
        timeout = None if self.timeout_ms is None else self.timeout_ms / 1000
        if not names_priority:
            return Options(timeout)
        if isinstance(self.priority, str):
            return Options(timeout, Priority(self.priority))
        return Options(timeout, Priority.BULK if self.priority > 0 else Priority.INTERACTIVE)


class VllmRow(TypedDict):
    """One text's answer; `probs` in the order of the labels, `truncated` only if the text was cut."""

    index: int
    label: str
    probs: list[float]
    num_classes: int
    truncated: NotRequired[bool]


class VllmUsage(TypedDict):
    """Tokens of the texts, also of those from the answer cache."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: None


class VllmAnswer(TypedDict):
    """The answer; `created` in seconds since 1970."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[VllmRow]
    usage: VllmUsage


OPERATION: Final = Operation(
    "Classify texts, as vLLM and SGLang do",
    VllmAnswer,
    VllmError,
    VllmBody,
    {"model": "supportbot", "input": ["payment failed", "app crashed"]},
    CLASSIFY_ERRORS | {404},
    "classify",
)


def parse(call: Call) -> Job:
    """Probabilities of all labels, or logits with `use_activation: false`."""
    raw = parse_json(call.content)
    if isinstance(raw, dict):
        for name in raw.keys() & _REFUSED.keys():
            raise RequestError(422, "invalid_field", f"{name}: {_REFUSED[name]}")
        _refuse_token_ids(raw.get("input"))
    body = validate(VllmBody, raw)
    classifier = call.classifier
    if body.model is not None:
        check_model(classifier, body.model)
    if body.truncate_prompt_tokens not in {None, -1} and body.truncate_prompt_tokens < classifier.max_length:
        message = f"truncate_prompt_tokens: must be -1 or at least {classifier.max_length}, the model's limit"
        raise RequestError(422, "invalid_field", message)
    if body.add_special_tokens is False:
        raise RequestError(422, "invalid_field", "add_special_tokens: the model was trained with special tokens; leave them in")
    function = Function.NONE if body.use_activation is False else Function.OWN
    single = isinstance(body.input, str)
    texts = [body.input] if isinstance(body.input, str) else body.input
    keep = None if body.truncation_side is None else _ENDS[body.truncation_side]
    asked = body.options(names_priority="priority" in body.model_fields_set)
    name = body.model or name_and_version(classifier)[0]

    def render(answer: Classification, _: float) -> Content:
        tokens = sum(answer.tokens)
        usage = VllmUsage(prompt_tokens=tokens, total_tokens=tokens, completion_tokens=0, prompt_tokens_details=None)
        identifier, created, rows = f"classify-{call.request_id}", int(time.time()), _rows(answer, function)
        return json_content(VllmAnswer(id=identifier, object="list", created=created, model=name, data=rows, usage=usage))

    return Job(call.request(texts, "input", asked, single=single, keep=keep), render)


def _rows(answer: Classification, function: Function) -> list[VllmRow]:
    rows: list[VllmRow] = []
    for index, (prediction, cut) in enumerate(zip(answer.predictions, answer.truncated, strict=True)):
        probs = values(prediction, function)
        row = VllmRow(index=index, label=prediction.label, probs=probs, num_classes=len(probs))
        if cut:
            row["truncated"] = True
        rows.append(row)
    return rows


def _refuse_token_ids(given: object) -> None:
    first = given[0] if isinstance(given, list) and given else None
    if isinstance(first, (int, list)):
        raise RequestError(422, "invalid_field", "input: token ids are not supported; send the text itself")


def exchange(service: Service, path: str) -> Exchange:
    """The endpoint; on `/classify`, for requests that have the field `input`."""
    return Exchange(service, DIALECT, path, parse, OPERATION)
