"""The queue against a plain list, step by step, under any policy and in any order of events: invariants 1 to 8 of its module."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from batching.policy import BatchPolicy, Priority
from batching.queue import Batch, BatchQueue, FlushReason
from tests.batching.property_steps import property_settings

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


@dataclass(eq=False)
class Entry:
    number: int
    cost: int
    priority: Priority
    queued_at: float
    deadline: float
    passed_over: int = field(default=0, repr=False)


policies = st.builds(
    BatchPolicy,
    max_items=st.integers(1, 8),
    max_cost=st.one_of(st.integers(1, 40), st.integers(40, 200)),
    window=st.sampled_from([0.0, 1.0, 3.0]),
    idle_flush=st.booleans(),
    look_ahead=st.integers(0, 12),
    max_passed_over=st.integers(0, 3),
    interactive_weight=st.sampled_from([4.0, 1.0, 0.5, 2.7]),
)
# Costs are often alike, so that there are ties; the dearest are over many a `max_cost`.
costs = st.one_of(st.sampled_from([1, 5, 10]), st.integers(1, 50))
# Few, so that windows are waited for; many, so that there is a choice.
few_or_many = st.one_of(st.lists(costs, min_size=1, max_size=2), st.lists(costs, min_size=1, max_size=12))
patience = st.one_of(st.just(math.inf), st.integers(0, 6).map(float))


class Shares:
    """What left of each class since both may leave, as the difference of the costs over the weights; for invariant 7."""

    def __init__(self, weights: dict[Priority, float]) -> None:
        self._weights = weights
        self._last = dict.fromkeys(Priority, 0.0)
        self.restart()

    def restart(self) -> None:
        """Not both may leave: what leaves now is compared with nothing."""
        self._difference = self._lowest = self._highest = 0.0
        # The last batch of each class before that still counts: who had just been served waits a little longer.
        self._dearest = dict(self._last)

    def served(self, priority: Priority, cost: int) -> None:
        share = cost / self._weights[priority]
        self._last[priority] = share
        self._dearest[priority] = max(self._dearest[priority], share)
        self._difference += share if priority is INTERACTIVE else -share
        self._lowest = min(self._lowest, self._difference)
        self._highest = max(self._highest, self._difference)

    def check(self) -> None:
        """Over no stretch of time was one served more than the other by over one batch of each."""
        assert self._highest - self._lowest <= sum(self._dearest.values()) + 1e-9


class QueueMachine(RuleBasedStateMachine):
    @initialize(policy=policies)
    def open(self, policy: BatchPolicy) -> None:
        self.policy = policy
        self.queue = BatchQueue[Entry](policy)
        self.now = 0.0
        self.pushed = 0
        self.waiting: list[Entry] = []  # by age
        self.gone: list[Entry] = []
        self.shares = Shares({INTERACTIVE: policy.interactive_weight, BULK: 1.0})

    def of(self, priority: Priority) -> list[Entry]:
        return [entry for entry in self.waiting if entry.priority is priority]

    def remove(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.waiting.remove(entry)  # each was there, and only once
            self.gone.append(entry)
        self.note_who_waits()

    def note_who_waits(self) -> None:
        if not (self.of(INTERACTIVE) and self.of(BULK)):
            self.shares.restart()

    # --- what may happen

    @rule(costs=few_or_many, patience=patience, priority=st.sampled_from(Priority))
    def push(self, costs: list[int], patience: float, priority: Priority) -> None:
        for cost in costs:
            entry = Entry(self.pushed, cost, priority, self.now, self.now + patience)
            self.pushed += 1
            self.queue.push(entry)
            self.waiting.append(entry)

    @rule(seconds=st.sampled_from([0.5, 1.0, 3.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        entry = self.waiting[data.draw(st.integers(0, len(self.waiting) - 1), label="which")]
        assert self.queue.discard(entry)
        self.remove([entry])

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def discard_what_is_gone(self, data: st.DataObject) -> None:
        assert not self.queue.discard(self.gone[data.draw(st.integers(0, len(self.gone) - 1), label="which")])

    @rule()
    def drop_lapsed(self) -> None:
        dropped = self.queue.drop_lapsed(self.now)
        assert all(entry.deadline <= self.now for entry in dropped)
        self.remove(dropped)
        # 8: whoever can leave with the next batch is alive.
        near = max(self.policy.max_items, self.policy.look_ahead)
        assert all(entry.deadline > self.now for priority in Priority for entry in self.of(priority)[:near])

    @rule(cost=costs, priorities=st.lists(st.sampled_from(Priority), min_size=1, max_size=6))
    def take_while_few_come(self, cost: int, priorities: list[Priority]) -> None:
        self.take(8, are_lapsed_dropped=False)
        for priority in priorities:
            self.push([cost], math.inf, priority)
            self.take(1, are_lapsed_dropped=False)
            self.wait(1.0)
            self.take(1, are_lapsed_dropped=False)

    @precondition(lambda self: self.pushed > 10)
    @rule(costs=st.lists(costs, min_size=3, max_size=9), times=st.integers(4, 12))
    def take_while_both_wait(self, costs: list[int], times: int) -> None:
        for _ in range(times):
            for priority in Priority:
                if len(self.of(priority)) < len(costs):
                    self.push(costs, math.inf, priority)
            self.take(1, are_lapsed_dropped=False)

    @rule(times=st.integers(1, 8), are_lapsed_dropped=st.booleans())
    def take(self, times: int, *, are_lapsed_dropped: bool) -> None:
        for _ in range(times):
            if are_lapsed_dropped:
                self.drop_lapsed()
            may_leave = [priority for priority in Priority if self.may_leave(priority)]
            batch = self.queue.take(self.now)
            # 4: not before its time, and not after.
            assert (batch is None) is (not may_leave)
            if batch is None:
                return
            assert batch.entries[0].priority in may_leave
            if are_lapsed_dropped:
                assert all(entry.deadline > self.now for entry in batch.entries)  # 8
            if len(may_leave) == 1:
                self.shares.restart()
            self.check_batch(batch)

    @precondition(lambda self: self.pushed > 50)
    @rule()
    def start_draining(self) -> None:
        self.queue.draining = True

    @precondition(lambda self: self.pushed > 20)
    @rule()
    def clear(self) -> None:
        cleared = self.queue.clear()
        assert sorted(cleared, key=lambda entry: entry.number) == self.waiting
        self.remove(cleared)

    # --- what must be

    def may_leave(self, priority: Priority) -> bool:
        """4, read from the top of the module."""
        entries = self.of(priority)
        return bool(entries) and (
            len(entries) >= self.policy.max_items
            or sum(entry.cost for entry in entries) >= self.policy.max_cost
            or self.policy.idle_flush
            or self.queue.draining
            or self.now >= entries[0].queued_at + self.policy.window
        )

    def check_batch(self, batch: Batch[Entry]) -> None:
        policy, left, priority = self.policy, list(batch.entries), batch.entries[0].priority
        entries = self.of(priority)
        stayed = [entry for entry in entries if entry not in left]
        cost = sum(entry.cost for entry in left)
        # 2: of one class, oldest first, with the oldest; nobody from beyond the look-ahead.
        assert left == [entry for entry in entries if entry in left]
        assert left[0] is entries[0]
        assert entries.index(left[-1]) < max(policy.look_ahead, policy.max_items)
        # 3
        assert 1 <= len(left) <= policy.max_items
        assert cost <= policy.max_cost or len(left) == 1
        # Nobody stays without need: a batch is of all that wait, or full by number, or the next would be too much for it.
        if len(left) == policy.max_items:
            assert batch.reason is FlushReason.FULL
        elif stayed:
            assert batch.reason is FlushReason.COST
            assert cost + max(entry.cost for entry in stayed) > policy.max_cost
        elif cost >= policy.max_cost:
            assert batch.reason is FlushReason.COST
        elif self.queue.draining:
            assert batch.reason is FlushReason.DRAIN
        else:
            assert batch.reason is (FlushReason.IDLE if policy.idle_flush else FlushReason.WINDOW)
        # 6
        if policy.max_passed_over == 0:
            assert left == entries[: len(left)]
        for entry in entries[: entries.index(left[-1])]:
            if entry not in left:
                entry.passed_over += 1
                assert entry.passed_over <= policy.max_passed_over
        # 7: of classes that may both leave, the one that got less; checked as what comes of it.
        self.shares.served(priority, cost)
        self.shares.check()
        self.remove(left)

    @invariant()
    def it_holds_what_waits_and_nothing_else(self) -> None:
        # 1
        assert list(self.queue) == self.of(INTERACTIVE) + self.of(BULK)
        assert len(self.queue) == len(self.waiting)
        for priority in Priority:
            assert self.queue.count(priority) == len(self.of(priority))
            assert self.queue.cost(priority) == sum(entry.cost for entry in self.of(priority))

    @invariant()
    def it_waits_for_the_next_window_to_end(self) -> None:
        # 5, and 4
        end = min((entry.queued_at for entry in self.waiting), default=None)
        assert self.queue.window_end() == (None if end is None else end + self.policy.window)

    @invariant()
    def the_cost_ahead_is_at_least_its_own_and_at_most_everything(self) -> None:
        total = sum(entry.cost for entry in self.waiting)
        for priority in Priority:
            assert self.queue.cost(priority) <= self.queue.cost_ahead(priority) <= total


QueueMachine.TestCase.settings = property_settings(default_steps=4000)
TestQueueMachine = QueueMachine.TestCase
