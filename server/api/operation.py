"""What the contract (`GET /openapi.json`) says of a route; the types are those that parse requests and shape answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from typing_extensions import TypedDict

JSON: Final = "application/json"
BINARY: Final = "application/octet-stream"
# One JSON document a line.
NDJSON: Final = "application/x-ndjson"
# What may become of a request to classify, beside its answer; `server.errors` and `docs/api.md` say why.
CLASSIFY_ERRORS: Final = frozenset({400, 408, 413, 415, 422, 429, 500, 503, 504})


class ErrorDetail(TypedDict):
    """What went wrong: a code for programs, a message for people, the request's id."""

    code: str
    message: str
    request_id: str


class NativeError(TypedDict):
    """Our own errors."""

    error: ErrorDetail


class TextError(TypedDict):
    """The errors of those dialects in which they are a text; our code and the request's id are beside it."""

    error: str
    code: str
    request_id: str


@dataclass(frozen=True, slots=True)
class Operation:
    """A route as the contract has it.

    `body` and `answer` are the types of a request's and an answer's body, None where there is none; `error` is that of its errors,
    which come with the statuses `errors`. `example` is the body of a request that works on the built-in model.
    """

    summary: str
    answer: Any
    error: Any = NativeError
    body: Any = None
    example: Any = None
    errors: frozenset[int] = frozenset()
    kind: Literal["classify", "tokenize", "other"] = "other"
    media: tuple[str, ...] = (JSON,)
    answer_media: tuple[str, ...] = (JSON,)
    # Whole numbers in the query: what each is.
    query: Mapping[str, str] = field(default_factory=dict)
