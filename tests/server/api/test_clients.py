"""The real clients of other servers, unchanged but for a URL, against the real server with the real model."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from tei_client import HttpClient
from tei_client.models import ModelType

from tests.server.conftest import real_server, wait_until_ready


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with real_server(tmp_path_factory.mktemp("clients")) as process:
        wait_until_ready(process.url)
        yield process.url


@pytest.fixture
def tei(url: str) -> Iterator[HttpClient]:
    client = HttpClient(url)
    yield client
    client.client.close()


@pytest.fixture
def hugging_face(url: str, monkeypatch: pytest.MonkeyPatch) -> InferenceClient:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    return InferenceClient(model=url, token="a-token")  # noqa: S106 - sent to ourselves


@pytest.fixture
def openai_client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="a-key", max_retries=0) as client:
        yield client


def test_tei_client_learns_what_the_model_is(tei: HttpClient) -> None:
    info = tei.info()
    assert tei.health()
    assert info.server_model_type is ModelType.Classifier
    assert (info.server_model_id, info.max_input_length, info.max_client_batch_size) == ("supportbot", 512, 32)


def test_tei_client_classifies(tei: HttpClient) -> None:
    for texts in ("payment failed", ["payment failed"], ["payment failed", "app crashed", "hello"]):
        results = tei.classify(texts)
        winners = [max(result.scores, key=lambda score: score.score).label for result in results]
        assert winners == ["billing", "technical", "general"][: len(results)]
        assert [round(sum(score.score for score in result.scores), 4) for result in results] == [1.0] * len(results)
    assert len(tei.classify(["a"] * 32)) == 32
    (raw,) = tei.classify("payment failed", raw_scores=True)
    assert max(score.score for score in raw.scores) > 1


def test_tei_client_classifies_asynchronously_and_tokenizes(tei: HttpClient) -> None:
    async def both() -> tuple[str, list[int]]:
        (result,) = await tei.async_classify("payment failed", truncate=True)
        (tokens,) = await tei.async_tokenize("payment failed")
        await tei.async_client.aclose()
        return result.scores[0].label, tokens.get_ids()

    assert asyncio.run(both()) == ("billing", tei.tokenize(["payment failed"])[0].get_ids())


def test_huggingface_hub_classifies(hugging_face: InferenceClient) -> None:
    scores = hugging_face.text_classification("payment failed")
    assert [score.label for score in scores] == ["billing", "technical", "general"]
    assert sum(score.score for score in scores) == pytest.approx(1, abs=1e-4)
    assert len(hugging_face.text_classification("payment failed", top_k=2)) == 2
    logits = hugging_face.text_classification("payment failed", function_to_apply="none")
    sigmoid = hugging_face.text_classification("payment failed", function_to_apply="sigmoid")
    for logit, share in zip(logits, sigmoid, strict=True):
        assert share.score == pytest.approx(1 / (1 + math.exp(-logit.score)), abs=1e-5)


def test_huggingface_hub_shows_why_a_text_was_refused(hugging_face: InferenceClient) -> None:
    with pytest.raises(HfHubHTTPError, match="inputs: is blank") as caught:
        hugging_face.text_classification(" ")
    assert caught.value.response.status_code == 422


def test_openai_lists_the_models_and_posts_to_classify(openai_client: openai.OpenAI) -> None:
    (model,) = openai_client.models.list().data
    assert (model.id, model.object) == ("supportbot", "model")
    assert openai_client.models.retrieve("supportbot").id == "supportbot"
    body = {"model": model.id, "input": ["payment failed", "app crashed"]}
    response = openai_client.post("/classify", body=body, cast_to=httpx2.Response)
    assert [row["label"] for row in response.json()["data"]] == ["billing", "technical"]


def test_openai_raises_its_own_errors(openai_client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt' here") as missing:
        openai_client.post("/classify", body={"model": "gpt", "input": "a"}, cast_to=httpx2.Response)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.UnprocessableEntityError, match="input: is missing"):
        openai_client.post("/classify", body={}, cast_to=httpx2.Response)


def test_sagemaker_and_vertex_ai_start_the_server_as_a_container(tmp_path: Path) -> None:
    with real_server(tmp_path, AIP_HTTP_PORT="0", PORT="", AIP_PREDICT_ROUTE="/vertex", AIP_HEALTH_ROUTE="/well") as process:
        url = process.url.replace("0.0.0.0", "127.0.0.1")  # noqa: S104
        wait_until_ready(url)
        assert httpx2.get(f"{url}/well").status_code == 200
        assert httpx2.get(f"{url}/ping").content == b""
        answer = httpx2.post(f"{url}/vertex", json={"instances": ["payment failed", {"inputs": "app crashed"}]})
        assert [prediction["label"] for prediction in answer.json()["predictions"]] == ["billing", "technical"]
        answer = httpx2.post(f"{url}/invocations", json={"inputs": ["payment failed"], "parameters": {"top_k": 1}})
        assert [[score["label"] for score in scores] for scores in answer.json()] == [["billing"]]
        assert process.stop() == 0
