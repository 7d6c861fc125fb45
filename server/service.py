"""The service behind the routes: the model, the batcher, and the one place where they meet."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from time import perf_counter

import anyio.to_thread
import structlog

from batching import Batcher, BatcherStatistics
from models.types import BlankTextError, Encoding, Prediction, TextClassifier
from server.readiness import Readiness
from server.schemas import ClassifyRequest, blank_text
from server.settings import Settings

log = structlog.stdlib.get_logger("supportbot.service")

# Texts up to this many characters together are tokenized on the event loop, where 2,000 characters take about 0.6 ms; handing less
# than that to a thread costs more than it saves.
TOKENIZE_INLINE_CHARACTERS = 2_000


@dataclass(frozen=True, slots=True)
class Timing:
    """Where a request's time went, in seconds. `queue` and `inference` are those of its slowest text."""

    tokenize: float
    queue: float
    inference: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The answer to one request, in the order of its texts."""

    predictions: list[Prediction]
    truncated: list[bool]
    timing: Timing


def usable_cores() -> int:
    """The cores this process may run on, which in a container is not what the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Service:
    """Loads the model in the background, classifies while it is ready, drains when told to."""

    def __init__(self, settings: Settings, open_classifier: Callable[[], TextClassifier]) -> None:
        self.settings = settings
        self.readiness = Readiness()
        # True when a thread is still in the model although its time is up; the process must not wait for it.
        self.is_hanging = False
        self.is_drained = False
        self._policy = settings.batch_policy(usable_cores())
        self._open_classifier = open_classifier
        self._classifier: TextClassifier | None = None
        self._batcher: Batcher[Encoding, Prediction] | None = None

    @property
    def classifier(self) -> TextClassifier:
        """The model in service. Raises `NotReady` before there is one."""
        self.readiness.check()
        assert self._classifier is not None
        return self._classifier

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open everything in order, close it in the opposite order. Loading goes on in the background meanwhile."""
        async with AsyncExitStack() as stack:
            workers = ThreadPoolExecutor(self._policy.workers, thread_name_prefix="inference")
            # A pass that hangs cannot be stopped, so nobody waits for it here.
            stack.callback(workers.shutdown, wait=False, cancel_futures=True)
            loading = asyncio.create_task(self._load(workers, stack), name="service.load")
            try:
                yield
            finally:
                self.readiness.set_draining()
                # Nothing was accepted before the model is there, so there is nothing to wait for.
                self.is_hanging |= not loading.done()
                loading.cancel()

    async def classify(self, request: ClassifyRequest) -> Classification:
        """Classify one request's texts, each an entry of its own in the batcher.

        Raises `NotReady`, `RequestError` (blank text), `QueueFull`, `BatcherClosed` or `PassFailed`.
        """
        classifier = self.classifier
        assert self._batcher is not None
        with self._batcher.reserve(len(request.texts)) as places:
            started = perf_counter()
            encodings = await _encode(classifier, request)
            tokenize = perf_counter() - started
            outcomes = await places.submit(encodings)
        return Classification(
            predictions=[outcome.result for outcome in outcomes],
            truncated=[encoding.truncated for encoding in encodings],
            timing=Timing(
                tokenize=tokenize,
                queue=max(outcome.wait for outcome in outcomes),
                inference=max(outcome.duration for outcome in outcomes),
            ),
        )

    async def drain(self) -> None:
        """Refuse new requests, finish the accepted ones, and linger a little: late clients meet a 503, not a reset.

        What is not finished within the bound, or when this is cancelled, is answered 503, too; then `is_drained` stays False, and
        a pass may still be hanging.
        """
        self.readiness.set_draining()
        log.info("draining")
        linger = asyncio.create_task(asyncio.sleep(self.settings.drain_linger_ms / 1000))
        try:
            self.is_drained = self._batcher is None or await self._batcher.close()
        finally:
            if not self.is_drained:
                self.is_hanging = True
                log.error("not all accepted requests were finished")
        await linger

    def statistics(self) -> BatcherStatistics | None:
        """The batcher's snapshot; None before the model is loaded."""
        return self._batcher.statistics() if self._batcher else None

    async def _load(self, workers: ThreadPoolExecutor, stack: AsyncExitStack) -> None:
        started = perf_counter()
        loop = asyncio.get_running_loop()
        try:
            self._classifier = classifier = await loop.run_in_executor(workers, self._open_classifier)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a model, the reason belongs where operators look
            self.readiness.set_failed(f"{type(error).__name__}: {error}")
            log.error("model cannot be used", reason=self.readiness.reason)  # noqa: TRY400 - the reason is for operators, complete
            return

        async def predict(batch: list[Encoding]) -> Sequence[Prediction]:
            # The only thread border on a ticket's way.
            try:
                return await loop.run_in_executor(workers, classifier.predict, batch)
            except Exception:
                log.exception("pass failed", texts=len(batch), tokens=sum(map(len, batch)))
                raise

        bound = self.settings.drain_timeout_ms / 1000
        batcher = Batcher(predict, self._policy, cost=len, drain_timeout=bound, clock=perf_counter)
        self._batcher = await stack.enter_async_context(batcher)
        self.readiness.set_ready()
        log.info("ready", model=classifier.identity, workers=self._policy.workers, seconds=round(perf_counter() - started, 3))


async def _encode(classifier: TextClassifier, request: ClassifyRequest) -> list[Encoding]:
    def encode() -> list[Encoding]:
        encodings = []
        for index, text in enumerate(request.texts):
            try:
                encodings.append(classifier.encode(text))
            except BlankTextError as error:
                raise blank_text(index, single=request.single) from error
        return encodings

    if sum(map(len, request.texts)) <= TOKENIZE_INLINE_CHARACTERS:
        return encode()
    return await anyio.to_thread.run_sync(encode)
