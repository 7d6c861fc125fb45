"""`python -m benchmarks.dialects`: what other dialects cost, over our own, at half load.

Requests come at random moments, each in a dialect drawn by chance, so that all meet the same server in the same moments. Every
request has a ticket of its own. Printed are p50 and p99 of the time from sending to reading an answer, and each over ours.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
from collections.abc import Callable
from itertools import islice
from time import perf_counter
from typing import Final

import orjson
import uvloop

from benchmarks.console import say
from benchmarks.overload import closed_loop, requests
from loadtest.arrivals import Pace, poisson
from loadtest.corpus import tickets
from loadtest.light import Connection, Server
from loadtest.processes import running_server
from loadtest.run import QUIET
from loadtest.settings import check_defaults
from models.bundle import Bundle, embedded_bundle
from server.api.tensors import HEADER, join_strings

CAPACITY_REQUESTS: Final = 3_000
CAPACITY_CLIENTS: Final = 32
PATIENCE: Final = 30.0
SEED: Final = 5


def _post(path: str, body: bytes, headers: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _native(text: str, _: str) -> bytes:
    return _post("/classify", orjson.dumps({"text": text}), "Content-Type: application/json\r\n")


def _tei(text: str, _: str) -> bytes:
    return _post("/predict", orjson.dumps({"inputs": text}), "Content-Type: application/json\r\n")


def _binary(text: str, model: str) -> bytes:
    raw = join_strings([text])
    tensor = {"name": "text", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    return _post(f"/v2/models/{model}/infer", head + raw, f"{HEADER}: {len(head)}\r\n")


def _router(text: str, _: str) -> bytes:
    return _post("/classify", orjson.dumps({"inputs": text}), "Content-Type: application/json\r\n")


OURS: Final = "ours"
KINDS: Final[dict[str, Callable[[str, str], bytes]]] = {
    OURS: _native,
    "tei": _tei,
    "open-inference, binary": _binary,
    "semantic-router": _router,
}


async def mixed(url: str, model: str, rate: float, seconds: float, seed: int) -> dict[str, list[float]]:
    """Latencies in seconds, by dialect."""
    server, found = Server.at(url), {kind: list[float]() for kind in KINDS}
    idle: list[Connection] = []
    moments = list(poisson([Pace("half", seconds, rate)], seed))
    chance = random.Random(seed)
    texts = islice(tickets(seed), len(moments))

    async def one(kind: str, content: bytes) -> None:
        connection = idle.pop() if idle else await server.connect()
        sent = perf_counter()
        response = await connection.ask(content, PATIENCE)
        assert response.status == 200, response
        found[kind].append(response.at - sent)
        idle.append(connection)

    begin = perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for moment, text in zip(moments, texts, strict=True):
            kind = chance.choice(list(KINDS))
            content = KINDS[kind](text, model)
            await asyncio.sleep(max(0.0, begin + moment - perf_counter()))
            tasks.create_task(one(kind, content))
    for connection in idle:
        connection.close()
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each round")
    options = parser.parse_args()
    check_defaults()
    model = Bundle.open(embedded_bundle()).manifest.name
    ratios: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    with running_server([sys.executable, "-m", "commands", "serve"], QUIET) as server:
        port = int(server.url.rpartition(":")[2])
        begin = perf_counter()
        samples = uvloop.run(closed_loop(port, CAPACITY_CLIENTS, requests(CAPACITY_REQUESTS, SEED)))
        rate = len(samples) / (perf_counter() - begin) / 2
        say(f"half load: {rate:.0f} requests/s")
        for number in range(options.rounds):
            found = uvloop.run(mixed(server.url, model, rate, options.seconds, SEED + number))
            quantiles = {kind: statistics.quantiles(times, n=100) for kind, times in found.items()}
            for kind, cut in quantiles.items():
                ours = quantiles[OURS]
                ratios[kind].append((cut[49] / ours[49], cut[98] / ours[98]))
                say(f"{kind:24} p50 {cut[49] * 1000:6.2f} ms  p99 {cut[98] * 1000:6.2f} ms  ({len(found[kind])} requests)")
        say("over ours, median of the rounds:")
        for kind, pairs in ratios.items():
            p50, p99 = (statistics.median(pair[place] for pair in pairs) for place in (0, 1))
            say(f"{kind:24} p50 {p50:.3f}  p99 {p99:.3f}")


if __name__ == "__main__":
    main()
