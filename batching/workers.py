"""The passes: which run, which hang, what becomes of them. A worker here is the right to run one pass; who computes is `process`.

A batch keeps its worker until all its items have been passed. A pass that fails is halved, and its halves are passed again, until
the item at fault fails alone or the extra passes are used up.

A thread cannot be stopped. So a pass that takes longer than `pass_timeout` is given up: its callers get `PassTimedOut`, and its
worker is replaced, for `workers` such passes; from then on each further one costs a worker, until all are `stalled`. `process` must
be able to run twice as many passes as there are workers. When a pass that was given up ends after all, its replacement goes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from batching.callers import Entry, Register
from batching.errors import BatcherClosed, PassFailed, PassTimedOut, WorkerDied, WrongResultCount
from batching.pace import Pace
from batching.policy import BatchPolicy
from batching.queue import Batch
from batching.statistics import PassEnd, PassReport

T = TypeVar("T")
R = TypeVar("R")

# How long a closing batcher waits for passes that were cancelled to end.
LAST_PASSES_SECONDS = 1.0


@dataclass(eq=False, slots=True)
class _Run(Generic[T, R]):
    """A batch in its worker. `started`, `items` and `cost` are those of its present pass."""

    batch: Batch[Entry[T, R]]
    started: float
    items: int = 0
    cost: int = 0
    has_worker: bool = True
    is_given_up: bool = False


class Workers(Generic[T, R]):
    """Runs batches. `on_free` is called when a worker has become free, or can be had no more. All mutable state is set here."""

    def __init__(
        self,
        process: Callable[[list[T]], Awaitable[Sequence[R]]],
        policy: BatchPolicy,
        register: Register[T, R],
        clock: Callable[[], float],
        on_free: Callable[[], None],
        on_pass: Callable[[PassReport], None],
    ) -> None:
        self._process = process
        self._policy = policy
        self._register = register
        self._clock = clock
        self._on_free = on_free
        self._on_pass = on_pass
        self._runs: dict[asyncio.Task[None], _Run[T, R]] = {}
        self._is_closed = False
        self.pace = Pace()
        self.busy = 0
        self.hung = 0
        self.passes = 0
        self.failed_passes = 0
        self.items_passed = 0
        self.pass_time = 0.0
        self.cells = 0
        self.padded_cells = 0
        self.bisected = 0
        self.extra_passes = 0
        self.hangs = 0
        self.deaths = 0

    @property
    def is_stalled(self) -> bool:
        """True when passes hang on all workers and all replacements."""
        return self.hung >= 2 * self._policy.workers

    def has_free(self) -> bool:
        """True when a batch may start."""
        return self.busy < min(self._policy.workers, 2 * self._policy.workers - self.hung)

    def entries(self) -> Iterator[Entry[T, R]]:
        """What is in flight and somebody waits for."""
        return (entry for run in self._runs.values() for entry in run.batch.entries if entry.waiting)

    def remaining_times(self) -> list[float]:
        """Expected seconds until each running pass has ended."""
        line, now = self.pace.line, self._clock()
        return [max(0.0, line.seconds(run.cost) - (now - run.started)) for run in self._runs.values() if run.has_worker]

    def start(self, batch: Batch[Entry[T, R]], now: float) -> None:
        """Take a free worker and begin with a batch."""
        run = _Run(batch, now, len(batch.entries), sum(entry.cost for entry in batch.entries))
        self.busy += 1
        task = asyncio.get_running_loop().create_task(self._run(run), name="batching.pass")
        self._runs[task] = run
        task.add_done_callback(self._end)

    def close(self) -> None:
        """Answer everybody in flight with `BatcherClosed` and cancel the passes."""
        self._is_closed = True
        for task, run in self._runs.items():
            self._register.fail(run.batch.entries, BatcherClosed)
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait a little for the cancelled passes to end."""
        if self._runs:
            await asyncio.wait(self._runs, timeout=LAST_PASSES_SECONDS)

    async def _run(self, run: _Run[T, R]) -> None:
        """The batch's pass; if it fails, passes over its halves, and so on, as long as extra passes are left."""
        groups: list[Sequence[Entry[T, R]]] = [run.batch.entries]
        left = self._policy.max_extra_passes
        is_extra = False
        while groups:
            entries = self._wanted(groups.pop())
            if not entries:
                continue
            self.extra_passes += is_extra
            results = await self._pass(run, entries)
            if run.is_given_up:
                self._report(run, PassEnd.RECOVERED)
                return
            ended = self._clock()
            self._count(entries, ended - run.started)
            if not isinstance(results, Exception):
                self.pace.observe(run.cost, ended - run.started)
                if not groups:
                    # Before these callers go on, who have much to do: the next batch begins.
                    self._free(run)
                self._register.answer(entries, results, run.started, ended)
                self._report(run, PassEnd.DONE)
                continue
            self.failed_passes += 1
            if len(entries) == 1 or left < 2 or isinstance(results, WrongResultCount):
                self._fail(entries, results)
                self._report(run, PassEnd.FAILED, results)
                continue
            self._report(run, PassEnd.HALVED, results)
            self.bisected += not is_extra
            is_extra = True
            left -= 2
            middle = len(entries) // 2
            groups += [entries[middle:], entries[:middle]]

    def _wanted(self, entries: Sequence[Entry[T, R]]) -> list[Entry[T, R]]:
        """Those that somebody waits for; the others are done."""
        for entry in entries:
            if not entry.waiting:
                self._register.settle(entry)
        return [entry for entry in entries if entry.waiting]

    async def _pass(self, run: _Run[T, R], entries: Sequence[Entry[T, R]]) -> Sequence[R] | Exception:
        """One pass under supervision: its results, or what went wrong."""
        run.started, run.items, run.cost = self._clock(), len(entries), sum(entry.cost for entry in entries)
        timeout = self._policy.pass_timeout
        watch = asyncio.get_running_loop().call_later(timeout, self._give_up, run) if timeout < math.inf else None
        try:
            results = await self._process([entry.item for entry in entries])
            count = len(results)
        except Exception as error:  # noqa: BLE001 - whatever it is, it becomes the outcome of those whose pass it was
            return error
        finally:
            if watch is not None:
                watch.cancel()
        return results if count == len(entries) else WrongResultCount(len(entries), count)

    def _fail(self, entries: Sequence[Entry[T, R]], error: Exception) -> None:
        if isinstance(error, WrongResultCount):
            items, results = error.items, error.results
            self._register.fail(entries, lambda: WrongResultCount(items, results))
        else:
            self._register.fail(entries, lambda: PassFailed(len(entries)), error)

    def _count(self, entries: Sequence[Entry[T, R]], seconds: float) -> None:
        costs = [entry.cost for entry in entries]
        self.passes += 1
        self.items_passed += len(entries)
        self.pass_time += seconds
        self.cells += sum(cost * cost for cost in costs)
        self.padded_cells += len(costs) * max(costs) ** 2

    def _give_up(self, run: _Run[T, R]) -> None:
        """The pass hangs. Its callers are answered, and its worker is replaced as long as there are replacements."""
        run.is_given_up = True
        self.hung += 1
        self.hangs += 1
        self._register.fail(run.batch.entries, lambda: PassTimedOut(run.items, self._policy.pass_timeout))
        self._report(run, PassEnd.HUNG)
        self._free(run)

    def _free(self, run: _Run[T, R]) -> None:
        if run.has_worker:
            run.has_worker = False
            self.busy -= 1
            self._on_free()

    def _end(self, task: asyncio.Task[None]) -> None:
        """The task of a batch has ended, as foreseen or not; nobody who was in it is left waiting."""
        run = self._runs.pop(task)
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None and not self._is_closed:
            self.deaths += 1
            self._register.fail(run.batch.entries, lambda: WorkerDied(run.items), error)
            self._report(run, PassEnd.DIED, error)
        if run.is_given_up:
            self.hung -= 1
            self._on_free()
        self._free(run)

    def _report(self, run: _Run[T, R], end: PassEnd, error: BaseException | None = None) -> None:
        report = PassReport(end, run.items, run.cost, run.batch.reason, self._clock() - run.started, error)
        try:
            self._on_pass(report)
        except Exception as failure:  # noqa: BLE001 - a listener's fault is not the callers'
            context = {"message": "the batcher's on_pass failed", "exception": failure}
            asyncio.get_running_loop().call_exception_handler(context)
