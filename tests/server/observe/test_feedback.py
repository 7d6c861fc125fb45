"""Feedback: tokens that cannot be forged, answers that count once, and only drawn ones that are tested; and over HTTP."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.fake import FakeClassifier
from models.types import Prediction
from server.observe import feedback as module
from server.observe.feedback import Feedback, Item, Outcome
from server.settings import Settings
from tests.server.conftest import running, until
from tests.server.profiled import Profiled

SettingsMaker = Callable[..., Settings]
LABELS = ("billing", "general", "technical")
BILLING = Prediction("billing", 0.75, (0.75, 0.125, 0.125), (0.0, 0.0, 0.0))


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock | None = None, **changes: object) -> Feedback:
    options = {"secret": "key", "sample": 0.5, "draw": lambda: 0.4, "clock": clock or Clock()} | changes
    return Feedback(LABELS, "model", **options)  # type: ignore[arg-type]


def outcome(feedback: Feedback, item: Item) -> Outcome:
    outcomes, _ = feedback.take([item])
    (found,) = (outcome for outcome, count in outcomes.items() if count)
    return found


def test_a_token_says_what_was_answered_on_any_server_with_the_secret() -> None:
    token, review = opened().token("r", 0, BILLING)
    assert review
    assert len(token) < 50
    outcomes, drawn = opened().take([Item(2, token=token)])
    assert outcomes[Outcome.ACCEPTED] == 1
    ((predicted, true, confidence),) = drawn
    assert (predicted, true) == (0, 2)
    assert confidence == pytest.approx(0.75, abs=1e-4)


def test_an_answer_counts_once_by_token_or_by_request() -> None:
    feedback = opened()
    feedback.remember("r", [BILLING, BILLING])
    token, _ = feedback.token("r", 1, BILLING)
    assert outcome(feedback, Item(0, token=token)) is Outcome.ACCEPTED
    assert outcome(feedback, Item(0, token=token)) is Outcome.DUPLICATE
    assert outcome(feedback, Item(0, request_id="r", index=1)) is Outcome.DUPLICATE
    assert outcome(feedback, Item(0, request_id="r")) is Outcome.ACCEPTED
    assert outcome(feedback, Item(0, request_id="r", index=2)) is Outcome.UNKNOWN
    assert feedback.outcomes == {
        Outcome.ACCEPTED: 2,
        Outcome.DUPLICATE: 2,
        Outcome.UNKNOWN: 1,
        Outcome.EXPIRED: 0,
        Outcome.FORGED: 0,
    }
    assert feedback.labelled == {("billing", "billing", True): 1, ("billing", "billing", False): 1}


def test_corrections_of_answers_that_were_not_drawn_are_counted_and_not_tested() -> None:
    feedback = opened(draw=lambda: 0.6)
    token, review = feedback.token("r", 0, BILLING)
    assert not review
    outcomes, drawn = feedback.take([Item(1, token=token)])
    assert (outcomes[Outcome.ACCEPTED], drawn) == (1, [])
    assert feedback.labelled == {("billing", "general", False): 1}
    assert opened(sample=0.0, draw=lambda: 0.0).token("r", 0, BILLING)[1] is False


@given(st.integers(0, 30), st.integers(1, 255))
def test_a_token_with_another_byte_is_forged(place: int, change: int) -> None:
    token, _ = opened().token("r", 0, BILLING)
    raw = bytearray(base64.urlsafe_b64decode(token + "=="))
    raw[place] ^= change
    assert outcome(opened(), Item(0, token=base64.urlsafe_b64encode(raw).decode())) is Outcome.FORGED


def test_corrections_of_answers_whose_callers_were_not_told_of_a_review_are_not_tested() -> None:
    feedback = opened(sample=1.0)
    feedback.remember("plain", [BILLING])
    feedback.remember("asked", [BILLING])
    _, review = feedback.token("asked", 0, BILLING)
    assert review
    _, drawn = feedback.take([Item(2, request_id="plain")])
    assert (drawn, feedback.labelled) == ([], {("billing", "technical", False): 1})
    _, drawn = feedback.take([Item(2, request_id="asked")])
    assert len(drawn) == 1


@pytest.mark.parametrize("token", ["", "a", "====", "ä" * 40, "A" * 42, "A" * 199, "!" * 42, "\ud800"])
def test_what_is_no_token_is_forged(token: str) -> None:
    assert outcome(opened(), Item(0, token=token)) is Outcome.FORGED


def test_tokens_of_another_secret_are_forged_and_those_of_another_model_or_too_old_expired() -> None:
    clock = Clock()
    token, _ = opened(clock).token("r", 0, BILLING)
    assert outcome(opened(secret="other"), Item(0, token=token)) is Outcome.FORGED  # noqa: S106
    assert outcome(opened(secret=""), Item(0, token=token)) is Outcome.FORGED
    assert outcome(Feedback(LABELS, "other model", secret="key"), Item(0, token=token)) is Outcome.EXPIRED  # noqa: S106
    clock.now += 367 * 86_400
    assert outcome(opened(clock), Item(0, token=token)) is Outcome.EXPIRED
    clock.now -= 2 * 86_400
    assert outcome(opened(clock), Item(0, token=token)) is Outcome.ACCEPTED


def test_only_the_last_answers_and_feedback_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    feedback = opened(remembered=3)
    for number in range(5):
        feedback.remember(f"r{number}", [BILLING])
    assert outcome(feedback, Item(0, request_id="r1")) is Outcome.UNKNOWN
    assert outcome(feedback, Item(0, request_id="r2")) is Outcome.ACCEPTED
    feedback.remember("r2", [BILLING])  # another request with the same id is another answer
    assert outcome(feedback, Item(0, request_id="r2")) is Outcome.ACCEPTED
    monkeypatch.setattr(module, "MOST_IDS", 2)
    outcome(feedback, Item(0, request_id="r3"))
    outcome(feedback, Item(0, request_id="r4"))
    assert len(feedback._taken) <= 3
    none = opened(remembered=0)
    none.remember("r", [BILLING])
    assert outcome(none, Item(0, request_id="r")) is Outcome.UNKNOWN


# --- over HTTP


async def test_feedback_goes_round(settings: SettingsMaker) -> None:
    async with running(settings(feedback_sample=1.0), Profiled) as app:
        answer = (await app.client.post("/classify", json={"text": "payment failed", "feedback": True})).json()
        assert answer["review"] is True
        taken = await app.client.post("/feedback", json={"token": answer["feedback_token"], "label": "technical"})
        assert (taken.status_code, taken.json()["accepted"]) == (200, 1)
        several = (
            await app.client.post("/classify", json={"texts": ["a", "b"], "feedback": True}, headers={"X-Request-Id": "t-1"})
        ).json()
        assert several["review"] == [True, True]
        assert len(set(several["feedback_tokens"])) == 2
        items = [
            {"request_id": "t-1", "index": 1, "label": "billing"},
            {"token": several["feedback_tokens"][1], "label": "billing"},
        ]
        items += [{"request_id": "t-2", "label": "billing"}, {"token": "A" * 42, "label": "billing"}]
        body = (await app.client.post("/feedback", json={"items": items})).json()
        assert body == {"accepted": 1, "duplicate": 1, "unknown": 1, "expired": 0, "forged": 1}
        outcome = (await app.client.get("/drift")).json()["levels"]["outcome"]
        assert outcome["accuracy"]["labels"] == 2
        metrics = (await app.client.get("/metrics")).text
        assert 'supportbot_feedback_total{outcome="accepted"} 2.0' in metrics
        label = answer["prediction"]
        assert f'supportbot_feedback_labels_total{{drawn="yes",predicted="{label}",true="technical"}} 1.0' in metrics
        plain = (await app.client.post("/classify", json={"text": "payment failed"})).json()
        assert not {"feedback_token", "review"} & plain.keys()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"token": "a"}, "label: is missing"),
        ({"label": "billing"}, "must have either a token or a request_id"),
        ({"label": "billing", "token": "a", "request_id": "b"}, "must have either a token or a request_id"),
        ({"label": "sales", "token": "a"}, "label: must be one of billing, general, technical"),
        ({"label": 1, "token": "a"}, "label: must be a string"),
        ({"label": "billing", "token": "a", "text": "b"}, "text"),
        ({"label": "billing", "request_id": "a", "index": -1}, "index: must be at least 0"),
        ({"items": []}, "items"),
        ({"items": [{"label": "billing", "token": "a"}] * 1001}, "items"),
        ({"items": [{"label": "billing", "token": "a"}, {"label": "sales", "token": "a"}]}, r"items[1].label: must be one of"),
        ([], "must be a JSON object"),
    ],
)
async def test_feedback_that_cannot_be_read_is_refused_and_nothing_counts(
    settings: SettingsMaker, body: object, message: str
) -> None:
    async with running(settings(), FakeClassifier) as app:
        response = await app.client.post("/feedback", json=body)
        assert (response.status_code, response.json()["error"]["code"]) == (422, "invalid_field")
        assert message in response.json()["error"]["message"]
        assert app.service.feedback is not None
        assert not any(app.service.feedback.outcomes.values())


async def test_more_errors_among_reviewed_answers_become_drift(settings: SettingsMaker) -> None:
    async with running(settings(feedback_sample=1.0, drift_block_seconds=0.1), Profiled) as app:
        drift = app.service.drift
        assert drift is not None

        async def label(count: int, wrong: int, start: int) -> None:
            feedback = app.service.feedback
            assert feedback is not None
            feedback.remember(f"r{start}", [BILLING] * count)
            for index in range(count):
                feedback.token(f"r{start}", index, BILLING)
            items = [Item(1 if number < wrong else 0, request_id=f"r{start}", index=number) for number in range(count)]
            app.service.take_feedback(items)
            await asyncio.sleep(0)

        for number in range(30):
            await label(20, 1, number)
        await asyncio.sleep(0.12)  # a block
        await drift.accept("as it is")
        for number in range(100, 106):
            await label(20, 12, number)
            await asyncio.sleep(0.12)
            await drift.counts(0)
        report = await drift.report()
        assert report["levels"]["outcome"]["state"] == "drift"
        assert report["levels"]["outcome"]["severity"] == "critical"


async def test_feedback_is_refused_while_there_is_no_model(settings: SettingsMaker) -> None:
    def broken() -> FakeClassifier:
        raise ValueError("no model")

    async with running(settings(), broken) as app:
        await until(lambda: app.service.readiness.reason != "")
        response = await app.client.post("/feedback", json={"label": "billing", "token": "a"})
        assert (response.status_code, response.json()["error"]["code"]) == (503, "not_ready")


async def test_a_line_of_a_stream_is_named_by_its_number(settings: SettingsMaker) -> None:
    async with running(settings(), FakeClassifier) as app:
        lines = "".join(f'{{"text": "{text}"}}\n' for text in ("payment", "hello", "app crashed"))
        headers = {"Content-Type": "application/x-ndjson", "X-Request-Id": "s-1"}
        assert (await app.client.post("/classify", content=lines, headers=headers)).status_code == 200
        items = [{"request_id": "s-1", "index": index, "label": "general"} for index in range(4)]
        body = (await app.client.post("/feedback", json={"items": items})).json()
        assert (body["accepted"], body["unknown"]) == (3, 1)
        assert app.service.feedback is not None
        predicted = {predicted for predicted, _, _ in app.service.feedback.labelled}
        assert predicted == {"billing", "general", "technical"}
