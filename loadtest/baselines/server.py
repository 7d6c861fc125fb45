"""`python -m loadtest.baselines.server RECIPE BUNDLE --port N`: a baseline behind HTTP, in one process.

`POST /classify` takes `{"text": ...}` and answers `{"prediction": ..., "confidence": ...}`, `GET /ready` answers 200: as much of
our API as a load generator needs, on the same uvicorn, uvloop and httptools. SIGTERM ends it at once, with status 0.
"""

from __future__ import annotations

import argparse
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from loadtest.baselines.recipes import RECIPES, Recipe

WARM_UP = ("My payment failed twice", "App keeps crashing on iOS. " * 20)


def create_app(recipe: Recipe) -> Starlette:
    """An application around a recipe, which runs as long as the application does."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with recipe.running():
            for text in WARM_UP:
                await recipe.classify(text)
            yield

    async def classify(request: Request) -> JSONResponse:
        try:
            body = await request.json()
            text = body["text"]
        except (ValueError, KeyError, TypeError):
            return JSONResponse({"error": 'the body must be {"text": "..."}'}, 400)
        if not isinstance(text, str):
            return JSONResponse({"error": "text must be a string"}, 422)
        answer = await recipe.classify(text)
        return JSONResponse({"prediction": answer.prediction, "confidence": answer.confidence})

    async def ready(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ready"})

    routes = [Route("/classify", classify, methods=["POST"]), Route("/ready", ready)]
    return Starlette(routes=routes, lifespan=lifespan)


def tune_interpreter() -> None:
    """Do what our own server does (`server/serving.py`), so that this is not among the differences."""
    sys.setswitchinterval(0.0005)
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


class _Server(uvicorn.Server):
    """Without uvicorn's orderly end: after an overload, thousands of requests may wait whose clients have left."""

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals as they are."""
        yield


def main(arguments: list[str]) -> None:
    """Serve until SIGTERM comes."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.baselines.server", description=__doc__.partition("\n")[0])
    parser.add_argument("recipe", choices=RECIPES)
    parser.add_argument("bundle", type=Path, help="built with --engine padded")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")), help="by default that of PORT, or 8000")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    app = create_app(RECIPES[options.recipe](options.bundle))
    tune_interpreter()
    config = uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        loop="uvloop",
        http="httptools",
        backlog=2048,
        log_level="warning",
        access_log=False,
    )
    _Server(config).run()


if __name__ == "__main__":
    main(sys.argv[1:])
