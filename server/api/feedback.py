"""`POST /feedback`: the true label of an answer, or of up to 1,000."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, FailFast, Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from server.api.body import parse_json, validate
from server.api.operation import Operation
from server.http.body import read_body
from server.http.errors import RequestError
from server.http.rendering import render_json
from server.observe.feedback import Item, Outcome
from server.service import Service

PATH: Final = "/feedback"
MOST_ITEMS: Final = 1_000


class FeedbackItem(BaseModel):
    """The true label of an answer, which is named by its token, or by its request's id and the index of the text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    label: str
    token: Annotated[str, Field(max_length=200)] | None = None
    request_id: Annotated[str, Field(max_length=200)] | None = None
    index: Annotated[int, Field(ge=0, lt=1 << 53)] = 0

    @model_validator(mode="after")
    def _has_one_name(self) -> Self:
        if (self.token is None) == (self.request_id is None):
            raise PydanticCustomError("one_name", "must have either a token or a request_id")
        return self


class FeedbackItems(BaseModel):
    """Several at once."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    items: Annotated[list[FeedbackItem], FailFast(), Field(min_length=1, max_length=MOST_ITEMS)]


class FeedbackCounts(TypedDict):
    """How many were accepted, came twice, name an answer that is not known or of another model or too old, or were forged."""

    accepted: int
    duplicate: int
    unknown: int
    expired: int
    forged: int


OPERATION: Final = Operation(
    "Say what the right label was",
    FeedbackCounts,
    body=FeedbackItem | FeedbackItems,
    example={"request_id": "ticket-4711", "label": "billing"},
    errors=frozenset({400, 408, 413, 415, 422, 503}),
)


class FeedbackRoute:
    """The endpoint."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def take(self, request: Request) -> Response:
        """Count feedback. Raises `RequestError` for a label that the model does not have, and then nothing is counted; and for a
        model that does not give one label, which could be right or wrong.
        """
        settings = self._service.settings
        problem = self._service.classifier.problem
        if not problem.gives_one_label:
            raise RequestError(
                422, "invalid_field", f"the body: feedback needs a model that gives one label; this one is {problem.type}"
            )
        raw = parse_json(await read_body(request, settings.max_body_bytes, settings.body_timeout_ms / 1000))
        several = isinstance(raw, dict) and "items" in raw
        given = validate(FeedbackItems, raw).items if several else [validate(FeedbackItem, raw)]
        feedback = self._service.feedback
        assert feedback is not None
        known = {label: number for number, label in enumerate(feedback.labels)}
        for number, item in enumerate(given):
            if item.label not in known:
                place = f"items[{number}].label" if several else "label"
                raise RequestError(422, "invalid_field", f"{place}: must be one of {', '.join(feedback.labels)}")
        items = [Item(known[item.label], item.token, item.request_id, item.index) for item in given]
        outcomes = self._service.take_feedback(items)
        return render_json(FeedbackCounts(**{str(outcome): outcomes[outcome] for outcome in Outcome}))  # type: ignore[typeddict-item]
