"""`POST /classify` with `inputs`, as vLLM Semantic Router asks a classifier of its own: a flat list of all labels."""

from __future__ import annotations

from typing import Final

from server.api.answering import Content, json_content
from server.api.body import parse_json, validate
from server.api.exchange import Call, Dialect, Exchange, Job
from server.api.operation import CLASSIFY_ERRORS, Operation
from server.api.options import BodyOptions
from server.api.scores import Function, Score, scores, values
from server.http.errors import native_error_body
from server.service import Classification, Service

NAME: Final = "semantic-router"
# It does not read the bodies of errors.
DIALECT: Final = Dialect(NAME, native_error_body)


class RouterBody(BodyOptions):
    """One text."""

    inputs: str


OPERATION: Final = Operation(
    "Classify one text, as vLLM Semantic Router asks",
    list[Score],
    body=RouterBody,
    example={"inputs": "payment failed"},
    errors=CLASSIFY_ERRORS,
    kind="classify",
)


def parse(call: Call) -> Job:
    """Every label exactly once, with its probability; they sum to 1 unless it is a multi-label model."""
    body = validate(RouterBody, parse_json(call.content))
    labels, function = call.classifier.labels, Function.of_probability(call.classifier.problem)

    def render(answer: Classification, _: float) -> Content:
        return json_content(scores(labels, values(answer.predictions[0], function)))

    return Job(call.request([body.inputs], "inputs", body.options(), single=True), render)


def exchange(service: Service, path: str) -> Exchange:
    """The endpoint, for requests that have the field `inputs`."""
    return Exchange(service, DIALECT, path, parse, OPERATION)
