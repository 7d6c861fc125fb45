"""The micro-batcher: a thin asyncio shell around the pure queue.

There is no task that polls or sleeps and could die unnoticed. `_dispatch` is an ordinary function that starts every pass which may
start now; it is called, through the event loop's ready queue, whenever something changed: an item came, a pass ended, a window
ended (one timer), the batcher is draining. Nothing queued means no timer, so an idle batcher causes no wake-ups at all.

Invariants (the tests cite the numbers; 1 to 5 are the queue's):

6. Each accepted item gets exactly one outcome: an answer, an error, or its caller has left. No caller waits for ever, in any order
   of submit, cancel, failure and close.
7. The results of a pass reach the callers in the order of its items.
8. A caller that leaves changes nothing for its batch-mates: its item is dropped if queued and its result ignored if in flight.
9. At most `workers` passes run at the same time.
10. Places reserved or queued never exceed `max_queued`; a reservation is granted for all its places or refused.
11. What was accepted before draining is finished within the bound; what is not gets `BatcherClosed`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType, TracebackType
from typing import Generic, Self, TypeVar

from batching.errors import BatcherClosed, BatchingError, PassFailed, QueueFull, WrongResultCount
from batching.policy import BatchPolicy
from batching.queue import Batch, BatchQueue, FlushReason
from batching.statistics import BatcherStatistics

T = TypeVar("T")
R = TypeVar("R")

# The weight of the newest pass in the running mean of seconds per item: recent enough to follow a change of load within some 10
# passes, calm enough that one slow pass does not mislead.
_NEWEST = 0.2
# How long a closing batcher waits for passes that were cancelled to end.
_LAST_PASSES_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """One item's result; `wait` in the queue and `duration` of the pass in seconds, `batch_size` in items."""

    result: R
    wait: float
    duration: float
    batch_size: int


@dataclass(eq=False, slots=True)
class _Entry(Generic[T, R]):
    """An item on its way, with its own answer slot and clock mark. Compared and hashed by identity."""

    item: T
    cost: int
    queued_at: float
    answer: asyncio.Future[Outcome[R]]

    def fail(self, error: BatchingError) -> bool:
        """Wake the caller with an error; False when it has left."""
        if self.answer.done():
            return False
        self.answer.set_exception(error)
        return True


@dataclass(slots=True)
class _Counts:
    accepted: int = 0
    answered: int = 0
    failed: int = 0
    abandoned: int = 0
    refused: int = 0
    passes: int = 0
    items_passed: int = 0
    flushes: Counter[FlushReason] = field(default_factory=Counter)
    wait_time: float = 0.0
    pass_time: float = 0.0
    peak_queued: int = 0


def _one(_: object) -> int:
    return 1


def _never_opened() -> float:
    raise BatcherClosed


