"""`GET /openapi.json`: the contract of all routes that are served, as OpenAPI 3.1, made of the types that parse and answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from importlib import metadata
from typing import Any, Final, NamedTuple

import orjson
from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode
from starlette.requests import Request
from starlette.responses import Response

from server.api.operation import BINARY, JSON, NDJSON, NativeError, Operation
from server.api.options import PRIORITY_HEADER, TIMEOUT_HEADER
from server.api.tensors import HEADER
from server.http.request_id import HEADER as REQUEST_ID_HEADER

PATH: Final = "/openapi.json"
# Of whole numbers in queries.
MOST: Final = 10**15 - 1
_REF: Final = "#/components/schemas/{model}"
# With these, a retry may make sense, and when.
_RETRY_STATUSES: Final = {429, 503, 504}
# What the protocol answers before a request has a route, always in our own shape.
_PROTOCOL_STATUSES: Final = frozenset({400, 408, 431})

Json = dict[str, Any]


class Described(NamedTuple):
    """A route with what several endpoints on it do, of which the body decides; `tag` is the first one's dialect."""

    method: str
    path: str
    tag: str
    operations: Sequence[Operation]


def _header(description: str, kind: str = "string") -> Json:
    return {"description": description, "schema": {"type": kind}}


_HEADERS: Final = {
    REQUEST_ID_HEADER: _header("The request's id, its own or a new one"),
    "Server-Timing": _header("Where the time went, in milliseconds: tokenize, queue, inference, total"),
    "X-Truncated": _header("The indices of the texts that were cut, unless the body says so"),
    "X-Windows": _header("In how many windows each text was read, if one was over the model's limit, unless the body says so"),
    "X-Stripped": _header("The indices of the texts that were HTML and were stripped, unless the body says so"),
    "Retry-After": _header("Seconds after which a retry makes sense", "integer"),
}


def _parameter(name: str, place: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": place, "description": description, "required": place == "path", "schema": schema}


_ASKED: Final = (
    _parameter(REQUEST_ID_HEADER, "header", "Your id for the request", {"type": "string"}),
    _parameter(TIMEOUT_HEADER, "header", "The deadline in milliseconds", {"type": "number", "exclusiveMinimum": 0}),
    _parameter(PRIORITY_HEADER, "header", "The priority class", {"type": "string", "enum": ["interactive", "bulk"]}),
)
_BINARY: Final = _parameter(
    HEADER, "header", "The length of the body's JSON part, if raw tensors follow it", {"type": "integer", "minimum": 0}
)


def contract(routes: Iterable[Described]) -> Json:
    """The document."""
    routes = list(routes)
    schemas, components = _schemas(routes)
    paths: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _described(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SupportBot",
            "version": metadata.version("supportbot"),
            "description": "Text classification. Clients of other servers find their routes here, too.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": components},
    }


class _Schemas:
    """The schemas of types: a type is described once, however many routes have it."""

    def __init__(self, found: dict[tuple[Any, JsonSchemaMode], Json], keys: dict[Any, str]) -> None:
        self._found = found
        self._keys = keys

    def of(self, kinds: Iterable[Any], mode: JsonSchemaMode) -> Json:
        """The schema of any of these types."""
        found: list[Json] = []
        for kind in kinds:
            schema = self._found[self._keys[kind], mode]
            if schema not in found:
                found.append(schema)
        return found[0] if len(found) == 1 else {"anyOf": found}


def _schemas(routes: Sequence[Described]) -> tuple[_Schemas, Json]:
    """(the schemas of all types, those that have names)."""
    operations = [operation for route in routes for operation in route.operations]
    modes: list[tuple[Any, JsonSchemaMode]] = [(NativeError, "serialization")]
    for operation in operations:
        modes += [(operation.answer, "serialization"), (operation.error, "serialization"), (operation.body, "validation")]
    keys: dict[Any, str] = {}
    inputs: dict[tuple[str, JsonSchemaMode], TypeAdapter[Any]] = {}
    for kind, mode in modes:
        if kind is not None:
            key = keys.setdefault(kind, str(len(keys)))
            inputs[key, mode] = TypeAdapter(kind)
    found, definitions = TypeAdapter.json_schemas([(*key, adapter) for key, adapter in inputs.items()], ref_template=_REF)
    return _Schemas(dict(found), keys), dict(definitions.get("$defs", {}))


