"""From a body's bytes to a typed record, with errors that speak of JSON."""

from __future__ import annotations

from typing import NoReturn, TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from models.json_text import loads_lenient
from server.http.content import fault_of
from server.http.errors import RequestError

Record = TypeVar("Record", bound=BaseModel)

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


def parse_json(content: bytes) -> object:
    """The JSON document. Raises `RequestError`."""
    try:
        return loads_lenient(content)
    except orjson.JSONDecodeError as error:
        if (fault := fault_of(content)) is not None:
            raise fault from error
        raise RequestError(400, "malformed_json", f"the body is not JSON: {error.msg} (character {error.pos})") from error


def validate(kind: type[Record], raw: object) -> Record:
    """The record. Raises `RequestError`, whose message names the first field at fault."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        _refuse(error)


def _refuse(error: ValidationError) -> NoReturn:
    detail = error.errors(include_input=False, include_url=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    message = _MESSAGES.get(detail["type"], detail["msg"])
    raise RequestError(422, "invalid_field", f"{place or 'the body'}: {message}") from error
