"""A model that is slow, failing or stuck as it is told, and callers for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from batching import Batcher, Outcome

Process = Callable[[list[int]], Awaitable[list[int]]]


class Model:
    """Doubles numbers, in `seconds` a pass and `per_unit` more for each unit of their sum.

    A negative number makes the pass fail. A pass with a number that is `stuck` ends only after `free()`.
    """

    def __init__(self, seconds: float = 0.010, per_unit: float = 0.0, stuck: Iterable[int] = ()) -> None:
        self.seconds = seconds
        self.per_unit = per_unit
        self.stuck = frozenset(stuck)
        self.batches: list[list[int]] = []
        self.started_at: list[float] = []
        self.running = 0
        self.most_running = 0
        self._freed = asyncio.Event()

    def free(self) -> None:
        """Let go of what is stuck."""
        self._freed.set()

    async def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.started_at.append(now())
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.seconds + self.per_unit * sum(items))
            if self.stuck.intersection(items):
                await self._freed.wait()
        finally:
            self.running -= 1
        if min(items) < 0:
            raise ValueError("a negative number")
        return [2 * item for item in items]


def now() -> float:
    """The running loop's time."""
    return asyncio.get_running_loop().time()


def start(batcher: Batcher[int, int], *items: int, timeout: float | None = None) -> list[asyncio.Task[Outcome[int]]]:
    """One caller for each item. They come with the loop's next turn."""
    return [asyncio.create_task(batcher.submit(item, timeout=timeout)) for item in items]


async def ends(tasks: Iterable[asyncio.Task[Outcome[int]]]) -> list[int | type[BaseException]]:
    """What became of these callers: the result, or the kind of error."""
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    return [type(outcome) if isinstance(outcome, BaseException) else outcome.result for outcome in outcomes]


def adds_up(batcher: Batcher[int, int]) -> bool:
    """Every accepted item is somewhere, and only there."""
    seen = batcher.statistics()
    return seen.accepted == seen.answered + seen.failed + seen.abandoned + seen.expired + seen.waiting
