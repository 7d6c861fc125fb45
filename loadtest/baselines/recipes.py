"""Three ways to answer requests with such a model, from simple to usual.

- no-batching: each text alone in its pass, which needs no padding, in as many threads as there are cores. The strong version.
- usual-recipe: an asyncio micro-batcher. A batch leaves when it has 32 texts or its first has waited 40 ms, padded to its longest.
- article: `predict(texts)` on the texts of one request, called from Starlette's thread pool, the session with default options.

The micro-batcher is what a careful user would write: its window counts from the first text's arrival; it takes texts from the queue
only when a pass may begin, so that batches fill while all are busy; it runs as many passes at once as there are cores, each on one
thread; a failing pass fails its own texts only, and a caller that left does no harm.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import onnxruntime as ort
from starlette.concurrency import run_in_threadpool

from loadtest.baselines.padded import Answer, PaddedModel, one_thread_a_pass
from machine.cores import usable_cores

WINDOW = 0.04  # seconds
MAX_TEXTS = 32

Predict = Callable[[Sequence[str]], list[Answer]]


class Recipe(Protocol):
    """Answers texts while it is running."""

    def running(self) -> AbstractAsyncContextManager[None]:
        """Holds what it needs: threads, a task."""

    async def classify(self, text: str) -> Answer:
        """Classify one text. Raises what the pass raised."""


class NoBatching:
    """Each text in a pass of its own, so many at a time."""

    def __init__(self, predict: Predict, threads: int) -> None:
        self._predict = predict
        self._pool = ThreadPoolExecutor(threads)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Leaving drops what still waits."""
        try:
            yield
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def classify(self, text: str) -> Answer:
        """Classify one text."""
        (answer,) = await asyncio.get_running_loop().run_in_executor(self._pool, self._predict, [text])
        return answer


class Article:
    """Each request's texts in a pass of their own, from a thread of Starlette's pool (40 threads)."""

    def __init__(self, predict: Predict) -> None:
        self._predict = predict

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """There is nothing to hold."""
        yield

    async def classify(self, text: str) -> Answer:
        """Classify one text."""
        (answer,) = await run_in_threadpool(self._predict, [text])
        return answer


@dataclass(frozen=True, slots=True)
class _Waiting:
    text: str
    arrived: float
    answer: asyncio.Future[Answer]


class MicroBatcher:
    """The usual recipe. Its mutable state: the queue, the count of free passes, and the tasks of those that run."""

    def __init__(self, predict: Predict, passes: int, window: float = WINDOW, max_texts: int = MAX_TEXTS) -> None:
        self._predict = predict
        self._window = window
        self._max_texts = max_texts
        self._pool = ThreadPoolExecutor(passes)
        self._free = asyncio.Semaphore(passes)
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._passes: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Leaving drops what still waits."""
        collector = asyncio.create_task(self._dispatch())
        try:
            yield
        finally:
            collector.cancel()
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def classify(self, text: str) -> Answer:
        """Classify one text, in the company of others."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(text, loop.time(), loop.create_future())
        self._queue.put_nowait(waiting)
        return await waiting.answer

    async def _dispatch(self) -> None:
        while True:
            await self._free.acquire()
            batch = await self._collect()
            task = asyncio.create_task(self._answer(batch))
            self._passes.add(task)
            task.add_done_callback(self._passes.discard)

    async def _collect(self) -> list[_Waiting]:
        """Wait for a text, and for others until the batch is full or the first one's window is over."""
        batch = [await self._queue.get()]
        try:
            async with asyncio.timeout_at(batch[0].arrived + self._window):
                while len(batch) < self._max_texts:
                    batch.append(await self._queue.get())
        except TimeoutError:
            pass
        return batch

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        texts = [waiting.text for waiting in batch]
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._pool, self._predict, texts)
        except Exception as error:  # noqa: BLE001 - whatever it is, the callers shall know
            for waiting in batch:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
        else:
            for waiting, answer in zip(batch, answers, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(answer)
        finally:
            self._free.release()


def no_batching(bundle: Path) -> Recipe:
    """Open the recipe of this name."""
    return NoBatching(PaddedModel.open(bundle, one_thread_a_pass()).predict, usable_cores())


def usual_recipe(bundle: Path) -> Recipe:
    """Open the recipe of this name."""
    return MicroBatcher(PaddedModel.open(bundle, one_thread_a_pass()).predict, usable_cores())


def article(bundle: Path) -> Recipe:
    """Open the recipe of this name."""
    return Article(PaddedModel.open(bundle, ort.SessionOptions()).predict)


RECIPES: Final[Mapping[str, Callable[[Path], Recipe]]] = {
    "no-batching": no_batching,
    "usual-recipe": usual_recipe,
    "article": article,
}
