"""`python -m benchmarks.http_ceiling`: what HTTP and the service cost a request when the model costs nothing.

Four servers in turn, one process each, on the same uvicorn and uvloop:

- bare: a Starlette route that returns constant JSON. What Starlette can do at most.
- plain: SupportBot with a model that answers at once, without metrics, confidence and length statistics.
- ours: the same with all of them, as it is served.
- drift: the same with drift detection, which sees a text of 12 tokens and a vector for each.

The client keeps 64 connections busy with single-text requests. It takes part of one core, the server all of another, so that the
server is what is measured; its CPU time a request is printed beside the rate, since it does not depend on how busy the client is.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import psutil
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from benchmarks.console import say
from benchmarks.overload import closed_loop, requests
from loadtest.processes import running_server
from loadtest.run import QUIET
from models.bundle import embedded_bundle
from models.classifier import Classifier
from models.problem import SingleLabel
from models.types import Encoding, End, Prediction, Token
from models.windows import Join
from server.app import create_app
from server.http.access import RequestContext
from server.http.protocol import Protocol
from server.observe.logs import configure_logs
from server.serving import let_threads_in, quiet_garbage_collector
from server.settings import Settings

KINDS: Final = ("bare", "plain", "ours", "drift")
CONNECTIONS: Final = 64
REQUESTS: Final = 8_000


class InstantClassifier:
    """Answers at once, and tokenizes as fast; no two texts have the same tokens, so nothing is coalesced."""

    identity = "instant@1"
    fingerprint = "instant"
    labels: tuple[str, ...] = ("billing", "general", "technical")
    problem = SingleLabel(labels)
    max_length = 256
    profile: bytes | None = None
    golden_texts: Sequence[str] = ()
    first_width: int | None = None
    pieces: Sequence[str] = ()
    _answer = Prediction("billing", 0.9, (0.9, 0.05, 0.05), (2.0, -0.9, -0.9))

    def encode(self, text: str, keep: End | None = None) -> Encoding:  # noqa: ARG002 - no text is too long
        """A few tokens, the last of its own."""
        return Encoding((1, 2, 3, hash(text)), truncated=False)

    def windows(self, text: str, overlap: int, most: int) -> list[Encoding]:
        """Nobody asks here."""
        raise NotImplementedError

    def joined(self, windows: Sequence[Prediction], join: Join) -> Prediction:
        """Nobody asks here."""
        raise NotImplementedError

    def tokens(self, text: str, *, special: bool) -> list[Token]:
        """Nobody asks here."""
        raise NotImplementedError

    def divide(self, lengths: Sequence[int]) -> Sequence[Sequence[int]]:
        """All in one pass."""
        return [range(len(lengths))]

    def predict(self, encodings: Sequence[Encoding]) -> list[Prediction]:
        """The same prediction for all."""
        return [self._answer] * len(encodings)

    def observe(self, encodings: Sequence[Encoding]) -> list[Prediction]:
        """The same prediction for all, without vectors."""
        return self.predict(encodings)


class WatchedClassifier(InstantClassifier):
    """The same with the profile of the embedded bundle, so that drift detection sees texts of a dozen tokens, no two alike."""

    _vector = np.ones(384, dtype=np.float32)

    def __init__(self) -> None:
        bundle = Classifier.open(embedded_bundle())
        self.labels, self.profile, self.pieces = bundle.labels, bundle.profile, bundle.pieces
        self._seen = replace(self._answer, first=self._vector)

    def encode(self, text: str, keep: End | None = None) -> Encoding:  # noqa: ARG002 - no text is too long
        """Tokens of the built-in model's vocabulary."""
        number = hash(text)
        return Encoding((101, *(1000 + (number >> shift) % 20_000 for shift in range(0, 40, 4)), 102), truncated=False)

    def observe(self, encodings: Sequence[Encoding]) -> list[Prediction]:
        """The same prediction for all, with a vector."""
        return [self._seen] * len(encodings)


def bare_app() -> ASGIApp:
    """The least that Starlette can do."""

    async def classify(_: Request) -> JSONResponse:
        return JSONResponse({"prediction": "billing", "confidence": 0.9, "latency_ms": 0.1, "model": "instant@1"})

    async def ready(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ready"})

    return Starlette(routes=[Route("/classify", classify, methods=["POST"]), Route("/ready", ready)])


def our_app(settings: Settings, *, plain: bool, watched: bool) -> ASGIApp:
    """SupportBot with a model that costs nothing; `plain` leaves out what watches it, `watched` has drift detection, too."""
    app, service = create_app(settings, WatchedClassifier if watched else InstantClassifier)
    if plain:
        nothing = lambda *_: None  # noqa: E731
        service.note = nothing  # type: ignore[method-assign]
        service.metrics.observe_timing = nothing  # type: ignore[method-assign]
        service.metrics.observe_pass = nothing  # type: ignore[method-assign]
        assert isinstance(app, RequestContext)
        app._observe = nothing  # noqa: SLF001 - what is measured is left out, and nothing else
    return app


def serve(kind: str) -> None:
    """Serve one of the kinds, as the settings in the environment say."""
    # uvicorn raises the signal again when it has ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = Settings()
    configure_logs(settings.log_level, settings.log_format)
    app = bare_app() if kind == "bare" else our_app(settings, plain=kind == "plain", watched=kind == "drift")
    let_threads_in()
    quiet_garbage_collector()
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        http="httptools" if kind == "bare" else Protocol,
        loop="uvloop",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # as it is served: with something around the application, no request goes without a task
    )


def measure(repeats: int) -> dict[str, list[tuple[float, float]]]:
    """For each kind: (requests a second, server CPU in us a request), once a repeat, all kinds in turn."""
    found = defaultdict(list)
    for repeat in range(repeats):
        for kind in KINDS:
            with running_server([sys.executable, "-m", "benchmarks.http_ceiling", "--serve", kind], QUIET) as server:
                port, process = int(server.url.rpartition(":")[2]), psutil.Process(server.pid)
                uvloop.run(closed_loop(port, CONNECTIONS, requests(REQUESTS // 8, 1000 + repeat)))
                contents = requests(REQUESTS, repeat)
                before, started = sum(process.cpu_times()[:2]), time.perf_counter()
                answers = uvloop.run(closed_loop(port, CONNECTIONS, contents))
                seconds = time.perf_counter() - started
                assert all(answer.status == 200 for answer in answers)
                found[kind].append((REQUESTS / seconds, (sum(process.cpu_times()[:2]) - before) / REQUESTS * 1e6))
    return found


def main(repeats: int) -> None:
    """Print all figures; ratios are medians of the ratios within each repeat."""
    found = measure(repeats)
    for kind in KINDS:
        rates, costs = ([figures[index] for figures in found[kind]] for index in (0, 1))
        say(
            f"{kind}: {statistics.median(rates):.0f} requests/s ({min(rates):.0f} to {max(rates):.0f}),"
            f" {statistics.median(costs):.0f} us of server CPU a request"
        )
    for kind, other in (("ours", "bare"), ("ours", "plain"), ("drift", "ours")):
        rate, cost = (
            statistics.median(one[index] / of[index] for one, of in zip(found[kind], found[other], strict=True)) for index in (0, 1)
        )
        say(f"{kind} over {other}: {rate:.2f} of the rate, {cost:.2f} times the CPU")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--serve", choices=KINDS, help="be one of the servers, on HOST and PORT")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
    else:
        main(arguments.repeats)
