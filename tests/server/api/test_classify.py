"""`POST /classify`: every kind of request, every kind of answer; a fake model, the real application."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from starlette.types import Message
from structlog.testing import capture_logs

from models.fake import FakeClassifier
from models.problem import SingleLabel
from models.types import BlankTextError, Encoding, End, Prediction
from server.api.classify import classify_answer
from server.request import ClassifyRequest
from server.service import Classification, Timing
from server.settings import Settings
from tests.server.conftest import Application, Gate, running, until

SettingsMaker = Callable[..., Settings]
SCOPE: dict[str, Any] = {"type": "http", "method": "POST", "path": "/classify", "headers": [], "query_string": b"", "client": None}


@pytest.fixture
async def app(settings: SettingsMaker) -> AsyncIterator[Application]:
    async with running(settings(max_body_bytes=2000)) as application:
        yield application


def error_of(response: httpx2.Response) -> tuple[int, str, str]:
    error = response.json()["error"]
    assert set(error) == {"code", "message", "request_id"}
    assert error["request_id"] == response.headers["x-request-id"]
    return response.status_code, error["code"], error["message"]


async def test_texts_are_answered_in_the_plural(app: Application) -> None:
    response = await app.client.post("/classify", json={"texts": ["payment failed", "app crashed", "hello"]})
    assert response.status_code == 200
    body = response.json()
    assert body.pop("latency_ms") > 0
    assert body == {"predictions": ["billing", "technical", "general"], "confidences": [0.8, 0.8, 0.8], "model": "fake@1"}


async def test_a_text_is_answered_in_the_singular(app: Application) -> None:
    body = (await app.client.post("/classify", json={"text": "payment failed"})).json()
    assert body.pop("latency_ms") > 0
    assert body == {"prediction": "billing", "confidence": 0.8, "model": "fake@1"}


async def test_scores_name_every_label(app: Application) -> None:
    single = (await app.client.post("/classify", json={"text": "payment failed", "scores": True})).json()
    assert single["scores"] == {"billing": 0.8, "general": 0.1, "technical": 0.1}
    several = (await app.client.post("/classify", json={"texts": ["hello"], "scores": True})).json()
    assert several["scores"] == [{"billing": 0.1, "general": 0.8, "technical": 0.1}]


async def test_truncation_is_said_where_it_happened(app: Application) -> None:
    long = "a " * 257
    assert (await app.client.post("/classify", json={"text": long})).json()["truncated"] is True
    several = (await app.client.post("/classify", json={"texts": ["hello", long]})).json()
    assert several["truncated"] == [False, True]
    assert "truncated" not in (await app.client.post("/classify", json={"texts": ["hello"]})).json()


async def test_answers_below_the_least_confidence_are_marked_and_keep_their_label(app: Application) -> None:
    single = (await app.client.post("/classify", json={"text": "payment failed", "min_confidence": 0.81})).json()
    assert (single["prediction"], single["confidence"], single["abstained"]) == ("billing", 0.8, True)
    several = (await app.client.post("/classify", json={"texts": ["app crashed", "hello"], "min_confidence": 1})).json()
    assert (several["predictions"], several["abstained"]) == (["technical", "general"], [True, True])


def test_a_list_says_of_each_text_whether_it_was_abstained_from() -> None:
    request = ClassifyRequest(["a", "b"], single=False, scores=False, min_confidence=0.7)
    predictions = [
        Prediction("billing", 0.6999996, (0.6999996, 0.3000004), (0.4, -0.4)),
        Prediction("general", 0.69999, (0.30001, 0.69999), (-0.4, 0.4)),
    ]
    answer = classify_answer(
        request,
        Classification(predictions, [False] * 2, [None] * 2, Timing(0, 0, 0), [False] * 2, [3, 3], [1, 1]),
        SingleLabel(("billing", "general")),
        "fake@1",
        0.001,
    )
    assert answer["abstained"] == [False, True]  # by the confidences as the answer has them, to 6 decimals
    assert answer["confidences"] == [0.7, 0.69999]


@pytest.mark.parametrize("least", [None, 0, 0.8])
async def test_answers_that_are_sure_enough_are_as_without_a_least_confidence(app: Application, least: float | None) -> None:
    for texts in ({"text": "payment failed"}, {"texts": ["payment failed", "hello"]}):
        plain = (await app.client.post("/classify", json=texts)).json()
        bounded = (await app.client.post("/classify", json=texts | {"min_confidence": least})).json()
        for body in (plain, bounded):
            assert body.pop("latency_ms") > 0
        assert bounded == plain


async def test_server_timing_names_all_stations_in_milliseconds(app: Application) -> None:
    response = await app.client.post("/classify", json={"text": "hello"})
    timings = dict(re.findall(r"(\w+);dur=([\d.]+)", response.headers["server-timing"]))
    assert list(timings) == ["tokenize", "queue", "inference", "total"]
    parts = sum(float(timings[name]) for name in ("tokenize", "queue", "inference"))
    assert 0 < parts <= float(timings["total"])


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        (b"", 400, "malformed_json", "the body is not JSON"),
        (b"{", 400, "malformed_json", "the body is not JSON"),
        (b'{"text": "\xff"}', 400, "malformed_json", "the body is not valid UTF-8 (byte 10)"),
        (b"[" * 1500, 400, "malformed_json", "the body is not JSON"),
        (b'{"texts": []}', 400, "empty_texts", "texts is empty"),
        (b'{"texts": [' + b",".join([b'"a"'] * 33) + b"]}", 400, "too_many_texts", "33 texts; at most 32"),
        (b"[]", 422, "invalid_field", "the body: must be a JSON object"),
        (b'"text"', 422, "invalid_field", "the body: must be a JSON object"),
        (b"{}", 422, "invalid_field", 'the body must have either "text" or "texts"'),
        (b'{"text": "a", "texts": ["b"]}', 422, "invalid_field", 'the body must have either "text" or "texts"'),
        (b'{"text": null}', 422, "invalid_field", "text: must be a string"),
        (b'{"text": "a", "min_confidence": "0.8"}', 422, "invalid_field", "min_confidence: must be a number"),
        (b'{"text": "a", "min_confidence": -0.1}', 422, "invalid_field", "min_confidence: must be from 0 to 1"),
        (b'{"text": "a", "min_confidence": 1.1}', 422, "invalid_field", "min_confidence: must be from 0 to 1"),
        (b'{"text": 1}', 422, "invalid_field", "text: must be a string"),
        (b'{"texts": "a"}', 422, "invalid_field", "texts: must be a list of strings"),
        (b'{"texts": ["a", 1]}', 422, "invalid_field", "texts[1]: must be a string"),
        (b'{"texts": ["a", null]}', 422, "invalid_field", "texts[1]: must be a string"),
        (b'{"text": "a", "scores": "yes"}', 422, "invalid_field", "scores: must be true or false"),
        (b'{"text": "a", "socres": true}', 422, "invalid_field", "socres: is not a known field"),
        (b'{"text": " \\n"}', 422, "blank_text", "text: is blank"),
        (b'{"texts": ["a", ""]}', 422, "blank_text", "texts[1]: is blank"),
        (b'{"text": "' + b"a" * 2000 + b'"}', 413, "body_too_large", "the body is over 2000 bytes"),
    ],
)
async def test_bad_bodies_get_a_clear_error(app: Application, body: bytes, status: int, code: str, message: str) -> None:
    response = await app.client.post("/classify", content=body)
    seen = error_of(response)
    assert seen[:2] == (status, code)
    assert seen[2].startswith(message)
    assert (await app.client.post("/classify", json={"text": "payment"})).json()["prediction"] == "billing"


async def test_a_body_over_the_limit_is_noticed_without_a_declared_length(app: Application) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"a" * 100

    response = await app.client.post("/classify", content=chunks())
    assert error_of(response)[:2] == (413, "body_too_large")
    assert response.headers["connection"] == "close"


async def test_unknown_routes_and_wrong_methods_have_the_same_shape(app: Application) -> None:
    assert error_of(await app.client.get("/nowhere"))[:2] == (404, "not_found")
    response = await app.client.get("/classify")
    assert error_of(response)[:2] == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


async def test_a_request_id_is_echoed_or_made(app: Application) -> None:
    given = await app.client.get("/health", headers={"X-Request-Id": "ticket-88213/a"})
    assert given.headers["x-request-id"] == "ticket-88213/a"
    made = {(await app.client.get("/health")).headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2
    for unacceptable in (b"", b"a b", "ä".encode(), b"x" * 129):
        response = await app.client.get("/health", headers={b"X-Request-Id": unacceptable})
        assert re.fullmatch(r"[0-9a-f]{32}", response.headers["x-request-id"])


async def test_health_and_ready(app: Application) -> None:
    assert (await app.client.get("/health")).json() == {"status": "ok"}
    assert (await app.client.get("/ready")).json() == {"status": "ready", "model": "fake@1"}


async def test_a_full_queue_refuses_whole_requests_with_retry_after(settings: SettingsMaker) -> None:
    gate = Gate()
    limits = settings(queue_max_texts=3, max_texts_per_request=3)
    async with running(limits, lambda: FakeClassifier(gate)) as app:
        running_pass = asyncio.create_task(app.client.post("/classify", json={"text": "hello"}))
        await asyncio.to_thread(gate.entered.wait, 10)
        queued = asyncio.create_task(app.client.post("/classify", json={"texts": ["payment", "crash"]}))
        await until(lambda: (seen := app.service.statistics()) is not None and seen.queued == 2)
        refused = await app.client.post("/classify", json={"texts": ["a", "b"]})
        assert error_of(refused)[:2] == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        gate.opened.set()
        assert (await running_pass).status_code == 200
        assert (await queued).json()["predictions"] == ["billing", "technical"]
        assert (await app.client.post("/classify", json={"texts": ["a", "b"]})).status_code == 200


async def test_a_failing_model_is_a_500_without_internals_and_the_next_request_is_answered(
    settings: SettingsMaker, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate(failure=RuntimeError("secret internals"))
    gate.opened.set()
    async with running(settings(), lambda: FakeClassifier(gate)) as app:
        response = await app.client.post("/classify", json={"text": "a customer's words"})
        assert error_of(response)[:2] == (500, "model_failure")
        assert "secret" not in response.text
        gate.failure = None
        assert (await app.client.post("/classify", json={"text": "hello"})).status_code == 200
    assert "a customer's words" not in caplog.text


async def test_a_client_that_leaves_takes_its_queued_texts_along(settings: SettingsMaker) -> None:
    gate = Gate()
    async with running(settings(batch_max_texts=1), lambda: FakeClassifier(gate)) as app:
        staying = asyncio.create_task(app.client.post("/classify", json={"text": "payment"}))
        await asyncio.to_thread(gate.entered.wait, 10)
        leave = asyncio.Event()
        sent: list[Message] = []
        messages = iter([{"type": "http.request", "body": b'{"texts": ["crash", "hello"]}', "more_body": False}])

        async def receive() -> Message:
            if (message := next(messages, None)) is not None:
                return message
            await leave.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        leaving = asyncio.ensure_future(app.app(dict(SCOPE), receive, send))
        await until(lambda: (seen := app.service.statistics()) is not None and seen.queued == 2)
        leave.set()
        await leaving
        assert sent[0]["status"] == 499
        await until(lambda: (seen := app.service.statistics()) is not None and seen.abandoned == 2)
        gate.opened.set()
        assert (await staying).json()["prediction"] == "billing"
        seen = app.service.statistics()
        assert seen is not None
        assert (seen.items_passed, seen.answered, seen.queued, seen.reserved) == (1, 1, 0, 0)


@dataclass
class SilentClient:
    """An ASGI client that begins a request and never sends its body."""

    sent: list[Message] = field(default_factory=list)

    async def receive(self) -> Message:
        await asyncio.sleep(60)
        return {}

    async def send(self, message: Message) -> None:
        self.sent.append(message)


async def test_a_body_that_does_not_arrive_in_time_is_a_408(settings: SettingsMaker) -> None:
    client = SilentClient()
    async with running(settings(body_timeout_ms=20)) as app:
        await app.app(dict(SCOPE), client.receive, client.send)
    assert client.sent[0]["status"] == 408
    assert (b"connection", b"close") in client.sent[0]["headers"]
    assert b'"body_timeout"' in client.sent[1]["body"]


async def test_a_request_that_is_cancelled_at_the_end_of_the_process_is_still_answered(app: Application) -> None:
    client = SilentClient()
    request = asyncio.ensure_future(app.app(dict(SCOPE), client.receive, client.send))
    await asyncio.sleep(0.01)
    request.cancel()
    await request
    assert client.sent[0]["status"] == 503
    assert b'"draining"' in client.sent[1]["body"]


async def test_a_trailing_slash_is_another_route(app: Application) -> None:
    assert error_of(await app.client.post("/classify/", json={"text": "a"}))[:2] == (404, "not_found")


async def test_tens_of_thousands_of_unknown_fields_are_one_short_error(settings: SettingsMaker) -> None:
    body = {f"key{number}": 1 for number in range(50_000)}
    async with running(settings()) as app:
        response = await app.client.post("/classify", json=body)
        assert error_of(response) == (422, "invalid_field", "key0: is not a known field")


async def test_a_thousand_concurrent_requests_each_get_their_own_answer(app: Application) -> None:
    kinds = {"payment": "billing", "crash": "technical", "hello": "general"}
    words = [list(kinds)[number % 3] for number in range(1000)]
    responses = await asyncio.gather(*(app.client.post("/classify", json={"text": word}) for word in words))
    assert [response.json()["prediction"] for response in responses] == [kinds[word] for word in words]


async def test_a_text_that_only_the_tokenizer_finds_blank_is_named_by_its_place(settings: SettingsMaker) -> None:
    class Picky(FakeClassifier):
        def encode(self, text: str, keep: End | None = None) -> Encoding:
            if text == "\u200b":
                raise BlankTextError
            return super().encode(text, keep)

    async with running(settings(), Picky) as app:
        response = await app.client.post("/classify", json={"texts": ["a", "\u200b"]})
        assert error_of(response) == (422, "blank_text", "texts[1]: is blank")
        assert app.service.statistics() is not None
        long = await app.client.post("/classify", json={"texts": ["a" * 3000, "\u200b"]})
        assert error_of(long) == (422, "blank_text", "texts[1]: is blank")
        seen = app.service.statistics()
        assert seen is not None
        assert seen.reserved == 0


async def test_half_a_surrogate_pair_costs_nobody_an_answer(settings: SettingsMaker) -> None:
    async with running(settings()) as app:
        body = rb'{"texts": ["payment failed", "refund \ud83d", "refund \\ud83d", "\ude00\ud83d app crash now"]}'
        response = await app.client.post("/classify", content=body)
        assert response.status_code == 200
        assert response.json()["predictions"] == ["billing", "billing", "billing", "technical"]
        for strict in (rb'{"text": "a\ud83d"', rb'{"text": "a\ud83", "b": 1}', rb'{"text": "a\ud83d" NaN}'):
            refused = await app.client.post("/classify", content=strict)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "malformed_json")
        unknown = await app.client.post("/classify", content=rb'{"text": "a", "\ud83d": 1}')
        assert (unknown.status_code, unknown.json()["error"]["code"]) == (422, "invalid_field")


async def test_texts_that_the_model_would_pass_apart_are_passed_apart(settings: SettingsMaker) -> None:
    class OneByOne(FakeClassifier):
        def divide(self, lengths: Sequence[int]) -> Sequence[Sequence[int]]:
            return [[place] for place in range(len(lengths))]

    passes: list[int] = []
    async with running(settings(), lambda: OneByOne(lambda encodings: passes.append(len(encodings)))) as app:
        answer = await app.client.post("/classify", json={"texts": ["payment", "app crash", "hello there you"]})
    assert answer.json()["predictions"] == ["billing", "technical", "general"]
    assert passes == [1, 1, 1]


async def test_what_nobody_foresaw_is_a_500_and_in_the_log_and_what_was_foreseen_is_not(settings: SettingsMaker) -> None:
    class Broken(FakeClassifier):
        def encode(self, text: str, keep: End | None = None) -> Encoding:
            if text == "fault":
                raise KeyError("nobody foresaw this")
            return super().encode(text, keep)

    async with running(settings(), Broken) as app:
        with capture_logs() as logs:
            assert (await app.client.post("/classify", json={"text": 1})).status_code == 422
            assert not [line for line in logs if line["log_level"] == "error"]
            response = await app.client.post("/classify", json={"text": "fault"})
    assert error_of(response)[:2] == (500, "internal_error")
    assert "foresaw" not in response.text
    (line,) = (line for line in logs if line["log_level"] == "error")
    assert (line["event"], line["request_id"]) == ("unexpected error", response.headers["x-request-id"])


HTML = "<html><body><p>payment</p> <b>failed</b></body></html>"


async def test_html_is_stripped_when_asked_and_the_answer_says_so(app: Application, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    model = app.service.model
    assert isinstance(model, FakeClassifier)
    encode = model.encode

    def noting(text: str, keep: End | None = None) -> Encoding:
        seen.append(text)
        return encode(text, keep)

    monkeypatch.setattr(model, "encode", noting)
    body = (await app.client.post("/classify", json={"text": HTML, "strip": "html"})).json()
    assert (body["prediction"], body["stripped"]) == ("billing", True)
    several = (await app.client.post("/classify", json={"texts": ["hello", HTML * 20], "strip": "html"})).json()
    assert several["stripped"] == [False, True]
    for none in ({}, {"strip": None}, {"strip": "none"}):
        assert "stripped" not in (await app.client.post("/classify", json={"text": HTML} | none)).json()
    assert seen == ["payment\nfailed", "hello", "\n".join(["payment\nfailed"] * 20), HTML, HTML, HTML]
    blank = await app.client.post("/classify", json={"text": "<html></html>", "strip": "html"})
    assert (blank.status_code, blank.json()["error"]["code"]) == (422, "blank_text")
    assert (await app.client.post("/classify", json={"text": "a", "strip": "email"})).status_code == 422


async def test_a_server_may_strip_unless_a_request_says_otherwise(settings: SettingsMaker) -> None:
    async with running(settings(strip="html", answer_cache_texts=10)) as app:
        for _ in range(2):  # the second time, from the cache
            body = (await app.client.post("/classify", json={"text": HTML})).json()
            assert (body["prediction"], body["stripped"]) == ("billing", True)
        assert app.service.counters()["cache_hits"] == 1
        assert "stripped" not in (await app.client.post("/classify", json={"text": HTML, "strip": "none"})).json()
        assert app.service.counters()["cache_hits"] == 1
        other = await app.client.post("/predict", json={"inputs": [["hello"], [HTML]]})
        assert other.headers["X-Stripped"] == "1"
        line = json.dumps({"text": HTML}) + "\n"
        streamed = await app.client.post("/classify", content=line, headers={"Content-Type": "application/x-ndjson"})
        assert streamed.json()["stripped"] is True
