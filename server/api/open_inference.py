"""`/v2`: the Open Inference Protocol of KServe, Triton and others, with Triton's binary tensors and classification.

One input, BYTES of shape [n] or [n, 1], whatever its name. Outputs, of which a request may choose:

| name | datatype | shape | is |
| --- | --- | --- | --- |
| `label` | BYTES | [n] | the most probable label |
| `score` | FP32 | [n] | its calibrated probability; of a regression model, the number |
| `probabilities` | FP32 | [n, labels] | those of all labels |
| `truncated` | BOOL | [n] | true where the text was cut |
| `logits` | FP32 | [n, labels] | only if it is chosen |
| `predicted` | BOOL | [n, labels] | only if it is chosen: whether the label is predicted |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import chain
from typing import Annotated, Any, Final, Literal, NotRequired

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from typing_extensions import TypedDict

from batching import Priority
from models.problem import DECIMALS, Problem, ProblemType
from models.types import TextClassifier
from server.api.answering import Content
from server.api.body import parse_json, validate
from server.api.exchange import Call, Dialect, Endpoint, Exchange, Job, Page
from server.api.naming import check_model, name_and_version
from server.api.operation import BINARY, CLASSIFY_ERRORS, JSON, Operation, TextError
from server.api.options import Options
from server.api.scores import Function, values
from server.api.tensors import HEADER, TensorError, join_strings, pack_booleans, pack_floats, split_strings
from server.http.content import compress
from server.http.errors import RequestError
from server.http.rendering import render_json
from server.service import Classification, Service

NAME: Final = "open-inference"
PLATFORM: Final = "onnx_onnxv1"
EXTENSIONS: Final = ("binary_tensor_data", "classification", "schedule_policy", "parameters")
INPUT: Final = "text"
# A class is told with its value, its index and its label.
_CLASS: Final = "{value:.6f}:{index}:{label}"


def error_body(error: RequestError, request_id: str) -> TextError:
    """A string, as the clients read it, with our code and the request's id beside it."""
    return {"error": error.message, "code": error.code, "request_id": request_id}


DIALECT: Final = Dialect(NAME, error_body)


@dataclass(frozen=True, slots=True)
class Tensor:
    """An output: its datatype, its shape, and its elements in row-major order."""

    datatype: str
    shape: list[int]
    elements: Sequence[Any]

    def raw(self) -> bytes:
        """As the binary extension has it."""
        if self.datatype == "BYTES":
            return join_strings(self.elements)
        return pack_booleans(self.elements) if self.datatype == "BOOL" else pack_floats(self.elements)


def _labels(answer: Classification, _: Problem) -> Tensor:
    return Tensor("BYTES", [len(answer.predictions)], [prediction.label for prediction in answer.predictions])


def _scores(answer: Classification, _: Problem) -> Tensor:
    return Tensor("FP32", [len(answer.predictions)], [round(prediction.confidence, DECIMALS) for prediction in answer.predictions])


def _truncated(answer: Classification, _: Problem) -> Tensor:
    return Tensor("BOOL", [len(answer.truncated)], answer.truncated)


def _rows(function: Callable[[Problem], Function]) -> Callable[[Classification, Problem], Tensor]:
    def tensor(answer: Classification, problem: Problem) -> Tensor:
        applied = function(problem)
        rows = [values(prediction, applied) for prediction in answer.predictions]
        return Tensor("FP32", [len(rows), len(problem.labels)], list(chain.from_iterable(rows)))

    return tensor


def _predicted(answer: Classification, problem: Problem) -> Tensor:
    scores = np.array([prediction.scores for prediction in answer.predictions])
    return Tensor("BOOL", list(scores.shape), problem.predicted(scores).ravel().tolist())


_RANKED: Final = ("probabilities", "logits")
OUTPUTS: Final[dict[str, Callable[[Classification, Problem], Tensor]]] = {
    "label": _labels,
    "score": _scores,
    "probabilities": _rows(Function.of_probability),
    "truncated": _truncated,
    "logits": _rows(lambda _: Function.NONE),
    "predicted": _predicted,
}
# What a request gets that chooses nothing.
_USUAL: Final = ("label", "score", "probabilities", "truncated")


