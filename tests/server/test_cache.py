"""The answer cache, alone and behind `POST /classify`; and equal texts at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from models.fake import FakeClassifier
from models.types import Encoding, Prediction
from server.cache import AnswerCache, CachedAnswer
from server.settings import Settings
from tests.server.conftest import Application, Gate, running, until

SettingsMaker = Callable[..., Settings]


def answer(label: str) -> CachedAnswer:
    return CachedAnswer(Prediction(label, 1.0, (1.0,), (0.0,)), tokens=3, truncated=False)


def test_the_least_recently_used_answer_goes_first() -> None:
    cache = AnswerCache(2, "model")
    cache.put("a", answer("A"))
    cache.put("b", answer("B"))
    assert cache.get("a") == answer("A")
    cache.put("c", answer("C"))
    assert cache.get("b") is None
    assert (cache.get("a"), cache.get("c")) == (answer("A"), answer("C"))
    assert (len(cache), cache.hits, cache.misses) == (2, 3, 1)


def test_a_cache_of_no_size_keeps_and_counts_nothing() -> None:
    cache = AnswerCache(0, "model")
    cache.put("a", answer("A"))
    assert cache.get("a") is None
    assert (len(cache), cache.hits, cache.misses) == (0, 0, 0)


def test_neither_texts_nor_answers_are_shared_between_models() -> None:
    caches = [AnswerCache(5, model) for model in ("one", "two")]
    for cache in caches:
        cache.put("the customer's words", answer("A"))
    keys = [key for cache in caches for key in cache._answers]
    assert len(set(keys)) == 2
    assert all(len(key) == 16 and b"customer" not in key for key in keys)


async def passed(app: Application) -> int:
    seen = app.service.statistics()
    assert seen is not None
    return seen.items_passed


async def test_a_text_that_comes_again_is_answered_without_a_pass(settings: SettingsMaker) -> None:
    async with running(settings(answer_cache_texts=10)) as app:
        first = (await app.client.post("/classify", json={"text": "payment " * 300, "scores": True})).json()
        again = await app.client.post("/classify", json={"text": "payment " * 300, "scores": True})
        assert first["truncated"] is True
        assert {**again.json(), "latency_ms": 0} == {**first, "latency_ms": 0}
        assert "inference;dur=0.000" in again.headers["server-timing"]
        assert await passed(app) == 1
        assert (app.service.counters()["cache_hits"], app.service.counters()["cache_misses"]) == (1, 1)
        mixed = await app.client.post("/classify", json={"texts": ["crash", "payment " * 300, "hello"]})
        assert mixed.json()["predictions"] == ["technical", "billing", "general"]
        assert mixed.json()["truncated"] == [False, True, False]
        assert await passed(app) == 3


async def test_the_place_of_a_bad_text_is_right_beside_cached_ones(settings: SettingsMaker) -> None:
    def on_pass(encodings: Sequence[Encoding]) -> None:
        if any(len(encoding) == 2 for encoding in encodings):
            raise ValueError("two words")

    async with running(settings(answer_cache_texts=10), lambda: FakeClassifier(on_pass)) as app:
        assert (await app.client.post("/classify", json={"texts": ["payment", "crash"]})).status_code == 200
        response = await app.client.post("/classify", json={"texts": ["payment", "one", "crash", "two words", "crash"]})
        assert response.status_code == 500
        assert response.json()["error"]["message"] == "texts[3]: the model failed on this text"


async def test_without_a_cache_every_text_is_passed_again(settings: SettingsMaker) -> None:
    async with running(settings()) as app:
        for _ in range(3):
            assert (await app.client.post("/classify", json={"text": "payment"})).status_code == 200
        assert await passed(app) == 3


async def test_a_draining_server_answers_nothing_from_its_cache(settings: SettingsMaker) -> None:
    async with running(settings(answer_cache_texts=10)) as app:
        await app.client.post("/classify", json={"text": "payment"})
        await app.service.drain()
        assert (await app.client.post("/classify", json={"text": "payment"})).status_code == 503


async def test_equal_texts_at_the_same_time_are_computed_once_and_a_leader_that_leaves_harms_nobody(
    settings: SettingsMaker,
) -> None:
    gate = Gate()
    async with running(settings(batch_max_texts=1), lambda: FakeClassifier(gate)) as app:
        running_pass = asyncio.create_task(app.client.post("/classify", json={"text": "hello"}))
        await asyncio.to_thread(gate.entered.wait, 10)
        leader = asyncio.create_task(app.client.post("/classify", json={"text": "payment failed", "timeout_ms": 30}))
        await until(lambda: (seen := app.service.statistics()) is not None and seen.queued == 1)
        followers = [asyncio.create_task(app.client.post("/classify", json={"text": "payment  failed"})) for _ in range(9)]
        assert (await leader).status_code == 504
        await until(lambda: (seen := app.service.statistics()) is not None and seen.coalesced == 9)
        gate.opened.set()
        assert [(await follower).json()["prediction"] for follower in followers] == ["billing"] * 9
        assert (await running_pass).status_code == 200
        assert await passed(app) == 2
