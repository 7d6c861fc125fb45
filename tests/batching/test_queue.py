"""The pure queue: no event loop, no clock but the numbers it is told. Numbers in names are the invariants of `batching.queue`."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from batching.policy import BatchPolicy
from batching.queue import BatchQueue, FlushReason


@dataclass(eq=False)
class Item:
    queued_at: float = 0.0
    cost: int = 1


def filled(policy: BatchPolicy, *items: Item) -> BatchQueue[Item]:
    queue = BatchQueue[Item](policy)
    for item in items:
        queue.push(item)
    return queue


def test_4_idle_flush_takes_what_is_there_at_once() -> None:
    item = Item(queued_at=5.0)
    batch = filled(BatchPolicy(), item).take(now=5.0)
    assert batch is not None
    assert batch.entries == (item,)
    assert batch.reason is FlushReason.IDLE


def test_4_without_idle_flush_the_window_counts_from_the_oldest_push_and_nothing_else() -> None:
    queue = filled(BatchPolicy(idle_flush=False, window=0.04), Item(queued_at=1.0), Item(queued_at=1.03))
    assert queue.deadline() == 1.04
    assert queue.take(now=1.0399) is None
    batch = queue.take(now=1.04)
    assert batch is not None
    assert len(batch.entries) == 2
    assert batch.reason is FlushReason.WINDOW


def test_4_after_a_batch_left_the_window_is_that_of_the_next_oldest() -> None:
    policy = BatchPolicy(idle_flush=False, window=0.04, max_items=2)
    queue = filled(policy, Item(queued_at=1.0), Item(queued_at=1.01), Item(queued_at=1.02))
    batch = queue.take(now=1.02)
    assert batch is not None
    assert batch.reason is FlushReason.FULL
    assert queue.deadline() == 1.02 + 0.04
    assert queue.take(now=1.03) is None


def test_4_a_discarded_oldest_entry_takes_its_window_along() -> None:
    first, second = Item(queued_at=1.0), Item(queued_at=1.03)
    queue = filled(BatchPolicy(idle_flush=False, window=0.04), first, second)
    assert queue.discard(first)
    assert queue.deadline() == 1.07


def test_4_draining_flushes_without_waiting() -> None:
    queue = filled(BatchPolicy(idle_flush=False, window=9.0), Item())
    queue.draining = True
    batch = queue.take(now=0.0)
    assert batch is not None
    assert batch.reason is FlushReason.DRAIN


def test_3_a_batch_stops_before_the_cost_bound() -> None:
    queue = filled(BatchPolicy(max_cost=10), Item(cost=6), Item(cost=4), Item(cost=1))
    batch = queue.take(now=0.0)
    assert batch is not None
    assert [item.cost for item in batch.entries] == [6, 4]
    assert batch.reason is FlushReason.COST


def test_3_a_single_entry_over_the_cost_bound_goes_alone() -> None:
    queue = filled(BatchPolicy(max_cost=10), Item(cost=99), Item(cost=1))
    batch = queue.take(now=0.0)
    assert batch is not None
    assert [item.cost for item in batch.entries] == [99]


def test_5_an_empty_queue_gives_nothing_and_waits_for_nothing() -> None:
    queue = BatchQueue[Item](BatchPolicy())
    assert queue.take(now=1.0) is None
    assert queue.deadline() is None
    assert not queue.discard(Item())


@given(
    costs=st.lists(st.integers(1, 40), max_size=60),
    gone=st.sets(st.integers(0, 59)),
    max_items=st.integers(1, 8),
    max_cost=st.integers(1, 60),
)
def test_1_2_3_every_entry_leaves_once_in_order_within_the_bounds(
    costs: list[int], gone: set[int], max_items: int, max_cost: int
) -> None:
    items = [Item(cost=cost) for cost in costs]
    queue = filled(BatchPolicy(max_items=max_items, max_cost=max_cost), *items)
    for index in gone:
        if index < len(items):
            assert queue.discard(items[index])
            assert not queue.discard(items[index])
    taken: list[Item] = []
    while (batch := queue.take(now=0.0)) is not None:
        assert 1 <= len(batch.entries) <= max_items
        assert len(batch.entries) == 1 or sum(item.cost for item in batch.entries) <= max_cost
        taken += batch.entries
    assert taken == [item for index, item in enumerate(items) if index not in gone]
    assert len(queue) == 0