class Batcher(Generic[T, R]):
    """Collects single items from many callers, passes them in batches to `process`, and hands each caller its own result.

    `process` is awaited with a list of items and must return as many results in the same order; it decides where the work runs
    (a worker thread, a process, inline). `cost` says what an item costs on the scale of `policy.max_cost`; the default is 1 each.
    `drain_timeout` bounds, in seconds, how long leaving the `async with` block waits for accepted items.

        async with Batcher(process) as batcher:
            outcome = await batcher.submit(item)

    `clock` returns seconds; the default is the running event loop's `time()`, so a loop with virtual time tests it exactly. Under
    uvloop, whose `time()` counts whole milliseconds, `time.perf_counter` measures waits and passes better.
    """

    def __init__(
        self,
        process: Callable[[list[T]], Awaitable[Sequence[R]]],
        policy: BatchPolicy | None = None,
        *,
        cost: Callable[[T], int] = _one,
        drain_timeout: float = 10.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.policy = policy or BatchPolicy()
        self._process = process
        self._cost = cost
        self._drain_timeout = drain_timeout
        # All mutable state. Everything below is touched on the event loop's thread only.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clock: Callable[[], float] = clock or _never_opened
        self._queue: BatchQueue[_Entry[T, R]] = BatchQueue(self.policy)
        self._passes: dict[asyncio.Task[None], Batch[_Entry[T, R]]] = {}
        self._reserved = 0
        self._timer: asyncio.TimerHandle | None = None
        self._dispatch_scheduled = False
        self._drain_deadline: float | None = None
        self._is_closed = False
        self._became_idle = asyncio.Event()
        self._seconds_per_item: float | None = None
        self._counts = _Counts()

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "draining" if self._queue.draining else "open" if self._loop else "new"
        return (
            f"<Batcher {state} reserved={self._reserved} queued={len(self._queue)}"
            f" in_flight={self._in_flight()} passes={len(self._passes)}/{self.policy.workers}>"
        )

    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise RuntimeError("a Batcher is opened once")
        self._loop = asyncio.get_running_loop()
        if self._clock is _never_opened:
            self._clock = self._loop.time
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    # --- callers

    def reserve(self, places: int = 1) -> Reservation[T, R]:
        """Take `places` places at once, before any work is spent on the items; use it in a `with` block.

        Raises `QueueFull` when not all of them are to be had, `BatcherClosed` when draining or closed, and `ValueError` when
        `places` is below 1 or could never be granted.
        """
        if not 1 <= places <= self.policy.max_queued:
            raise ValueError(f"places must be 1 to {self.policy.max_queued}, not {places}")
        if self._loop is None or self._queue.draining or self._is_closed:
            raise BatcherClosed
        taken = self._reserved + len(self._queue) + places
        if taken > self.policy.max_queued:
            self._counts.refused += places
            raise QueueFull(self.expected_wait())
        self._reserved += places
        self._counts.peak_queued = max(self._counts.peak_queued, taken)
        return Reservation(self, places)

    async def submit(self, item: T) -> Outcome[R]:
        """Queue one item and wait for its outcome.

        Raises `QueueFull`, `BatcherClosed`, or `PassFailed` when the pass with this item failed.
        """
        with self.reserve() as places:
            (outcome,) = await places.submit([item])
        return outcome

    def expected_wait(self) -> float:
        """Seconds until what is queued now has been passed, by the measured pace of recent passes; 0 before any was measured."""
        ahead = len(self._queue) + self._in_flight()
        return (self._seconds_per_item or 0.0) * ahead / self.policy.workers

    # --- the owner

    async def drain(self) -> bool:
        """Take no new items, flush what is queued without waiting for company, and finish what was accepted.

        Returns False when `drain_timeout`, counted from the first call, ended before that.
        """
        loop = asyncio.get_running_loop()
        self._queue.draining = True
        self._schedule_dispatch()
        if self._drain_deadline is None:
            self._drain_deadline = loop.time() + self._drain_timeout
        try:
            async with asyncio.timeout_at(self._drain_deadline):
                while self._reserved or self._queue or self._passes:
                    self._became_idle.clear()
                    await self._became_idle.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> bool:
        """Drain, then answer whatever is left with `BatcherClosed`; nobody is left waiting, even if this is cancelled.

        Returns False when something was left.
        """
        is_drained = False
        try:
            is_drained = await self.drain()
        finally:
            self._is_closed = True
            self._cancel_timer()
            while (batch := self._queue.take(0.0)) is not None:  # draining: the time does not matter
                self._fail(batch.entries, BatcherClosed)
            # A pass that hangs cannot always be stopped; its callers are answered now, and its late result is ignored.
            for task, running in self._passes.items():
                self._fail(running.entries, BatcherClosed)
                task.cancel()
        if self._passes:
            await asyncio.wait(self._passes, timeout=_LAST_PASSES_SECONDS)
        return is_drained

    def statistics(self) -> BatcherStatistics:
        """A snapshot of state and counts."""
        counts = self._counts
        return BatcherStatistics(
            reserved=self._reserved,
            queued=len(self._queue),
            in_flight=self._in_flight(),
            running_passes=len(self._passes),
            accepted=counts.accepted,
            answered=counts.answered,
            failed=counts.failed,
            abandoned=counts.abandoned,
            refused=counts.refused,
            passes=counts.passes,
            items_passed=counts.items_passed,
            flushes=MappingProxyType({reason: counts.flushes[reason] for reason in FlushReason}),
            wait_time=counts.wait_time,
            pass_time=counts.pass_time,
            peak_queued=counts.peak_queued,
        )

    # --- inside

    def _in_flight(self) -> int:
        return sum(not entry.answer.done() for batch in self._passes.values() for entry in batch.entries)

    def _push(self, item: T) -> _Entry[T, R]:
        """Turn one reserved place into a queued entry."""
        if self._is_closed or self._loop is None:
            raise BatcherClosed
        entry = _Entry[T, R](item, self._cost(item), self._clock(), self._loop.create_future())
        self._reserved -= 1
        self._counts.accepted += 1
        self._queue.push(entry)
        self._schedule_dispatch()
        return entry

    def _release(self, places: int) -> None:
        self._reserved -= places
        self._note_idle()

    def _abandon(self, entry: _Entry[T, R]) -> None:
        """The caller has left: the item is dropped before compute if it is still queued, its result ignored otherwise."""
        if entry.answer.cancel():
            self._counts.abandoned += 1
            if self._queue.discard(entry):
                self._note_idle()
        elif not entry.answer.cancelled():
            entry.answer.exception()  # marks it as seen, so that asyncio does not report an error that nobody waited for

    def _schedule_dispatch(self) -> None:
        # Through the ready queue, so that all items which arrive in the same turn of the loop can share the first batch.
        if not self._dispatch_scheduled and self._loop is not None:
            self._dispatch_scheduled = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self) -> None:
        self._dispatch_scheduled = False
        self._cancel_timer()
        if self._is_closed or self._loop is None:
            return
        now = self._clock()
        while len(self._passes) < self.policy.workers:
            batch = self._queue.take(now)
            if batch is None:
                if (deadline := self._queue.deadline()) is not None:
                    self._timer = self._loop.call_later(max(0.0, deadline - now), self._dispatch)
                return
            task = self._loop.create_task(self._run_pass(batch, now), name="batching.pass")
            self._passes[task] = batch
            task.add_done_callback(self._end_pass)

    async def _run_pass(self, batch: Batch[_Entry[T, R]], started: float) -> None:
        entries = batch.entries
        self._counts.flushes[batch.reason] += 1
        self._counts.wait_time += sum(started - entry.queued_at for entry in entries)
        try:
            results = await self._process([entry.item for entry in entries])
            count = len(results)
        except asyncio.CancelledError:
            self._fail(entries, BatcherClosed)
            raise
        except BaseException as error:
            self._fail(entries, PassFailed, error)
            if not isinstance(error, Exception):
                raise
            return
        ended = self._clock()
        self._measure(len(entries), ended - started)
        if count != len(entries):
            self._fail(entries, lambda: WrongResultCount(len(entries), count))
            return
        for entry, result in zip(entries, results, strict=True):
            if not entry.answer.done():
                entry.answer.set_result(Outcome(result, started - entry.queued_at, ended - started, len(entries)))
                self._counts.answered += 1

    def _end_pass(self, task: asyncio.Task[None]) -> None:
        batch = self._passes.pop(task)
        # A task that is cancelled before its first step never runs its body, so its callers are answered here.
        self._fail(batch.entries, BatcherClosed)
        self._note_idle()
        self._schedule_dispatch()

    def _fail(self, entries: Sequence[_Entry[T, R]], make: Callable[[], BatchingError], cause: BaseException | None = None) -> None:
        for entry in entries:
            error = make()  # one exception for each caller: raising a shared one would pile up their tracebacks
            error.__cause__ = cause
            self._counts.failed += entry.fail(error)

    def _measure(self, items: int, duration: float) -> None:
        self._counts.passes += 1
        self._counts.items_passed += items
        self._counts.pass_time += duration
        newest = duration / items
        mean = newest if self._seconds_per_item is None else self._seconds_per_item
        self._seconds_per_item = mean + _NEWEST * (newest - mean)

    def _note_idle(self) -> None:
        if not (self._reserved or self._queue or self._passes):
            self._became_idle.set()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Reservation(Generic[T, R]):
    """Places in the queue that are held for items yet to be made. Unused places are given back at the end of the `with` block."""

    def __init__(self, batcher: Batcher[T, R], places: int) -> None:
        self._batcher = batcher
        self._places = places

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        places, self._places = self._places, 0
        self._batcher._release(places)  # noqa: SLF001 - the two classes are one module's two faces

    async def submit(self, items: Sequence[T]) -> list[Outcome[R]]:
        """Queue the items and wait for the outcomes, in their order.

        Raises `ValueError` when the items outnumber the places left, else the first item's error once all have an outcome.
        If the caller is cancelled, its items are abandoned.
        """
        if len(items) > self._places:
            raise ValueError(f"{len(items)} items for {self._places} reserved places")
        entries: list[_Entry[T, R]] = []
        try:
            for item in items:
                entries.append(self._batcher._push(item))  # noqa: SLF001
                self._places -= 1
            for entry in entries:
                await asyncio.wait((entry.answer,))
            return [entry.answer.result() for entry in entries]
        finally:
            for entry in entries:
                self._batcher._abandon(entry)  # noqa: SLF001
