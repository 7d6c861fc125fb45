"""The whole batcher under any order of events, in virtual time, against a record that knows only what went in and what came out.

Numbers in names are the invariants of `batching.batcher`.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batching import (
    Batcher,
    BatcherClosed,
    BatcherStalled,
    BatchingError,
    BatchPolicy,
    DeadlineExceeded,
    DeadlineUnmeetable,
    Outcome,
    PassEnd,
    PassFailed,
    PassReport,
    PassTimedOut,
    Priority,
    QueueFull,
    WorkerDied,
    WrongResultCount,
)
from tests.batching.property_steps import property_settings
from tests.batching.virtual_time import VirtualTimeLoop

# Virtual times are sums of floats.
EPSILON = 1e-9
# After so many turns with nothing to do but timers, all that follows from an event at the same time has happened.
QUIET_TURNS = 3


class Item(NamedTuple):
    """What is submitted. Its key decides all of it, if it has one."""

    number: int
    cost: int = 1
    key: int | None = None
    is_poison: bool = False
    seconds: float = 0.0  # how much longer its pass takes; infinity is until the end of the test


SHARED = [
    Item(-1, 1, 1),
    Item(-2, 3, 2),
    Item(-3, 6, 3),
    Item(-4, 2, 4, is_poison=True),
    Item(-5, 2, 5, seconds=0.030),
    Item(-6, 1, 6, seconds=math.inf),
]


class PassError(Exception):
    """What the model raises; it tells who was in the pass, and how many passes of its batch were halved before."""

    def __init__(self, items: Sequence[Item], halved: int, is_model: bool) -> None:
        super().__init__(len(items))
        self.items = items
        self.halved = halved
        self.is_model = is_model


class Fatal(BaseException):
    """What no model should raise."""


def value(item: Item) -> tuple[int, int]:
    """What the model makes of an item."""
    return (item.number, 7 * item.cost)


class Model:
    """Fails when there is poison, or as it is told; checks what it is given."""

    def __init__(self, policy: BatchPolicy) -> None:
        self.policy = policy
        self.mode = "sound"
        self.seconds = 0.010
        self.running = 0
        self.wrong_counts = 0
        self.fatal = 0
        self.batcher: Batcher[Item, tuple[int, int]] | None = None
        self.passes: Counter[object] = Counter()
        # How many passes of a batch with more than one item failed.
        self.halved: dict[object, int] = {}

    async def __call__(self, items: list[Item]) -> list[tuple[int, int]]:
        assert self.batcher is not None
        policy, task = self.policy, asyncio.current_task()
        (batch,) = (run for run in self.batcher._workers._runs if run.work is task)
        assert 1 <= len(items) <= policy.max_items
        assert len(items) == 1 or sum(item.cost for item in items) <= policy.max_cost
        keys = [item.key for item in items if item.key is not None]
        assert len(keys) == len(set(keys))
        self.passes[batch] += 1
        assert self.passes[batch] <= 1 + policy.max_extra_passes
        mode = self.mode
        self.running += 1
        try:
            await asyncio.sleep(min(1e9, self.seconds + max(item.seconds for item in items)))
        finally:
            self.running -= 1
        if mode == "fatal":
            self.fatal += 1
            raise Fatal
        if mode == "failing" or any(item.is_poison for item in items):
            halved = self.halved.get(batch, 0)
            if len(items) > 1:
                self.halved[batch] = halved + 1
            raise PassError(items, halved, mode == "failing")
        if mode == "miscounting":
            self.wrong_counts += 1
            return [value(item) for item in items[1:]]
        return [value(item) for item in items]


@dataclass(eq=False)
class Call:
    """One call, and what the test knows of it."""

    items: list[Item]
    priority: Priority
    began: float
    timeout: float | None
    hold: float  # from the reservation to the items; nobody is told of a deadline meanwhile
    task: asyncio.Task[list[Outcome[tuple[int, int]]]]
    was_closing: bool
    ended: float | None = None
    is_cancelled: bool = False
    is_accepted: bool = False
    is_checked: bool = False

    @property
    def deadline(self) -> float:
        return math.inf if self.timeout is None else self.began + self.timeout


POLICIES = st.builds(
    BatchPolicy,
    max_items=st.integers(1, 8),
    max_cost=st.integers(2, 30),
    window=st.sampled_from([0.0, 0.010, 0.025]),
    idle_flush=st.booleans(),
    look_ahead=st.integers(0, 8),
    max_passed_over=st.integers(0, 3),
    interactive_weight=st.sampled_from([0.5, 1.0, 4.0]),
    max_queued=st.integers(1, 12),
    max_queued_cost=st.integers(4, 40),
    workers=st.integers(1, 3),
    max_extra_passes=st.integers(0, 8),
    pass_timeout=st.sampled_from([0.015, 0.045, 0.200, math.inf]),
)
COSTS = st.integers(1, 8)
TIMEOUTS = st.one_of(st.none(), st.sampled_from([-0.001, 0.0, 0.004, 0.015, 0.040, 1.0]))
UNIQUE = st.tuples(COSTS, st.sampled_from([False] * 6 + [True]), st.sampled_from([0.0] * 14 + [0.020, math.inf]))
ITEMS = st.one_of(st.sampled_from(SHARED[:4] * 3 + SHARED), UNIQUE, UNIQUE)
STEPS = st.sampled_from([0.0, 0.0, 0.001, 0.004, 0.010, 0.025, 0.100])
PRIORITIES = st.sampled_from(Priority)
Draft = Item | tuple[int, bool, float]


class BatcherMachine(RuleBasedStateMachine):
    """Each rule acts, and then lets the loop run for some virtual time."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.complaints: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.complaints.append(context))
        self.calls: list[Call] = []
        self.reports: list[PassReport] = []
        self.numbers = 0
        self.steps = 0
        self.kills = 0
        self.was_stalled = False
        self.is_closing = False
        self.is_closed = False
        self.was_close_cancelled = False
        self.drains: list[asyncio.Task[bool]] = []
        self.blocked: list[tuple[float, float]] = []

    @initialize(policy=POLICIES, drain_timeout=st.sampled_from([0.0, 0.030, 5.0]), is_measured=st.booleans())
    def open(self, policy: BatchPolicy, drain_timeout: float, is_measured: bool) -> None:
        self.policy = policy
        self.model = Model(policy)
        self.batcher = Batcher(
            self.model,
            policy,
            cost=lambda item: item.cost,
            key=lambda item: item.key,
            on_pass=self.on_pass,
            drain_timeout=drain_timeout,
        )
        self.model.batcher = self.batcher
        self.run(self.batcher.__aenter__())
        self.is_measured = is_measured
        if is_measured:
            for cost in (1, 8) * 12:
                self.batcher._workers.pace.observe(cost, 0.010 + 0.001 * cost)

    def on_pass(self, report: PassReport) -> None:
        self.reports.append(report)
        self.was_stalled |= self.batcher.is_stalled

    def run(self, main: Coroutine[Any, Any, Any]) -> None:
        self.loop.run_until_complete(main)

    def let_pass(self, seconds: float) -> None:
        self.steps += 1

        async def wait() -> None:
            await asyncio.sleep(seconds)
            quiet = 0
            while quiet < QUIET_TURNS:
                await asyncio.sleep(0)
                quiet = 0 if self.loop._ready else quiet + 1  # type: ignore[attr-defined]

        self.run(wait())

    def item(self, draft: Draft) -> Item:
        if isinstance(draft, Item):
            return draft
        self.numbers += 1
        cost, is_poison, seconds = draft
        return Item(self.numbers, cost, None, is_poison, seconds)

    async def post(self, item: Item, priority: Priority, seconds: float | None) -> Outcome[tuple[int, int]]:
        """As `submit`, by the way for callers that are told."""
        told: asyncio.Future[Outcome[tuple[int, int]] | BatchingError] = self.loop.create_future()
        deadline = self.batcher.check(priority=priority, timeout=seconds)
        caller = self.batcher.post(item, told.set_result, priority=priority, deadline=deadline)  # a second outcome would raise
        try:
            outcome = await asyncio.shield(told)
        except asyncio.CancelledError:
            self.batcher.leave(caller)
            raise
        if isinstance(outcome, BatchingError):
            outcome.index = 0
            raise outcome
        return outcome

    def call(
        self, items: list[Item], priority: Priority, timeout: float | None, hold: float | None, *, is_posted: bool = False
    ) -> None:
        async def submit() -> list[Outcome[tuple[int, int]]]:
            if is_posted:
                return [await self.post(items[0], priority, timeout)]
            if hold is None:
                return [await self.batcher.submit(items[0], priority=priority, timeout=timeout)]
            with self.batcher.reserve(len(items), priority=priority, timeout=timeout) as places:
                if hold:
                    await asyncio.sleep(hold)
                return await places.submit(items)

        task = self.loop.create_task(submit())
        call = Call(items, priority, self.loop.time(), timeout, hold or 0.0, task, self.is_closing)

        def note(_: object) -> None:
            call.ended = self.loop.time()

        task.add_done_callback(note)
        self.calls.append(call)
        before = self.batcher.statistics().accepted
        self.run(asyncio.sleep(0))
        if not hold:
            # All of it was accepted, or nothing.
            accepted = self.batcher.statistics().accepted - before
            assert accepted in {0, len(items)}
            call.is_accepted = accepted > 0
            assert call.is_accepted or task.done()

    # --- what happens

    @rule(draft=ITEMS, priority=PRIORITIES, timeout=TIMEOUTS, seconds=STEPS, is_posted=st.booleans())
    def submit(self, draft: Draft, priority: Priority, timeout: float | None, seconds: float, is_posted: bool) -> None:
        self.call([self.item(draft)], priority, timeout, None, is_posted=is_posted)
        self.let_pass(seconds)

    @rule(
        drafts=st.lists(ITEMS, min_size=1, max_size=6),
        priority=PRIORITIES,
        timeout=TIMEOUTS,
        hold=st.sampled_from([0.0, 0.0, 0.005]),
        seconds=STEPS,
    )
    def submit_many(self, drafts: list[Draft], priority: Priority, timeout: float | None, hold: float, seconds: float) -> None:
        if len(drafts) <= self.policy.max_queued:
            self.call([self.item(draft) for draft in drafts], priority, timeout, hold)
        self.let_pass(seconds)

    @rule(drafts=st.lists(ITEMS, min_size=2, max_size=8), priority=PRIORITIES, seconds=STEPS, is_posted=st.booleans())
    def submit_at_once(self, drafts: list[Draft], priority: Priority, seconds: float, is_posted: bool) -> None:
        for draft in drafts:
            self.call([self.item(draft)], priority, None, None, is_posted=is_posted)
        self.let_pass(seconds)

    @precondition(lambda self: any(not call.task.done() for call in self.calls))
    @rule(data=st.data(), seconds=STEPS)
    def leave(self, data: st.DataObject, seconds: float) -> None:
        call = data.draw(st.sampled_from([call for call in self.calls if not call.task.done()]), "call")
        call.is_cancelled = True
        call.task.cancel()
        self.let_pass(seconds)

    @rule(seconds=STEPS)
    def wait(self, seconds: float) -> None:
        self.let_pass(seconds)

    @rule(seconds=st.sampled_from([0.005, 0.020]))
    def block(self, seconds: float) -> None:
        """Something else keeps the loop busy; timers are late, and are not to blame."""

        async def compute() -> None:
            self.blocked.append((self.loop.time(), self.loop.time() + seconds))
            self.loop.block(seconds)

        self.run(compute())
        self.let_pass(0.0)

    @rule(mode=st.sampled_from(["sound"] * 5 + ["failing", "miscounting", "fatal"]), seconds=st.sampled_from([0.0, 0.010, 0.020]))
    def change_the_model(self, mode: str, seconds: float) -> None:
        self.model.mode, self.model.seconds = mode, seconds

    @precondition(lambda self: self.steps % 4 == 0 and self.batcher._workers._runs)
    @rule(seconds=STEPS)
    def kill_a_pass(self, seconds: float) -> None:
        self.kills += 1
        (work, *_) = (run.work for run in self.batcher._workers._runs)
        assert work is not None
        work.cancel()
        self.let_pass(seconds)

    @precondition(lambda self: self.steps > 25)
    @rule(seconds=STEPS)
    def drain(self, seconds: float) -> None:
        self.is_closing = True
        self.drains.append(self.loop.create_task(self.batcher.drain()))
        self.let_pass(seconds)

    @precondition(lambda self: self.steps > 30)
    @rule(seconds=STEPS, is_cancelled=st.booleans())
    def close(self, seconds: float, is_cancelled: bool) -> None:
        self.is_closing = self.is_closed = True
        closing = self.loop.create_task(self.batcher.close())
        self.drains.append(closing)
        if is_cancelled:
            self.let_pass(0.0)
            closing.cancel()
            self.was_close_cancelled = True
        self.let_pass(seconds)

    # --- what holds

    @invariant()
    def each_call_has_at_most_one_outcome_and_the_right_one_9_10_16(self) -> None:
        for call in self.calls:
            if call.task.done() and not call.is_checked:
                call.is_checked = True
                self.check(call)

    def check(self, call: Call) -> None:
        assert call.ended is not None
        late = [end for began, end in self.blocked if began <= call.deadline + EPSILON and call.deadline <= end + EPSILON]
        assert call.ended <= max(call.began + call.hold, call.deadline, *late) + EPSILON
        if call.task.cancelled():
            assert call.is_cancelled
            return
        error = call.task.exception()
        if error is None:
            assert [outcome.result for outcome in call.task.result()] == [value(item) for item in call.items]
            assert not any(item.is_poison for item in call.items)
            assert all(outcome.wait >= 0 and outcome.duration >= 0 for outcome in call.task.result())
            return
        assert isinstance(error, BatchingError), error
        assert self.reasons(call)[type(error)]
        if type(error) is PassFailed:
            self.check_failed(call, error)

    def reasons(self, call: Call) -> dict[type[BatchingError], bool]:
        """For each error whether this call may have met it."""
        done = sum(report.end is PassEnd.DONE for report in self.reports)
        return {
            QueueFull: not call.is_accepted,
            DeadlineUnmeetable: call.timeout is not None and not call.is_accepted and (self.is_measured or done >= 24),
            DeadlineExceeded: call.ended is not None and call.ended >= call.deadline - EPSILON,
            BatcherClosed: call.was_closing or self.is_closed,
            BatcherStalled: self.was_stalled,
            PassTimedOut: any(report.end is PassEnd.HUNG for report in self.reports),
            WorkerDied: self.kills + self.model.fatal > 0,
            WrongResultCount: self.model.wrong_counts > 0,
            PassFailed: True,
        }

    def check_failed(self, call: Call, error: PassFailed) -> None:
        assert error.index is not None
        item, cause = call.items[error.index], error.__cause__
        assert isinstance(cause, PassError)
        assert error.items == len(cause.items)
        assert item in cause.items
        if error.items == 1:
            assert item.is_poison or cause.is_model
        else:
            # Each halving costs two passes, and there were no two left. After a hang or a death, another run has the rest.
            seen = self.batcher.statistics()
            assert 2 * cause.halved + 2 > self.policy.max_extra_passes or seen.hangs + seen.deaths

    @invariant()
    def every_accepted_item_is_somewhere_9(self) -> None:
        seen = self.batcher.statistics()
        assert seen.accepted == seen.answered + seen.failed + seen.abandoned + seen.expired + seen.waiting
        pending = [call for call in self.calls if not call.task.done() and call.is_accepted]
        assert len(pending) <= seen.waiting <= sum(len(call.items) for call in self.calls if not call.task.done())
        answered = sum(len(call.items) for call in self.calls if call.task.done() and not self.failure(call))
        assert answered <= seen.answered
        assert seen.deaths <= self.kills + self.model.fatal
        assert seen.extra_passes <= self.policy.max_extra_passes * sum(seen.flushes.values())

    @staticmethod
    def failure(call: Call) -> bool:
        return call.task.cancelled() or call.task.exception() is not None

    @invariant()
    def passes_are_no_more_than_workers_12(self) -> None:
        workers = self.policy.workers
        assert self.model.running <= workers + self.batcher.hung_passes <= 3 * workers
        assert self.model.running <= 2 * workers
        assert self.batcher.statistics().running_passes <= workers
        for run in self.batcher._workers._runs:
            assert len({entry.priority for entry in run.all()}) == 1

    @invariant()
    def the_queue_is_within_its_bounds_13(self) -> None:
        queue = self.batcher._queue
        for priority in Priority:
            reserved = self.batcher._reserved[priority]
            assert reserved >= 0
            assert reserved + queue.count(priority) <= self.policy.max_queued
            if queue.cost(priority) > self.policy.max_queued_cost:
                queued = {entry.item for entry in queue if entry.priority is priority}
                assert any(queued <= set(call.items) for call in self.calls)
        if self.batcher.is_stalled or (self.batcher._workers.free and (self.policy.idle_flush or queue.draining)):
            assert not queue

    @invariant()
    def what_is_queued_is_waited_for_11(self) -> None:
        waiting = [call for call in self.calls if not call.task.done()]
        wanted = {item for call in waiting for item in call.items}
        urgent = {
            call.items[0] for call in waiting if call.is_accepted and len(call.items) == 1 and call.priority is Priority.INTERACTIVE
        }
        for entry in self.batcher._queue:
            assert entry.item in wanted
            assert entry.priority is Priority.INTERACTIVE or entry.item not in urgent

    @invariant()
    def nobody_waits_beyond_a_deadline_15(self) -> None:
        for call in self.calls:
            if call.is_accepted and not call.task.done():
                assert self.loop.time() <= call.deadline + EPSILON

    @invariant()
    def nothing_went_wrong_unseen(self) -> None:
        assert self.complaints == []

    def teardown(self) -> None:
        if not hasattr(self, "batcher"):
            self.loop.close()
            return
        try:
            self.is_closing = self.is_closed = True
            self.run(self.batcher.close())
            self.let_pass(0.010)  # who held a place until now
            self.each_call_has_at_most_one_outcome_and_the_right_one_9_10_16()
            assert all(call.is_checked for call in self.calls)
            assert all(drain.done() for drain in self.drains)
            assert self.batcher._register._by_key == {}
            seen = self.batcher.statistics()
            assert seen.accepted == seen.answered + seen.failed + seen.abandoned + seen.expired
            assert (seen.reserved, seen.queued, seen.queued_cost, seen.in_flight, seen.waiting) == (0, 0, 0, 0, 0)
            assert (seen.running_passes, seen.hung_passes, self.model.running) == (0, 0, 0)
            self.nothing_went_wrong_unseen()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.let_pass(0.0)
            self.loop.close()


TestBatcherMachine = BatcherMachine.TestCase
TestBatcherMachine.settings = property_settings(3000)
