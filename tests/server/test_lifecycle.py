"""From not ready to gone: loading, failing to load, draining, in this process with a fake model."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import httpx2
import pytest

from models.fake import FakeClassifier
from server.app import create_app
from server.readiness import NotReady, Phase, Readiness
from server.settings import Settings
from tests.server.conftest import Gate, running, until

SettingsMaker = Callable[..., Settings]


async def test_while_the_model_is_loading_the_server_is_alive_but_not_ready(settings: SettingsMaker) -> None:
    loaded = threading.Event()

    def slow() -> FakeClassifier:
        assert loaded.wait(20)
        return FakeClassifier()

    app, service = create_app(settings(), slow)
    transport = httpx2.ASGITransport(app)
    async with service.running(), httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/health")).status_code == 200
        for response in (await client.get("/ready"), await client.post("/classify", json={"text": "hello"})):
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "not_ready"
            assert "being loaded" in response.json()["error"]["message"]
            assert int(response.headers["retry-after"]) >= 1
        loaded.set()
        await until(lambda: service.readiness.phase is Phase.READY)
        assert (await client.get("/ready")).status_code == 200


async def test_a_model_that_cannot_be_loaded_leaves_the_server_alive_and_says_why(settings: SettingsMaker) -> None:
    def broken() -> FakeClassifier:
        raise ValueError("model.onnx: its SHA-256 is not the manifest's")

    async with running(settings(), broken) as app:
        assert (await app.client.get("/health")).status_code == 200
        response = await app.client.get("/ready")
        assert response.status_code == 503
        assert "its SHA-256 is not the manifest's" in response.json()["error"]["message"]


async def test_draining_finishes_what_was_accepted_and_refuses_the_rest(settings: SettingsMaker) -> None:
    gate = Gate()
    async with running(settings(batch_max_texts=1), lambda: FakeClassifier(gate)) as app:
        accepted = [asyncio.create_task(app.client.post("/classify", json={"text": "payment"})) for _ in range(5)]
        await until(lambda: (seen := app.service.statistics()) is not None and seen.accepted == 5)
        draining = asyncio.create_task(app.service.drain())
        await asyncio.sleep(0)
        for response in (await app.client.get("/ready"), await app.client.post("/classify", json={"text": "late"})):
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "draining"
            assert response.headers["connection"] == "close"
            assert int(response.headers["retry-after"]) >= 1
        gate.opened.set()
        await draining
        assert app.service.is_drained
        assert [(await task).json()["prediction"] for task in accepted] == ["billing"] * 5


async def test_a_pass_that_hangs_is_answered_when_the_bound_ends(settings: SettingsMaker) -> None:
    gate = Gate()
    async with running(settings(drain_timeout_ms=50), lambda: FakeClassifier(gate)) as app:
        stuck = asyncio.create_task(app.client.post("/classify", json={"text": "payment"}))
        await asyncio.to_thread(gate.entered.wait, 10)
        await app.service.drain()
        assert not app.service.is_drained
        response = await stuck
        assert (response.status_code, response.json()["error"]["code"]) == (503, "draining")
        gate.opened.set()


def test_draining_is_final() -> None:
    readiness = Readiness()
    with pytest.raises(NotReady, match="being loaded"):
        readiness.check()
    readiness.set_ready()
    readiness.check()
    readiness.set_draining()
    readiness.set_ready()
    with pytest.raises(NotReady, match="shutting down"):
        readiness.check()


async def test_before_draining_it_goes_on_serving_while_ready_says_no(settings: SettingsMaker) -> None:
    async with running(settings(drain_delay_ms=60_000)) as app:
        draining = asyncio.create_task(app.service.drain())
        await until(lambda: app.service.is_leaving)
        refused = await app.client.get("/ready")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
        assert "about to shut down" in refused.json()["error"]["message"]
        served = await app.client.post("/classify", json={"text": "payment"})
        # So that a client with a pool of connections goes to another server before this one is gone.
        assert (served.status_code, served.headers["connection"]) == (200, "close")
        assert (await app.client.get("/confidence")).status_code == 200
        assert (await app.client.get("/")).json()["state"] == "leaving"
        assert "supportbot_ready 0.0" in (await app.client.get("/metrics")).text
        app.service.skip_drain_delay()
        await draining
        assert app.service.is_drained
        assert (await app.client.post("/classify", json={"text": "payment"})).status_code == 503


async def test_the_delay_ends_by_itself_and_a_server_without_a_model_has_none(settings: SettingsMaker) -> None:
    def broken() -> FakeClassifier:
        raise ValueError

    async with running(settings(drain_delay_ms=200)) as app:
        started = asyncio.get_running_loop().time()
        await app.service.drain()
        assert asyncio.get_running_loop().time() - started >= 0.2
    async with running(settings(drain_delay_ms=600_000), broken) as app:
        await app.service.drain()


async def test_whoever_waits_for_the_model_is_told_what_became_of_it(settings: SettingsMaker) -> None:
    told: list[str] = []

    def broken() -> FakeClassifier:
        raise ValueError

    for open_classifier in (FakeClassifier, broken):
        _, service = create_app(settings(), open_classifier, lambda model: told.append(model.identity), lambda: told.append("none"))
        async with service.running():
            await until(lambda service=service: service.readiness.phase is not Phase.STARTING)  # type: ignore[misc]
    assert told == [FakeClassifier.identity, "none"]
