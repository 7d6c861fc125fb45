"""`POST /classify` with `inputs`: what vLLM Semantic Router accepts as an answer, stated again."""

from __future__ import annotations

import math
from collections.abc import Callable

import httpx2
import pytest

from models.classifier import Classifier
from server.app import create_app
from server.settings import Settings
from tests.server.api.dialects import Json
from tests.server.conftest import running, until

SettingsMaker = Callable[..., Settings]


def accept(answer: Json, configured: set[str]) -> None:
    """The router's own rules: every configured label exactly once, each score a probability, their sum 1 within 0.02."""
    assert isinstance(answer, list)
    assert all(isinstance(item["label"], str) and isinstance(item["score"], float) for item in answer)
    labels = [item["label"] for item in answer]
    assert len(labels) == len(set(labels))
    assert set(labels) == configured
    assert all(math.isfinite(item["score"]) and 0 <= item["score"] <= 1 for item in answer)
    assert abs(sum(item["score"] for item in answer) - 1) <= 0.02


@pytest.mark.parametrize("text", ["payment failed", "crash", "why " * 300, "\u00fc", "{}"])
async def test_the_router_accepts_the_answer(settings: SettingsMaker, classifier: Classifier, text: str) -> None:
    app, service = create_app(settings(), lambda: classifier)
    async with service.running(), httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        await until(service.is_ready)
        response = await client.post("/classify", json={"inputs": text}, headers={"Authorization": "Bearer key"})
        assert response.status_code == 200
        accept(response.json(), set(classifier.labels))


async def test_it_takes_one_text_only(settings: SettingsMaker) -> None:
    async with running(settings()) as app:
        for body in ({"inputs": ["a"]}, {"inputs": 1}, {"inputs": None}):
            response = await app.client.post("/classify", json=body)
            assert response.status_code == 422
            assert response.json()["error"]["message"] == "inputs: must be a string"
