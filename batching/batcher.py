"""The micro-batcher: a thin asyncio shell around the pure queue.

There is no task that polls or sleeps and could die unnoticed. `_dispatch` is an ordinary function that starts every pass which may
start now; it is called whenever something changed: an item came, a worker became free, a window ended (one timer), the batcher is
draining. Nothing queued means no timer, so an idle batcher causes no wake-ups at all.

An entry, which equal items share, is queued, then in flight, then done:

    queued    -> in flight   its batch leaves
              -> done        its last caller left, its deadline came, the batcher closed or stalled
    in flight -> done        its pass answered, failed, hung or died, or the batcher closed

Invariants (the tests cite the numbers; 1 to 8, 17 and 18 are the queue's):

9. Each accepted item gets exactly one outcome: an answer, an error, or its caller has left. No caller waits for ever, in any order
   of submit, cancel, failure, deadline and close.
10. The results of a pass reach the callers in the order of its items.
11. A caller that leaves changes nothing for others: its item is dropped if it is queued and nobody else waits for it; if it is in
    flight, its result is ignored.
12. At most `workers` passes run at the same time, besides those that were given up as hanging.
13. Places reserved or queued in a class never exceed `max_queued`, nor the cost queued `max_queued_cost`, unless it is a single
    call's; a reservation is granted for all its places or refused, and so are the items of a call.
14. What was accepted before draining is finished within the bound; what is not gets `BatcherClosed`.
15. A caller with a deadline has an outcome when it comes, whatever its pass does.
16. The item at fault in a failing batch fails alone, in at most `max_extra_passes` more passes; the others get answers.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Sequence
from types import MappingProxyType, TracebackType
from typing import Generic, Self, TypeVar

from batching.callers import Caller, Entry, OnOutcome, Outcome, Register
from batching.deadlines import Deadlines
from batching.errors import BatcherClosed, BatcherStalled, BatchingError, DeadlineExceeded, DeadlineUnmeetable, QueueFull
from batching.policy import BatchPolicy, Priority
from batching.queue import BatchQueue, Divide, FlushReason, undivided
from batching.statistics import BatcherStatistics, DropReason, PassReport
from batching.workers import Workers

T = TypeVar("T")
R = TypeVar("R")

# A deadline is refused at the door only if even this share of the expected time is too long: the expectation is made of medians,
# and half of all passes are faster.
BENEFIT_OF_DOUBT = 0.8


def _one(_: object) -> int:
    return 1


def _unshared(_: object) -> None:
    return None


def _nobody(_: PassReport) -> None:
    return None


def _never_opened() -> float:
    raise BatcherClosed


class Batcher(Generic[T, R]):
    """Collects single items from many callers, passes them in batches to `process`, and hands each caller its own result.

    `process` is given a list of items and what it returns is awaited: as many results in the same order. It decides where the work
    runs (a worker thread, a process, inline); a coroutine function begins at the loop's next turn, a plain function that returns a
    future can begin at once. `cost` says what an item costs on the scale of `policy.max_cost`; the default is 1 each.
    `divide` tells, for items of some costs, which are better passed apart: then no caller waits for a pass that is not its own.
    Items whose `key` is equal are computed once if they are on their way at the same time; None shares with nobody.
    `on_pass` is told of each pass that ended or was given up. `drain_timeout` bounds, in seconds, how long leaving the `async with`
    block waits for accepted items.

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
        key: Callable[[T], Hashable] = _unshared,
        divide: Divide = undivided,
        on_pass: Callable[[PassReport], None] = _nobody,
        drain_timeout: float = 10.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.policy = policy or BatchPolicy()
        self._cost = cost
        self._key = key
        self._drain_timeout = drain_timeout
        # All mutable state. Everything below is touched on the event loop's thread only.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._clock: Callable[[], float] = clock or _never_opened
        self._register = Register[T, R]()
        self._queue = BatchQueue[Entry[T, R]](self.policy, divide)
        self._workers = Workers(process, self.policy, self._register, self._now, self._on_free, on_pass)
        self._reserved: Counter[Priority] = Counter()
        self._deadlines = Deadlines(self._now, self._expire)
        self._timer: asyncio.TimerHandle | None = None
        self._dispatch_scheduled = False
        self._drain_deadline: float | None = None
        self._is_closed = False
        self._became_idle = asyncio.Event()
        self._may_have_room = asyncio.Event()
        self._accepted_bulk = 0
        self._refused: Counter[Priority] = Counter()
        self._flushes: Counter[FlushReason] = Counter()
        self._late = 0
        self._unmeetable = 0
        self._coalesced = 0
        self._dropped: Counter[DropReason] = Counter()
        self._wait_time = 0.0
        self._peak_queued = 0

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "draining" if self._queue.draining else "open" if self._loop else "new"
        hung = f" hung={self._workers.hung}" if self._workers.hung else ""
        return (
            f"<Batcher {state} reserved={self._reserved.total()} queued={len(self._queue)}"
            f" in_flight={sum(1 for _ in self._workers.entries())} passes={self._workers.busy}/{self.policy.workers}{hung}>"
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

    def reserve(
        self, places: int = 1, *, priority: Priority = Priority.INTERACTIVE, timeout: float | None = None
    ) -> Reservation[T, R]:
        """Take `places` places at once, before any work is spent on the items; use it in a `with` block.

        With `timeout`, in seconds from now, the items have a deadline. Without a `with` block, unused places are never given back.

        Raises `QueueFull` when not all of them are to be had, `BatcherClosed` when draining or closed, `BatcherStalled`,
        `DeadlineUnmeetable` or `DeadlineExceeded`, and `ValueError` when `places` is below 1 or could never be granted.
        """
        return Reservation(self, places, priority, self._take_places(places, priority, timeout))

    async def submit(
        self,
        item: T,
        *,
        priority: Priority = Priority.INTERACTIVE,
        timeout: float | None = None,  # noqa: ASYNC109 - it travels with the item, and is known at the door
    ) -> Outcome[R]:
        """Queue one item and wait for its outcome, at most `timeout` seconds.

        Raises what `reserve` raises, `DeadlineExceeded`, or `PassFailed` when the pass with this item failed.
        """
        with self.reserve(priority=priority, timeout=timeout) as place:
            (outcome,) = await place.submit([item])
        return outcome

    def check(self, *, priority: Priority = Priority.INTERACTIVE, timeout: float | None = None) -> float:
        """The deadline of one item that comes now, by the batcher's clock; raises what `reserve` raises.

        Nothing is reserved: make the item and `post` it before anything is awaited.
        """
        deadline, _ = self._check(1, priority, timeout)
        return deadline

    def post(
        self, item: T, on_outcome: OnOutcome[R], *, priority: Priority = Priority.INTERACTIVE, deadline: float = math.inf
    ) -> Caller[T, R]:
        """Queue one item, after `check`. `on_outcome` is told its outcome or its error, once, unless `leave` comes first.

        For callers with much to do and no need of a task: `submit` does the same for those who wait. Raises what
        `Reservation.submit` raises when an item cannot be queued.
        """
        taken = self._check_open(1, priority)
        key, cost = self._key(item), self._cost(item)
        if cost < 1:
            raise ValueError(f"an item's cost must be 1 or more, not {cost}")
        now = self._clock()
        entry = self._register.find(key)
        if entry is None or self._is_promoted(entry, priority):
            self._check_room(cost, 1, priority)
            if deadline < math.inf:
                self._check_deadline((cost,), 1, deadline, priority, now)
        self._peak_queued = max(self._peak_queued, taken)
        caller = self._join(item, key, cost, priority, now, deadline, on_outcome)
        self._accepted_bulk += priority is Priority.BULK
        self._schedule_dispatch()
        if deadline < math.inf:
            self._deadlines.add(deadline, (caller,))
        return caller

    def leave(self, caller: Caller[T, R]) -> None:
        """The caller of a posted item waits no longer: it is told nothing more, and its item is dropped if nobody else waits."""
        self._leave((caller,))

    async def room(self, cost: int = 1, *, priority: Priority = Priority.INTERACTIVE) -> None:
        """Wait until one more item of this cost would not meet `QueueFull`; for callers who would rather wait than be refused.

        Nothing is reserved: do it before anything else is awaited. Returns at once when draining or stalled, as reserving raises.
        """
        while not (self._queue.draining or self._workers.is_stalled or self._has_room(cost, priority)):
            self._may_have_room.clear()
            await self._may_have_room.wait()

    def expected_wait(self, priority: Priority = Priority.INTERACTIVE) -> float:
        """Seconds until what is queued now in a class has been passed, by the pace of recent passes; 0 before any was measured."""
        running = sum(self._workers.remaining_times()) / max(1, self._workers.available)
        return running + self._drain_time(self._queue.cost_ahead(priority))

    # --- the owner

    @property
    def hung_passes(self) -> int:
        """Passes that were given up as hanging and have not ended."""
        return self._workers.hung

    @property
    def is_stalled(self) -> bool:
        """True when passes hang on all workers and all their replacements, so that nothing can be passed."""
        return self._workers.is_stalled

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
                while self._is_busy():
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
            self._register.fail(self._queue.clear(), BatcherClosed)
            # A pass that hangs cannot always be stopped; its callers are answered now, and its late result is ignored.
            self._workers.close()
            self._deadlines.close()
        await self._workers.wait_closed()
        return is_drained

    def statistics(self) -> BatcherStatistics:
        """A snapshot of state and counts."""
        register, queue, workers = self._register, self._queue, self._workers
        in_flight = list(workers.entries())
        return BatcherStatistics(
            reserved=self._reserved.total(),
            queued=len(queue),
            queued_bulk=queue.count(Priority.BULK),
            queued_cost=sum(queue.cost(priority) for priority in Priority),
            in_flight=len(in_flight),
            waiting=sum(entry.waiting for entry in (*queue, *in_flight)),
            running_passes=workers.busy,
            hung_passes=workers.hung,
            accepted=register.accepted,
            accepted_bulk=self._accepted_bulk,
            answered=register.answered,
            failed=register.failed,
            abandoned=register.abandoned,
            expired=register.expired,
            coalesced=self._coalesced,
            drops=MappingProxyType({reason: self._dropped[reason] for reason in DropReason}),
            refused=MappingProxyType({priority: self._refused[priority] for priority in Priority}),
            late=self._late,
            unmeetable=self._unmeetable,
            passes=workers.passes,
            failed_passes=workers.failed_passes,
            items_passed=workers.items_passed,
            bisected=workers.bisected,
            extra_passes=workers.extra_passes,
            hangs=workers.hangs,
            deaths=workers.deaths,
            flushes=MappingProxyType({reason: self._flushes[reason] for reason in FlushReason}),
            wait_time=self._wait_time,
            pass_time=workers.pass_time,
            peak_queued=self._peak_queued,
            cells=workers.cells,
            padded_cells=workers.padded_cells,
        )

    # --- the door

    def _take_places(self, places: int, priority: Priority, timeout: float | None) -> float:
        """Reserve, or raise what `reserve` raises; returns the deadline."""
        deadline, taken = self._check(places, priority, timeout)
        self._reserved[priority] += places
        self._peak_queued = max(self._peak_queued, taken)
        return deadline

    def _check(self, places: int, priority: Priority, timeout: float | None) -> tuple[float, int]:
        """The deadline, and how many places of the class will be taken with these; raises what `reserve` raises."""
        if not 1 <= places <= self.policy.max_queued:
            raise ValueError(f"places must be 1 to {self.policy.max_queued}, not {places}")
        taken = self._check_open(places, priority)
        self._check_room(places, places, priority)
        deadline = math.inf
        if timeout is not None:
            now = self._clock()
            deadline = now + timeout
            self._check_deadline([], places, deadline, priority, now)
        return deadline, taken

    def _check_open(self, places: int, priority: Priority) -> int:
        """How many places of the class will be taken with these; raises when they are not to be had."""
        if self._loop is None or self._queue.draining:
            raise BatcherClosed
        if self._workers.is_stalled:
            raise BatcherStalled
        taken = self._reserved[priority] + self._queue.count(priority) + places
        if taken > self.policy.max_queued:
            raise self._queue_full(places, priority)
        return taken

    def _has_room(self, cost: int, priority: Priority) -> bool:
        queued = self._queue.cost(priority)
        taken = self._reserved[priority] + self._queue.count(priority)
        return taken < self.policy.max_queued and (not queued or queued + cost <= self.policy.max_queued_cost)

    def _check_room(self, cost: int, places: int, priority: Priority) -> None:
        queued = self._queue.cost(priority)
        if queued and queued + cost > self.policy.max_queued_cost:
            raise self._queue_full(places, priority)

    def _queue_full(self, places: int, priority: Priority) -> QueueFull:
        self._refused[priority] += places
        return QueueFull(self.expected_wait(priority))

    def _check_deadline(self, costs: Sequence[int], places: int, deadline: float, priority: Priority, now: float) -> None:
        """Raise when it has come, or when even a favourable reading of a sound measurement says that it cannot be met.

        `costs` are those of the items to compute, none while they are not known.
        """
        left = deadline - now
        if left <= 0:
            self._late += places
            raise DeadlineExceeded
        # With a free worker nothing is refused: it costs nobody a place, and if all were refused, no pass would ever show that the
        # pace has become another.
        if self._workers.free or not self._workers.pace.is_sound or left >= self._ample_time(costs):
            return
        start = min(self._workers.remaining_times(), default=0.0)
        work = self._drain_time(self._queue.cost_ahead(priority), costs)
        expected = start + max(work, self._workers.pace.line.seconds(max(costs, default=1)))
        if left < expected * BENEFIT_OF_DOUBT:
            self._unmeetable += places
            raise DeadlineUnmeetable(expected)

    def _ample_time(self, costs: Sequence[int]) -> float:
        """Seconds that surely are enough, seen at a glance: after the dearest pass there was, each item alone, on one worker."""
        line, queue = self._workers.pace.line, self._queue
        cost = sum(costs) + queue.cost(Priority.INTERACTIVE) + queue.cost(Priority.BULK) + 1
        return line.seconds(self._workers.dearest) + line.start * (len(queue) + len(costs) + 1) + line.slope * cost

    def _drain_time(self, ahead: float, new: Sequence[int] = ()) -> float:
        """Seconds that all workers need for what is queued ahead and for new items, in batches as full as they can be."""
        count = len(self._queue) + len(new)
        total = sum(self._queue.cost(priority) for priority in Priority) + sum(new)
        mean = total / count if count else 1.0
        batch_cost = max(mean, min(self.policy.max_cost, self.policy.max_items * mean))
        return self._workers.pace.drain_time(ahead + sum(new), batch_cost, max(1, self._workers.available))

    def _admit(self, items: Sequence[T], on_outcome: OnOutcome[R], priority: Priority, deadline: float) -> list[Caller[T, R]]:
        """Make callers, for whom there are places, of new entries in the queue, or of equal ones on their way."""
        if self._loop is None or self._is_closed:
            raise BatcherClosed
        if self._workers.is_stalled:
            raise BatcherStalled
        keys = [self._key(item) for item in items]
        costs = [self._cost(item) for item in items]
        if costs and min(costs) < 1:
            raise ValueError(f"an item's cost must be 1 or more, not {min(costs)}")
        now = self._clock()
        new = self._costs_of_new(keys, costs, priority)
        if new:
            self._check_room(sum(new), len(items), priority)
            if deadline < math.inf:
                self._check_deadline(new, len(items), deadline, priority, now)
        callers = [
            self._join(item, key, cost, priority, now, deadline, on_outcome)
            for item, key, cost in zip(items, keys, costs, strict=True)
        ]
        if priority is Priority.BULK:
            self._accepted_bulk += len(items)
        self._schedule_dispatch()
        return callers

    def _join(
        self, item: T, key: Hashable, cost: int, priority: Priority, now: float, deadline: float, on_outcome: OnOutcome[R]
    ) -> Caller[T, R]:
        """A caller of a new entry in the queue, or of an equal one on its way."""
        entry = self._register.find(key)
        if entry is None:
            entry = Entry(item, key, cost, priority, now, deadline)
            self._register.add(entry)
            self._queue.push(entry)
        else:
            self._coalesced += 1
            if self._is_promoted(entry, priority):
                self._queue.discard(entry)
                entry.priority, entry.queued_at = priority, now
                self._queue.push(entry)
        return self._register.join(entry, now, deadline, on_outcome)

    def _queue_reserved(self, items: Sequence[T], priority: Priority, deadline: float) -> Coroutine[object, None, list[Outcome[R]]]:
        """Use places that are reserved; returns what waits for the outcomes."""
        assert self._loop is not None
        waiting = _Waiting(len(items), self._loop)
        callers = self._admit(items, waiting.count, priority, deadline)
        self._reserved[priority] -= len(items)
        if callers and deadline < math.inf:
            self._deadlines.add(deadline, callers)
        return self._outcomes(callers, waiting.done)

    async def _outcomes(self, callers: Sequence[Caller[T, R]], all_done: asyncio.Future[None]) -> list[Outcome[R]]:
        """Wait until all have an outcome; return them in order, or raise the first error with its index."""
        try:
            await all_done
        except BaseException:
            self._leave(callers)
            raise
        outcomes = first_error_or_results(callers)
        # An error that is raised holds this frame, and must not find its way back to itself, or only the garbage collector ends it.
        del callers
        if not isinstance(outcomes, BatchingError):
            return outcomes
        try:
            raise outcomes
        finally:
            del outcomes

    def _costs_of_new(self, keys: Sequence[Hashable], costs: Sequence[int], priority: Priority) -> list[int]:
        """The costs of those items that will need room in their class: not of those that join an equal one there or in flight."""
        new = []
        known: set[Hashable] = set()
        for key, cost in zip(keys, costs, strict=True):
            if key is not None and key in known:
                continue
            known.add(key)
            entry = self._register.find(key)
            if entry is None or self._is_promoted(entry, priority):
                new.append(cost)
        return new

    def _is_promoted(self, entry: Entry[T, R], priority: Priority) -> bool:
        """True when a caller of this priority takes the entry along to its own class: who is urgent waits in no slow lane."""
        return priority is Priority.INTERACTIVE and entry.priority is Priority.BULK and entry in self._queue

    def _release(self, places: int, priority: Priority) -> None:
        self._reserved[priority] -= places
        self._note_idle()

    def _now(self) -> float:
        return self._clock()

    # --- callers that go

    def _expire(self, callers: Sequence[Caller[T, R]]) -> None:
        self._register.expire(callers)
        self._drop_unwanted(callers, DropReason.EXPIRED)

    def _leave(self, callers: Sequence[Caller[T, R]]) -> None:
        for caller in callers:
            self._register.leave(caller)
        self._drop_unwanted(callers, DropReason.ABANDONED)

    def _drop_unwanted(self, callers: Iterable[Caller[T, R]], reason: DropReason) -> None:
        """What these callers waited for is dropped if it is queued and nobody else waits for it."""
        for entry in (caller.entry for caller in callers):
            if not entry.waiting and self._queue.discard(entry):
                self._register.settle(entry)
                self._dropped[reason] += 1
        self._note_idle()

    # --- what leaves

    def _is_busy(self) -> bool:
        return bool(self._reserved.total() or self._queue or self._workers.busy)

    def _note_idle(self) -> None:
        self._may_have_room.set()
        if self._queue.draining and not self._is_busy():
            self._became_idle.set()

    def _on_free(self) -> None:
        if self.is_stalled:
            self._register.fail(self._queue.clear(), BatcherStalled)
        self._dispatch()

    def _schedule_dispatch(self) -> None:
        # Through the ready queue, so that all items which arrive in the same turn of the loop can share the first batch.
        if not self._dispatch_scheduled and self._loop is not None:
            self._dispatch_scheduled = True
            self._loop.call_soon(self._dispatch)

    def _dispatch(self, not_before: float = -math.inf) -> None:
        """Start every pass that may start now. `not_before` is the time that a timer was set to: it may fire a little early."""
        self._dispatch_scheduled = False
        self._cancel_timer()
        if not self._queue:
            self._note_idle()
            return
        assert self._loop is not None
        now = max(self._clock(), not_before)
        are_several_free = self._workers.free > 1
        while self._queue and (free := self._workers.free):
            # Their timers may be late, if the loop is.
            for entry in self._queue.drop_lapsed(now):
                self._register.expire(entry.callers)
                self._register.settle(entry)
                self._dropped[DropReason.EXPIRED] += 1
            if are_several_free:
                batch = self._queue.take(now, free)
            else:
                # One that is alone leaves alone; what is worth a pass may have to be computed.
                worthwhile_cost = self._workers.pace.worthwhile_cost if len(self._queue) > 1 else 0.0
                batch = self._queue.take(now, worthwhile_cost=worthwhile_cost)
            if batch is None:
                if (window_end := self._queue.window_end()) is not None:
                    self._timer = self._loop.call_later(max(0.0, window_end - now), self._dispatch, window_end)
                break
            self._flushes[batch.reason] += 1
            self._wait_time += sum(now - entry.queued_at for entry in batch.entries)
            self._workers.start(batch, now)
        self._note_idle()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Waiting:
    """Somebody who waits until `number` callers have their outcome."""

    def __init__(self, number: int, loop: asyncio.AbstractEventLoop) -> None:
        self._left = number
        self.done = loop.create_future()
        if not number:
            self.done.set_result(None)

    def count(self, _: object) -> None:
        """One more has its outcome."""
        self._left -= 1
        if not self._left and not self.done.done():
            self.done.set_result(None)


def first_error_or_results(callers: Sequence[Caller[T, R]]) -> list[Outcome[R]] | BatchingError:
    """Of callers that all have an outcome: the first error, with its index, or all results."""
    results = []
    for index, caller in enumerate(callers):
        outcome = caller.outcome
        if isinstance(outcome, BatchingError):
            outcome.index = index
            return outcome
        assert outcome is not None
        results.append(outcome)
    return results


class Reservation(Generic[T, R]):
    """Places in the queue that are held for items yet to be made. Unused places are given back at the end of the `with` block."""

    def __init__(self, batcher: Batcher[T, R], places: int, priority: Priority, deadline: float) -> None:
        self._batcher = batcher
        self._places = places
        self._priority = priority
        self._deadline = deadline

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        places, self._places = self._places, 0
        self._batcher._release(places, self._priority)  # noqa: SLF001 - the two classes are one module's two faces

    def add(self, places: int) -> None:
        """Take more places, all or none, when there turn out to be more items. Raises what `Batcher.reserve` raises."""
        if places:
            self._batcher._take_places(places, self._priority, None)  # noqa: SLF001
            self._places += places

    async def submit(self, items: Sequence[T]) -> list[Outcome[R]]:
        """Queue the items and wait for the outcomes, in their order.

        Raises `ValueError` when the items outnumber the places left or one costs less than 1; `QueueFull` when their cost finds no
        room, `DeadlineUnmeetable`, `DeadlineExceeded`, `BatcherClosed` or `BatcherStalled`: then none was queued. Otherwise the
        first item's error once all have an outcome, with its `index`. If the caller is cancelled, its items are abandoned.
        """
        if len(items) > self._places:
            raise ValueError(f"{len(items)} items for {self._places} reserved places")
        waiting = self._batcher._queue_reserved(items, self._priority, self._deadline)  # noqa: SLF001
        self._places -= len(items)
        return await waiting
