"""Golden texts are checked again when the server is idle; a model that answers otherwise is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from models.fake import FakeClassifier
from models.types import Prediction
from server.goldens import GoldenChecks
from server.settings import Settings
from tests.server.conftest import Gate, running, until

SettingsMaker = Callable[..., Settings]


class Golden(FakeClassifier):
    golden_texts = ("payment failed", "hello")


async def test_a_damaged_model_is_noticed_at_the_next_check(settings: SettingsMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(settings(golden_check_seconds=0.01), Golden) as app:
        checks = app.service.goldens
        assert checks is not None
        await until(lambda: checks.held >= 4)
        assert checks.failed == 0
        model, predict = app.service.model, Golden.predict
        assert isinstance(model, Golden)

        def damaged(encodings: list[object]) -> list[Prediction]:
            found = predict(model, encodings)  # type: ignore[arg-type]
            return [Prediction(one.label, one.confidence, one.scores, (*one.logits[:-1], one.logits[-1] + 1e-7)) for one in found]

        with capture_logs() as logs:
            monkeypatch.setattr(model, "predict", damaged)
            await until(lambda: checks.failed >= 2)
        failed = [line for line in logs if line["log_level"] == "critical"]
        assert {line["golden"] for line in failed} <= set(Golden.golden_texts)
        metrics = (await app.client.get("/metrics")).text
        assert f'supportbot_golden_checks_total{{outcome="failed"}} {float(checks.failed)}' in metrics


async def test_nothing_is_checked_while_texts_wait(settings: SettingsMaker) -> None:
    gate = Gate()
    async with running(settings(golden_check_seconds=0.01), lambda: Golden(gate)) as app:
        gate.opened.set()
        checks = app.service.goldens
        assert checks is not None
        await until(lambda: checks.held > 0)
        gate.opened.clear()
        gate.entered.clear()
        waiting = asyncio.create_task(app.client.post("/classify", json={"text": "payment"}))
        await until(lambda: (found := app.service.statistics()) is not None and found.waiting > 0)
        await asyncio.sleep(0.05)
        gate.opened.set()
        assert (await waiting).status_code == 200
        await until(lambda: checks.held > 2)


@pytest.mark.parametrize(("model", "seconds"), [(Golden, 0), (FakeClassifier, 0.01)])
async def test_without_texts_or_seconds_there_is_nothing_to_check(
    settings: SettingsMaker, model: type[FakeClassifier], seconds: float
) -> None:
    async with running(settings(golden_check_seconds=seconds), model) as app:
        await asyncio.sleep(0.05)
        checks = app.service.goldens
        assert checks is None or (checks.held, checks.failed) == (0, 0)
        assert (await app.client.post("/classify", json={"text": "payment"})).status_code == 200


async def test_a_check_waits_for_an_idle_moment() -> None:
    idle, ran = False, list[int]()

    async def run(function: Callable[[], tuple[float, ...]]) -> tuple[float, ...]:
        ran.append(1)
        return function()

    checks = GoldenChecks(Golden(), run, lambda: idle, 0.001)
    task = asyncio.create_task(checks.keep_checking())
    await asyncio.sleep(0.05)
    assert not ran
    idle = True
    await until(lambda: checks.held >= 2)
    task.cancel()


async def test_checks_go_on_after_a_pass_that_raises() -> None:
    passes = 0

    async def run(function: Callable[[], tuple[float, ...]]) -> tuple[float, ...]:
        nonlocal passes
        passes += 1
        if passes in {1, 4}:
            raise MemoryError
        return function()

    checks = GoldenChecks(Golden(), run, lambda: True, 0.001)
    with capture_logs() as logs:
        task = asyncio.create_task(checks.keep_checking())
        await until(lambda: checks.held >= 4)
        task.cancel()
    assert checks.failed == 0
    assert [line["reason"] for line in logs] == ["MemoryError"] * 2