class _Record(BaseModel):
    model_config = ConfigDict(strict=True)


class InputParameters(_Record):
    """`binary_data_size` bytes of the body's raw part are this input's."""

    binary_data_size: Annotated[int, Field(ge=0)] | None = None


class InferInput(_Record):
    """The texts: in `data`, flat or a list for each, or in the raw part."""

    name: str
    shape: list[Annotated[int, Field(ge=0)]]
    datatype: str
    parameters: InputParameters | None = None
    data: list[Any] | None = None


class OutputParameters(_Record):
    """How an output is told: in the raw part, or as its `classification` highest classes."""

    binary_data: bool | None = None
    classification: Annotated[int, Field(ge=0)] = 0


class InferOutput(_Record):
    """An output that is chosen."""

    name: str
    parameters: OutputParameters | None = None


class InferParameters(_Record):
    """`timeout` in microseconds, 0 for none. `priority`: 0 (the default) and 1 are our interactive class, others are bulk."""

    binary_data_output: bool = False
    priority: Annotated[int, Field(ge=0)] | None = None
    timeout: Annotated[int, Field(ge=0)] | None = None

    def options(self) -> Options:
        """The timeout and the priority that were asked for."""
        timeout = self.timeout / 1_000_000 if self.timeout else None
        priority = None if not self.priority else Priority.INTERACTIVE if self.priority == 1 else Priority.BULK
        return Options(timeout, priority)


class InferBody(_Record):
    """A request to classify."""

    id: str | None = None
    parameters: InferParameters | None = None
    inputs: list[InferInput]
    outputs: list[InferOutput] | None = None


_EXAMPLE: Final = {"inputs": [{"name": INPUT, "shape": [1], "datatype": "BYTES", "data": ["payment failed"]}]}


class BinarySize(TypedDict):
    """How many bytes of the raw part are this output's."""

    binary_data_size: int


class InferredTensor(TypedDict):
    """An output: its elements in row-major order in `data`, or in the raw part."""

    name: str
    datatype: str
    shape: list[int]
    data: NotRequired[list[str] | list[float] | list[bool]]
    parameters: NotRequired[BinarySize]


class InferAnswer(TypedDict):
    """The answer, or its JSON part."""

    model_name: str
    model_version: str
    id: str
    outputs: list[InferredTensor]


class TensorMetadata(TypedDict):
    """An input or output; -1 stands for any number of texts."""

    name: str
    datatype: str
    shape: list[int]


class ModelParameters(TypedDict):
    """What clients of a classifier want to know."""

    labels: list[str]
    max_length: int
    problem_type: ProblemType
    thresholds: NotRequired[list[float]]


