"""A request in each dialect, to test what they all share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx2

Json: TypeAlias = Any  # an answer, whatever its shape


@dataclass(frozen=True)
class Spoken:
    """How a dialect is spoken: `body` makes a request of texts, `labels` reads the winners from an answer, `message` an error."""

    name: str
    path: str
    route: str
    body: Callable[[Sequence[str]], dict[str, Any]]
    labels: Callable[[Json], list[str]]
    message: Callable[[Json], str]
    several: bool = True

    def __str__(self) -> str:
        return f"{self.name}{self.path}"


def _message(body: Json) -> str:
    return str(body["error"])


def _nested_message(body: Json) -> str:
    return str(body["error"]["message"])


def _best(scores: list[dict[str, Any]]) -> str:
    return str(max(scores, key=lambda score: score["score"])["label"])


def _tensor(texts: Sequence[str]) -> dict[str, Any]:
    return {"inputs": [{"name": "text", "shape": [len(texts)], "datatype": "BYTES", "data": list(texts)}]}


def _vllm(texts: Sequence[str]) -> dict[str, Any]:
    return {"input": list(texts)}


def _vllm_labels(body: Json) -> list[str]:
    return [row["label"] for row in body["data"]]


def _nested_labels(body: Json) -> list[str]:
    return [_best(scores) for scores in body]


def _predictions(body: Json) -> list[str]:
    return [row["label"] for row in body["predictions"]]


INFER = "/v2/models/{model}/infer"
SPOKEN = (
    Spoken(
        "native", "/classify", "/classify", lambda texts: {"texts": texts}, lambda body: list(body["predictions"]), _nested_message
    ),
    Spoken(
        "semantic-router",
        "/classify",
        "/classify",
        lambda texts: {"inputs": texts[0]},
        lambda body: [_best(body)],
        _nested_message,
        several=False,
    ),
    Spoken("vllm", "/classify", "/classify", _vllm, _vllm_labels, _nested_message),
    Spoken("vllm", "/v1/classify", "/v1/classify", _vllm, _vllm_labels, _nested_message),
    Spoken("tei", "/predict", "/predict", lambda texts: {"inputs": [[text] for text in texts]}, _nested_labels, _message),
    Spoken("hugging-face", "/", "/", lambda texts: {"inputs": list(texts)}, _nested_labels, _message),
    Spoken("sagemaker", "/invocations", "/invocations", lambda texts: {"inputs": list(texts)}, _nested_labels, _message),
    Spoken(
        "kserve",
        "/v1/models/fake:predict",
        "/v1/models/{model}:predict",
        lambda texts: {"instances": list(texts)},
        _predictions,
        _message,
    ),
    Spoken("open-inference", "/v2/models/fake/infer", INFER, _tensor, lambda body: list(body["outputs"][0]["data"]), _message),
)


async def ask(client: httpx2.AsyncClient, spoken: Spoken, *texts: str, **headers: str) -> httpx2.Response:
    """Post the texts in this dialect; underscores in the headers' names are hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(spoken.path, json=spoken.body(texts), headers=named)
