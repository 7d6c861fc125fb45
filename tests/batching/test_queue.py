"""The pure queue: no event loop, no clock but the numbers it is told. Numbers in names are the invariants of `batching.queue`."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batching.policy import BatchPolicy, Priority
from batching.queue import Batch, BatchQueue, FlushReason

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK


@dataclass(eq=False)
class Item:
    cost: int = 1
    priority: Priority = INTERACTIVE
    queued_at: float = 0.0
    deadline: float = math.inf


def filled(policy: BatchPolicy, *items: Item) -> BatchQueue[Item]:
    queue = BatchQueue[Item](policy)
    for item in items:
        queue.push(item)
    return queue


def taken(queue: BatchQueue[Item], now: float = 0.0) -> Batch[Item]:
    batch = queue.take(now)
    assert batch is not None
    return batch


def costs(entries: Sequence[Item]) -> list[int]:
    return [item.cost for item in entries]


def classes(queue: BatchQueue[Item], batches: int) -> str:
    """The classes of the next batches, by their first letters."""
    return "".join(taken(queue).entries[0].priority[0] for _ in range(batches))


# --- 1: in the queue, or out for good


def test_1_what_waits_is_counted_by_class_until_it_leaves() -> None:
    abandoned, lapsed = Item(3), Item(4, BULK, deadline=1.0)
    queue = filled(BatchPolicy(max_items=2), abandoned, lapsed, Item(5), Item(6), Item(7), Item(8, BULK))

    def state() -> tuple[int, int, int, int, int]:
        return len(queue), queue.count(INTERACTIVE), queue.cost(INTERACTIVE), queue.count(BULK), queue.cost(BULK)

    assert state() == (6, 4, 21, 2, 12)
    assert queue.discard(abandoned)
    assert state() == (5, 3, 18, 2, 12)
    assert queue.drop_lapsed(now=1.0) == [lapsed]
    assert state() == (4, 3, 18, 1, 8)
    assert costs(taken(queue).entries) == [5, 6]
    assert state() == (2, 1, 7, 1, 8)
    assert costs(queue.clear()) == [7, 8]
    assert state() == (0, 0, 0, 0, 0)


def test_1_what_has_left_cannot_be_discarded_nor_does_it_come_back() -> None:
    passed, abandoned, lapsed, cleared = items = [Item(), Item(priority=BULK), Item(deadline=1.0), Item()]
    queue = filled(BatchPolicy(max_items=1), passed)
    assert taken(queue).entries == (passed,)
    for item in (abandoned, lapsed, cleared):
        queue.push(item)
    assert queue.discard(abandoned)
    assert queue.drop_lapsed(now=1.0) == [lapsed]
    assert queue.clear() == [cleared]
    assert not any(queue.discard(item) for item in items)
    assert queue.take(now=9.0) is None
    assert queue.clear() == queue.drop_lapsed(now=9.0) == list(queue) == []


def test_1_it_lists_what_waits_by_class_and_age() -> None:
    items = [Item(priority=BULK), Item(), Item(priority=BULK), Item()]
    queue = filled(BatchPolicy(), *items)
    assert list(queue) == [items[1], items[3], items[0], items[2]]
    assert queue.clear() == [items[1], items[3], items[0], items[2]]


def test_1_after_it_was_cleared_it_is_as_usable_as_before() -> None:
    queue = filled(BatchPolicy(), Item(), Item(priority=BULK))
    queue.clear()
    item = Item()
    queue.push(item)
    assert taken(queue).entries == (item,)


# --- 2: one class, oldest first


def test_2_a_batch_is_of_one_class_even_if_it_could_hold_more() -> None:
    queue = filled(BatchPolicy(), *[Item(priority=priority) for priority in (BULK, INTERACTIVE) * 3])
    assert [item.priority for item in taken(queue).entries] == [INTERACTIVE] * 3
    assert [item.priority for item in taken(queue).entries] == [BULK] * 3


def test_2_the_oldest_leaves_with_those_nearest_to_it_in_cost_oldest_first() -> None:
    queue = filled(BatchPolicy(max_items=4), *map(Item, (100, 5, 90, 300, 120, 101, 250)))
    assert costs(taken(queue).entries) == [100, 90, 120, 101]
    assert costs(taken(queue).entries) == [5, 300, 250]


def test_2_of_those_equally_near_the_older_leaves() -> None:
    older, younger = Item(9), Item(11)
    queue = filled(BatchPolicy(max_items=2), Item(10), older, younger)
    assert taken(queue).entries[1] is older
    queue = filled(BatchPolicy(max_items=2), Item(10), younger, older)
    assert taken(queue).entries[1] is younger


def test_2_nobody_is_looked_for_beyond_the_look_ahead() -> None:
    policy = BatchPolicy(max_items=2, look_ahead=3)
    assert costs(taken(filled(policy, *map(Item, (10, 50, 30, 10)))).entries) == [10, 30]
    assert costs(taken(filled(policy, *map(Item, (10, 50, 10, 10)))).entries) == [10, 10]


def test_2_a_look_ahead_that_is_shorter_than_a_batch_still_fills_it() -> None:
    queue = filled(BatchPolicy(max_items=3, look_ahead=0), *map(Item, (10, 50, 30, 10)))
    assert costs(taken(queue).entries) == [10, 50, 30]


def test_2_a_near_one_that_does_not_fit_is_not_replaced_by_a_far_one_that_would() -> None:
    queue = filled(BatchPolicy(max_cost=100), *map(Item, (60, 55, 5)))
    assert costs(taken(queue).entries) == [60]
    assert costs(taken(queue).entries) == [55, 5]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=40), st.integers(1, 6), st.integers(0, 12), st.integers(1, 60))
def test_2_whoever_leaves_is_at_least_as_near_to_the_oldest_as_whoever_stays(
    queued: list[int], max_items: int, look_ahead: int, max_cost: int
) -> None:
    items = [Item(cost) for cost in queued]
    queue = filled(BatchPolicy(max_items=max_items, look_ahead=look_ahead, max_cost=max_cost), *items)
    left = taken(queue).entries
    assert left[0] is items[0]
    assert [items.index(item) for item in left] == sorted(items.index(item) for item in left)
    stayed = [item for item in items[: max(look_ahead, max_items)] if item not in left]
    if stayed:

        def distance(item: Item) -> int:
            return abs(item.cost - items[0].cost)

        nearest = min(stayed, key=distance)
        assert max(map(distance, left)) <= distance(nearest)
        # And it leaves no room for the next one.
        assert len(left) == max_items or sum(costs(left)) + nearest.cost > max_cost


# --- 3: the bounds


def test_3_a_batch_holds_exactly_as_many_as_may_be() -> None:
    queue = filled(BatchPolicy(max_items=2), Item(), Item(), Item())
    batch = taken(queue)
    assert len(batch.entries) == 2
    assert batch.reason is FlushReason.FULL


def test_3_a_batch_stops_before_the_cost_bound() -> None:
    queue = filled(BatchPolicy(max_cost=10, max_passed_over=0), Item(6), Item(4), Item(1))
    batch = taken(queue)
    assert costs(batch.entries) == [6, 4]
    assert batch.reason is FlushReason.COST


def test_3_a_single_entry_over_the_cost_bound_goes_alone() -> None:
    queue = filled(BatchPolicy(max_cost=10), Item(99), Item(1))
    batch = taken(queue)
    assert costs(batch.entries) == [99]
    assert batch.reason is FlushReason.COST


def test_3_an_entry_over_the_cost_bound_takes_nobody_along_nor_joins_anybody() -> None:
    queue = filled(BatchPolicy(max_cost=10), Item(99), Item(99))
    assert costs(taken(queue).entries) == [99]
    assert costs(taken(queue).entries) == [99]


@given(
    queued=st.lists(st.integers(1, 40), max_size=60),
    gone=st.sets(st.integers(0, 59)),
    max_items=st.integers(1, 8),
    max_cost=st.integers(1, 60),
    max_passed_over=st.integers(0, 3),
)
def test_1_2_3_6_every_entry_leaves_once_within_the_bounds(
    queued: list[int], gone: set[int], max_items: int, max_cost: int, max_passed_over: int
) -> None:
    items = [Item(cost) for cost in queued]
    policy = BatchPolicy(max_items=max_items, max_cost=max_cost, look_ahead=16, max_passed_over=max_passed_over)
    queue = filled(policy, *items)
    for index in gone:
        if index < len(items):
            assert queue.discard(items[index])
            assert not queue.discard(items[index])
    waiting = [item for index, item in enumerate(items) if index not in gone]
    passed_over = Counter[Item]()
    while (batch := queue.take(now=0.0)) is not None:
        assert 1 <= len(batch.entries) <= max_items
        assert len(batch.entries) == 1 or sum(costs(batch.entries)) <= max_cost
        assert batch.entries[0] is waiting[0]
        youngest = waiting.index(batch.entries[-1])
        passed_over.update(item for item in waiting[:youngest] if item not in batch.entries)
        waiting = [item for item in waiting if item not in batch.entries]
        assert list(queue) == waiting
    assert not waiting
    assert max(passed_over.values(), default=0) <= max_passed_over


# --- 17 and 18: how much


TWO_WORKERS = BatchPolicy(max_items=32, max_cost=100, workers=2)


@pytest.mark.parametrize(
    ("queued", "sharing", "worthwhile_cost", "leaving"),
    [
        # A worker that becomes free takes its half, and leaves the other half to the next.
        ([10, 10, 10, 10], None, 0, 2),
        ([10, 10, 10, 10, 10, 10, 10, 10], None, 0, 4),
        # Of nearly nothing it takes all that makes a pass worth while.
        ([10, 10, 10, 10], None, 30, 3),
        ([10, 10, 10, 10], None, 300, 4),
        # But while the other worker is free, they share.
        ([10, 10, 10, 10], 2, 300, 2),
        ([10, 10], 2, 300, 1),
        ([10, 10, 10, 10], 1, 0, 4),
        # The oldest leaves, whatever it costs.
        ([90, 1, 1, 1], None, 0, 1),
        # Nobody takes more than a batch may hold.
        ([10] * 30, None, 0, 10),
        ([10] * 30, None, 300, 10),
        ([10] * 30, 2, 0, 10),
    ],
)
def test_17_a_batch_is_one_worker_s_share(queued: list[int], sharing: int | None, worthwhile_cost: float, leaving: int) -> None:
    queue = filled(TWO_WORKERS, *map(Item, queued))
    batch = queue.take(0.0, sharing, worthwhile_cost)
    assert batch is not None
    assert costs(batch.entries) == queued[:leaving]


def test_17_the_share_is_that_of_the_class() -> None:
    queue = filled(TWO_WORKERS, *[Item(10, BULK) for _ in range(50)], Item(10), Item(10))
    assert len(taken(queue).entries) == 1


def test_17_without_idle_flush_whoever_waited_for_company_has_it() -> None:
    queue = filled(BatchPolicy(max_cost=100, workers=2, idle_flush=False, window=1.0), Item(10), Item(10), Item(10))
    assert queue.take(0.9, 2) is None
    batch = queue.take(1.0, 2)
    assert batch is not None
    assert len(batch.entries) == 3


@given(
    queued=st.lists(st.integers(1, 40), min_size=1, max_size=60),
    workers=st.integers(1, 5),
    busy=st.integers(0, 4),
    worthwhile_cost=st.floats(0, 200),
)
def test_17_a_batch_is_within_its_share_and_the_next_one_did_not_fit(
    queued: list[int], workers: int, busy: int, worthwhile_cost: float
) -> None:
    policy = BatchPolicy(max_items=32, max_cost=80, workers=workers)
    queue = filled(policy, *map(Item, queued))
    free = max(1, workers - busy)
    for sharing in range(free, 0, -1) if free > 1 else [None]:
        before = queue.cost(INTERACTIVE)
        batch = queue.take(0.0, sharing, worthwhile_cost)
        if batch is None:
            assert not queue
            return
        cost = sum(costs(batch.entries))
        share = min(80, max(before / workers, worthwhile_cost) if sharing is None else before / sharing)
        assert cost <= share or len(batch.entries) == 1
        if len(batch.entries) < 32 and queue:
            assert cost + max(entry.cost for entry in queue) > share


def test_17_workers_that_are_free_together_leave_nothing_to_each_other() -> None:
    queue = filled(TWO_WORKERS, *[Item(10) for _ in range(5)])
    assert [len(batch.entries) for sharing in (2, 1) if (batch := queue.take(0.0, sharing)) is not None] == [2, 3]


def by_length(costs: Sequence[int]) -> list[list[int]]:
    """Below and from 50 apart."""
    sides = [[index for index, cost in enumerate(costs) if (cost < 50) is side] for side in (True, False)]
    return [side for side in sides if side]


def divided(divide: Callable[[Sequence[int]], Sequence[Sequence[int]]], policy: BatchPolicy, *items: Item) -> BatchQueue[Item]:
    queue = BatchQueue[Item](policy, divide)
    for item in items:
        queue.push(item)
    return queue


def test_18_what_is_better_passed_apart_does_not_leave_together() -> None:
    queue = divided(by_length, BatchPolicy(max_cost=1000), *map(Item, [60, 10, 70, 20]))
    assert costs(taken(queue).entries) == [60, 70]
    assert costs(taken(queue).entries) == [10, 20]


def test_18_who_was_left_out_was_passed_over_and_leaves_when_it_is_its_turn() -> None:
    policy = BatchPolicy(max_cost=1000, max_passed_over=2)
    queue = divided(by_length, policy, *map(Item, [10, 60, 20]))
    assert costs(taken(queue).entries) == [10, 20]
    for item in map(Item, [11, 12]):
        queue.push(item)
    assert costs(taken(queue).entries) == [60]  # the oldest leads


def test_18_who_is_due_but_is_better_passed_apart_stops_the_younger_ones() -> None:
    policy = BatchPolicy(max_cost=1000, max_items=3, look_ahead=8, max_passed_over=1)
    queue = divided(by_length, policy, *map(Item, [10, 11, 60, 12]))
    # The oldest one's pass is for short texts, and the long one is passed over by the fourth.
    assert costs(taken(queue).entries) == [10, 11, 12]
    assert costs(taken(queue).entries) == [60]
    queue = divided(by_length, policy, *map(Item, [10, 60, 11, 70]))
    assert costs(taken(queue).entries) == [10, 11]


def test_18_in_the_order_of_age_nothing_is_divided() -> None:
    queue = divided(by_length, BatchPolicy(max_cost=1000, max_passed_over=0), *map(Item, [10, 60, 11]))
    assert costs(taken(queue).entries) == [10, 60, 11]


@given(
    queued=st.lists(st.integers(1, 99), max_size=40),
    max_passed_over=st.integers(1, 3),
    workers=st.integers(1, 3),
)
def test_6_18_nobody_is_passed_over_more_often_for_being_divided(queued: list[int], max_passed_over: int, workers: int) -> None:
    items = list(map(Item, queued))
    policy = BatchPolicy(max_cost=200, max_items=8, max_passed_over=max_passed_over, look_ahead=16, workers=workers)
    queue = divided(by_length, policy, *items)
    passed_over = Counter[Item]()
    while (batch := queue.take(0.0)) is not None:
        assert len({cost < 50 for cost in costs(batch.entries)}) == 1
        assert batch.entries[0] is items[0]
        youngest = items.index(batch.entries[-1])
        passed_over.update(item for item in items[:youngest] if item not in batch.entries)
        items = [item for item in items if item not in batch.entries]
    assert not items
    assert max(passed_over.values(), default=0) <= max_passed_over


# --- 4 and 5: when


def test_4_idle_flush_takes_what_is_there_at_once() -> None:
    item = Item(queued_at=5.0)
    batch = taken(filled(BatchPolicy(), item), now=5.0)
    assert batch.entries == (item,)
    assert batch.reason is FlushReason.IDLE


@pytest.mark.parametrize("priority", Priority)
def test_4_without_idle_flush_the_window_counts_from_the_oldest_push_and_nothing_else(priority: Priority) -> None:
    items = [Item(priority=priority, queued_at=queued_at) for queued_at in (1.0, 1.03)]
    queue = filled(BatchPolicy(idle_flush=False, window=0.04), *items)
    assert queue.window_end() == 1.04
    assert queue.take(now=1.0399) is None
    batch = taken(queue, now=1.04)
    assert len(batch.entries) == 2
    assert batch.reason is FlushReason.WINDOW


def test_4_each_class_has_a_window_of_its_own() -> None:
    queue = filled(BatchPolicy(idle_flush=False, window=0.04), Item(priority=BULK, queued_at=1.0), Item(queued_at=1.03))
    assert queue.window_end() == 1.04
    assert [item.priority for item in taken(queue, now=1.04).entries] == [BULK]
    assert queue.take(now=1.04) is None
    assert queue.window_end() == 1.07
    assert [item.priority for item in taken(queue, now=1.07).entries] == [INTERACTIVE]


@pytest.mark.parametrize(("first", "second"), [(INTERACTIVE, BULK), (BULK, INTERACTIVE)])
def test_4_the_next_window_to_end_is_the_earlier_of_both(first: Priority, second: Priority) -> None:
    policy = BatchPolicy(idle_flush=False, window=0.04)
    queue = filled(policy, Item(priority=first, queued_at=1.0), Item(priority=second, queued_at=1.03))
    assert queue.window_end() == 1.04


def test_4_after_a_batch_left_the_window_is_that_of_the_next_oldest() -> None:
    policy = BatchPolicy(idle_flush=False, window=0.04, max_items=2)
    queue = filled(policy, Item(queued_at=1.0), Item(queued_at=1.01), Item(queued_at=1.02))
    assert taken(queue, now=1.02).reason is FlushReason.FULL
    assert queue.window_end() == 1.02 + 0.04
    assert queue.take(now=1.03) is None


def test_4_a_discarded_oldest_entry_takes_its_window_along() -> None:
    first, second = Item(queued_at=1.0), Item(queued_at=1.03)
    queue = filled(BatchPolicy(idle_flush=False, window=0.04), first, second)
    assert queue.discard(first)
    assert queue.window_end() == 1.07
    assert queue.take(now=1.04) is None


@pytest.mark.parametrize("priority", Priority)
def test_4_a_batch_that_is_full_waits_for_nothing(priority: Priority) -> None:
    full = [Item(1, priority), Item(1, priority)]
    batch = taken(filled(BatchPolicy(idle_flush=False, window=9.0, max_items=2), *full))
    assert batch.entries == tuple(full)
    assert batch.reason is FlushReason.FULL


@pytest.mark.parametrize("priority", Priority)
def test_4_a_batch_that_is_full_by_its_cost_waits_for_nothing(priority: Priority) -> None:
    queue = filled(BatchPolicy(idle_flush=False, window=9.0, max_cost=10), Item(4, priority))
    assert queue.take(now=0.0) is None
    queue.push(Item(6, priority))
    batch = taken(queue)
    assert costs(batch.entries) == [4, 6]
    assert batch.reason is FlushReason.COST


def test_4_cost_that_has_left_or_was_discarded_fills_no_batch() -> None:
    discarded = Item(6)
    queue = filled(BatchPolicy(idle_flush=False, window=9.0, max_cost=10), Item(4), Item(6), discarded)
    taken(queue)
    assert queue.discard(discarded)
    queue.push(Item(6))
    assert queue.take(now=0.0) is None


def test_4_a_full_class_does_not_hurry_the_other() -> None:
    policy = BatchPolicy(idle_flush=False, window=9.0, max_items=2)
    queue = filled(policy, Item(), Item(priority=BULK), Item(priority=BULK))
    assert [item.priority for item in taken(queue).entries] == [BULK, BULK]
    assert queue.take(now=0.0) is None


@pytest.mark.parametrize("idle_flush", [True, False])
def test_4_draining_flushes_both_classes_without_waiting(*, idle_flush: bool) -> None:
    queue = filled(BatchPolicy(idle_flush=idle_flush, window=9.0), Item(), Item(priority=BULK))
    queue.draining = True
    assert [taken(queue).reason for _ in range(2)] == [FlushReason.DRAIN, FlushReason.DRAIN]


def test_4_what_is_full_left_for_being_full_even_when_draining() -> None:
    queue = filled(BatchPolicy(max_items=2, max_cost=10), Item(), Item(), Item(10, BULK))
    queue.draining = True
    assert [taken(queue).reason for _ in range(2)] == [FlushReason.FULL, FlushReason.COST]


def test_4_the_reason_is_the_bound_that_the_batch_met_not_the_one_that_what_waits_met() -> None:
    policy = BatchPolicy(max_items=3, max_cost=10)
    # More than three wait, but the cost of two ends the batch; and more than 10 waits, but three end it.
    assert taken(filled(policy, *map(Item, (5, 5, 5, 5)))).reason is FlushReason.COST
    assert taken(filled(policy, *map(Item, (3, 3, 3, 9)))).reason is FlushReason.FULL


def test_5_an_empty_queue_gives_nothing_and_waits_for_nothing() -> None:
    queue = BatchQueue[Item](BatchPolicy())
    assert queue.take(now=1.0) is None
    assert queue.window_end() is None
    assert not queue.discard(Item())
    assert len(queue) == 0


@pytest.mark.parametrize("priority", Priority)
def test_5_with_the_last_entry_goes_the_window(priority: Priority) -> None:
    item = Item(priority=priority)
    queue = filled(BatchPolicy(idle_flush=False), item)
    assert queue.window_end() is not None
    queue.discard(item)
    assert queue.window_end() is None


# --- 6: passing over


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 6), st.integers(0, 12), st.integers(1, 60))
def test_6_with_no_passing_over_the_batches_are_in_the_order_of_age(
    queued: list[int], max_items: int, look_ahead: int, max_cost: int
) -> None:
    items = [Item(cost) for cost in queued]
    policy = BatchPolicy(max_items=max_items, look_ahead=look_ahead, max_cost=max_cost, max_passed_over=0)
    queue = filled(policy, *items)
    left: list[Item] = []
    while (batch := queue.take(now=0.0)) is not None:
        left += batch.entries
        # It is not shorter than it must be.
        following = items[len(left) : len(left) + 1]
        assert all(len(batch.entries) == max_items or sum(costs((*batch.entries, item))) > max_cost for item in following)
    assert left == items


@pytest.mark.parametrize("max_passed_over", [1, 2, 5])
def test_6_who_was_passed_over_as_often_as_may_be_is_in_the_next_batch(max_passed_over: int) -> None:
    # Each of the older ones has a match that is younger than the one in the middle, who matches nobody.
    pairs = [10 * (index + 1) for index in range(max_passed_over + 1)]
    far = Item(1000)
    queue = filled(BatchPolicy(max_items=2, max_passed_over=max_passed_over), *map(Item, pairs), far, *map(Item, pairs))
    for cost in pairs[:-1]:
        assert costs(taken(queue).entries) == [cost, cost]
    assert costs(taken(queue).entries) == [pairs[-1], 1000]


def test_6_a_batch_that_holds_only_older_ones_passes_nobody_over() -> None:
    queue = filled(BatchPolicy(max_items=2, max_passed_over=1), *map(Item, (10, 10, 1000, 10)))
    assert costs(taken(queue).entries) == [10, 10]
    assert costs(taken(queue).entries) == [1000, 10]
    # The one of 1000 below is left behind once by a full batch of older ones, which does not count, and once by a younger one.
    queue = filled(BatchPolicy(max_items=2, max_passed_over=1), *map(Item, (10, 10, 20, 1000, 20, 30)))
    assert [costs(taken(queue).entries) for _ in range(3)] == [[10, 10], [20, 20], [1000, 30]]


def test_6_who_leaves_for_being_passed_over_counts_towards_the_bounds() -> None:
    # After one batch, both of 40 have been passed over once, and their turn comes before that of the near ones.
    policy = BatchPolicy(max_items=3, max_cost=95, max_passed_over=1)
    queue = filled(policy, *map(Item, (10, 20, 40, 40, 10, 10, 20, 20)))
    assert costs(taken(queue).entries) == [10, 10, 10]
    batch = taken(queue)
    assert costs(batch.entries) == [20, 40]
    assert batch.reason is FlushReason.COST
    assert costs(taken(queue).entries) == [40, 20, 20]


def test_6_as_many_leave_for_being_passed_over_as_a_batch_may_hold() -> None:
    queue = filled(BatchPolicy(max_items=2, max_passed_over=1), *map(Item, (10, 20, 40, 40, 10, 20)))
    assert costs(taken(queue).entries) == [10, 10]
    batch = taken(queue)
    assert costs(batch.entries) == [20, 40]
    assert batch.reason is FlushReason.FULL


def test_6_who_is_due_but_does_not_fit_stops_the_younger_ones() -> None:
    queue = filled(BatchPolicy(max_items=2, max_cost=60, max_passed_over=1), *map(Item, (10, 20, 50, 10, 20)))
    assert costs(taken(queue).entries) == [10, 10]
    # The one of 50 was passed over once. It does not fit beside the 20, and the younger 20 would be a second time.
    assert costs(taken(queue).entries) == [20]
    assert costs(taken(queue).entries) == [50]
    assert costs(taken(queue).entries) == [20]


def test_6_who_is_due_but_does_not_fit_does_not_stop_the_older_ones() -> None:
    queue = filled(BatchPolicy(max_items=3, max_cost=60, max_passed_over=2), *map(Item, (10, 11, 12, 22, 50, 10, 10, 11, 11, 12)))
    assert costs(taken(queue).entries) == [10, 10, 10]
    assert costs(taken(queue).entries) == [11, 11, 11]
    # Now 22 and 50 are due: the one joins the 12, the other does not fit, and so the younger 12 stays.
    assert costs(taken(queue).entries) == [12, 22]
    assert costs(taken(queue).entries) == [50]


# --- 7: the classes


def served(policy: BatchPolicy, dear: dict[Priority, int], batches: int) -> Counter[Priority]:
    """What leaves of two classes that never run out, of entries that cost from 1 up to `dear`."""
    queue = BatchQueue[Item](policy)
    numbers = count()
    cost: Counter[Priority] = Counter()
    for _ in range(batches):
        for priority in Priority:
            while queue.count(priority) < 2 * policy.max_items:
                queue.push(Item(1 + next(numbers) * 7 % dear[priority], priority))
        for item in taken(queue).entries:
            cost[item.priority] += item.cost
    return cost


@pytest.mark.parametrize("weight", [4.0, 1.0, 0.5, 2.5, 16.0])
@pytest.mark.parametrize("dear", [{INTERACTIVE: 40, BULK: 40}, {INTERACTIVE: 3, BULK: 90}, {INTERACTIVE: 90, BULK: 3}])
def test_7_two_classes_that_never_run_out_share_the_cost_by_their_weights(weight: float, dear: dict[Priority, int]) -> None:
    policy = BatchPolicy(max_items=4, max_cost=100, interactive_weight=weight)
    cost = served(policy, dear, batches=1000)
    assert cost[BULK] > 0
    # To within one batch of each.
    assert abs(cost[INTERACTIVE] / weight - cost[BULK]) <= 100 / weight + 100


def test_7_the_default_is_four_to_one() -> None:
    cost = served(BatchPolicy(), {INTERACTIVE: 100, BULK: 100}, batches=1000)
    assert cost[INTERACTIVE] / cost[BULK] == pytest.approx(4.0, rel=0.02)


def test_7_alike_batches_leave_four_to_one_the_interactive_first() -> None:
    queue = filled(BatchPolicy(max_items=1), *[Item(priority=priority) for priority in (BULK, INTERACTIVE) * 12])
    assert classes(queue, 12) == "ib" + "iiiib" * 2


def test_7_what_counts_is_the_cost_of_a_batch_not_the_batch() -> None:
    # A bulk batch costs 4 of the interactive ones: to give these 4 times its cost takes 16 of them.
    queue = filled(BatchPolicy(max_items=1), *[Item(4, BULK) for _ in range(3)], *[Item() for _ in range(40)])
    assert classes(queue, 34) == ("ib" + "i" * 15) * 2


@pytest.mark.parametrize(("idle", "busy", "then"), [(BULK, INTERACTIVE, "biiiib"), (INTERACTIVE, BULK, "iiiiib")])
def test_7_a_class_that_was_idle_saves_up_no_credit(idle: Priority, busy: Priority, then: str) -> None:
    queue = BatchQueue[Item](BatchPolicy(max_items=1))
    for _ in range(1000):
        queue.push(Item(priority=busy))
        taken(queue)
    for priority in (idle, busy) * 20:
        queue.push(Item(priority=priority))
    assert classes(queue, len(then)) == then


def test_7_a_class_that_found_the_queue_empty_again_and_again_is_owed_nothing() -> None:
    queue = BatchQueue[Item](BatchPolicy(max_items=1))
    for _ in range(1000):
        for priority in (INTERACTIVE, INTERACTIVE, BULK):
            queue.push(Item(priority=priority))
        assert Counter(classes(queue, 3)) == {"i": 2, "b": 1}
    for priority in (BULK, INTERACTIVE) * 20:
        queue.push(Item(priority=priority))
    # To within one batch of each.
    assert classes(queue, 15).count("i") in {11, 12, 13}


def test_7_what_was_discarded_lapsed_or_cleared_is_not_counted_as_served() -> None:
    queue = BatchQueue[Item](BatchPolicy(max_items=1))
    for _ in range(100):
        discarded = Item(100)
        queue.push(discarded)
        queue.discard(discarded)
        queue.push(Item(100, deadline=0.0))
        queue.drop_lapsed(now=0.0)
        queue.push(Item(100))
        queue.clear()
    for priority in (BULK, INTERACTIVE) * 20:
        queue.push(Item(priority=priority))
    assert classes(queue, 7) == "ibiiiib"


@given(st.lists(st.integers(1, 16), min_size=1, max_size=30), st.integers(0, 200))
def test_7_an_interactive_entry_that_finds_none_of_its_class_waits_for_at_most_one_bulk_batch(lone: list[int], cost: int) -> None:
    # As long as a bulk batch costs at least what an interactive one does over the weight, which full ones do.
    queue = BatchQueue[Item](BatchPolicy(max_items=4, max_cost=16))
    for interactive_cost in [*lone, 1 + cost % 16]:
        while queue.count(BULK) < 8:
            queue.push(Item(4, BULK))
        queue.push(Item(interactive_cost))
        assert INTERACTIVE in {taken(queue).entries[0].priority for _ in range(2)}


@pytest.mark.parametrize("weight", [0.5, 1.0, 4.0, 100.0])
def test_7_bulk_is_not_starved(weight: float) -> None:
    policy = BatchPolicy(max_items=1, interactive_weight=weight)
    queue = filled(policy, *[Item(priority=BULK) for _ in range(3)])
    left = ""
    for _ in range(500):
        queue.push(Item())
        left += classes(queue, 1)
    # Before each bulk batch go at most as many interactive ones as the weight says, and one more that is due to a tie.
    *gaps, _ = (len(gap) for gap in left.split("b"))
    assert len(gaps) == 3
    assert max(gaps) <= math.ceil(weight) + 1


def test_7_a_class_that_waits_for_its_window_saves_up_no_credit() -> None:
    queue = filled(BatchPolicy(idle_flush=False, window=9.0, max_items=2), Item(priority=BULK))
    for _ in range(20):
        queue.push(Item())
        queue.push(Item())
        assert taken(queue).reason is FlushReason.FULL
    for priority in (BULK, INTERACTIVE) * 20:
        queue.push(Item(priority=priority))
    assert classes(queue, 6) == "biiiib"


# --- 8: deadlines


def test_8_entries_whose_deadline_has_come_are_handed_out_and_leave_in_no_batch() -> None:
    lapsed = [Item(deadline=5.0), Item(deadline=4.0), Item(priority=BULK, deadline=5.0)]
    alive = [Item(), Item(deadline=5.001), Item(priority=BULK)]
    queue = filled(BatchPolicy(), lapsed[0], alive[0], lapsed[1], alive[1], lapsed[2], alive[2])
    assert queue.drop_lapsed(now=5.0) == lapsed
    assert queue.drop_lapsed(now=5.0) == []
    assert taken(queue).entries == (alive[0], alive[1])
    assert taken(queue).entries == (alive[2],)


def test_8_also_those_who_move_up_are_dropped() -> None:
    policy = BatchPolicy(max_items=2, look_ahead=3)
    items = [Item(deadline=1.0 if index % 4 else math.inf) for index in range(24)]
    queue = filled(policy, *items)
    dropped = queue.drop_lapsed(now=1.0)
    # The three nearest to the front are alive.
    assert list(islice(queue, 3)) == [items[0], items[4], items[8]]
    assert dropped == [items[index] for index in (1, 2, 3, 5, 6, 7)]
    assert set(taken(queue).entries) <= {items[0], items[4], items[8]}


def test_8_nobody_is_looked_at_who_cannot_leave_with_the_next_batch() -> None:
    far = Item(deadline=1.0)
    queue = filled(BatchPolicy(max_items=1, look_ahead=2), Item(), Item(), far)
    assert queue.drop_lapsed(now=1.0) == []
    taken(queue)
    assert queue.drop_lapsed(now=1.0) == [far]


def test_8_with_a_look_ahead_that_is_shorter_than_a_batch_the_whole_batch_is_looked_at() -> None:
    items = [Item(), Item(), Item(deadline=1.0)]
    queue = filled(BatchPolicy(max_items=3, look_ahead=1), *items)
    assert queue.drop_lapsed(now=1.0) == [items[2]]


def test_8_a_class_of_lapsed_entries_only_is_emptied() -> None:
    queue = filled(BatchPolicy(max_items=1, look_ahead=1, idle_flush=False), *[Item(deadline=1.0) for _ in range(9)])
    assert len(queue.drop_lapsed(now=1.0)) == 9
    assert queue.window_end() is None
    assert queue.take(now=99.0) is None


# --- what is ahead


def test_the_cost_ahead_of_a_class_is_its_own_and_what_the_other_may_send_meanwhile() -> None:
    queue = filled(BatchPolicy(interactive_weight=4.0), Item(40), Item(60), Item(30, BULK), Item(70, BULK))
    # While 100 of the interactive leave, 25 of bulk do; while 100 of bulk leave, all 100 interactive do, who might be 400.
    assert queue.cost_ahead(INTERACTIVE) == 125.0
    assert queue.cost_ahead(BULK) == 200.0


def test_the_cost_ahead_counts_no_more_of_the_other_class_than_it_has() -> None:
    queue = filled(BatchPolicy(interactive_weight=4.0), Item(100), Item(10, BULK))
    assert queue.cost_ahead(INTERACTIVE) == 110.0
    assert queue.cost_ahead(BULK) == 50.0


@pytest.mark.parametrize("priority", Priority)
def test_nothing_is_ahead_of_a_class_that_has_nothing_queued(priority: Priority) -> None:
    queue = filled(BatchPolicy(), *[Item(9, other) for other in Priority if other is not priority])
    assert queue.cost_ahead(priority) == 0
    assert BatchQueue[Item](BatchPolicy()).cost_ahead(priority) == 0


def test_7_a_class_that_had_more_than_its_share_does_not_lose_its_debt_by_being_empty() -> None:
    queue = BatchQueue[Item](BatchPolicy(interactive_weight=1.0))
    for cost, priority in ((100, Priority.BULK), (10, Priority.INTERACTIVE)):
        queue.push(Item(cost=cost, priority=priority))
        assert queue.take(now=0.0) is not None
    bulk, interactive = Item(priority=Priority.BULK), Item(priority=Priority.INTERACTIVE)
    queue.push(bulk)
    queue.push(interactive)
    batch = queue.take(now=0.0)
    assert batch is not None
    assert batch.entries == (interactive,)
