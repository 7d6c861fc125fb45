"""A request to a transformers pipeline: `inputs` and `parameters`, answered by a list of labels and scores for each text."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from models.problem import Problem
from server.api.answering import Content, json_content
from server.api.body import Texts, parse_json, validate
from server.api.exchange import Call, Job
from server.api.operation import CLASSIFY_ERRORS, Operation, TextError
from server.api.options import BodyOptions
from server.api.scores import Function, Score, ranked, values
from server.http.errors import RequestError
from server.service import Classification


def _refuse_labels(value: object) -> None:
    if value is not None:
        raise PydanticCustomError("candidate_labels", "zero-shot classification is not supported; the model has its own labels")


class Parameters(BaseModel):
    """How to say the scores. `candidate_labels` are zero-shot classification's, and refused: the model has labels of its own."""

    model_config = ConfigDict(strict=True)

    top_k: Annotated[int, Field(ge=1)] | None = None
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None
    candidate_labels: Annotated[None, BeforeValidator(_refuse_labels)] = None

    def function(self, problem: Problem) -> Function:
        """What is applied to the logits; what the problem type applies unless something else was asked for."""
        return Function.of(self.function_to_apply, problem)


class PipelineBody(BodyOptions):
    """One text or several."""

    inputs: Texts
    parameters: Parameters | None = None


OPERATION: Final = Operation(
    "Classify texts, as a transformers pipeline does",
    list[list[Score]],
    TextError,
    PipelineBody,
    {"inputs": ["payment failed", "app crashed"], "parameters": {"top_k": 2}},
    CLASSIFY_ERRORS,
    "classify",
)


def parse_pipeline(call: Call) -> Job:
    """A list of lists whatever the request, the highest score first: that is what the hosted API answers, and its client reads."""
    body = validate(PipelineBody, parse_json(call.content))
    parameters = body.parameters or Parameters()
    labels = call.classifier.labels
    single = isinstance(body.inputs, str)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs

    def render(answer: Classification, _: float) -> Content:
        function, top = parameters.function(call.classifier.problem), parameters.top_k
        return json_content([ranked(labels, values(prediction, function), top) for prediction in answer.predictions])

    return Job(call.request(texts, "inputs", body.options(), single=single), render)


def error_body(error: RequestError, request_id: str) -> TextError:
    """A string, as their clients show it, with our code and the request's id beside it."""
    return {"error": error.message, "code": error.code, "request_id": request_id}
