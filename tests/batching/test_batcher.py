"""The async shell in virtual time: exact to the microsecond, and a caller that would wait for ever raises `Hang`.

Numbers in names are the invariants of `batching.batcher`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from batching import (
    Batcher,
    BatcherClosed,
    BatchingError,
    BatchPolicy,
    DeadlineExceeded,
    DropReason,
    FlushReason,
    Outcome,
    PassFailed,
    PassReport,
    Priority,
    QueueFull,
    WorkerDied,
)
from batching.callers import Caller, Entry
from tests.batching.fakes import Model, adds_up, ends, now, start
from tests.batching.virtual_time import Hang, run_virtual, turns


def test_a_lone_item_on_an_idle_batcher_does_not_wait_the_window() -> None:
    async def main() -> Outcome[int]:
        async with Batcher(Model()) as batcher:
            return await batcher.submit(21)

    assert run_virtual(main()) == Outcome(42, wait=0.0, duration=0.010, batch_size=1)


def test_without_idle_flush_a_lone_item_waits_exactly_the_window() -> None:
    async def main() -> Outcome[int]:
        async with Batcher(Model(), BatchPolicy(idle_flush=False, window=0.04)) as batcher:
            await asyncio.sleep(7.3)  # a phase of the loop that is nobody's business
            return await batcher.submit(21)

    assert run_virtual(main()).wait == pytest.approx(0.04)


def test_a_full_batch_leaves_before_the_window() -> None:
    async def main() -> list[Outcome[int]]:
        async with Batcher(Model(), BatchPolicy(idle_flush=False, max_items=4)) as batcher:
            return await asyncio.gather(*(batcher.submit(item) for item in range(4)))

    outcomes = run_virtual(main())
    assert [outcome.wait for outcome in outcomes] == [0.0] * 4
    assert [outcome.batch_size for outcome in outcomes] == [4] * 4


def test_items_of_the_same_turn_share_the_first_batch_and_the_queue_fills_while_the_worker_is_busy() -> None:
    async def main() -> Model:
        model = Model()
        async with Batcher(model) as batcher:
            first = [asyncio.create_task(batcher.submit(item)) for item in range(3)]
            await asyncio.sleep(0.001)
            second = [asyncio.create_task(batcher.submit(item)) for item in range(3, 8)]
            await asyncio.gather(*first, *second)
        return model

    model = run_virtual(main())
    assert model.batches == [[0, 1, 2], [3, 4, 5, 6, 7]]
    assert model.started_at == [0.0, 0.010]


def test_10_results_reach_their_own_callers_in_order() -> None:
    async def main() -> list[int]:
        async with Batcher(Model(), BatchPolicy(max_items=7, workers=3)) as batcher:
            outcomes = await asyncio.gather(*(batcher.submit(item) for item in range(200)))
            return [outcome.result for outcome in outcomes]

    assert run_virtual(main()) == [2 * item for item in range(200)]


def test_12_no_more_passes_than_workers_run_at_the_same_time() -> None:
    async def main() -> Model:
        model = Model()
        async with Batcher(model, BatchPolicy(max_items=2, workers=3)) as batcher:
            await asyncio.gather(*(batcher.submit(item) for item in range(40)))
        return model

    assert run_virtual(main()).most_running == 3


@pytest.mark.parametrize("idle_flush", [True, False])
def test_an_idle_batcher_causes_no_wake_ups(idle_flush: bool) -> None:
    async def main() -> int:
        async with Batcher(Model(), BatchPolicy(idle_flush=idle_flush)) as batcher:
            await batcher.submit(1)
            before = turns()
            await asyncio.sleep(3600)
            return turns() - before

    assert run_virtual(main()) <= 2  # the sleep's own


def test_a_window_that_was_overtaken_by_a_full_batch_causes_no_wake_up() -> None:
    async def main() -> int:
        async with Batcher(Model(), BatchPolicy(idle_flush=False, max_items=2, window=5.0)) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.1)
            await asyncio.gather(*tasks, *start(batcher, 2))
            before = turns()
            await asyncio.sleep(3600)
            return turns() - before

    assert run_virtual(main()) <= 2  # the sleep's own


def test_11_a_caller_that_leaves_the_queue_is_dropped_before_compute() -> None:
    async def main() -> tuple[Model, Batcher[int, int]]:
        model = Model()
        async with Batcher(model, BatchPolicy(max_items=4)) as batcher:
            running = asyncio.create_task(batcher.submit(0))
            await asyncio.sleep(0.001)
            waiting = [asyncio.create_task(batcher.submit(item)) for item in (1, 2, 3)]
            await asyncio.sleep(0.001)
            waiting[1].cancel()
            results = await asyncio.gather(running, *waiting, return_exceptions=True)
            assert isinstance(results[2], asyncio.CancelledError)
        return model, batcher

    model, batcher = run_virtual(main())
    assert model.batches == [[0], [1, 3]]
    statistics = batcher.statistics()
    assert (statistics.abandoned, statistics.answered, statistics.accepted) == (1, 3, 4)
    assert statistics.drops == {DropReason.ABANDONED: 1, DropReason.EXPIRED: 0}


def test_11_a_caller_that_leaves_a_running_pass_does_not_harm_its_batch_mates() -> None:
    async def main() -> list[int]:
        async with Batcher(Model()) as batcher:
            tasks = [asyncio.create_task(batcher.submit(item)) for item in range(3)]
            await asyncio.sleep(0.005)
            tasks[0].cancel()
            with pytest.raises(asyncio.CancelledError):
                await tasks[0]
            mates = [(await task).result for task in tasks[1:]]
            return [*mates, (await batcher.submit(9)).result]

    assert run_virtual(main()) == [2, 4, 18]


def test_13_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    async def main() -> None:
        async with Batcher(Model(seconds=1.0), BatchPolicy(max_items=2, max_queued=4)) as batcher:
            await batcher.submit(0)  # one second an item is measured
            tasks = [asyncio.create_task(batcher.submit(item)) for item in range(4)]
            await asyncio.sleep(0)
            with pytest.raises(QueueFull) as refused:
                await batcher.submit(9)
            assert refused.value.retry_after == pytest.approx(4.0)
            await asyncio.gather(*tasks)
            assert (await batcher.submit(9)).result == 18
            assert batcher.statistics().refused == {Priority.INTERACTIVE: 1, Priority.BULK: 0}

    run_virtual(main())


@pytest.mark.parametrize("policy", [BatchPolicy(max_items=2, max_queued=4), BatchPolicy(max_items=2, max_queued_cost=4)])
def test_13_who_waits_for_room_is_never_refused_and_goes_on_as_soon_as_there_is_some(policy: BatchPolicy) -> None:
    async def main() -> float:
        async with Batcher(Model(seconds=1.0), policy) as batcher:
            tasks = []
            for item in range(8):
                await batcher.room(priority=Priority.BULK)
                tasks.append(asyncio.create_task(batcher.submit(item, priority=Priority.BULK)))
                await asyncio.sleep(0)
            # One is in the first pass and four wait. Two more find room when it has ended, the last one after another pass.
            last = now()
            assert [(await task).result for task in tasks] == [2 * item for item in range(8)]
            assert batcher.statistics().refused[Priority.BULK] == 0
            return last

    assert run_virtual(main()) == pytest.approx(2.0)


def test_13_places_of_one_class_are_no_less_room_in_the_other() -> None:
    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(max_queued=2)) as batcher:
            with batcher.reserve(2), suppress(TimeoutError):
                await batcher.room(priority=Priority.BULK)
                async with asyncio.timeout(1.0):
                    await batcher.room()
            assert now() == 1.0

    run_virtual(main())


def test_13_there_is_room_for_an_item_over_the_bound_when_nothing_is_queued() -> None:
    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(max_queued_cost=4), cost=lambda item: item) as batcher:
            await batcher.room(9)
            assert (await batcher.submit(9)).result == 18

    run_virtual(main())


def test_who_waits_for_room_is_let_go_when_there_will_be_none() -> None:
    async def main() -> None:
        batcher = Batcher(Model(stuck=[1]), BatchPolicy(max_items=1, max_queued=1), drain_timeout=1.0)
        async with batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.001)
            tasks += start(batcher, 2)
            await asyncio.sleep(0.001)
            waiting = asyncio.create_task(batcher.room())
            await asyncio.sleep(0.001)
            assert not waiting.done()
            await batcher.drain()
            await waiting
            with pytest.raises(BatcherClosed):
                batcher.reserve()
        assert await ends(tasks) == [BatcherClosed, BatcherClosed]

    run_virtual(main())


def test_13_a_reservation_is_granted_whole_or_not_at_all_and_gives_back_what_it_did_not_use() -> None:
    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(max_queued=4)) as batcher:
            with batcher.reserve(3) as places:
                with pytest.raises(QueueFull):
                    batcher.reserve(2)
                assert batcher.statistics().reserved == 3
                outcomes = await places.submit([1, 2])
                assert [outcome.result for outcome in outcomes] == [2, 4]
                with pytest.raises(ValueError, match="2 items for 1 reserved places"):
                    await places.submit([1, 2])
            assert batcher.statistics().reserved == 0
            with pytest.raises(ValueError, match="places must be 1 to 4, not 5"):
                batcher.reserve(5)
            assert batcher.statistics().peak_queued == 3

    run_virtual(main())


def test_a_multi_item_caller_gets_the_first_error_once_all_have_an_outcome() -> None:
    async def main() -> float:
        async with Batcher(Model(), BatchPolicy(max_items=1)) as batcher:
            with batcher.reserve(3) as places, pytest.raises(PassFailed):
                await places.submit([1, -1, 3])
            return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(0.030)
    gc.collect()  # an exception that nobody looked at would be reported, and fail this test, now


def test_a_cancelled_multi_item_caller_takes_all_its_items_along() -> None:
    async def main() -> Model:
        model = Model()
        async with Batcher(model, BatchPolicy(max_items=2)) as batcher:

            async def call() -> None:
                with batcher.reserve(6) as places:
                    await places.submit([1, 2, 3, 4, 5, 6])

            task = asyncio.create_task(call())
            await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert repr(batcher) == "<Batcher open reserved=0 queued=0 in_flight=0 passes=1/1>"
            assert batcher.statistics().abandoned == 6
        return model

    assert run_virtual(main()).batches == [[1, 2]]


def test_14_closing_finishes_what_was_accepted_without_waiting_for_the_window() -> None:
    async def main() -> tuple[list[int], float]:
        batcher = Batcher(Model(), BatchPolicy(idle_flush=False, window=5.0))
        async with batcher:
            tasks = [asyncio.create_task(batcher.submit(item)) for item in range(3)]
            await asyncio.sleep(0)
        assert batcher.statistics().flushes[FlushReason.DRAIN] == 1
        return [(await task).result for task in tasks], asyncio.get_running_loop().time()

    assert run_virtual(main()) == ([0, 2, 4], 0.010)


def test_14_a_reservation_made_before_draining_may_still_be_used() -> None:
    async def main() -> int:
        async with Batcher(Model()) as batcher:
            with batcher.reserve() as places:
                draining = asyncio.create_task(batcher.drain())
                await asyncio.sleep(0.001)
                with pytest.raises(BatcherClosed):
                    batcher.reserve()
                (outcome,) = await places.submit([5])
            assert await draining
            return outcome.result

    assert run_virtual(main()) == 10


def test_14_a_pass_that_hangs_does_not_hold_the_close_beyond_its_bound() -> None:
    async def main() -> tuple[list[object], float, bool]:
        model = Model(seconds=1e6)
        batcher = Batcher(model, BatchPolicy(max_items=2), drain_timeout=3.0)
        async with batcher:
            tasks = [asyncio.create_task(batcher.submit(item)) for item in range(5)]
            await asyncio.sleep(0)
            is_clean = await batcher.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        return [type(result) for result in results], asyncio.get_running_loop().time(), is_clean

    assert run_virtual(main()) == ([BatcherClosed] * 5, 3.0, False)


def test_14_a_pass_that_ignores_its_cancellation_does_not_hold_the_close() -> None:
    async def process(_: list[int]) -> list[int]:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)
        await asyncio.sleep(10)
        return [0]

    async def main() -> float:
        async with Batcher(process, drain_timeout=3.0) as batcher:
            task = asyncio.create_task(batcher.submit(1))
            await asyncio.sleep(0)
            assert not await batcher.close()
            ended = asyncio.get_running_loop().time()
            with pytest.raises(BatcherClosed):
                await task
        await asyncio.sleep(20)
        return ended

    assert run_virtual(main()) == 4.0


def test_9_a_result_that_has_no_length_is_a_failed_pass() -> None:
    async def process(_: list[int]) -> list[int]:
        return None  # type: ignore[return-value]

    async def main() -> None:
        async with Batcher(process) as batcher:
            with pytest.raises(PassFailed) as failed:
                await batcher.submit(1)
            assert isinstance(failed.value.__cause__, TypeError)

    run_virtual(main())


def test_14_a_second_drain_shares_the_first_one_s_bound() -> None:
    async def main() -> float:
        async with Batcher(Model(seconds=1e6), drain_timeout=3.0) as batcher:
            task = asyncio.create_task(batcher.submit(1))
            await asyncio.sleep(0)
            assert not await batcher.drain()
            assert not await batcher.drain()
        with pytest.raises(BatcherClosed):
            await task
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 3.0


def test_9_a_close_that_is_itself_cancelled_still_answers_everybody() -> None:
    async def main() -> list[object]:
        batcher = Batcher(Model(seconds=1e6), BatchPolicy(max_items=1))
        await batcher.__aenter__()
        tasks = [asyncio.create_task(batcher.submit(item)) for item in range(3)]
        await asyncio.sleep(0)
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0.1)
        closing.cancel()
        return [type(result) for result in await asyncio.gather(*tasks, return_exceptions=True)]

    assert run_virtual(main()) == [BatcherClosed] * 3


def test_a_closed_or_unopened_batcher_refuses() -> None:
    async def main() -> None:
        batcher = Batcher(Model())
        assert repr(batcher).startswith("<Batcher new")
        with pytest.raises(BatcherClosed):
            batcher.expected_wait()
        with pytest.raises(BatcherClosed):
            await batcher.submit(1)
        async with batcher:
            with pytest.raises(RuntimeError, match="opened once"):
                await batcher.__aenter__()
        with pytest.raises(BatcherClosed):
            await batcher.submit(1)
        assert await batcher.close()
        assert repr(batcher).startswith("<Batcher closed")

    run_virtual(main())


def test_9_a_place_whose_item_comes_after_the_end_is_refused() -> None:
    async def main() -> None:
        batcher = Batcher(Model(), drain_timeout=0.5)
        async with batcher:
            places = batcher.reserve()
        with places, pytest.raises(BatcherClosed):
            await places.submit([1])

    run_virtual(main())


def test_statistics_add_up_and_tell_flush_reasons() -> None:
    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(max_items=4, max_cost=100), cost=lambda item: item) as batcher:
            await asyncio.gather(*(batcher.submit(item) for item in (1, 1, 1, 1, 60, 60, 5)))
            seen = batcher.statistics()
        assert adds_up(batcher)
        assert seen.accepted == seen.answered == 7
        assert {reason: count for reason, count in seen.flushes.items() if count} == {
            FlushReason.FULL: 1,
            FlushReason.COST: 1,
            FlushReason.IDLE: 1,
        }
        assert seen.passes == 3
        assert seen.items_passed == 7
        assert seen.pass_time == pytest.approx(0.030)
        assert seen.wait_time == pytest.approx(0.010 + 2 * 0.020)

    run_virtual(main())


def test_13_an_item_in_a_pass_holds_no_place() -> None:
    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(max_items=1, max_queued=1)) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.001)
            tasks += start(batcher, 2)
            await asyncio.sleep(0)
            assert await ends(start(batcher, 3)) == [QueueFull]
            assert await ends(tasks) == [2, 4]

    run_virtual(main())


def test_13_a_full_class_does_not_refuse_the_other() -> None:
    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(max_items=1, max_queued=2)) as batcher:
            first = start(batcher, 0)
            await asyncio.sleep(0.001)
            bulk = [asyncio.create_task(batcher.submit(item, priority=Priority.BULK)) for item in (1, 2, 3)]
            urgent = start(batcher, 4, 5, 6)
            await asyncio.sleep(0.001)
            seen = batcher.statistics()
            assert (seen.queued, seen.queued_bulk, seen.peak_queued) == (4, 2, 2)
            assert await ends(first) == [0]
            assert await ends(bulk) == [2, 4, QueueFull]
            assert await ends(urgent) == [8, 10, QueueFull]
            assert batcher.statistics().refused == {Priority.INTERACTIVE: 1, Priority.BULK: 1}

    run_virtual(main())


def test_an_interactive_item_overtakes_the_bulk_items_and_shares_no_pass_with_them() -> None:
    async def main() -> Model:
        model = Model()
        async with Batcher(model, BatchPolicy(max_items=2)) as batcher:
            tasks = start(batcher, 0)
            await asyncio.sleep(0.001)
            tasks += [asyncio.create_task(batcher.submit(item, priority=Priority.BULK)) for item in (1, 2, 3, 4, 5)]
            await asyncio.sleep(0.001)
            tasks += start(batcher, 9)
            assert await ends(tasks) == [0, 2, 4, 6, 8, 10, 18]
        return model

    assert run_virtual(main()).batches == [[0], [1, 2], [9], [3, 4], [5]]


def test_13_the_cost_of_each_class_is_bounded_on_its_own() -> None:
    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(max_queued_cost=10), cost=abs) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.001)
            tasks += start(batcher, 8)
            await asyncio.sleep(0)
            assert await ends(start(batcher, 3)) == [QueueFull]
            bulk = asyncio.create_task(batcher.submit(10, priority=Priority.BULK))
            tasks += start(batcher, 2)
            await asyncio.sleep(0)
            assert batcher.statistics().queued_cost == 20
            # The class is full to the brim: refused before anybody knows what the item costs.
            with pytest.raises(QueueFull):
                batcher.reserve()
            assert await ends([*tasks, bulk]) == [2, 16, 4, 20]

    run_virtual(main())


def test_13_a_call_whose_cost_finds_no_room_is_refused_whole_and_gives_its_places_back() -> None:
    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(max_queued=4, max_queued_cost=10), cost=abs) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.001)
            tasks += start(batcher, 8)
            await asyncio.sleep(0)
            with batcher.reserve(2) as places:
                with pytest.raises(QueueFull):
                    await places.submit([1, 2])
                assert batcher.statistics().reserved == 2  # for a second try
                assert [outcome.result for outcome in await places.submit([1, 1])] == [2, 2]
            assert await ends([*tasks, *start(batcher, 4)]) == [2, 16, 8]
            seen = batcher.statistics()
            assert (seen.reserved, seen.queued, seen.accepted) == (0, 0, 5)
            assert seen.refused[Priority.INTERACTIVE] == 2

    run_virtual(main())


@pytest.mark.parametrize("items", [[50], [20, 30]])
def test_13_a_call_that_alone_is_over_the_bound_of_cost_is_taken_by_an_empty_class(items: list[int]) -> None:
    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(max_queued_cost=10), cost=abs) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.001)
            with batcher.reserve(2) as places:
                call = asyncio.create_task(places.submit(items))
                await asyncio.sleep(0.001)
                assert batcher.statistics().queued_cost == 50
                assert await ends(start(batcher, 1)) == [QueueFull]
                assert [outcome.result for outcome in await call] == [2 * item for item in items]
            assert await ends(tasks) == [2]

    run_virtual(main())


@pytest.mark.parametrize("items", [[0], [3, 0], [0, 3], [-2]])
def test_13_an_item_that_costs_less_than_1_is_an_error_and_its_call_is_not_queued(items: list[int]) -> None:
    async def main() -> None:
        async with Batcher(Model(), cost=lambda item: item) as batcher:
            with batcher.reserve(2) as places, pytest.raises(ValueError, match=f"cost must be 1 or more, not {min(items)}"):
                await places.submit(items)
            with pytest.raises(ValueError, match="cost must be 1 or more, not 0"):
                await batcher.submit(0)
            seen = batcher.statistics()
            assert (seen.accepted, seen.reserved, seen.queued) == (0, 0, 0)
            assert (await batcher.submit(3)).result == 6

    run_virtual(main())


def test_13_a_cost_function_that_fails_keeps_no_place() -> None:
    def cost(item: int) -> NoReturn:
        raise LookupError(item)

    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(max_queued=1), cost=cost) as batcher:
            for _ in range(2):
                with pytest.raises(LookupError):
                    await batcher.submit(1)
            assert batcher.statistics().reserved == 0

    run_virtual(main())


def test_a_call_of_no_items_has_no_outcomes() -> None:
    async def main() -> None:
        async with Batcher(Model()) as batcher:
            with batcher.reserve() as places:
                assert await places.submit([]) == []
            with pytest.raises(ValueError, match="places must be 1 to 1024, not 0"):
                batcher.reserve(0)

    run_virtual(main())


def test_a_reservation_is_worth_nothing_after_its_block() -> None:
    async def main() -> None:
        async with Batcher(Model()) as batcher:
            with batcher.reserve(2) as places:
                pass
            with pytest.raises(ValueError, match="1 items for 0 reserved places"):
                await places.submit([1])

    run_virtual(main())


@pytest.mark.parametrize(("workers", "expected"), [(1, 0.75 + 2.0), (2, (0.75 + 0.75 + 2.0) / 2)])
def test_the_expected_wait_is_the_rest_of_what_runs_and_the_draining_of_what_waits(workers: int, expected: float) -> None:
    async def main() -> None:
        async with Batcher(Model(seconds=1.0), BatchPolicy(max_items=1, workers=workers)) as batcher:
            assert batcher.expected_wait() == 0.0
            await batcher.submit(0)  # one second for a cost of 1 is measured
            assert batcher.expected_wait() == 0.0
            tasks = start(batcher, *range(workers + 2))
            await asyncio.sleep(0.25)
            assert batcher.expected_wait() == pytest.approx(expected)
            # Of the bulk class nothing is queued: only what runs is in its way.
            assert batcher.expected_wait(Priority.BULK) == pytest.approx(0.75)
            await asyncio.gather(*tasks)

    run_virtual(main())


def test_the_expected_wait_of_a_pass_that_is_late_is_not_below_zero() -> None:
    async def main() -> None:
        model = Model(seconds=1.0)
        async with Batcher(model) as batcher:
            await batcher.submit(0)
            model.seconds = 5.0
            tasks = start(batcher, 1)
            await asyncio.sleep(4.0)
            assert batcher.expected_wait() == 0.0
            await asyncio.gather(*tasks)

    run_virtual(main())


def test_a_pass_that_failed_says_nothing_of_the_pace() -> None:
    async def main() -> None:
        model = Model(seconds=1.0)
        async with Batcher(model) as batcher:
            await batcher.submit(1)
            model.seconds = 9.0
            assert await ends(start(batcher, -1)) == [PassFailed]
            tasks = start(batcher, 1)
            await asyncio.sleep(0)
            assert batcher.expected_wait() == 1.0
            await asyncio.gather(*tasks)

    run_virtual(main())


def test_12_every_idle_worker_is_used_at_once() -> None:
    async def main() -> Model:
        model = Model()
        async with Batcher(model, BatchPolicy(max_items=1, workers=2)) as batcher:
            assert await ends(start(batcher, 1, 2, 3)) == [2, 4, 6]
        return model

    assert run_virtual(main()).started_at == [0.0, 0.0, 0.010]


def test_a_batch_that_leaves_is_in_its_pass_at_once() -> None:
    """Before the loop turns to the requests that it has at hand: a worker shall not wait for these."""

    async def main() -> None:
        at_once: list[list[int]] = []

        def process(items: list[int]) -> asyncio.Future[list[int]]:
            at_once.append(items)
            passed = asyncio.get_running_loop().create_future()
            passed.set_result([2 * item for item in items])
            return passed

        async with Batcher(process) as batcher:
            tasks = start(batcher, 1, 2)
            await asyncio.sleep(0)  # the callers' turn
            assert not at_once
            asyncio.get_running_loop().call_soon(lambda: at_once.append([]))
            await asyncio.sleep(0)  # the batch leaves in this one
            assert at_once == [[1, 2], []]
            assert await ends(tasks) == [2, 4]

    run_virtual(main())


def test_9_what_process_raises_before_it_can_be_awaited_is_the_outcome_of_its_pass() -> None:
    async def main() -> None:
        def process(items: list[int]) -> asyncio.Future[list[int]]:
            raise (ZeroDivisionError, StopIteration, SystemExit)[items[0]]

        async with Batcher(process) as batcher:
            assert await ends(start(batcher, 0)) == [PassFailed]
            assert await ends(start(batcher, 1)) == [PassFailed]
            assert await ends(start(batcher, 2, 3)) == [WorkerDied] * 2
            seen = batcher.statistics()
            assert (seen.failed_passes, seen.deaths, seen.running_passes) == (2, 1, 0)
            assert adds_up(batcher)

    run_virtual(main())


def test_11_a_caller_cancelled_when_its_answer_is_there_counts_as_answered() -> None:
    async def main() -> None:
        tasks: list[asyncio.Task[Outcome[int]]] = []

        def leave(_: PassReport) -> None:
            tasks[0].cancel()  # its answer is set, and it has not gone on yet

        async with Batcher(Model(), on_pass=leave) as batcher:
            tasks += start(batcher, 1, 2)
            assert await ends(tasks) == [asyncio.CancelledError, 4]
            seen = batcher.statistics()
            assert (seen.answered, seen.abandoned, seen.waiting) == (2, 0, 0)

    run_virtual(main())


def test_padding_is_cells_of_the_dearest_over_the_real_ones() -> None:
    async def main() -> None:
        async with Batcher(Model(), cost=abs) as batcher:
            assert batcher.statistics().padding_ratio == 1.0
            await asyncio.gather(*start(batcher, 1, 2, 3))
            await batcher.submit(5)
            seen = batcher.statistics()
        assert (seen.cells, seen.padded_cells) == (1 + 4 + 9 + 25, 3 * 9 + 25)
        assert seen.padding_ratio == pytest.approx(52 / 39)

    run_virtual(main())


def test_statistics_tell_what_is_where_now() -> None:
    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(max_items=2), cost=abs) as batcher:
            tasks = start(batcher, 1, 2)
            await asyncio.sleep(0.001)
            tasks += start(batcher, 3)
            tasks.append(asyncio.create_task(batcher.submit(4, priority=Priority.BULK)))
            await asyncio.sleep(0.001)
            with batcher.reserve(2):
                seen = batcher.statistics()
                assert (seen.reserved, seen.queued, seen.queued_bulk, seen.queued_cost) == (2, 2, 1, 7)
                assert (seen.in_flight, seen.waiting, seen.running_passes, seen.hung_passes) == (2, 4, 1, 0)
                assert repr(batcher) == "<Batcher open reserved=2 queued=2 in_flight=2 passes=1/1>"
            assert await ends(tasks) == [2, 4, 6, 8]
            seen = batcher.statistics()
            assert (seen.in_flight, seen.waiting, seen.running_passes, seen.accepted, seen.answered) == (0, 0, 0, 4, 4)
            assert (seen.dropped, seen.coalesced, seen.unmeetable, seen.hangs, seen.deaths) == (0, 0, 0, 0, 0)

    run_virtual(main())


def test_14_what_is_queued_when_draining_begins_does_not_wait_for_company() -> None:
    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(idle_flush=False, window=5.0)) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(1.0)
            assert await batcher.drain()
            assert now() == pytest.approx(1.010)
            assert repr(batcher).startswith("<Batcher draining")
            assert await ends(tasks) == [2]

    run_virtual(main())


def test_14_draining_ends_when_the_last_reservation_is_given_up() -> None:
    async def main() -> None:
        async with Batcher(Model()) as batcher:
            with batcher.reserve(2):
                draining = asyncio.create_task(batcher.drain())
                await asyncio.sleep(1.0)
                assert not draining.done()
            assert await draining
            assert now() == 1.0

    run_virtual(main())


def test_14_draining_ends_when_the_last_caller_leaves_the_queue() -> None:
    async def main() -> None:
        async with Batcher(Model(seconds=1.0), BatchPolicy(max_items=1)) as batcher:
            tasks = start(batcher, 1, 2)
            await asyncio.sleep(0.1)
            draining = asyncio.create_task(batcher.drain())
            await asyncio.sleep(0.1)
            tasks[1].cancel()
            assert await draining
            assert now() == 1.0
            assert await ends(tasks) == [2, asyncio.CancelledError]

    run_virtual(main())


def test_14_a_batcher_that_was_never_opened_closes_at_once() -> None:
    async def main() -> bool:
        return await Batcher(Model()).close()

    assert run_virtual(main())


def test_another_clock_measures_waits_and_passes() -> None:
    async def main() -> Outcome[int]:
        loop = asyncio.get_running_loop()
        async with Batcher(Model(), clock=lambda: 1000.0 + 2 * loop.time()) as batcher:
            return await batcher.submit(1)

    assert run_virtual(main()).duration == pytest.approx(0.020)


@settings(max_examples=100, deadline=None)
@given(
    callers=st.lists(
        st.tuples(
            st.floats(0, 0.2),  # when it comes
            st.lists(st.integers(-2, 99), min_size=1, max_size=5),  # its items; a negative one fails its pass
            st.one_of(st.none(), st.floats(0, 0.1)),  # when it leaves, after it came
        ),
        max_size=25,
    ),
    close_at=st.floats(0, 0.3),
    drain_timeout=st.sampled_from([0.0, 0.02, 10.0]),
    policy=st.builds(
        BatchPolicy,
        max_items=st.integers(1, 6),
        idle_flush=st.booleans(),
        max_queued=st.integers(5, 20),
        workers=st.integers(1, 3),
    ),
)
def test_9_every_caller_gets_one_outcome_in_any_order_of_events(
    callers: list[tuple[float, list[int], float | None]], close_at: float, drain_timeout: float, policy: BatchPolicy
) -> None:
    async def call(batcher: Batcher[int, int], at: float, items: list[int]) -> None:
        await asyncio.sleep(at)
        with batcher.reserve(len(items)) as places:
            outcomes = await places.submit(items)
        assert [outcome.result for outcome in outcomes] == [2 * item for item in items]

    async def main() -> None:
        model = Model()
        loop = asyncio.get_running_loop()
        async with Batcher(model, policy, drain_timeout=drain_timeout) as batcher:
            tasks = []
            for at, items, leaves in callers:
                tasks.append(asyncio.create_task(call(batcher, at, items)))
                if leaves is not None:
                    loop.call_later(at + leaves, tasks[-1].cancel)
            await asyncio.sleep(close_at)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            allowed = (asyncio.CancelledError, PassFailed, QueueFull, BatcherClosed)
            assert result is None or isinstance(result, allowed), result
        seen = batcher.statistics()
        assert seen.accepted == seen.answered + seen.failed + seen.abandoned
        assert (seen.reserved, seen.queued, seen.in_flight, seen.running_passes) == (0, 0, 0, 0)
        assert seen.peak_queued <= policy.max_queued
        assert model.most_running <= policy.workers
        assert all(1 <= len(batch) <= policy.max_items for batch in model.batches)

    run_virtual(main())


def test_the_virtual_loop_notices_a_hang() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Hang):
        run_virtual(main())


def test_14_a_drain_is_not_left_waiting_by_a_close_that_was_cancelled() -> None:
    async def main() -> None:
        async with Batcher(Model(stuck=[7]), drain_timeout=1e6) as batcher:
            tasks = start(batcher, 7)
            await asyncio.sleep(0.1)
            draining = asyncio.create_task(batcher.drain())
            closing = asyncio.create_task(batcher.close())
            await asyncio.sleep(0.1)
            closing.cancel()
            assert await ends(tasks) == [BatcherClosed]
            assert await draining
            assert now() < 1.0

    run_virtual(main())


def test_an_item_that_has_its_outcome_leaves_nothing_to_the_garbage_collector() -> None:
    async def main() -> None:
        async with Batcher(Model(), key=lambda item: item) as batcher:
            tasks = start(batcher, 1, 2, 2, -3, timeout=5.0)
            tasks += start(batcher, 4, timeout=0.005)
            await asyncio.sleep(0)
            tasks[0].cancel()
            await asyncio.wait(tasks)
            assert [type(task.exception()) for task in tasks[1:]] == [type(None), type(None), PassFailed, DeadlineExceeded]

    gc.collect()
    gc.disable()
    try:
        run_virtual(main())
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert [found for found in gc.garbage if isinstance(found, (Entry, Caller, Outcome, BatchingError))] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def test_13_the_peak_is_the_most_places_that_were_ever_taken_at_once() -> None:
    async def main() -> None:
        async with Batcher(Model()) as batcher:
            await ends(start(batcher, 1, 2, 3))
            await ends(start(batcher, 4))
            assert batcher.statistics().peak_queued == 3

    run_virtual(main())


def test_a_window_causes_one_wake_up_also_where_timers_are_a_little_early() -> None:
    """In real time: the loop of the server counts whole milliseconds, and rounds to them."""
    dispatches = 0

    class Counted(Batcher[int, int]):
        def _dispatch(self, not_before: float = -math.inf) -> None:
            nonlocal dispatches
            dispatches += 1
            super()._dispatch(not_before)

    async def double(items: list[int]) -> list[int]:
        return [2 * item for item in items]

    async def main() -> None:
        policy = BatchPolicy(idle_flush=False, window=0.0105)
        async with Counted(double, policy, clock=time.perf_counter) as batcher:
            for item in range(20):
                assert (await batcher.submit(item)).result == 2 * item

    uvloop.run(main())
    # Each item: one when it came, one when its window ended, one when its pass did; and a last one for the end.
    assert dispatches <= 20 * 3 + 1


# --- how much leaves (17 and 18)


def test_17_workers_that_are_free_share_what_came_at_once() -> None:
    async def main() -> list[list[int]]:
        model = Model()
        async with Batcher(model, BatchPolicy(workers=2), cost=int) as batcher:
            await asyncio.gather(*start(batcher, 10, 10, 10, 10))
        return model.batches

    assert run_virtual(main()) == [[10, 10], [10, 10]]


@pytest.mark.parametrize(("measured", "taken"), [(0, [10, 10]), (80, [10, 10, 10, 10])])
def test_17_a_worker_takes_its_share_and_once_the_pace_is_known_what_is_worth_a_pass(measured: int, taken: list[int]) -> None:
    async def main() -> list[int]:
        model = Model(0.002, per_unit=0.0001)  # a pass is worth its start from a cost of 80 on
        async with Batcher(model, BatchPolicy(workers=2), cost=int) as batcher:
            for place in range(measured):
                await batcher.submit((10, 100)[place % 2])
            model.batches.clear()
            callers = start(batcher, 50, 500)  # both workers are busy, one of them for long
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.gather(*callers, *start(batcher, 10, 10, 10, 10))
        return model.batches[2]

    assert run_virtual(main()) == taken


def test_18_a_caller_does_not_wait_for_a_pass_that_is_not_its_own() -> None:
    def by_length(costs: Sequence[int]) -> list[list[int]]:
        sides = [[place for place, cost in enumerate(costs) if (cost < 50) is side] for side in (True, False)]
        return [side for side in sides if side]

    async def main() -> tuple[list[list[int]], list[float]]:
        model, answered = Model(0.002, per_unit=0.0001), []
        async with Batcher(model, cost=int, divide=by_length) as batcher:
            began = now()
            for caller in asyncio.as_completed(start(batcher, 10, 300, 20)):
                await caller
                answered.append(now() - began)
        return model.batches, answered

    batches, answered = run_virtual(main())
    assert batches == [[10, 20], [300]]
    assert answered == pytest.approx([0.005, 0.005, 0.037])


def test_13_a_reservation_gets_more_places_or_none() -> None:
    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(max_items=4, max_queued=3, workers=1)) as batcher:
            with batcher.reserve() as places:
                places.add(0)
                places.add(2)
                assert batcher.statistics().reserved == 3
                with pytest.raises(QueueFull):
                    places.add(1)
                assert [outcome.result for outcome in await places.submit([1, 2, 3])] == [2, 4, 6]
            assert batcher.statistics().reserved == 0
            with batcher.reserve() as places:
                places.add(1)
            assert batcher.statistics().reserved == 0  # what was added is given back, too

    run_virtual(main())
