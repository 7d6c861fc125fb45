"""`python -m benchmarks.overload`: a real server over HTTP, alone with one client, saturated, and at three times what it can do.

- lone: one request at a time on an idle server; the time in its queue by Server-Timing, p50 and p99.
- capacity: 32 clients, each sending as soon as it is answered; texts a second.
- overload: requests at random moments, three times the capacity, from as many connections as are needed; what became of them.
  The queue's bound says how many texts may be answered before one that was accepted: all its places, what is in passes, and the
  batches that may pass it over. In seconds, it depends on the pace meanwhile.
  The true drain time at a refusal is how long it took until all who were accepted before it had their answers.

Client and server share the machine. The client counts the time of a refusal from handing the request to the socket to reading the
answer, its own delays included; the server's own measure of it is in its access log, and is printed beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from itertools import islice

import numpy as np
import uvloop

from benchmarks.console import say
from loadtest import light
from loadtest.answers import Reference
from loadtest.arrivals import Pace, poisson
from loadtest.processes import running_server
from loadtest.samples import Sample
from loadtest.scenarios import SCENARIOS, Request
from loadtest.settings import check_defaults
from machine.cores import usable_cores
from server.settings import Settings

LONE_REQUESTS = 500
CAPACITY_CLIENTS = 32
OVERLOAD = 3.0
REFUSED = 429
CONNECTIONS = 1200
SEED = 3
NOTHING_KNOWN = Reference()


def requests(count: int, seed: int) -> list[Request]:
    """Ready-made requests, each with a ticket of its own."""
    return list(islice(SCENARIOS["steady"].requests(seed, NOTHING_KNOWN), count))


async def closed_loop(port: int, clients: int, contents: Sequence[Request]) -> list[Sample]:
    """So many clients share the requests, each sending its next when it is answered."""
    samples: list[Sample] = []
    await light.closed_loop(f"http://127.0.0.1:{port}", contents, NOTHING_KNOWN, samples.append, clients=clients)
    return answered(samples)


async def open_loop(port: int, rate: float, seconds: float, connections: int) -> list[Sample]:
    """Requests at random moments, `rate` a second on average, whatever becomes of the earlier ones."""
    moments = list(poisson([Pace("overload", seconds, rate)], SEED))
    calls = list(zip(moments, requests(len(moments), SEED), strict=True))
    samples: list[Sample] = []
    await light.open_loop(f"http://127.0.0.1:{port}", calls, NOTHING_KNOWN, samples.append, connections=connections)
    return answered(samples)


def answered(samples: list[Sample]) -> list[Sample]:
    """All of them; a request that got no answer makes every figure worthless."""
    if lost := Counter(sample.outcome for sample in samples if not sample.status):
        sys.exit(f"requests without an answer: {dict(lost)}")
    return samples


def drain_times(answers: Sequence[Sample]) -> list[tuple[float, float]]:
    """For each refusal: (seconds until all who were accepted before it were answered, its Retry-After)."""
    by_sending = sorted(answers, key=lambda answer: answer.sent)
    last, found = 0.0, []
    for answer in by_sending:
        if answer.status == REFUSED:
            found.append((last - answer.answered, answer.retry_after or 0.0))
        else:
            last = max(last, answer.answered)
    return found


def main(seconds: float) -> None:
    """Print all figures."""
    check_defaults()
    command = [sys.executable, "-m", "commands", "serve"]
    settings = {"ACCESS_LOG": "true", "LOG_LEVEL": "info", "LOG_FORMAT": "json"}
    with tempfile.TemporaryFile() as log:
        with running_server(command, settings, log) as server:
            port = int(server.url.rpartition(":")[2])
            lone = uvloop.run(closed_loop(port, 1, requests(LONE_REQUESTS, 1)))
            waits = [answer.queue_ms or 0.0 for answer in lone]
            say(f"lone request: {np.percentile(waits, 50):.2f} ms in the queue (p50), {np.percentile(waits, 99):.2f} ms (p99)")

            answers = uvloop.run(closed_loop(port, CAPACITY_CLIENTS, requests(4000, 2)))
            rate = len(answers) / (max(answer.answered for answer in answers) - min(answer.sent for answer in answers))
            say(f"capacity: {rate:.0f} texts/s with {CAPACITY_CLIENTS} clients")

            answers = uvloop.run(open_loop(port, OVERLOAD * rate, seconds, CONNECTIONS))
        log.seek(0)
        lines = [json.loads(line) for line in log]
    (drained,) = (line for line in lines if line["event"] == "drained")
    report(answers)
    say(f"padding: {drained['padded_cells'] / drained['cells']:.2f} cells if padded over real ones, start and capacity included")
    refusals = [line["ms"] for line in lines if line["event"] == "request" and line["status"] == REFUSED]
    say(f"refusals by the server's clock: {spread(refusals)}")


def report(answers: Sequence[Sample]) -> None:
    """Print what became of the requests of an overload."""
    begin, end = min(answer.sent for answer in answers), max(answer.sent for answer in answers)
    statuses = Counter(answer.status for answer in answers)
    accepted = [answer for answer in answers if answer.status == 200]
    refused = [(answer.answered - answer.sent) * 1000 for answer in answers if answer.status == REFUSED]
    pace = len([answer for answer in accepted if answer.answered <= end]) / (end - begin)
    say(f"overload: {len(answers) / (end - begin):.0f} requests/s for {end - begin:.0f} s, answers by status {dict(statuses)}")
    # Before a text leave at most all places, those in passes, and the batches that may pass it over; then its own pass.
    policy = Settings().batch_policy(usable_cores())
    bound = policy.max_queued + (2 * policy.workers + policy.max_passed_over) * policy.max_items
    moments = sorted(answer.answered for answer in accepted)
    before = [bisect(moments, answer.answered) - bisect(moments, answer.sent) for answer in accepted]
    say(f"accepted: texts answered before one, p99 {np.percentile(before, 99):.0f}, most {max(before)}; bound {bound:.0f}")
    latencies = [answer.answered - answer.sent for answer in accepted]
    p50, p99 = np.percentile(latencies, [50, 99])
    inside = np.percentile([(answer.total_ms or 0.0) / 1000 for answer in accepted], 99)
    say(f"accepted: {pace:.0f} texts/s, p50 {p50:.2f} s, p99 {p99:.2f} s, by the server's clock {inside:.2f} s")
    say(f"the bound in time: {bound / pace:.2f} s at the mean pace, {bound / slowest(moments):.2f} s at that of the slowest 3 s")
    say(f"refusals by the client's clock: {spread(refused)}")
    drains = drain_times(answers)
    ratios = [retry_after / true for true, retry_after in drains if true > 0]
    near = sum(0.7 <= ratio <= 1.3 for ratio in ratios) / len(ratios)
    p5, p50, p95 = np.percentile(ratios, [5, 50, 95])
    say(f"true drain time at a refusal: p50 {np.median([true for true, _ in drains]):.2f} s")
    say(f"Retry-After over it: p5 {p5:.2f}, p50 {p50:.2f}, p95 {p95:.2f}; within 30 %: {near:.1%}")


def slowest(moments: Sequence[float], seconds: float = 3.0) -> float:
    """Answers a second in the slowest stretch of so many seconds; `moments` are in order."""
    whole = [moment for moment in moments if moment + seconds <= moments[-1]]
    return min(bisect(moments, moment + seconds) - index for index, moment in enumerate(whole)) / seconds


def spread(milliseconds: Sequence[float]) -> str:
    """Percentiles, the maximum, and how many took 5 ms or more."""
    p50, p99, p999 = np.percentile(milliseconds, [50, 99, 99.9])
    slow = sum(value >= 5 for value in milliseconds) / len(milliseconds)
    return f"p50 {p50:.2f} ms, p99 {p99:.2f}, p99.9 {p999:.2f}, max {max(milliseconds):.2f}; {slow:.2%} took 5 ms or more"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="of overload")
    main(parser.parse_args().seconds)
