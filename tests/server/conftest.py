"""An application around a fake model, in this process; and the real server, in its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import httpx2
import pytest
from starlette.types import ASGIApp

from models.fake import FakeClassifier
from models.types import Encoding
from server.app import create_app
from server.readiness import Phase
from server.service import Service
from server.settings import Settings

SUPPORTBOT = str(Path(sys.executable).with_name("supportbot"))


@dataclass
class Gate:
    """Holds every pass of a fake model until it is opened; raises what `failure` says."""

    opened: threading.Event = field(default_factory=threading.Event)
    entered: threading.Event = field(default_factory=threading.Event)
    failure: BaseException | None = None

    def __call__(self, _: Sequence[Encoding]) -> None:
        self.entered.set()
        assert self.opened.wait(20)
        if self.failure is not None:
            raise self.failure


@dataclass
class Application:
    client: httpx2.AsyncClient
    service: Service
    app: ASGIApp


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Settings]:
    """Makes settings that no environment and no .env file has a say in."""
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)

    def make(**changes: object) -> Settings:
        return Settings(**{"workers": 1, "drain_linger_ms": 0, **changes})  # type: ignore[arg-type]

    return make


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread will bring about; it has no event to wait on."""
    with anyio.fail_after(30):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.001)


@asynccontextmanager
async def running(settings: Settings, open_classifier: Callable[[], FakeClassifier] = FakeClassifier) -> AsyncIterator[Application]:
    """The application with its lifespan, past loading."""
    app, service = create_app(settings, open_classifier)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with service.running(), httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        await until(lambda: service.readiness.phase is not Phase.STARTING)
        yield Application(client, service, app)


@dataclass
class Process:
    """A real server process on a port of its own."""

    url: str
    popen: subprocess.Popen[str]
    log: list[str]

    def stop(self) -> int:
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(30)


def clean_environment() -> dict[str, str]:
    """This process's environment without any setting of the server."""
    return {name: value for name, value in os.environ.items() if name.lower() not in Settings.model_fields}


@contextmanager
def real_server(folder: Path, command: Sequence[str] = (SUPPORTBOT, "serve"), **environment: str) -> Iterator[Process]:
    """Starts `supportbot serve` as a user would, waits for its address, and never leaves it behind."""
    popen = subprocess.Popen(
        command,
        env=clean_environment() | {"PORT": "0", "LOG_FORMAT": "json"} | environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log: list[str] = []
    address: list[str] = []
    listening = threading.Event()

    def read() -> None:
        assert popen.stderr is not None
        for line in popen.stderr:
            log.append(line)
            if found := re.search(r"(http://[\d.]+:\d+)", line):
                address.append(found[1])
                listening.set()
        listening.set()

    reader = threading.Thread(target=read)
    reader.start()
    try:
        assert listening.wait(30)
        yield Process(address[0] if address else "", popen, log)
    finally:
        if popen.poll() is None:
            popen.kill()
        popen.wait(10)
        reader.join(10)
        for stream in filter(None, (popen.stdout, popen.stderr)):
            stream.close()


def wait_until_ready(url: str) -> httpx2.Response:
    deadline = time.monotonic() + 30
    while (response := httpx2.get(f"{url}/ready")).status_code != 200:
        assert "loaded" in response.text, response.text
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return response
