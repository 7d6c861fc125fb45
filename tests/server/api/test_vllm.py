"""vLLM's and SGLang's dialect: every field of a request and of an answer."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from models.fake import FakeClassifier
from models.types import Encoding
from server.settings import Settings
from tests.server.conftest import Application, running

SettingsMaker = Callable[..., Settings]


@pytest.fixture
async def app(settings: SettingsMaker) -> AsyncIterator[Application]:
    async with running(settings()) as application:
        yield application


async def test_an_answer_has_a_row_for_each_text(app: Application) -> None:
    response = await app.client.post("/classify", json={"input": ["payment failed", "hello"]}, headers={"X-Request-Id": "t-1"})
    body = response.json()
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "id": "classify-t-1",
        "object": "list",
        "model": "fake",
        "data": [
            {"index": 0, "label": "billing", "probs": [0.8, 0.1, 0.1], "num_classes": 3},
            {"index": 1, "label": "general", "probs": [0.1, 0.8, 0.1], "num_classes": 3},
        ],
        "usage": {"prompt_tokens": 3, "total_tokens": 3, "completion_tokens": 0, "prompt_tokens_details": None},
    }


async def test_usage_counts_texts_from_the_cache_too(settings: SettingsMaker) -> None:
    async with running(settings(answer_cache_texts=10)) as app:
        for texts, tokens in ((["payment failed"], 2), (["payment failed"], 2), (["payment failed", "a b c"], 5)):
            body = (await app.client.post("/v1/classify", json={"input": texts})).json()
            assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] == tokens
        assert app.service.counters()["cache_hits"] == 2
        tei = await app.client.post("/predict", json={"inputs": "payment failed"})
        assert tei.headers["x-compute-tokens"] == "2"


async def test_a_single_text_has_a_row_too(app: Application) -> None:
    body = (
        await app.client.post("/v1/classify", json={"input": "crash", "model": "fake@1", "user": "u", "cache_salt": "s"})
    ).json()
    assert [row["label"] for row in body["data"]] == ["technical"]
    assert body["model"] == "fake@1"


async def test_without_activation_probs_are_logits(app: Application) -> None:
    body = (await app.client.post("/v1/classify", json={"input": "crash", "use_activation": False})).json()
    assert body["data"][0]["probs"] == pytest.approx([math.log(0.1), math.log(0.1), math.log(0.8)], abs=1e-6)
    assert (await app.client.post("/v1/classify", json={"input": "crash", "use_activation": True})).json()["data"][0]["probs"] == [
        0.1,
        0.1,
        0.8,
    ]


async def test_a_text_that_was_cut_says_so_in_its_row_and_may_lose_its_beginning(app: Application) -> None:
    long = "payment " + "a " * 255 + "crash"
    rows = (await app.client.post("/v1/classify", json={"input": ["a", long]})).json()["data"]
    assert [row.get("truncated") for row in rows] == [None, True]
    for side, label in (("right", "billing"), ("left", "technical")):
        body = {"input": long, "truncation_side": side, "truncate_prompt_tokens": -1}
        assert (await app.client.post("/v1/classify", json=body)).json()["data"][0]["label"] == label


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"input": [1, 2]}, 422, "input: token ids are not supported; send the text itself"),
        ({"input": [[1, 2]]}, 422, "input: token ids are not supported; send the text itself"),
        ({"input": 5}, 422, "input: must be a string or a list of strings"),
        ({"input": ["a", None]}, 422, "input: must be a string or a list of strings"),
        ({"messages": []}, 422, "messages: chats are not supported; send the text as `input`"),
        ({"input": "a", "normalize": True}, 422, "normalize: was removed from this dialect"),
        ({"input": "a", "softmax": True}, 422, "softmax: was removed from this dialect; use `use_activation`"),
        ({"input": "a", "model": "gpt"}, 404, "there is no model 'gpt' here, only 'fake@1'"),
        ({"input": "a", "truncate_prompt_tokens": 8}, 422, "truncate_prompt_tokens: must be -1 or at least 256, the model's limit"),
        ({"input": "a", "truncate_prompt_tokens": -2}, 422, "truncate_prompt_tokens: must be at least -1"),
        ({"input": "a", "truncation_side": "up"}, 422, "truncation_side: must be left or right"),
        (
            {"input": "a", "add_special_tokens": False},
            422,
            "add_special_tokens: the model was trained with special tokens; leave them in",
        ),
        ({"input": "a", "priority": {}}, 422, "priority: must be a whole number, interactive or bulk"),
        ({"input": "a", "priority": "urgent"}, 422, "priority: must be a whole number, interactive or bulk"),
        ({"input": "a", "use_activation": "no"}, 422, "use_activation: must be true or false"),
        ({}, 422, "input: is missing"),
    ],
)
async def test_what_would_change_the_answer_is_refused_not_ignored(
    app: Application, fields: dict[str, Any], status: int, message: str
) -> None:
    response = await app.client.post("/v1/classify", json=fields)
    assert response.status_code == status
    assert response.json() == {
        "error": {
            "message": message,
            "type": "not_found_error" if status == 404 else "invalid_request_error",
            "param": None,
            "code": "model_not_found" if status == 404 else "invalid_field",
            "request_id": response.headers["x-request-id"],
        }
    }


@pytest.mark.parametrize(
    ("priority", "header", "bulk"),
    [
        (0, "bulk", 0),
        (-1, "bulk", 0),
        (1, "interactive", 1),
        ("bulk", "interactive", 1),
        (None, "bulk", 1),
        (None, "interactive", 0),
    ],
)
async def test_higher_numbers_are_less_urgent(app: Application, priority: int | str | None, header: str, bulk: int) -> None:
    body: dict[str, Any] = {"input": "a"} | ({} if priority is None else {"priority": priority})
    assert (await app.client.post("/v1/classify", json=body, headers={"X-Priority": header})).status_code == 200
    seen = app.service.statistics()
    assert seen is not None
    assert (seen.accepted, seen.accepted_bulk) == (1, bulk)


async def test_errors_have_the_kinds_of_openai(settings: SettingsMaker) -> None:
    def fail(_: object) -> None:
        raise RuntimeError

    async with running(settings(), lambda: FakeClassifier(fail)) as app:
        response = await app.client.post("/v1/classify", json={"input": "a"})
        assert (response.status_code, response.json()["error"]["type"]) == (500, "server_error")


async def test_the_models_are_listed_for_several_kinds_of_clients(app: Application) -> None:
    listed = (await app.client.get("/v1/models")).json()
    assert (listed["object"], listed["data"][0]["id"], listed["data"][0]["object"], listed["models"]) == (
        "list",
        "fake",
        "model",
        ["fake"],
    )
    for name in ("fake", "fake@1"):
        one = (await app.client.get(f"/v1/models/{name}")).json()
        assert (one["name"], one["ready"], one["id"]) == ("fake", True, "fake")
        assert one["model_version_status"][0]["state"] == "AVAILABLE"
    unknown = await app.client.get("/v1/models/other")
    assert (unknown.status_code, unknown.json()["error"]) == (404, "there is no model 'other' here, only 'fake@1'")


async def test_a_timeout_in_the_body_holds(settings: SettingsMaker) -> None:
    entered: list[Encoding] = []
    async with running(settings(), lambda: FakeClassifier(entered.extend)) as app:
        response = await app.client.post("/v1/classify", json={"input": "a", "timeout_ms": 0.001})
        assert response.status_code == 504
        assert entered == []
