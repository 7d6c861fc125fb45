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
from functools import partial
from typing import Generic, TypeVar

from batching.callers import Entry, Register
from batching.errors import BatcherClosed, PassFailed, PassTimedOut, WorkerDied, WrongResultCount
from batching.pace import Pace
from batching.policy import BatchPolicy
from batching.queue import Batch, FlushReason
from batching.statistics import PassEnd, PassReport

T = TypeVar("T")
R = TypeVar("R")

# How long a closing batcher waits for passes that were cancelled to end.
LAST_PASSES_SECONDS = 1.0


@dataclass(eq=False, slots=True)
class _Run(Generic[T, R]):
    """A batch in its worker: the entries of its present pass, their cost, its work and start; the groups still to be passed."""

    reason: FlushReason
    groups: list[Sequence[Entry[T, R]]]
    extra_left: int
    started: float
    entries: Sequence[Entry[T, R]] = ()
    cost: int = 0
    work: asyncio.Future[Sequence[R]] | None = None
    is_halved: bool = False
    has_worker: bool = True
    is_given_up: bool = False
    watch: asyncio.Handle | None = None

    def all(self) -> list[Entry[T, R]]:
        """What is here: in the present pass, and in those to come."""
        return [entry for group in (self.entries, *self.groups) for entry in group]


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
        self._runs: dict[_Run[T, R], None] = {}  # a set in the order of starting
        self._is_closed = False
        self.pace = Pace()
        self.busy = 0
        self.hung = 0
        self.dearest = 0  # the highest cost of a pass so far
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

    @property
    def available(self) -> int:
        """How many batches may run at the same time."""
        return max(0, min(self._policy.workers, 2 * self._policy.workers - self.hung))

    @property
    def free(self) -> int:
        """How many batches may start now."""
        workers = self._policy.workers
        free = min(workers, 2 * workers - self.hung) - self.busy
        return max(0, free)

    def entries(self) -> Iterator[Entry[T, R]]:
        """What is in flight and somebody waits for."""
        return (entry for run in self._runs for entry in run.all() if entry.waiting)

    def remaining_times(self) -> list[float]:
        """Expected seconds until each running pass has ended."""
        line, now = self.pace.line, self._clock()
        return [max(0.0, line.seconds(run.cost) - (now - run.started)) for run in self._runs if run.has_worker]

    def start(self, batch: Batch[Entry[T, R]], now: float) -> None:
        """Take a free worker and begin with a batch."""
        self._start(_Run(batch.reason, [batch.entries], self._policy.max_extra_passes, now))

    def _start(self, run: _Run[T, R]) -> None:
        self.busy += 1
        self._runs[run] = None
        self._begin(run)

    def close(self) -> None:
        """Answer everybody in flight with `BatcherClosed` and cancel the passes."""
        self._is_closed = True
        for run in self._runs:
            self._register.fail(run.all(), BatcherClosed)
        for work in self._works():
            work.cancel()

    async def wait_closed(self) -> None:
        """Wait a little for the cancelled passes to end."""
        if works := self._works():
            await asyncio.wait(works, timeout=LAST_PASSES_SECONDS)

    def _works(self) -> list[asyncio.Future[Sequence[R]]]:
        return [run.work for run in self._runs if run.work is not None]

    def _begin(self, run: _Run[T, R]) -> None:
        """The batch's next pass; without entries that somebody waits for, its end.

        `process` is called here and now: a task of the batch's own would have its turn after all requests that the loop has at
        hand, and the worker would be idle meanwhile.
        """
        run.entries = ()
        while run.groups and not run.entries:
            run.entries = self._wanted(run.groups.pop())
        if not run.entries:
            self._end(run)
            return
        self.extra_passes += run.is_halved
        run.cost = sum(entry.cost for entry in run.entries)
        self.dearest = max(self.dearest, run.cost)
        run.started = self._clock()
        loop = asyncio.get_running_loop()
        try:
            work = self._process([entry.item for entry in run.entries])
            if not isinstance(work, asyncio.Future):  # asking what else it may be takes longer, for each pass
                work = loop.create_task(work, name="batching.pass") if asyncio.iscoroutine(work) else asyncio.ensure_future(work)
            run.work = work
        except BaseException as error:  # noqa: BLE001 - what is raised at once is as if it were raised when awaited
            run.work = loop.create_future()
            # A future refuses StopIteration; a coroutine cannot raise it either.
            run.work.set_exception(RuntimeError("raised StopIteration") if isinstance(error, StopIteration) else error)
        run.work.add_done_callback(partial(self._pass_ended, run))
        if self._policy.pass_timeout < math.inf:
            run.watch = loop.call_later(self._policy.pass_timeout, self._suspect, run)

    def _pass_ended(self, run: _Run[T, R], work: asyncio.Future[Sequence[R]]) -> None:
        """The work of a pass has ended, as foreseen or not; nobody who was in it is left waiting."""
        if run.watch is not None:
            run.watch.cancel()
        # Not raised here: the traceback would hold this frame, which holds the work, which holds the exception: a cycle.
        error = asyncio.CancelledError() if work.cancelled() else work.exception()
        if error is not None and not isinstance(error, Exception):
            self._died(run, error)
            return
        try:
            if run.is_given_up:
                self._report(run, PassEnd.RECOVERED)
                self._end(run)
            else:
                self._go_on(run, self._counted(run, work.result()) if error is None else error)
        except BaseException as failure:
            if run not in self._runs:
                raise  # what failed is not this batch, which is through
            self._died(run, failure)

    def _counted(self, run: _Run[T, R], results: Sequence[R]) -> Sequence[R] | Exception:
        """The results if they are as many as the entries, or what is wrong with them."""
        try:
            count = len(results)
        except Exception as error:  # noqa: BLE001 - whatever it is, it becomes the outcome of those whose pass it was
            return error
        return results if count == len(run.entries) else WrongResultCount(len(run.entries), count)

    def _go_on(self, run: _Run[T, R], results: Sequence[R] | Exception) -> None:
        """Give the callers their outcomes, and go on with what the batch has still to pass, which is its halves if it failed."""
        entries, ended = run.entries, self._clock()
        self._count(entries, ended - run.started)
        if not isinstance(results, Exception):
            self.pace.observe(run.cost, ended - run.started)
            if not run.groups:
                # Before these callers go on, who have much to do: the next batch begins.
                self._release(run)
                self._on_free()
            self._register.answer(entries, results, run.started, ended)
            self._report(run, PassEnd.DONE)
        else:
            self.failed_passes += 1
            if len(entries) == 1 or run.extra_left < 2 or isinstance(results, WrongResultCount):
                self._fail(entries, results)
                self._report(run, PassEnd.FAILED, results)
            else:
                self._report(run, PassEnd.HALVED, results)
                self.bisected += not run.is_halved
                run.is_halved = True
                run.extra_left -= 2
                middle = len(entries) // 2
                run.groups += [entries[middle:], entries[:middle]]
        if run.groups:
            self._begin(run)
        else:
            self._end(run)

    def _wanted(self, entries: Sequence[Entry[T, R]]) -> list[Entry[T, R]]:
        """Those that somebody waits for; the others are done."""
        wanted = []
        for entry in entries:
            if entry.waiting:
                wanted.append(entry)
            else:
                self._register.settle(entry)
        return wanted

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

    def _suspect(self, run: _Run[T, R]) -> None:
        # If the loop itself was late, the result may be here already, and what stopped the loop may have stopped the pass as well.
        timeout = self._policy.pass_timeout
        late = self._clock() - run.started - timeout
        run.watch = asyncio.get_running_loop().call_later(min(max(0.0, late), timeout), self._give_up, run)

    def _give_up(self, run: _Run[T, R]) -> None:
        """The pass hangs. Its callers are answered, and its worker is replaced as long as there are replacements."""
        if run.work is not None and run.work.done():
            return  # it has just ended, and its callers are next in turn
        run.is_given_up = True
        self.hung += 1
        self.hangs += 1
        self._fail_run(run, lambda: PassTimedOut(len(run.entries), self._policy.pass_timeout))
        self._report(run, PassEnd.HUNG)
        self._on_free()

    def _fail_run(self, run: _Run[T, R], make: Callable[[], PassFailed], cause: BaseException | None = None) -> None:
        """The present pass will give nothing. What the batch had still to pass goes on in its place, if a worker is left for it."""
        groups, run.groups = run.groups, []
        self._register.fail(run.entries, make, cause)
        self._release(run)
        if not groups:
            return
        if self.free:
            self._start(_Run(run.reason, groups, run.extra_left, self._clock(), is_halved=True))
        else:
            self._register.fail((entry for group in groups for entry in group), make, cause)

    def _release(self, run: _Run[T, R]) -> None:
        if run.has_worker:
            run.has_worker = False
            self.busy -= 1

    def _died(self, run: _Run[T, R], error: BaseException) -> None:
        """The worker ended, and what it had in hand will give nothing."""
        if not self._is_closed:
            self.deaths += 1
            self._fail_run(run, lambda: WorkerDied(len(run.entries)), error)
            self._report(run, PassEnd.DIED, error)
        self._end(run)
        self._on_free()

    def _end(self, run: _Run[T, R]) -> None:
        """The batch is through."""
        del self._runs[run]
        self.hung -= run.is_given_up
        is_free = run.has_worker or run.is_given_up  # else it went on to the next batch before its last callers were answered
        self._release(run)
        if is_free:
            self._on_free()

    def _report(self, run: _Run[T, R], end: PassEnd, error: BaseException | None = None) -> None:
        report = PassReport(end, len(run.entries), run.cost, run.reason, self._clock() - run.started, error)
        try:
            self._on_pass(report)
        except Exception as failure:  # noqa: BLE001 - a listener's fault is not the callers'
            context = {"message": "the batcher's on_pass failed", "exception": failure}
            asyncio.get_running_loop().call_exception_handler(context)
