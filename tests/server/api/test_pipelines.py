"""The dialects with `parameters` beside `inputs` or `instances`: Hugging Face, SageMaker, KServe's first, Vertex AI."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from server.settings import Settings, SettingsError, load_settings
from tests.server.conftest import Application, running

SettingsMaker = Callable[..., Settings]
LOGITS = [math.log(0.8), math.log(0.1), math.log(0.1)]
pipelines = pytest.mark.parametrize("path", ["/", "/invocations"])


@pytest.fixture
async def app(settings: SettingsMaker) -> AsyncIterator[Application]:
    async with running(settings()) as application:
        yield application


@pipelines
async def test_answers_are_nested_whatever_the_request(app: Application, path: str) -> None:
    one = (await app.client.post(path, json={"inputs": "payment", "parameters": {}})).json()
    assert one == [[{"label": "billing", "score": 0.8}, {"label": "general", "score": 0.1}, {"label": "technical", "score": 0.1}]]
    two = (await app.client.post(path, json={"inputs": ["payment", "crash"], "options": {"wait_for_model": True}})).json()
    assert [scores[0]["label"] for scores in two] == ["billing", "technical"]


@pipelines
@pytest.mark.parametrize(
    ("parameters", "scores"),
    [
        ({"top_k": 2}, [0.8, 0.1]),
        ({"top_k": 100}, [0.8, 0.1, 0.1]),
        ({"function_to_apply": "softmax"}, [0.8, 0.1, 0.1]),
        ({"function_to_apply": "none", "top_k": 1}, LOGITS[:1]),
        ({"function_to_apply": "sigmoid"}, [1 / (1 + math.exp(-value)) for value in LOGITS]),
        (None, [0.8, 0.1, 0.1]),
    ],
)
async def test_parameters_say_how_many_scores_and_of_what(
    app: Application, path: str, parameters: dict[str, Any] | None, scores: list[float]
) -> None:
    answer = (await app.client.post(path, json={"inputs": "payment", "parameters": parameters})).json()
    assert [item["score"] for item in answer[0]] == pytest.approx(scores, abs=1e-6)


@pipelines
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inputs": [["a"]]}, "inputs: must be a string or a list of strings"),
        ({"text": "a"}, "inputs: is missing"),
        ({"inputs": "a", "parameters": {"top_k": 0}}, "parameters.top_k: must be at least 1"),
        ({"inputs": "a", "parameters": {"top_k": 1.5}}, "parameters.top_k: must be a whole number"),
        (
            {"inputs": "a", "parameters": {"function_to_apply": "tanh"}},
            "parameters.function_to_apply: must be softmax, sigmoid or none",
        ),
        (
            {"inputs": "a", "parameters": {"candidate_labels": ["b"]}},
            "parameters.candidate_labels: zero-shot classification is not supported; the model has its own labels",
        ),
        ({"inputs": "a", "parameters": 5}, "parameters: must be a JSON object"),
        ({"inputs": "a", "timeout_ms": 0}, "timeout_ms: must be over 0"),
        ({"inputs": "a", "priority": "high"}, "priority: must be interactive or bulk"),
    ],
)
async def test_wrong_fields_are_named(app: Application, path: str, body: dict[str, Any], message: str) -> None:
    response = await app.client.post(path, json=body)
    assert (response.status_code, response.json()["error"]) == (422, message)


async def test_a_timeout_and_a_priority_may_be_in_the_body_where_headers_do_not_arrive(app: Application) -> None:
    assert (await app.client.post("/invocations", json={"inputs": "a", "timeout_ms": 0.001})).status_code == 504
    assert (await app.client.post("/invocations", json={"inputs": "a", "priority": "bulk"})).status_code == 200
    seen = app.service.statistics()
    assert seen is not None
    assert (seen.accepted, seen.accepted_bulk) == (1, 1)


async def test_ping_is_readiness_with_an_empty_body(app: Application) -> None:
    response = await app.client.get("/ping")
    assert (response.status_code, response.content) == (200, b"")
    await app.service.drain()
    assert (await app.client.get("/ping")).status_code == 503


@pytest.mark.parametrize("path", ["/v1/models/fake:predict", "/v1/models/fake@1:predict", "/v1/models/fake/versions/1:predict"])
async def test_instances_are_strings_or_objects_with_one(app: Application, path: str) -> None:
    instances = ["payment", {"inputs": "crash"}, {"text": "hello"}, {"content": "refund"}]
    answer = (await app.client.post(path, json={"instances": instances, "signature_name": "serving_default"})).json()
    assert answer["predictions"][0] == {"label": "billing", "score": 0.8}
    assert [prediction["label"] for prediction in answer["predictions"]] == ["billing", "technical", "general", "billing"]


async def test_instances_may_ask_for_the_highest_scores_and_hear_of_a_cut(app: Application) -> None:
    path = "/v1/models/fake:predict"
    body = {"instances": ["payment"], "parameters": {"top_k": 2, "function_to_apply": "none"}}
    (scores,) = (await app.client.post(path, json=body)).json()["predictions"]
    assert [item["score"] for item in scores] == pytest.approx(LOGITS[:2], abs=1e-6)
    (cut,) = (await app.client.post(path, json={"instances": ["a " * 257]})).json()["predictions"]
    assert cut["truncated"] is True


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/models/other:predict", {"instances": ["a"]}, 404, "there is no model 'other' here, only 'fake@1'"),
        (
            "/v1/models/fake/versions/2:predict",
            {"instances": ["a"]},
            404,
            "there is no model 'fake, version 2' here, only 'fake@1'",
        ),
        ("/v1/models/fake:predict", {"instances": "a"}, 422, "instances: must be a list"),
        (
            "/v1/models/fake:predict",
            {"instances": ["a", 1]},
            422,
            'instances: [1] must be a string, or an object with a string as "inputs" or "text"',
        ),
        (
            "/v1/models/fake:predict",
            {"instances": [{"inputs": "a", "text": "b"}]},
            422,
            'instances: [0] must be a string, or an object with a string as "inputs" or "text"',
        ),
        ("/v1/models/fake:predict", {"instances": [" "]}, 422, "instances[0]: is blank"),
        ("/v1/models/fake:predict", {"inputs": "a"}, 422, "instances: is missing"),
    ],
)
async def test_wrong_instances_are_named(app: Application, path: str, body: dict[str, Any], status: int, message: str) -> None:
    response = await app.client.post(path, json=body)
    assert (response.status_code, response.json()["error"]) == (status, message)


async def test_vertex_ai_names_the_routes_itself_and_may_name_another_dialect_s(settings: SettingsMaker) -> None:
    async with running(settings(aip_predict_route="/predict", aip_health_route="/v1/endpoints/7")) as app:
        answer = await app.client.post("/predict", json={"instances": [{"inputs": "payment"}]})
        assert answer.json() == {"predictions": [{"label": "billing", "score": 0.8}]}
        assert (await app.client.get("/v1/endpoints/7")).status_code == 200
        await app.service.drain()
        assert (await app.client.get("/v1/endpoints/7")).status_code == 503


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("route", ["predict", "/{model}", "/a b", "/a?b"])
def test_a_route_of_vertex_ai_must_be_a_path(route: str) -> None:
    with pytest.raises(SettingsError, match=r"^--aip-predict-route="):
        load_settings({"aip_predict_route": route})


def test_vertex_ai_s_port_is_listened_on_from_outside_unless_the_operator_says_otherwise(
    settings: SettingsMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings().port == 8000
    monkeypatch.setenv("AIP_HTTP_PORT", "8080")
    assert (load_settings().host, load_settings().port) == ("0.0.0.0", 8080)  # noqa: S104
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("HOST", "127.0.0.2")
    assert (load_settings().host, load_settings().port) == ("127.0.0.2", 9000)
