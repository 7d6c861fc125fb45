"""The process: uvicorn around the application, signals, and an end that loses nobody."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress

import structlog
import uvicorn

from models.types import TextClassifier
from server.app import create_app
from server.http.protocol import Limits, protocol_with
from server.observe.logs import configure_logs
from server.opening import check_bundle, open_default_classifier, open_patiently
from server.service import Service
from server.settings import Settings, SettingsError

log = structlog.stdlib.get_logger("supportbot.serving")

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Service managers and terminals may send a signal twice in one breath; that is no wish to hurry.
REPEATED_SIGNAL_SECONDS = 0.5

# Beyond the drain's own bound, for the last answers to be written and connections to be closed.
CLOSING_SECONDS = 2
LAST_REQUESTS_SECONDS = 0.1

# The exit status when a model that was waited for did not come; a setting that is wrong has the same.
GIVEN_UP = 2

# How long a thread that has work must wait for another one to let it have the interpreter.
SWITCH_SECONDS = 0.0005


class Server(uvicorn.Server):
    """uvicorn's server, but shutdown begins by draining the service while the port is still open.

    The order of an end: not ready -> DRAIN_DELAY_MS -> new requests get 503 -> accepted ones are finished -> port closed -> who
    came last is answered -> connections closed -> batcher, workers, model closed -> exit status 0.

    A further signal skips what is waited for: the delay, or the draining; what is not finished then is answered 503. Ctrl-C comes
    from a person, and so has no delay.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._hurry = asyncio.Event()
        self._last_signal_at: float | None = None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, then close."""
        drain = asyncio.create_task(self._service.drain())
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait((drain, hurry), return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        drain.cancel()  # no more than a formality when it is done
        await asyncio.wait((drain,))
        for listener in self.servers:
            listener.close()
        # uvicorn closes connections that look idle at once; one that was accepted just now has its request still on the way.
        await asyncio.sleep(LAST_REQUESTS_SECONDS)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Handle SIGTERM and SIGINT as orderly ends; uvicorn would raise them again afterwards, and so exit with their status."""
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_IGN)  # the process is on its way out, with a status of its own

    def _on_signal(self, number: signal.Signals) -> None:
        now = asyncio.get_running_loop().time()
        if self._last_signal_at is None:
            self.should_exit = True
            if number is signal.SIGINT:
                self._service.skip_drain_delay()
        elif now - self._last_signal_at < REPEATED_SIGNAL_SECONDS:
            return
        elif self._service.is_leaving:
            self._service.skip_drain_delay()
        else:
            self._hurry.set()
        self._last_signal_at = now


def quiet_garbage_collector() -> None:
    """Keep the cyclic garbage collector out of the way of answers.

    A request leaves no reference cycles behind (a test of the batcher looks), so there is next to nothing to find. But with a
    thousand requests waiting, a full collection looked at all they hold and stopped the event loop for 100 ms and more. What is
    there now stays for good and is not looked at again, and collections wait for 50,000 new objects.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def let_threads_in() -> None:
    """Let the event loop give way to a pass that begins or ends within half a millisecond, not Python's 5.

    A pass needs the interpreter for a moment at either end, while the loop has a batch of requests to read or to answer; what the
    pass waits, a core may be idle. At saturation on two cores a pass began after 2.9 ms on average, with this after 1.5.
    """
    sys.setswitchinterval(SWITCH_SECONDS)


def listen(settings: Settings) -> socket.socket:
    """A listening socket on HOST and PORT. Raises `SettingsError`."""
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        return socket.create_server((str(address[0]), int(address[1])), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"HOST={settings.host} PORT={settings.port}: cannot listen there: {error}") from error


def url_of(host: str, port: int) -> str:
    """The URL at which a client on this machine reaches an address that is listened on."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - nothing is bound here
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def announce(url: str, model: str) -> None:
    """One line for a person on standard output: the URL, the model, and a command to try. Logs go to standard error."""
    with suppress(OSError, ValueError):  # nobody reads it
        example = f"""curl {url}/classify -d '{{"text": "payment failed"}}'"""
        print(f"SupportBot serves {model} at {url} - try: {example}", flush=True)  # noqa: T201


def serve(settings: Settings) -> int:
    """Run the server until a signal ends it, or a model that was waited for cannot be used; returns the exit status.

    Raises `SettingsError`.
    """
    configure_logs(settings.log_level, settings.log_format)
    check_bundle(settings)
    let_threads_in()
    was_given_up = False

    def open_classifier() -> TextClassifier:
        classifier = open_patiently(
            lambda: open_default_classifier(settings),
            settings.bundle_timeout,
            lambda reason: service.readiness.set_waiting(f"the model cannot be used yet: {reason}"),
        )
        quiet_garbage_collector()
        return classifier

    listener = listen(settings)
    url = url_of(*listener.getsockname()[:2])

    def on_ready(classifier: TextClassifier) -> None:
        if settings.log_format != "json":  # for programs only
            announce(url, classifier.identity)

    def on_failed() -> None:
        nonlocal was_given_up
        if settings.bundle_timeout:
            was_given_up = server.should_exit = True

    app, service = create_app(settings, open_classifier, on_ready, on_failed)
    server = Server(
        uvicorn.Config(
            app,
            http=protocol_with(Limits(settings.max_body_bytes, settings.body_timeout_ms / 1000)),
            ws="none",
            workers=1,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nobody asks who the client is
            timeout_keep_alive=settings.keep_alive_seconds,
            timeout_graceful_shutdown=CLOSING_SECONDS,
        ),
        service,
    )
    log.info("listening", url=url)
    server.run(sockets=[listener])
    status = GIVEN_UP if was_given_up else 0 if service.is_drained else 1
    if service.is_hanging:
        # A thread that hangs cannot be stopped, and the interpreter would wait for it for ever.
        logging.shutdown()
        os._exit(status)
    return status
