"""The async shell in virtual time: exact to the microsecond, and a caller that would wait for ever raises `Hang`.

Numbers in names are the invariants of `batching.batcher`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batching import Batcher, BatcherClosed, BatchPolicy, FlushReason, Outcome, PassFailed, QueueFull, WrongResultCount
from tests.batching.virtual_time import Hang, run_virtual, turns

Process = Callable[[list[int]], Awaitable[list[int]]]


class Model:
    """Doubles numbers, in `seconds` a pass; keeps what it was given. A negative number makes the pass fail."""

    def __init__(self, seconds: float = 0.010) -> None:
        self.seconds = seconds
        self.batches: list[list[int]] = []
        self.started_at: list[float] = []
        self.running = 0
        self.most_running = 0

    async def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.started_at.append(asyncio.get_running_loop().time())
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.running -= 1
        if min(items) < 0:
            raise ValueError("a negative number")
        return [2 * item for item in items]


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


def test_7_results_reach_their_own_callers_in_order() -> None:
    async def main() -> list[int]:
        async with Batcher(Model(), BatchPolicy(max_items=7, workers=3)) as batcher:
            outcomes = await asyncio.gather(*(batcher.submit(item) for item in range(200)))
            return [outcome.result for outcome in outcomes]

    assert run_virtual(main()) == [2 * item for item in range(200)]


def test_9_no_more_passes_than_workers_run_at_the_same_time() -> None:
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


def test_8_a_caller_that_leaves_the_queue_is_dropped_before_compute() -> None:
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


def test_8_a_caller_that_leaves_a_running_pass_does_not_harm_its_batch_mates() -> None:
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


def test_6_a_failing_pass_answers_all_its_callers_and_the_batcher_lives_on() -> None:
    async def main() -> None:
        async with Batcher(Model()) as batcher:
            results = await asyncio.gather(*(batcher.submit(item) for item in (1, -1, 2)), return_exceptions=True)
            assert [type(result) for result in results] == [PassFailed] * 3
            assert len({id(result) for result in results}) == 3
            assert isinstance(results[0], PassFailed)
            assert isinstance(results[0].__cause__, ValueError)
            assert (await batcher.submit(4)).result == 8
            assert batcher.statistics().failed == 3

    run_virtual(main())


@pytest.mark.parametrize("results", [[], [1], [1, 2, 3]])
def test_6_a_wrong_number_of_results_is_a_named_error(results: list[int]) -> None:
    async def process(_: list[int]) -> list[int]:
        return results

    async def main() -> None:
        async with Batcher(process) as batcher:
            outcomes = await asyncio.gather(*(batcher.submit(item) for item in (1, 2)), return_exceptions=True)
            assert [type(outcome) for outcome in outcomes] == [WrongResultCount] * 2
            assert str(outcomes[0]) == f"the pass returned {len(results)} results for 2 items"

    run_virtual(main())


def test_10_a_full_queue_refuses_and_says_when_to_come_back() -> None:
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
            assert batcher.statistics().refused == 1

    run_virtual(main())


def test_10_a_reservation_is_granted_whole_or_not_at_all_and_gives_back_what_it_did_not_use() -> None:
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


def test_11_closing_finishes_what_was_accepted_without_waiting_for_the_window() -> None:
    async def main() -> tuple[list[int], float]:
        batcher = Batcher(Model(), BatchPolicy(idle_flush=False, window=5.0))
        async with batcher:
            tasks = [asyncio.create_task(batcher.submit(item)) for item in range(3)]
            await asyncio.sleep(0)
        assert batcher.statistics().flushes[FlushReason.DRAIN] == 1
        return [(await task).result for task in tasks], asyncio.get_running_loop().time()

    assert run_virtual(main()) == ([0, 2, 4], 0.010)


def test_11_a_reservation_made_before_draining_may_still_be_used() -> None:
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


def test_11_a_pass_that_hangs_does_not_hold_the_close_beyond_its_bound() -> None:
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


def test_11_a_pass_that_ignores_its_cancellation_does_not_hold_the_close() -> None:
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


def test_6_a_result_that_has_no_length_is_a_failed_pass() -> None:
    async def process(_: list[int]) -> list[int]:
        return None  # type: ignore[return-value]

    async def main() -> None:
        async with Batcher(process) as batcher:
            with pytest.raises(PassFailed) as failed:
                await batcher.submit(1)
            assert isinstance(failed.value.__cause__, TypeError)

    run_virtual(main())


def test_11_a_second_drain_shares_the_first_one_s_bound() -> None:
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


def test_6_a_close_that_is_itself_cancelled_still_answers_everybody() -> None:
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
            await batcher.submit(1)
        async with batcher:
            with pytest.raises(RuntimeError, match="opened once"):
                await batcher.__aenter__()
        with pytest.raises(BatcherClosed):
            await batcher.submit(1)
        assert await batcher.close()
        assert repr(batcher).startswith("<Batcher closed")

    run_virtual(main())


def test_6_a_place_whose_item_comes_after_the_end_is_refused() -> None:
    async def main() -> None:
        batcher = Batcher(Model(), drain_timeout=0.5)
        async with batcher:
            places = batcher.reserve()
        with places, pytest.raises(BatcherClosed):
            await places.submit([1])

    run_virtual(main())


def test_6_a_pass_that_ends_the_process_still_answers_its_callers() -> None:
    class Stop(BaseException):
        pass

    async def process(_: list[int]) -> list[int]:
        raise Stop

    async def main() -> None:
        async with Batcher(process) as batcher:
            with pytest.raises(PassFailed):
                await batcher.submit(1)
            await asyncio.sleep(0)

    # The exception belongs to the pass's task: its caller was answered, and the batcher closes in order.
    run_virtual(main())


def test_statistics_add_up_and_tell_flush_reasons() -> None:
    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(max_items=4, max_cost=100), cost=lambda item: item) as batcher:
            await asyncio.gather(*(batcher.submit(item) for item in (1, 1, 1, 1, 60, 60, 5)))
            seen = batcher.statistics()
        assert seen.accepted == seen.answered + seen.failed + seen.abandoned + seen.queued + seen.in_flight == 7
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


@settings(max_examples=200, deadline=None)
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
def test_6_every_caller_gets_one_outcome_in_any_order_of_events(
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