def _described(route: Described, schemas: _Schemas) -> Json:
    first = route.operations[0]
    kinds = {operation.kind for operation in route.operations}
    media = [media for operation in route.operations for media in operation.media]
    statuses = {*_PROTOCOL_STATUSES, *(status for operation in route.operations for status in operation.errors)}
    errors = [operation.error for operation in route.operations]
    described: Json = {
        "operationId": _identifier(route),
        "summary": "; or ".join(dict.fromkeys(operation.summary for operation in route.operations)),
        "tags": [route.tag],
        "parameters": [
            *_parameters(route.path, has_options=kinds != {"other"}, is_binary=BINARY in media),
            *(
                _parameter(name, "query", text, {"type": "integer", "minimum": 0, "maximum": MOST})
                for operation in route.operations
                for name, text in operation.query.items()
            ),
        ],
        "responses": {"200": _answer(route, schemas)}
        | {
            str(status): {
                "description": HTTPStatus(status).phrase,
                "headers": _headers(REQUEST_ID_HEADER, *(("Retry-After",) if status in _RETRY_STATUSES else ())),
                "content": {JSON: {"schema": schemas.of(errors + [NativeError] * (status in _PROTOCOL_STATUSES), "serialization")}},
            }
            for status in sorted(statuses)
        },
    }
    taken = [operation for operation in route.operations if operation.body is not None]
    if taken:
        documents = [operation for operation in taken if JSON in operation.media]
        examples = {operation.summary: {"value": operation.example} for operation in documents if operation.example}
        content: Json = {JSON: {"schema": schemas.of((one.body for one in documents), "validation"), "examples": examples}}
        for operation in taken:
            if NDJSON in operation.media:
                line = orjson.dumps(operation.example).decode() + "\n"
                content[NDJSON] = _lines(schemas.of([operation.body], "validation")) | {"example": line}
        if BINARY in media:
            content[BINARY] = {"schema": {"type": "string", "format": "binary"}}
        described["requestBody"] = {"required": True, "content": content}
    return described | ({} if first.kind == "classify" else {"x-classifies": False})


def _answer(route: Described, schemas: _Schemas) -> Json:
    documents = [operation for operation in route.operations if NDJSON not in operation.answer_media]
    answers = [operation.answer for operation in documents if operation.answer is not None]
    content: Json = {}
    for media in route.operations[0].answer_media if answers else ():
        content[media] = {"schema": schemas.of(answers, "serialization") if media == JSON else {"type": "string"}}
    for operation in route.operations:
        if NDJSON in operation.answer_media:
            content[NDJSON] = _lines(schemas.of([operation.answer], "serialization"))
    classifies = route.operations[0].kind == "classify"
    names = (REQUEST_ID_HEADER, "Server-Timing", "X-Truncated", "X-Stripped") if classifies else (REQUEST_ID_HEADER,)
    return {"description": "The answer", "headers": _headers(*names)} | ({"content": content} if content else {})


def _lines(schema: Json) -> Json:
    """A media type of one JSON document a line, all of one schema, for which OpenAPI 3.1 has no word; 3.2 calls it `itemSchema`."""
    return {"schema": {"type": "string"}, "x-itemSchema": schema}


def _headers(*names: str) -> Json:
    return {name: _HEADERS[name] for name in names}


def _parameters(path: str, *, has_options: bool, is_binary: bool) -> list[Json]:
    known = {"model": "The model's name, with or without @version", "version": "The model's version"}
    found = [_parameter(name, "path", text, {"type": "string"}) for name, text in known.items() if f"{{{name}}}" in path]
    return [*found, *(_ASKED if has_options else ()), *((_BINARY,) if is_binary else ())]


def _identifier(route: Described) -> str:
    words = "".join(letter if letter.isalnum() else " " for letter in route.path).split()
    return "_".join([route.method.lower(), *words]) or route.method.lower()


class OpenApi:
    """`GET /openapi.json`. The document is made once, when it is first asked for."""

    def __init__(self, routes: Sequence[Described]) -> None:
        self._routes = routes
        self._content: bytes | None = None

    async def answer(self, _: Request) -> Response:
        """The endpoint."""
        if self._content is None:
            self._content = orjson.dumps(contract(self._routes))
        return Response(self._content, media_type=JSON)
