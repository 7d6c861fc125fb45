"""Equal items on their way are computed once, and nobody who shares one harms another. In virtual time.

Numbers in names are the invariants of `batching.batcher`.
"""

from __future__ import annotations

import asyncio

import pytest

from batching import Batcher, BatcherClosed, BatchPolicy, DeadlineExceeded, Outcome, PassFailed, Priority, QueueFull
from tests.batching.fakes import Model, adds_up, ends, now, start
from tests.batching.virtual_time import run_virtual


def sharing(model: Model, policy: BatchPolicy | None = None) -> Batcher[int, int]:
    """Equal numbers are equal items; 0 is shared with nobody. The cost of a number is its size."""
    return Batcher(model, policy, key=lambda item: item or None, cost=lambda item: max(1, abs(item)))


def bulk(batcher: Batcher[int, int], *items: int) -> list[asyncio.Task[Outcome[int]]]:
    return [asyncio.create_task(batcher.submit(item, priority=Priority.BULK)) for item in items]


def test_equal_items_are_computed_once_and_each_caller_is_told_its_own_wait() -> None:
    async def main() -> None:
        model = Model()
        async with sharing(model) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.002)
            tasks += start(batcher, 5)
            await asyncio.sleep(0.003)
            tasks += start(batcher, 5, 6)
            await asyncio.sleep(0.009)  # 5 is in its pass now, since 0.010
            tasks += start(batcher, 5)
            outcomes = await asyncio.gather(*tasks)
            seen = batcher.statistics()
            assert (seen.accepted, seen.answered, seen.coalesced, seen.items_passed) == (5, 5, 2, 3)
        assert model.batches == [[1], [5, 6]]
        assert [outcome.result for outcome in outcomes] == [2, 10, 10, 12, 10]
        assert [outcome.wait for outcome in outcomes] == pytest.approx([0, 0.008, 0.005, 0.005, 0])
        assert [outcome.duration for outcome in outcomes] == pytest.approx([0.010, 0.010, 0.010, 0.010, 0.006])
        assert [outcome.batch_size for outcome in outcomes] == [1, 2, 2, 2, 2]

    run_virtual(main())


def test_an_equal_item_that_comes_after_the_answer_is_computed_again() -> None:
    async def main() -> Model:
        model = Model()
        async with sharing(model) as batcher:
            assert (await batcher.submit(5)).result == 10
            assert (await batcher.submit(5)).result == 10
            assert batcher.statistics().coalesced == 0
        return model

    assert run_virtual(main()).batches == [[5], [5]]


def test_items_without_a_key_are_shared_with_nobody() -> None:
    async def main() -> Model:
        model = Model()
        async with sharing(model) as batcher:
            assert await ends(start(batcher, 0, 0)) == [0, 0]
        async with Batcher(model) as batcher:
            assert await ends(start(batcher, 7, 7)) == [14, 14]
            assert batcher.statistics().coalesced == 0
            assert batcher._register._by_key == {}
        return model

    assert run_virtual(main()).batches == [[0, 0], [7, 7]]


def test_equal_items_of_one_call_are_computed_once_and_each_has_its_outcome() -> None:
    async def main() -> Model:
        model = Model()
        async with sharing(model) as batcher:
            with batcher.reserve(4) as places:
                assert [outcome.result for outcome in await places.submit([5, 6, 5, 5])] == [10, 12, 10, 10]
            seen = batcher.statistics()
            assert (seen.accepted, seen.answered, seen.coalesced, seen.reserved) == (4, 4, 2, 0)
        return model

    assert run_virtual(main()).batches == [[5, 6]]


def test_11_a_call_with_equal_items_that_leaves_drops_them_once() -> None:
    async def main() -> None:
        model = Model()
        async with sharing(model) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.001)
            with batcher.reserve(3) as places:
                call = asyncio.create_task(places.submit([5, 5, 6]))
                await asyncio.sleep(0.001)
                call.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await call
            seen = batcher.statistics()
            assert (seen.abandoned, seen.dropped, seen.queued) == (3, 2, 0)
            assert await ends(tasks) == [2]
        assert model.batches == [[1]]

    run_virtual(main())


@pytest.mark.parametrize("leaves_at", [0.005, 0.015], ids=["queued", "in flight"])
@pytest.mark.parametrize("who", [0, 1], ids=["the first", "the second"])
def test_11_a_caller_that_leaves_does_not_take_a_shared_item_along(who: int, leaves_at: float) -> None:
    async def main() -> None:
        model = Model()
        async with sharing(model) as batcher:
            other = start(batcher, 1)
            await asyncio.sleep(0.001)
            tasks = start(batcher, 5, 5)
            await asyncio.sleep(leaves_at - now())
            tasks[who].cancel()
            assert await ends([tasks[1 - who], *other]) == [10, 2]
            seen = batcher.statistics()
            assert (seen.abandoned, seen.answered, seen.dropped) == (1, 2, 0)
            assert adds_up(batcher)
        assert model.batches == [[1], [5]]

    run_virtual(main())


