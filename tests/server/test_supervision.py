"""Bad texts, hanging passes and dying threads, as clients and operators see them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

import httpx2
import structlog

from models.fake import FakeClassifier
from models.types import Encoding
from server.settings import Settings
from tests.server.conftest import Gate, running, until

SettingsMaker = Callable[..., Settings]


def error_of(response: httpx2.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    return response.status_code, error["code"], error["message"]


def fails_on_three_words(encodings: Sequence[Encoding]) -> None:
    if any(len(encoding) == 3 for encoding in encodings):
        raise ValueError("three words")


async def test_one_bad_text_in_a_batch_fails_alone_and_a_request_is_told_which_of_its_texts_it_is(settings: SettingsMaker) -> None:
    gate = Gate()

    def on_pass(encodings: Sequence[Encoding]) -> None:
        gate(encodings)
        fails_on_three_words(encodings)

    async with running(settings(), lambda: FakeClassifier(on_pass)) as app:
        first = asyncio.create_task(app.client.post("/classify", json={"text": "hello"}))
        await asyncio.to_thread(gate.entered.wait, 10)
        good = [asyncio.create_task(app.client.post("/classify", json={"text": "payment " * (4 + n)})) for n in range(20)]
        single = asyncio.create_task(app.client.post("/classify", json={"text": "a bad text"}))
        several = asyncio.create_task(app.client.post("/classify", json={"texts": ["crash", "payment due", "a bad crash"]}))
        await until(lambda: (seen := app.service.statistics()) is not None and seen.queued == 24)
        gate.opened.set()
        assert [(await task).json()["prediction"] for task in good] == ["billing"] * 20
        assert (await first).status_code == 200
        assert error_of(await single) == (500, "model_failure", "the model failed on this text")
        assert error_of(await several) == (500, "model_failure", "texts[2]: the model failed on this text")
        seen = app.service.statistics()
        assert seen is not None
        assert (seen.bisected, seen.failed) == (1, 2)


async def test_a_model_that_fails_on_everything_costs_a_bounded_number_of_passes(settings: SettingsMaker) -> None:
    def broken(_: Sequence[Encoding]) -> None:
        raise ValueError

    async with running(settings(bisect_max_passes=4), lambda: FakeClassifier(broken)) as app:
        response = await app.client.post("/classify", json={"texts": ["a " * (1 + n) for n in range(31)]})
        assert error_of(response) == (500, "model_failure", "the model failed on a batch with this request")
        seen = app.service.statistics()
        assert seen is not None
        assert (seen.passes, seen.extra_passes) == (5, 4)


async def test_a_pass_that_hangs_is_answered_and_shown_and_work_goes_on_until_it_ends(settings: SettingsMaker) -> None:
    hanging = threading.Event()

    def on_pass(encodings: Sequence[Encoding]) -> None:
        if any(len(encoding) == 3 for encoding in encodings):
            assert hanging.wait(20)

    async with running(settings(pass_timeout_ms=50), lambda: FakeClassifier(on_pass)) as app:
        with structlog.testing.capture_logs() as logs:
            stuck = await app.client.post("/classify", json={"text": "a bad text"})
            assert error_of(stuck) == (504, "pass_timeout", "the model did not answer within its bound")
            ready = await app.client.get("/ready")
            assert error_of(ready)[:2] == (503, "stalled")
            assert "a pass has not ended after 0.05 s" in error_of(ready)[2]
            assert (await app.client.get("/health")).status_code == 200
            assert (await app.client.post("/classify", json={"text": "payment"})).json()["prediction"] == "billing"
            hanging.set()
            await until(lambda: (seen := app.service.statistics()) is not None and not seen.hung_passes)
            assert (await app.client.get("/ready")).status_code == 200
        assert [line["log_level"] for line in logs if "hang" in line["event"] or "hung" in line["event"]] == ["critical", "warning"]
        assert "bad text" not in str(logs)


async def test_when_all_workers_and_their_replacements_hang_requests_are_refused_at_once(settings: SettingsMaker) -> None:
    gate = Gate()
    async with running(settings(pass_timeout_ms=30), lambda: FakeClassifier(gate)) as app:
        for text in ("one", "one two"):
            assert error_of(await app.client.post("/classify", json={"text": text}))[:2] == (504, "pass_timeout")
        refused = await app.client.post("/classify", json={"text": "one two three"})
        assert error_of(refused)[:2] == (503, "stalled")
        assert int(refused.headers["retry-after"]) >= 1
        gate.opened.set()
        await until(lambda: (seen := app.service.statistics()) is not None and not seen.hung_passes)
        assert (await app.client.post("/classify", json={"text": "payment"})).json()["prediction"] == "billing"


async def test_a_thread_that_dies_in_a_pass_is_logged_and_replaced(settings: SettingsMaker) -> None:
    def on_pass(encodings: Sequence[Encoding]) -> None:
        if any(len(encoding) == 3 for encoding in encodings):
            raise SystemExit

    async with running(settings(), lambda: FakeClassifier(on_pass)) as app:
        with structlog.testing.capture_logs() as logs:
            response = await app.client.post("/classify", json={"texts": ["a bad text", "payment"]})
            assert error_of(response) == (500, "model_failure", "texts[0]: the model failed on this text")
            assert (await app.client.post("/classify", json={"text": "payment"})).json()["prediction"] == "billing"
            assert (await app.client.get("/ready")).status_code == 200
        assert sum(line["event"] == "thread died" for line in logs) == app.service.counters()["threads_died"] == 2
