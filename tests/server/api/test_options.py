"""Timeouts and priorities, by header or in the body: what they do, and how a wrong one is refused."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence

import httpx2
import pytest

from batching import BatcherStatistics, DeadlineUnmeetable, Priority, QueueFull
from models.fake import FakeClassifier
from models.types import Encoding, End
from server.errors import error_response
from server.settings import Settings, SettingsError
from tests.server.conftest import Application, Gate, running, until

SettingsMaker = Callable[..., Settings]


def seen(app: Application) -> BatcherStatistics:
    statistics = app.service.statistics()
    assert statistics is not None
    return statistics


def error_of(response: httpx2.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


@pytest.mark.parametrize(
    ("headers", "fields", "message"),
    [
        ({"X-Timeout-Ms": "soon"}, {}, "X-Timeout-Ms: must be a number of milliseconds over 0"),
        ({"X-Timeout-Ms": "0"}, {}, "X-Timeout-Ms: must be a number of milliseconds over 0"),
        ({"X-Timeout-Ms": "-5"}, {}, "X-Timeout-Ms: must be a number of milliseconds over 0"),
        ({"X-Timeout-Ms": "1e3"}, {}, "X-Timeout-Ms: must be a number of milliseconds over 0"),
        ({"X-Timeout-Ms": "nan"}, {}, "X-Timeout-Ms: must be a number of milliseconds over 0"),
        ({"X-Priority": "urgent"}, {}, "X-Priority: must be interactive or bulk"),
        ({"X-Priority": "Bulk"}, {}, "X-Priority: must be interactive or bulk"),
        ([("X-Timeout-Ms", "100"), ("X-Timeout-Ms", "200")], {}, "X-Timeout-Ms: is there 2 times"),
        ({}, {"timeout_ms": "100"}, "timeout_ms: must be a number"),
        ({}, {"timeout_ms": True}, "timeout_ms: must be a number"),
        ({}, {"timeout_ms": 0}, "timeout_ms: must be over 0"),
        ({}, {"priority": "urgent"}, "priority: must be interactive or bulk"),
        ({}, {"priority": 1}, "priority: must be interactive or bulk"),
    ],
)
async def test_a_wrong_option_is_a_clear_error(
    settings: SettingsMaker, headers: dict[str, str] | list[tuple[str, str]], fields: dict[str, object], message: str
) -> None:
    async with running(settings()) as app:
        response = await app.client.post("/classify", json={"text": "hello", **fields}, headers=headers)
        assert error_of(response) == (422, "invalid_field")
        assert response.json()["error"]["message"] == message
        assert seen(app).accepted == 0


@pytest.mark.parametrize(
    ("headers", "fields"),
    [({"X-Timeout-Ms": "60"}, {}), ({}, {"timeout_ms": 60}), ({"X-Timeout-Ms": "9999"}, {"timeout_ms": 60.5})],
)
async def test_a_timeout_is_answered_504_while_the_pass_runs(
    settings: SettingsMaker, headers: dict[str, str], fields: dict[str, object]
) -> None:
    gate = Gate()
    async with running(settings(), lambda: FakeClassifier(gate)) as app:
        response = await app.client.post("/classify", json={"text": "hello", **fields}, headers=headers)
        assert error_of(response) == (504, "deadline_exceeded")
        assert (seen(app).expired, seen(app).running_passes) == (1, 1)
        gate.opened.set()
        assert (await app.client.post("/classify", json={"text": "payment"})).json()["prediction"] == "billing"


async def test_a_text_whose_timeout_comes_in_the_queue_costs_no_pass(settings: SettingsMaker) -> None:
    gate = Gate()
    async with running(settings(batch_max_texts=1), lambda: FakeClassifier(gate)) as app:
        staying = asyncio.create_task(app.client.post("/classify", json={"text": "payment"}))
        await asyncio.to_thread(gate.entered.wait, 10)
        response = await app.client.post("/classify", json={"texts": ["crash", "hello you"], "timeout_ms": 30})
        assert error_of(response) == (504, "deadline_exceeded")
        assert (seen(app).expired, seen(app).dropped, seen(app).queued) == (2, 2, 0)
        gate.opened.set()
        assert (await staying).status_code == 200
        assert seen(app).items_passed == 1


async def test_the_default_and_the_longest_timeout_are_the_server_s(settings: SettingsMaker) -> None:
    gate = Gate()
    async with running(settings(default_timeout_ms=40, max_timeout_ms=80), lambda: FakeClassifier(gate)) as app:
        for fields in ({}, {"timeout_ms": 600_000}):
            response = await app.client.post("/classify", json={"text": "hello", **fields})
            assert error_of(response) == (504, "deadline_exceeded")
        gate.opened.set()


def test_a_default_timeout_over_the_longest_stops_the_start(settings: SettingsMaker) -> None:
    with pytest.raises(SettingsError, match=r"DEFAULT_TIMEOUT_MS \(200\) is over MAX_TIMEOUT_MS \(100\)"):
        settings(default_timeout_ms=200, max_timeout_ms=100).batch_policy(1)


async def test_the_time_that_a_body_took_to_arrive_counts(settings: SettingsMaker) -> None:
    async with running(settings()) as app:

        async def slow() -> AsyncIterator[bytes]:
            yield b'{"text": "hello", '
            await asyncio.sleep(0.03)
            yield b'"timeout_ms": 20}'

        response = await app.client.post("/classify", content=slow())
        assert error_of(response) == (504, "deadline_exceeded")
        assert (seen(app).late, seen(app).accepted) == (1, 0)


@pytest.mark.parametrize(("headers", "fields"), [({"X-Priority": "bulk"}, {}), ({}, {"priority": "bulk"})])
async def test_bulk_texts_have_places_of_their_own_and_wait_behind_interactive_ones(
    settings: SettingsMaker, headers: dict[str, str], fields: dict[str, object]
) -> None:
    gate = Gate()
    order: list[int] = []

    def on_pass(encodings: Sequence[Encoding]) -> None:
        gate(encodings)
        order.extend(len(encoding) for encoding in encodings)

    limits = settings(batch_max_texts=1, queue_max_texts=2, max_texts_per_request=2)
    async with running(limits, lambda: FakeClassifier(on_pass)) as app:

        def post(*texts: str, bulk: bool) -> asyncio.Task[httpx2.Response]:
            body = {"texts": texts, **(fields if bulk else {"priority": "interactive"})}
            return asyncio.create_task(app.client.post("/classify", json=body, headers=headers if bulk else {}))

        first = post("a", bulk=True)
        await asyncio.to_thread(gate.entered.wait, 10)
        bulk = post("a b", "a b c", bulk=True)
        await until(lambda: seen(app).queued_bulk == 2)
        assert error_of(await post("x", bulk=True)) == (429, "queue_full")
        interactive = post("a b c d", "a b c d e", bulk=False)
        await until(lambda: seen(app).queued == 4)
        gate.opened.set()
        assert {(await task).status_code for task in (first, bulk, interactive)} == {200}
        assert order == [1, 4, 5, 2, 3]
        assert seen(app).refused == {Priority.INTERACTIVE: 0, Priority.BULK: 1}


async def test_the_queue_is_bounded_in_tokens_too_and_a_request_gets_all_its_places_or_none(settings: SettingsMaker) -> None:
    gate = Gate()
    async with running(settings(batch_max_texts=1, queue_max_tokens=10), lambda: FakeClassifier(gate)) as app:
        first = asyncio.create_task(app.client.post("/classify", json={"text": "hello"}))
        await asyncio.to_thread(gate.entered.wait, 10)
        queued = asyncio.create_task(app.client.post("/classify", json={"text": "a b c d e"}))
        await until(lambda: seen(app).queued_cost == 5)
        refused = await app.client.post("/classify", json={"texts": ["a b c", "a b c d"]})
        assert error_of(refused) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        assert (seen(app).queued, seen(app).reserved) == (1, 0)
        gate.opened.set()
        assert {(await task).status_code for task in (first, queued)} == {200}


@pytest.mark.parametrize(("error", "status"), [(QueueFull(20.0), 429), (DeadlineUnmeetable(20.0), 504)])
def test_retry_after_is_whole_seconds_a_little_apart(error: Exception, status: int) -> None:
    scope = {"type": "http", "headers": []}
    answers = [error_response(scope, error) for _ in range(200)]
    assert {answer.status_code for answer in answers} == {status}
    seconds = {int(answer.headers["retry-after"]) for answer in answers}
    assert 18 <= min(seconds) < max(seconds) <= 22
    assert error_response(scope, QueueFull(0.0)).headers["retry-after"] == "1"


async def test_a_timeout_that_cannot_be_met_is_refused_at_the_door(settings: SettingsMaker) -> None:
    """The fake takes its time in proportion to the tokens, which differ enough to be measured."""

    def on_pass(encodings: Sequence[Encoding]) -> None:
        asyncio.run(asyncio.sleep(0.0005 * sum(map(len, encodings))))

    async with running(settings(), lambda: FakeClassifier(on_pass)) as app:
        for number in range(30):
            assert (await app.client.post("/classify", json={"text": "word " * (1 + 7 * (number % 5))})).status_code == 200
        long = asyncio.create_task(app.client.post("/classify", json={"text": "word " * 250}))
        await until(lambda: seen(app).running_passes == 1)
        hopeless = await app.client.post("/classify", json={"text": "word " * 200, "timeout_ms": 20})
        assert (await long).status_code == 200
        assert error_of(hopeless) == (504, "deadline_unmeetable")
        assert "an answer is expected to take" in hopeless.json()["error"]["message"]
        assert (seen(app).unmeetable, seen(app).expired, seen(app).reserved) == (1, 0, 0)
        assert (await app.client.post("/classify", json={"text": "word " * 200, "timeout_ms": 5000})).status_code == 200


async def test_a_timeout_that_comes_while_a_long_text_is_tokenized_is_answered_on_time(settings: SettingsMaker) -> None:
    encoding = threading.Event()
    encoded: list[str] = []

    class Slow(FakeClassifier):
        def encode(self, text: str, keep: End | None = None) -> Encoding:
            encoded.append(text[:4])
            assert encoding.wait(20)
            return super().encode(text, keep)

    async with running(settings(), Slow) as app:
        response = await app.client.post("/classify", json={"texts": ["word " * 500, "word " * 400], "timeout_ms": 40})
        assert error_of(response) == (504, "deadline_exceeded")
        assert (app.service.counters()["late_in_tokenizing"], seen(app).reserved, seen(app).accepted) == (2, 0, 0)
        encoding.set()
        await asyncio.sleep(0.1)  # time enough to go on, for a thread that would
        assert encoded == ["word"]  # nobody wants the second text any more
        assert (await app.client.post("/classify", json={"text": "payment " * 500})).json()["prediction"] == "billing"


async def test_a_timeout_that_comes_before_the_body_is_complete_is_answered_on_time(settings: SettingsMaker) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b'{"text": '
        await asyncio.sleep(20)

    async with running(settings()) as app:
        response = await app.client.post("/classify", content=slow(), headers={"X-Timeout-Ms": "30"})
        assert error_of(response) == (504, "deadline_exceeded")
        assert response.headers["connection"] == "close"
