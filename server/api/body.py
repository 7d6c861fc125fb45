"""From a body's bytes to a typed record, with errors that speak of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, NoReturn, TypeVar

import orjson
from pydantic import BaseModel, BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError

from models.json_text import loads_lenient
from server.http.content import fault_of
from server.http.errors import RequestError

Record = TypeVar("Record", bound=BaseModel)

# pydantic's own words, where they speak of Python rather than of JSON.
_MESSAGES: Final = {
    "model_type": "must be a JSON object",
    "list_type": "must be a list of strings",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "float_type": "must be a number",
    "int_type": "must be a whole number",
    "missing": "is missing",
    "dict_type": "must be a JSON object",
    "greater_than": "must be over {gt:g}",
    "greater_than_equal": "must be at least {ge}",
    "literal_error": "must be {expected}",
}


def _check_texts(value: object) -> object:
    # Of a union, pydantic would tell what is wrong with the value as each of its kinds.
    if isinstance(value, str) or (isinstance(value, list) and all(isinstance(text, str) for text in value)):
        return value
    raise PydanticCustomError("texts_type", "must be a string or a list of strings")


Texts = Annotated[str | list[str], BeforeValidator(_check_texts)]


def parse_json(content: bytes) -> object:
    """The JSON document. Raises `RequestError`."""
    try:
        return loads_lenient(content)
    except orjson.JSONDecodeError as error:
        if (fault := fault_of(content)) is not None:
            raise fault from error
        raise RequestError(400, "malformed_json", f"the body is not JSON: {error.msg} (character {error.pos})") from error


def validate(kind: type[Record], raw: object, **messages: str) -> Record:
    """The record. Raises `RequestError`, whose message names the first field at fault; `messages` are of this record's own."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        _refuse(error, messages)


def _refuse(error: ValidationError, messages: Mapping[str, str]) -> NoReturn:
    detail = error.errors(include_input=False, include_url=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    found = messages.get(detail["type"]) or _MESSAGES.get(detail["type"])
    message = detail["msg"] if found is None else found.format(**detail.get("ctx", {})).replace("'", "")
    raise RequestError(422, "invalid_field", f"{place or 'the body'}: {message}") from error
