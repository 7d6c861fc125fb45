"""Texts over the model's limit, read in windows by the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from models.fake import FakeClassifier
from models.types import Encoding
from server.settings import Settings, SettingsError
from tests.server.conftest import Application, Gate, running, until

# Four words fit: with one word of overlap, these are two windows, and the keyword is in the second.
LONG = "so it was a refund that i"
SHORT = "app crashed"


@pytest.fixture
async def app(settings: Callable[..., Settings]) -> AsyncIterator[Application]:
    options = settings(long_texts="windows", window_overlap=1, window_join="max", max_windows=3, answer_cache_texts=10)
    async with running(options, lambda: FakeClassifier(max_length=4)) as application:
        yield application


async def ask(app: Application, path: str, body: object, **headers: str) -> tuple[dict[str, str], Any]:
    response = await app.client.post(path, json=body, headers=headers)
    assert response.status_code == 200, response.text
    return dict(response.headers), response.json()


async def test_a_long_text_is_read_in_windows_and_the_answer_says_so(app: Application) -> None:
    for _ in range(2):  # the second time from the cache
        _, found = await ask(app, "/classify", {"text": LONG})
        assert (found["prediction"], found["windows"], "truncated" in found) == ("billing", 2, False)
    _, found = await ask(app, "/classify", {"texts": [SHORT, LONG, SHORT]})
    assert (found["predictions"], found["windows"]) == (["technical", "billing", "technical"], [1, 2, 1])
    _, found = await ask(app, "/classify", {"text": SHORT})
    assert "windows" not in found


async def test_windows_beyond_the_bound_are_not_read_and_the_answer_says_so(app: Application) -> None:
    _, found = await ask(app, "/classify", {"text": "a b c d e f g h i j k l m n o p refund"})
    assert (found["prediction"], found["windows"], found["truncated"]) == ("general", 3, True)


async def test_other_dialects_say_it_in_a_header_and_count_all_tokens(app: Application) -> None:
    headers, found = await ask(app, "/v1/classify", {"input": [SHORT, LONG]})
    assert headers["x-windows"] == "1, 2"
    assert found["usage"]["prompt_tokens"] == 2 + 4 + 4
    assert [one["label"] for one in found["data"]] == ["technical", "billing"]
    assert "x-windows" not in (await ask(app, "/v1/classify", {"input": SHORT}))[0]


async def test_a_request_that_says_itself_what_becomes_of_long_texts_has_its_way(app: Application) -> None:
    headers, _ = await ask(app, "/predict", {"inputs": LONG, "truncate": True, "truncation_direction": "Left"})
    assert ("x-windows" in headers, headers["x-truncated"]) == (False, "0")


async def test_lines_of_a_stream_are_read_in_windows(app: Application) -> None:
    content = b'{"text": "%b"}\n{"text": "%b"}\n' % (LONG.encode(), SHORT.encode())
    response = await app.client.post("/classify", content=content, headers={"Content-Type": "application/x-ndjson"})
    first, second = response.text.splitlines()
    assert '"windows":2' in first
    assert "windows" not in second


async def test_a_request_gets_places_for_all_windows_or_for_none(settings: Callable[..., Settings]) -> None:
    gate = Gate()
    options = settings(
        long_texts="windows", window_overlap=1, max_windows=2, queue_max_texts=2, max_texts_per_request=1, batch_max_texts=1
    )
    async with running(options, lambda: FakeClassifier(gate, max_length=4)) as app:
        first = asyncio.create_task(app.client.post("/classify", json={"text": "payment"}))
        await until(gate.entered.is_set)
        second = asyncio.create_task(app.client.post("/classify", json={"text": "crash"}))
        await until(lambda: app.service.statistics().queued == 1)  # type: ignore[union-attr]
        refused = await app.client.post("/classify", json={"text": LONG})  # one place is left, and it takes two
        assert (refused.status_code, "retry-after" in refused.headers) == (429, True)
        seen = app.service.statistics()
        assert seen is not None
        assert (seen.queued, seen.reserved) == (1, 0)
        gate.opened.set()
        assert [(await one).status_code for one in (first, second)] == [200, 200]
        assert (await app.client.post("/classify", json={"text": LONG})).json()["windows"] == 2


async def test_a_window_that_fails_is_told_as_its_text(settings: Callable[..., Settings]) -> None:
    def fail_on_crash(encodings: Sequence[Encoding]) -> None:
        if any(0 in encoding.ids for encoding in encodings):
            raise ValueError

    options = settings(long_texts="windows", window_overlap=1)
    async with running(options, lambda: FakeClassifier(fail_on_crash, max_length=4)) as app:
        response = await app.client.post("/classify", json={"texts": ["a b c d e f g h", SHORT, LONG]})
        assert response.status_code == 500
        assert response.json()["error"]["message"].startswith("texts[2]")


def test_windows_that_could_never_be_accepted_are_refused_at_the_start(settings: Callable[..., Settings]) -> None:
    with pytest.raises(SettingsError, match="MAX_WINDOWS"):
        settings(long_texts="windows", max_windows=64).batch_policy(2)
    settings(max_windows=64).batch_policy(2)