def test_11_a_shared_item_is_dropped_when_its_last_caller_left_and_is_then_new_again() -> None:
    async def main() -> None:
        model = Model()
        async with sharing(model) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.001)
            shared = start(batcher, 5, 5)
            await asyncio.sleep(0.001)
            for task in shared:
                task.cancel()
            await asyncio.sleep(0.001)
            assert batcher.statistics().dropped == 1
            assert await ends([*tasks, *start(batcher, 5)]) == [2, 10]
            seen = batcher.statistics()
            assert (seen.abandoned, seen.answered, seen.coalesced) == (2, 2, 1)
            assert adds_up(batcher)
        assert model.batches == [[1], [5]]

    run_virtual(main())


def test_an_item_in_flight_whose_callers_all_left_is_still_there_to_join() -> None:
    async def main() -> None:
        model = Model()
        async with sharing(model) as batcher:
            first = start(batcher, 5)
            await asyncio.sleep(0.002)
            first[0].cancel()
            await asyncio.sleep(0.002)
            assert batcher.statistics().in_flight == 0
            assert (await batcher.submit(5)).duration == pytest.approx(0.006)
            seen = batcher.statistics()
            assert (seen.abandoned, seen.answered, seen.coalesced) == (1, 1, 1)
            assert adds_up(batcher)
        assert model.batches == [[5]]

    run_virtual(main())


@pytest.mark.parametrize("timeouts", [(None, 0.004), (0.004, None), (0.004, 0.5), (0.5, 0.004)])
def test_15_each_caller_of_a_shared_item_has_its_own_deadline(timeouts: tuple[float | None, float | None]) -> None:
    async def main() -> None:
        model = Model()
        async with sharing(model) as batcher:
            other = start(batcher, 1)
            await asyncio.sleep(0.001)
            tasks = [*start(batcher, 5, timeout=timeouts[0]), *start(batcher, 5, timeout=timeouts[1])]
            # The nearest deadline is over when the item leaves the queue, and nevertheless it leaves with the other caller.
            assert await ends(tasks) == [DeadlineExceeded if timeout == 0.004 else 10 for timeout in timeouts]
            assert await ends(other) == [2]
            seen = batcher.statistics()
            assert (seen.expired, seen.answered, seen.dropped) == (1, 2, 0)
        assert model.batches == [[1], [5]]

    run_virtual(main())


def test_15_a_caller_that_joins_in_flight_has_its_deadline_too() -> None:
    async def main() -> None:
        async with sharing(Model()) as batcher:
            tasks = start(batcher, 5)
            await asyncio.sleep(0.002)
            assert await ends(start(batcher, 5, timeout=0.003)) == [DeadlineExceeded]
            assert now() == pytest.approx(0.005)
            assert await ends(tasks) == [10]

    run_virtual(main())


def test_15_a_place_whose_deadline_came_before_it_joined_expires_at_once() -> None:
    async def main() -> None:
        async with sharing(Model()) as batcher:
            with batcher.reserve(timeout=0.002) as places:
                await asyncio.sleep(0.001)
                tasks = start(batcher, 5)
                await asyncio.sleep(0.004)
                with pytest.raises(DeadlineExceeded):
                    await places.submit([5])
            assert now() == pytest.approx(0.005)
            assert await ends(tasks) == [10]
            assert adds_up(batcher)

    run_virtual(main())


def test_an_interactive_caller_takes_a_queued_bulk_item_into_its_own_class() -> None:
    async def main() -> None:
        model = Model()
        async with sharing(model, BatchPolicy(max_items=2)) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.001)
            tasks += bulk(batcher, 2, 3, 4, 5, 6)
            await asyncio.sleep(0.001)
            tasks += start(batcher, 6)
            await asyncio.sleep(0.001)
            seen = batcher.statistics()
            assert (seen.queued, seen.queued_bulk, seen.queued_cost, seen.coalesced) == (5, 4, 20, 1)
            assert await ends(tasks) == [2, 4, 6, 8, 10, 12, 12]
        assert model.batches == [[1], [2, 3], [6], [4, 5]]

    run_virtual(main())