class ModelMetadata(TypedDict):
    """The model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: ModelParameters


class ServerMetadata(TypedDict):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class Live(TypedDict):
    """The process is alive."""

    live: Literal[True]


class ServerReady(TypedDict):
    """The server is ready; both names are in use."""

    ready: Literal[True]
    live: Literal[True]


class ModelReady(TypedDict):
    """The model is ready."""

    name: str
    ready: Literal[True]


class ModelNames(TypedDict):
    """The models."""

    models: list[str]


class RepositoryModel(TypedDict):
    """A model of the repository."""

    name: str
    version: str
    state: Literal["READY"]
    reason: str


OPERATION: Final = Operation(
    "Classify texts",
    InferAnswer,
    TextError,
    InferBody,
    _EXAMPLE,
    CLASSIFY_ERRORS | {404},
    "classify",
    (JSON, BINARY),
    (JSON, BINARY),
)


def parse(call: Call) -> Job:
    """Texts in, tensors out."""
    classifier = call.classifier
    check_model(classifier, call.path["model"], call.path.get("version"))
    body, raw = _split(call)
    texts = _texts(body.inputs, raw)
    parameters = body.parameters or InferParameters()
    chosen = body.outputs or [InferOutput(name=name) for name in _USUAL]
    for output in chosen:
        _check_output(output, classifier)
    request = call.request(texts, body.inputs[0].name[:100] or INPUT, parameters.options())
    accepted = call.headers.get("accept-encoding", "")

    def render(answer: Classification, _: float) -> Content:
        name, version = name_and_version(classifier)
        parts: list[bytes] = []
        outputs = [_said(output, answer, classifier.problem, parts, binary=parameters.binary_data_output) for output in chosen]
        identifier = body.id or call.request_id
        head = orjson.dumps(InferAnswer(model_name=name, model_version=version, id=identifier, outputs=outputs))
        headers = {HEADER: str(len(head))} if parts else {}
        content, coding = compress(b"".join((head, *parts)), accepted)
        if coding:
            headers |= {"Content-Encoding": coding, "Vary": "Accept-Encoding"}
        return Content(content, BINARY if parts else JSON, headers)

    return Job(request, render)


def _split(call: Call) -> tuple[InferBody, bytes]:
    """(the body's JSON part, its raw part)."""
    declared = call.headers.get(HEADER)
    if declared is None:
        return _validate(call.content), b""
    if not declared.isdecimal() or (length := int(declared)) > len(call.content):
        raise RequestError(400, "malformed_body", f"{HEADER}: must be a number of bytes, no more than the body has")
    if not length:
        # A raw binary request: nothing but one text.
        size = InputParameters(binary_data_size=len(call.content))
        text = InferInput(name=INPUT, shape=[1], datatype="BYTES", parameters=size)
        return InferBody(inputs=[text]), call.content
    return _validate(call.content[:length]), call.content[length:]


def _validate(head: bytes) -> InferBody:
    return validate(InferBody, parse_json(head), list_type="must be a list")


def _texts(inputs: list[InferInput], raw: bytes) -> list[str]:
    if len(inputs) != 1:
        raise RequestError(422, "invalid_field", f"inputs: there are {len(inputs)}; the model has one, {INPUT!r}")
    given = inputs[0]
    if given.datatype != "BYTES":
        raise RequestError(422, "invalid_field", f"inputs[0].datatype: is {given.datatype[:100]!r}; texts are BYTES")
    match given.shape:
        case [count] | [count, 1]:
            pass
        case _:
            raise RequestError(422, "invalid_field", "inputs[0].shape: must be [n] or [n, 1]")
    size = given.parameters.binary_data_size if given.parameters else None
    if (size is None) == (given.data is None):
        raise RequestError(422, "invalid_field", "inputs[0]: must have either data or binary_data_size")
    if size is not None and size != len(raw):
        message = f"inputs[0].binary_data_size: is {size}, but {len(raw)} bytes follow the JSON part"
        raise RequestError(400, "malformed_body", message)
    if size is None and raw:
        raise RequestError(400, "malformed_body", f"{len(raw)} bytes follow the JSON part, and no input says that they are its own")
    texts = _of_json(given.data) if given.data is not None else _of_bytes(raw)
    if len(texts) != count:
        raise RequestError(422, "invalid_field", f"inputs[0].shape: says {count} texts, but there are {len(texts)}")
    return texts


def _of_json(data: list[Any]) -> list[str]:
    texts = [item[0] if isinstance(item, list) and len(item) == 1 else item for item in data]
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise RequestError(422, "invalid_field", f"inputs[0].data[{index}]: must be a string")
    return texts


def _of_bytes(raw: bytes) -> list[str]:
    try:
        return [string.decode() for string in split_strings(raw)]
    except TensorError as error:
        raise RequestError(400, "malformed_body", f"the raw input is not BYTES: {error}") from error
    except UnicodeDecodeError as error:
        raise RequestError(400, "malformed_body", f"a text is not valid UTF-8 (byte {error.start})") from error


def _check_output(output: InferOutput, classifier: TextClassifier) -> None:
    if output.name not in OUTPUTS:
        message = f"outputs: there is no {output.name[:100]!r}; {classifier.identity} has {', '.join(OUTPUTS)}"
        raise RequestError(422, "invalid_field", message)
    if output.parameters and output.parameters.classification and output.name not in _RANKED:
        raise RequestError(422, "invalid_field", f"outputs: classification needs one of {', '.join(_RANKED)}, not {output.name}")


def _said(output: InferOutput, answer: Classification, problem: Problem, parts: list[bytes], *, binary: bool) -> InferredTensor:
    """The output for the JSON part; if it is to be binary, its bytes are appended to `parts`."""
    parameters = output.parameters or OutputParameters()
    tensor = OUTPUTS[output.name](answer, problem)
    if parameters.classification:
        tensor = _classes(tensor, problem.labels, parameters.classification)
    said = InferredTensor(name=output.name, datatype=tensor.datatype, shape=tensor.shape)
    if (parameters.binary_data is None and not binary) or parameters.binary_data is False:
        said["data"] = list(tensor.elements)
        return said
    raw = tensor.raw()
    parts.append(raw)
    said["parameters"] = BinarySize(binary_data_size=len(raw))
    return said


def _classes(tensor: Tensor, labels: Sequence[str], count: int) -> Tensor:
    """The `count` highest of each row, the highest first."""
    count = min(count, len(labels))
    found: list[str] = []
    for start in range(0, len(tensor.elements), len(labels)):
        row = list(enumerate(tensor.elements[start : start + len(labels)]))
        best = sorted(row, key=lambda pair: -pair[1])[:count]
        found += (_CLASS.format(value=value, index=index, label=labels[index]) for index, value in best)
    return Tensor("BYTES", [tensor.shape[0], count], found)


def endpoints(service: Service) -> list[Endpoint]:
    """The routes."""

    async def server(_: Request) -> Response:
        return render_json(ServerMetadata(name="supportbot", version=metadata.version("supportbot"), extensions=list(EXTENSIONS)))

    async def live(_: Request) -> Response:
        return render_json(Live(live=True))

    async def ready(_: Request) -> Response:
        service.check_ready()
        # The specification says `live` here, and KServe `ready`.
        return render_json(ServerReady(ready=True, live=True))

    async def several(_: Request) -> Response:
        return render_json(ModelNames(models=[name_and_version(service.classifier)[0]]))

    def asked(request: Request) -> TextClassifier:
        classifier = service.classifier
        check_model(classifier, request.path_params["model"], request.path_params.get("version"))
        return classifier

    async def model_ready(request: Request) -> Response:
        name, _ = name_and_version(asked(request))
        service.check_ready()
        return render_json(ModelReady(name=name, ready=True))

    async def model(request: Request) -> Response:
        return render_json(_described(asked(request)))

    async def repository(_: Request) -> Response:
        name, version = name_and_version(service.classifier)
        return render_json([RepositoryModel(name=name, version=version, state="READY", reason="")])

    loading, named = frozenset({503}), frozenset({404, 503})
    indexing = Operation("The models", list[RepositoryModel], TextError, errors=loading)
    found: list[Endpoint] = [
        Page(DIALECT, "GET /v2", server, Operation("The server", ServerMetadata, TextError)),
        Page(DIALECT, "GET /v2/health/live", live, Operation("Is it alive?", Live, TextError)),
        Page(DIALECT, "GET /v2/health/ready", ready, Operation("Is it ready?", ServerReady, TextError, errors=loading)),
        Page(DIALECT, "GET /v2/models", several, Operation("The models", ModelNames, TextError, errors=loading)),
        Page(DIALECT, "POST /v2/repository/index", repository, indexing),
    ]
    for path in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
        found += [
            Page(DIALECT, f"GET {path}", model, Operation("The model", ModelMetadata, TextError, errors=named)),
            Page(DIALECT, f"GET {path}/ready", model_ready, Operation("Is the model ready?", ModelReady, TextError, errors=named)),
            Exchange(service, DIALECT, f"{path}/infer", parse, OPERATION),
        ]
    return found


def _described(classifier: TextClassifier) -> ModelMetadata:
    name, version = name_and_version(classifier)
    problem = classifier.problem
    shapes = {output: [-1, len(problem.labels)] for output in ("probabilities", "logits", "predicted")}
    datatypes = {"label": "BYTES", "truncated": "BOOL", "predicted": "BOOL"}
    parameters = ModelParameters(labels=list(problem.labels), max_length=classifier.max_length, problem_type=problem.type)
    if problem.thresholds:
        parameters["thresholds"] = list(problem.thresholds)
    outputs = [
        TensorMetadata(name=output, datatype=datatypes.get(output, "FP32"), shape=shapes.get(output, [-1])) for output in OUTPUTS
    ]
    return {
        "name": name,
        "versions": [version],
        "platform": PLATFORM,
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": outputs,
        "parameters": parameters,
    }
