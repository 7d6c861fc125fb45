"""`python -m benchmarks.batching`: what the batcher itself costs, without HTTP. Under uvloop, about 45 s.

- overhead: microseconds an item, from submit to the outcome, with an instant `process`; less what as many tasks cost that each wait
  for a future which the loop sets.
- idle: how often an event loop wakes up with an open batcher in which nothing is queued, against the same loop without one.
- lone: the time in the queue of an item that finds an idle batcher, with the embedded model in threads, as the server runs it.
- deadlines: how far from its deadline `DeadlineExceeded` reaches a caller, while the model computes in another thread.
"""

from __future__ import annotations

import asyncio
import random
import resource
import selectors
from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from statistics import median
from time import perf_counter
from typing import Final

import numpy as np
import uvloop

from batching import Batcher, BatchPolicy, DeadlineExceeded
from benchmarks.console import say
from loadtest.corpus import tickets
from models.bundle import embedded_bundle
from models.classifier import Classifier
from models.types import Encoding, Prediction
from server.threads import PassThreads

ITEMS: Final = 10_000
ROUNDS: Final = 11
IDLE_SECONDS: Final = 5.0
LONE_ITEMS: Final = 2_000
DEADLINES: Final = 200
PASS_SECONDS: Final = 0.2
SHORTEST, LONGEST = 0.020, 0.180


async def instant(items: list[int]) -> Sequence[int]:
    """A process that takes no time."""
    return items


async def overhead(timeout: float | None) -> tuple[float, float]:  # noqa: ASYNC109 - it is the batcher's
    """Microseconds an item: (through the batcher, as plain tasks)."""

    async def plain(answer: asyncio.Future[None]) -> None:
        await answer

    loop = asyncio.get_running_loop()
    policy = BatchPolicy(max_items=32, max_queued=ITEMS)
    async with Batcher(instant, policy, cost=lambda item: 1 + item % 64, key=lambda item: item, clock=perf_counter) as batcher:
        await batcher.submit(0)
        started = perf_counter()
        answers = [loop.create_future() for _ in range(ITEMS)]
        for answer in answers:
            loop.call_soon(answer.set_result, None)
        await asyncio.gather(*(plain(answer) for answer in answers))
        between = perf_counter()
        await asyncio.gather(*(batcher.submit(item, timeout=timeout) for item in range(ITEMS)))
        ended = perf_counter()
    return (ended - between) / ITEMS * 1e6, (between - started) / ITEMS * 1e6


def report_overhead() -> None:
    """Medians over rounds, each in a loop of its own."""
    for name, timeout in (("without a timeout", None), ("with one each", 30.0)):
        rounds = [uvloop.run(overhead(timeout)) for _ in range(ROUNDS)]
        total, plain, difference = (
            median(values) for values in zip(*((total, plain, total - plain) for total, plain in rounds), strict=True)
        )
        say(f"overhead {name}: {total:.1f} us an item, {plain:.1f} as plain tasks, difference {difference:.1f}")


class CountingSelector(selectors.DefaultSelector):
    """Counts how often the loop asks for events, which it does once a turn."""

    polls = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """As the selector does it."""
        self.polls += 1
        return super().select(timeout)


async def wake_ups(count: Callable[[], int]) -> tuple[float, float]:
    """By `count`, a second: (with an idle batcher after some traffic, without one); the timer that ends the time included."""

    async def idle() -> float:
        before = count()
        await asyncio.sleep(IDLE_SECONDS)
        return (count() - before) / IDLE_SECONDS

    without = await idle()
    async with Batcher(instant, clock=perf_counter) as batcher:
        await asyncio.gather(*(batcher.submit(item, timeout=1.0) for item in range(1000)))
        return await idle(), without


def context_switches() -> int:
    """How often this thread has gone to sleep so far, and so has been woken up."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def report_idle() -> None:
    """Turns of an asyncio loop; uvloop does not count its own, so there it is the thread's sleeps."""
    selector = CountingSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        turns = runner.run(wake_ups(lambda: selector.polls))
    sleeps = uvloop.run(wake_ups(context_switches))
    for name, (with_batcher, without) in (("asyncio, turns", turns), ("uvloop, sleeps", sleeps)):
        more = with_batcher - without
        say(f"idle, {name} a second: {with_batcher:.1f} with a batcher, {without:.1f} without, difference {more:.1f}")


async def lone(classifier: Classifier, encodings: Sequence[Encoding]) -> list[float]:
    """The seconds in the queue of items submitted one after the other."""
    threads = PassThreads(asyncio.get_running_loop())

    async def predict(batch: list[Encoding]) -> Sequence[Prediction]:
        return await threads.run(partial(classifier.predict, batch))

    policy = BatchPolicy(max_cost=512, workers=2)
    async with Batcher(predict, policy, cost=len, key=lambda encoding: encoding.ids, clock=perf_counter) as batcher:
        waits = [(await batcher.submit(encoding, timeout=10.0)).wait for encoding in encodings]
    threads.close()
    return waits


async def deadline_errors(classifier: Classifier, encodings: Sequence[Encoding]) -> list[float]:
    """The seconds from each deadline to its error, of items that are in a pass or queued behind it."""
    threads = PassThreads(asyncio.get_running_loop())

    def work() -> None:
        started = perf_counter()
        while perf_counter() - started < PASS_SECONDS:
            classifier.predict(encodings)

    async def process(items: list[int]) -> Sequence[int]:
        await threads.run(work)
        return items

    async def error(batcher: Batcher[int, int], item: int) -> float:
        deadline = perf_counter() + (timeout := random.uniform(SHORTEST, LONGEST))
        try:
            await batcher.submit(item, timeout=timeout)
        except DeadlineExceeded:
            return perf_counter() - deadline
        raise RuntimeError("a pass was faster than it should be")

    async with Batcher(process, BatchPolicy(max_items=32), clock=perf_counter) as batcher:
        errors = await asyncio.gather(*(error(batcher, item) for item in range(DEADLINES)))
    threads.close()
    return errors


def main() -> None:
    """Print all figures."""
    report_overhead()
    report_idle()
    random.seed(1)
    classifier = Classifier.open(embedded_bundle())
    classifier.warm_up()
    encodings = [classifier.encode(text) for text in islice(tickets(1), LONE_ITEMS)]
    waits = np.array(uvloop.run(lone(classifier, encodings))) * 1e3
    say(f"lone, {len(waits)} items: p50 {np.percentile(waits, 50):.3f} ms in the queue, p99 {np.percentile(waits, 99):.3f}")
    errors = np.array(uvloop.run(deadline_errors(classifier, encodings[:8]))) * 1e3
    p50, p99 = np.percentile(errors, [50, 99])
    say(f"deadlines, {len(errors)} items: p50 {p50:+.2f} ms, p99 {p99:+.2f}, from {errors.min():+.2f} to {errors.max():+.2f}")


if __name__ == "__main__":
    main()
