"""The dialect of text-embeddings-inference: every shape of `inputs`, its options, headers and errors."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from importlib import metadata
from typing import Any

import pytest

from models.fake import FakeClassifier
from server.settings import Settings
from tests.server.conftest import Application, Gate, running

SettingsMaker = Callable[..., Settings]
BILLING = [{"label": "billing", "score": 0.8}, {"label": "general", "score": 0.1}, {"label": "technical", "score": 0.1}]


@pytest.fixture
async def app(settings: SettingsMaker) -> AsyncIterator[Application]:
    async with running(settings(max_body_bytes=100_000)) as application:
        yield application


@pytest.mark.parametrize(
    ("inputs", "answer"),
    [("payment", BILLING), (["payment"], BILLING), ([["payment"]], [BILLING]), ([["payment"], ["refund"]], [BILLING, BILLING])],
)
async def test_one_text_is_answered_flat_and_a_batch_nested(app: Application, inputs: object, answer: object) -> None:
    assert (await app.client.post("/predict", json={"inputs": inputs})).json() == answer


async def test_labels_are_sorted_by_score(app: Application) -> None:
    answer = (await app.client.post("/predict", json={"inputs": "crash", "raw_scores": False, "parameters": {"top_k": 1}})).json()
    assert [item["label"] for item in answer] == ["technical", "billing", "general"]


async def test_raw_scores_are_logits(app: Application) -> None:
    answer = (await app.client.post("/predict", json={"inputs": "crash", "raw_scores": True})).json()
    assert [item["score"] for item in answer] == pytest.approx([math.log(0.8), math.log(0.1), math.log(0.1)], abs=1e-6)


async def test_a_text_that_must_not_be_cut_is_refused(app: Application) -> None:
    long = "a " * 257
    for truncate in (True, None):
        assert (await app.client.post("/predict", json={"inputs": long, "truncate": truncate})).status_code == 200
    response = await app.client.post("/predict", json={"inputs": [["a"], [long]], "truncate": False})
    assert (response.status_code, response.json()["error_type"], response.json()["code"]) == (422, "Validation", "text_too_long")
    assert response.json()["error"] == "inputs[1]: has more than 256 tokens, and the request says not to cut it"
    assert (await app.client.post("/predict", json={"inputs": "a", "truncate": False})).status_code == 200


async def test_a_text_is_cut_on_the_side_that_the_request_names_and_the_cache_keeps_the_two_apart(settings: SettingsMaker) -> None:
    long = "payment " + "a " * 255 + "crash"
    async with running(settings(answer_cache_texts=10)) as app:
        for direction, label in [
            ("Right", "billing"),
            ("Left", "technical"),
            ("right", "billing"),
            ("left", "technical"),
            (None, "billing"),
        ] * 2:
            answer = await app.client.post("/predict", json={"inputs": long, "truncation_direction": direction})
            assert answer.json()[0]["label"] == label
        assert (await app.client.post("/predict", json={"inputs": long, "truncate": False})).status_code == 422


async def test_headers_tell_times_in_whole_milliseconds_and_sizes(app: Application) -> None:
    headers = (await app.client.post("/predict", json={"inputs": [["pay me"], ["now"]]})).headers
    assert (headers["x-compute-characters"], headers["x-compute-tokens"]) == ("9", "3")
    for name in ("x-compute-time", "x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time"):
        assert headers[name].isdecimal()


@pytest.mark.parametrize(
    ("body", "status", "kind", "message"),
    [
        (
            {"inputs": ["a", "b"]},
            422,
            "Validation",
            'inputs: two strings are a pair, and this model reads single texts; for two texts send [["a"],["b"]]',
        ),
        ({"inputs": ["a", "b", "c"]}, 422, "Validation", 'inputs: for several texts send a list of lists, [["a"],["b"],["c"]]'),
        ({"inputs": [["a"], ["b", "c"]]}, 422, "Validation", "inputs: [1] is a pair, and this model reads single texts"),
        ({"inputs": [["a"], []]}, 422, "Validation", "inputs: [1] must be a list of one string"),
        ({"inputs": [["a"], "b"]}, 422, "Validation", "inputs: [1] must be a list of one string"),
        ({"inputs": 1}, 422, "Validation", "inputs: must be a string or a list of lists of one string"),
        ({"inputs": []}, 400, "Empty", "inputs is empty; send at least one text"),
        ({"inputs": ""}, 422, "Tokenizer", "inputs: is blank"),
        ({"inputs": [["a"], [" "]]}, 422, "Tokenizer", "inputs[1]: is blank"),
        ({}, 422, "Validation", "inputs: is missing"),
        ({"inputs": "a", "raw_scores": 1}, 422, "Validation", "raw_scores: must be true or false"),
        (
            {"inputs": "a", "truncation_direction": "up"},
            422,
            "Validation",
            "truncation_direction: must be Left, left, Right or right",
        ),
    ],
)
async def test_errors_have_its_shape(app: Application, body: dict[str, Any], status: int, kind: str, message: str) -> None:
    response = await app.client.post("/predict", json=body)
    assert response.status_code == status
    error = response.json()
    assert (error["error_type"], error["error"], error["request_id"]) == (kind, message, response.headers["x-request-id"])


async def test_overload_is_called_overload_and_a_failure_the_backend_s(settings: SettingsMaker) -> None:
    gate = Gate(failure=RuntimeError("broken"))
    gate.opened.set()
    async with running(settings(), lambda: FakeClassifier(gate)) as app:
        failed = await app.client.post("/predict", json={"inputs": "a"})
        assert (failed.status_code, failed.json()["error_type"]) == (500, "Backend")
        await app.service.drain()
        refused = await app.client.post("/predict", json={"inputs": "a"})
        assert (refused.status_code, refused.json()["error_type"]) == (503, "Unhealthy")


async def test_info_describes_the_model_and_the_limits(app: Application) -> None:
    info = (await app.client.get("/info")).json()
    assert info["model_type"]["classifier"] == {
        "id2label": {"0": "billing", "1": "general", "2": "technical"},
        "label2id": {"billing": 0, "general": 1, "technical": 2},
    }
    assert (info["model_id"], info["model_version"], info["version"]) == ("fake", "1", metadata.version("supportbot"))
    assert (info["max_input_length"], info["max_client_batch_size"], info["auto_truncate"]) == (256, 32, True)
