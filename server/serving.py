"""The process: uvicorn around the application, signals, and an end that loses nobody."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from socket import socket
from types import FrameType

import uvicorn

from models.classifier import Classifier
from server.app import create_app
from server.logs import configure_logs
from server.service import Service
from server.settings import Settings

# Beyond the drain's own bound, for the last answers to be written and connections to be closed.
CLOSING_SECONDS = 5
LAST_REQUESTS_SECONDS = 0.1


class Server(uvicorn.Server):
    """uvicorn's server, but shutdown begins by draining the service while the port is still open.

    The order of an end: not ready -> new requests get 503 -> accepted ones are finished -> port closed -> who came last is answered
    -> connections closed -> batcher, workers and model closed -> exit status 0. A second signal skips the waiting.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self.is_drained = True

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """Drain, then close."""
        if not self.force_exit:
            self.is_drained = await self._service.drain()
            for listener in self.servers:
                listener.close()
            # uvicorn closes connections that look idle at once; one that was accepted just now has its request still on the way.
            await asyncio.sleep(LAST_REQUESTS_SECONDS)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle SIGTERM and SIGINT. uvicorn raises them again at the end, so that the exit status tells of the signal; for an
        orderly end on SIGTERM, 0 is what service managers expect.
        """
        previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
        self.handle_exit(number, frame)


def open_default_classifier(settings: Settings) -> Classifier:
    """Open, check and warm the bundle that the settings name. Raises `BundleError` or `SelfCheckFailed`."""
    classifier = Classifier.open(settings.bundle)
    classifier.self_check()
    classifier.warm_up()
    return classifier


def serve(settings: Settings) -> int:
    """Run the server until a signal ends it; returns the exit status."""
    configure_logs(settings)
    app, service = create_app(settings, lambda: open_default_classifier(settings))
    server = Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            http="httptools",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=round(settings.keep_alive_ms / 1000),
            timeout_graceful_shutdown=CLOSING_SECONDS,
        ),
        service,
    )
    server.run()
    if not server.is_drained:
        # A thread that hangs in a pass cannot be stopped, and the interpreter would wait for it for ever.
        logging.shutdown()
        os._exit(1)
    return 0 if server.started else 1
