"""`GET /`: what is running here, in each state of its life."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import metadata

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from models.fake import FakeClassifier
from server.api.index import LINKS
from server.app import create_app
from server.http.access import RequestContext
from server.observe.metrics import ROUTES
from server.settings import Settings
from tests.server.conftest import Gate, running, until

SettingsMaker = Callable[..., Settings]


async def test_it_names_the_server_its_version_and_model_and_every_link_leads_somewhere(settings: SettingsMaker) -> None:
    async with running(settings()) as app:
        response = await app.client.get("/")
        assert response.status_code == 200
        assert response.json() == {
            "name": "SupportBot",
            "version": metadata.version("supportbot"),
            "status": "alive",
            "state": "ready",
            "model": FakeClassifier.identity,
            "labels": list(FakeClassifier.labels),
            "problem_type": "single-label",
            "links": LINKS,
        }
        for link in LINKS.values():
            assert (await app.client.get(link)).status_code == (405 if link == "/classify" else 200)
        # Not for posting to; but the Hugging Face API's clients post there.
        assert (await app.client.post("/", json={})).status_code == 422
    async with running(settings(dialects="native")) as app:
        assert (await app.client.post("/", json={})).status_code == 405


async def test_it_answers_before_there_is_a_model_and_when_it_cannot_be_used_and_at_the_end(settings: SettingsMaker) -> None:
    loaded = threading.Event()

    def broken() -> FakeClassifier:
        assert loaded.wait(20)
        raise ValueError("its hash does not hold")

    app, service = create_app(settings(), broken)
    async with service.running(), httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://test") as client:
        starting = await client.get("/")
        assert (starting.status_code, starting.json()["state"], starting.json()["model"]) == (200, "starting", None)
        loaded.set()
        await until(lambda: service.phase().value == "failed")
        assert (await client.get("/")).json()["state"] == "failed"
        await service.drain()
        assert (await client.get("/")).json()["state"] == "draining"


async def test_it_says_when_a_pass_hangs(settings: SettingsMaker) -> None:
    gate = Gate()
    async with running(settings(pass_timeout_ms=50), lambda: FakeClassifier(gate)) as app:
        assert (await app.client.post("/classify", json={"text": "a"})).status_code == 504
        assert (await app.client.get("/")).json()["state"] == "stalled"
        gate.opened.set()
        await until(app.service.is_ready)
        assert (await app.client.get("/")).json()["state"] == "ready"


@pytest.mark.parametrize("dialects", ["native", "all"])
def test_the_metrics_know_every_route_and_no_other(settings: SettingsMaker, dialects: str) -> None:
    app, service = create_app(settings(dialects=dialects), FakeClassifier)
    assert isinstance(app, RequestContext)
    starlette = getattr(app.app, "app", None)
    assert isinstance(starlette, Starlette)
    assert {route.path for route in starlette.routes if isinstance(route, Route)} == service.metrics.routes
    assert (service.metrics.routes == ROUTES) == (dialects == "native")
