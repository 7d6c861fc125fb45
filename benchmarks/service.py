"""`python -m benchmarks.service`: what the server adds to the engine, on the embedded bundle and the texts of `loadtest.corpus`.

- saturation: texts/s over HTTP with 256 clients, over those of the engine alone: as many threads as the server has workers, the
  same texts already tokenized, in batches of 32 as they come. In turn, and the ratio within each round. The clients take their CPU
  time from the same cores, so the engine is counted with the cores that they leave; without that the ratio is printed, too. Beside
  it, what a text takes of the server's event loop and of its other threads, and what it takes of the engine alone.
- light load: a request over a kept connection, and one pass over the same text in this process, in turn, with a pause before each.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import sys
import time
from collections.abc import Sequence
from itertools import islice
from typing import Final

import orjson
import uvloop

from benchmarks.console import say
from benchmarks.engine import seconds as engine_seconds
from capacity.cpu import CpuTimes
from capacity.load import Load
from loadtest.corpus import tickets
from loadtest.light import Server
from loadtest.processes import ServerProcess, running_server
from loadtest.run import QUIET
from loadtest.settings import check_defaults
from machine.cores import usable_cores
from models.bundle import embedded_bundle
from models.classifier import Classifier

CLIENTS: Final = 256
TEXTS: Final = 2048
SECONDS: Final = 5.0
PATIENCE_SECONDS: Final = 10.0
PAUSE_MS: Final = (20, 60)


def saturation(classifier: Classifier, texts: Sequence[str], server: ServerProcess, rounds: int) -> None:
    """Print the rates, their ratios, and the CPU time of a text."""
    cores = usable_cores()
    encodings = [classifier.encode(text) for text in texts]
    load = Load(server.url, texts, server, CLIENTS)
    load.saturate(1.0)
    rates, alone, ratios, raw, costs = [], [], [], [], []
    for _ in range(rounds):
        before = time.process_time()
        alone.append(len(texts) / engine_seconds(classifier, encodings, cores))
        engine_cpu = (time.process_time() - before) / len(texts)
        started, usage = time.perf_counter(), CpuTimes.now(server.pid)
        rates.append(load.saturate(SECONDS))
        used, elapsed = CpuTimes.now(server.pid) - usage, time.perf_counter() - started
        raw.append(rates[-1] / alone[-1])
        ratios.append(raw[-1] / (1 - used.client / elapsed / cores))
        costs.append(
            [engine_cpu, *(one / (rates[-1] * elapsed) for one in (used.workers, used.loop, used.client)), used.others / elapsed]
        )
    say(f"saturation: {statistics.median(rates):.0f} texts/s over HTTP, engine alone {statistics.median(alone):.0f}")
    say(f"  over the engine alone {spread(ratios)}, with the clients' CPU time not accounted for {spread(raw)}")
    engine, workers, loop, client, others = (statistics.median(column) for column in zip(*costs, strict=True))
    say(
        f"  CPU a text: engine alone {engine * 1000:.2f} ms; server's workers and other threads {workers * 1000:.2f},"
        f" its event loop {loop * 1000:.2f}, clients {client * 1000:.2f}; all else {others:.2f} cores"
    )


async def light_load(classifier: Classifier, texts: Sequence[str], url: str) -> None:
    """Print what a lone request takes beyond a pass."""
    server, generator = Server.at(url), random.Random(1)
    answered, passes, parts = [], [], []
    with contextlib.closing(await server.connect()) as connection:
        for text in texts:
            content, encoding = server.content(orjson.dumps({"text": text})), classifier.encode(text)
            await asyncio.sleep(generator.uniform(*PAUSE_MS) / 1000)
            started = time.perf_counter()
            response = await connection.ask(content, PATIENCE_SECONDS)
            assert response.status == 200
            answered.append((response.at - started) * 1000)
            parts.append([part or 0.0 for part in (response.timing.tokenize, response.timing.queue, response.timing.inference)])
            await asyncio.sleep(generator.uniform(*PAUSE_MS) / 1000)
            started = time.perf_counter()
            classifier.predict([encoding])
            passes.append((time.perf_counter() - started) * 1000)
    added = [one - other for one, other in zip(answered, passes, strict=True)]
    say(
        f"light load: p50 {statistics.median(answered):.2f} ms, of a pass {statistics.median(passes):.2f};"
        f" added to the pass over the same text, p50 {statistics.median(added):.2f} ms"
    )
    tokenize, queue, inference = (statistics.median(column) for column in zip(*parts, strict=True))
    say(f"  by the server's clock: tokenize {tokenize:.2f} ms, queue {queue:.2f}, inference {inference:.2f} (medians)")


def spread(values: Sequence[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main(rounds: int, requests: int) -> None:
    """Print all figures."""
    check_defaults()
    classifier = Classifier.open(embedded_bundle())
    classifier.warm_up()
    with running_server([sys.executable, "-m", "commands", "serve"], {**QUIET, "ANSWER_CACHE_TEXTS": "0"}) as server:
        saturation(classifier, list(islice(tickets(1), TEXTS)), server, rounds)
        uvloop.run(light_load(classifier, list(islice(tickets(2), requests)), server.url))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=300)
    arguments = parser.parse_args()
    main(arguments.rounds, arguments.requests)