def test_a_bulk_caller_leaves_an_interactive_item_where_it_is() -> None:
    async def main() -> None:
        async with sharing(Model(), BatchPolicy(max_items=2)) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.001)
            tasks += start(batcher, 5)
            await asyncio.sleep(0.001)
            tasks += bulk(batcher, 5)
            await asyncio.sleep(0.001)
            assert batcher.statistics().queued_bulk == 0
            assert await ends(tasks) == [2, 10, 10]

    run_virtual(main())


def test_an_interactive_caller_joins_a_bulk_item_in_flight() -> None:
    async def main() -> Model:
        model = Model()
        async with sharing(model) as batcher:
            tasks = bulk(batcher, 5)
            await asyncio.sleep(0.004)
            tasks += start(batcher, 5)
            assert await ends(tasks) == [10, 10]
        return model

    assert run_virtual(main()).batches == [[5]]


def test_13_a_bulk_item_changes_its_class_only_if_there_is_room_for_its_cost() -> None:
    async def main() -> None:
        model = Model()
        async with sharing(model, BatchPolicy(max_queued_cost=10)) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.001)
            tasks += [*start(batcher, 8), *bulk(batcher, 5)]
            await asyncio.sleep(0.001)
            assert await ends(start(batcher, 5)) == [QueueFull]
            seen = batcher.statistics()
            assert (seen.queued_bulk, seen.coalesced, seen.reserved) == (1, 0, 0)
            assert await ends(tasks) == [2, 16, 10]

    run_virtual(main())


def test_13_who_joins_holds_no_place_and_needs_no_room() -> None:
    async def main() -> None:
        async with sharing(Model(), BatchPolicy(max_queued=2, max_queued_cost=10)) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.001)
            tasks += start(batcher, 9)
            for _ in range(5):
                await asyncio.sleep(0)
                tasks += start(batcher, 9)
            assert await ends(tasks) == [2] + [18] * 6
            assert batcher.statistics().peak_queued == 2

    run_virtual(main())


def test_9_a_shared_item_that_fails_gives_each_of_its_callers_an_exception_of_its_own() -> None:
    async def main() -> None:
        async with sharing(Model()) as batcher:
            errors = await asyncio.gather(*start(batcher, -5, -5, -5), return_exceptions=True)
            assert [type(error) for error in errors] == [PassFailed] * 3
            assert len({id(error) for error in errors}) == 3
            (cause,) = {error.__cause__ for error in errors if isinstance(error, BaseException)}
            assert isinstance(cause, ValueError)
            assert batcher.statistics().failed == 3
            # What failed is not on its way any more.
            assert await ends(start(batcher, -5, 5)) == [PassFailed, 10]

    run_virtual(main())


@pytest.mark.parametrize("item", [1, 5], ids=["in flight", "queued"])
def test_14_all_callers_of_a_shared_item_are_told_of_the_end(item: int) -> None:
    async def main() -> None:
        batcher = Batcher(Model(seconds=10.0), BatchPolicy(max_items=1), key=abs, drain_timeout=1.0)
        async with batcher:
            tasks = start(batcher, 1, 5, item, item)
            await asyncio.sleep(0.1)
        assert await ends(tasks) == [BatcherClosed] * 4
        assert batcher._register._by_key == {}
        assert adds_up(batcher)

    run_virtual(main())


def test_13_an_interactive_caller_that_joins_a_bulk_item_in_flight_needs_no_room() -> None:
    async def main() -> None:
        async with sharing(Model(), BatchPolicy(max_queued_cost=10)) as batcher:
            in_flight = bulk(batcher, 5)
            await asyncio.sleep(0.001)
            queued = start(batcher, 8)
            await asyncio.sleep(0)
            assert (await batcher.submit(5)).result == 10
            assert await ends(in_flight + queued) == [10, 16]

    run_virtual(main())


def test_13_equal_items_of_one_call_need_room_once() -> None:
    async def main() -> None:
        async with sharing(Model(), BatchPolicy(max_queued_cost=10)) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.001)
            tasks += start(batcher, 2)
            await asyncio.sleep(0)
            with batcher.reserve(3) as places:
                assert [outcome.result for outcome in await places.submit([5, 5, 5])] == [10, 10, 10]
            assert await ends(tasks) == [2, 4]

    run_virtual(main())


def test_4_an_item_that_changes_its_class_is_new_there_and_its_window_begins_again() -> None:
    async def main() -> None:
        async with sharing(Model(), BatchPolicy(idle_flush=False)) as batcher:
            (slow,) = bulk(batcher, 5)
            await asyncio.sleep(0.030)
            assert (await batcher.submit(5)).wait == pytest.approx(0.040)
            assert (await slow).wait == pytest.approx(0.070)

    run_virtual(main())
