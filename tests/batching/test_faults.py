"""Faults seen in well-known batchers, each shown not to be ours. In virtual time."""

from __future__ import annotations

import asyncio
import random

import pytest

from batching import Batcher, BatcherClosed, BatchPolicy, DeadlineExceeded, Outcome, PassFailed, QueueFull, WorkerDied
from tests.batching.fakes import Model, adds_up, ends, now, start
from tests.batching.virtual_time import run_virtual, turns


def test_a_lone_request_on_an_idle_server_waits_the_window() -> None:
    async def main() -> list[Outcome[int]]:
        async with Batcher(Model(), BatchPolicy(max_items=16, window=0.030)) as batcher:
            outcomes = []
            for item in range(20):
                outcomes.append(await batcher.submit(item))
                await asyncio.sleep(0.0137 * item)
            return outcomes

    assert {outcome.wait for outcome in run_virtual(main())} == {0.0}


@pytest.mark.parametrize("who", [1, 4], ids=["in the pass", "in the queue"])
def test_the_batch_mates_of_a_cancelled_caller_hang_for_ever(who: int) -> None:
    async def main() -> None:
        async with Batcher(Model()) as batcher:
            tasks = start(batcher, 0, 1, 2)
            await asyncio.sleep(0.002)
            tasks += start(batcher, 3, 4, 5)
            await asyncio.sleep(0.002)
            tasks[who].cancel()
            expected: list[int | type[BaseException]] = [0, 2, 4, 6, 8, 10]
            expected[who] = asyncio.CancelledError
            assert await ends(tasks) == expected
            assert await ends(start(batcher, 6)) == [12]

    run_virtual(main())


class Stop(BaseException):
    """Not even an `Exception`."""


@pytest.mark.parametrize("raised", [ValueError, MemoryError, TimeoutError, asyncio.CancelledError, Stop])
def test_one_exception_ends_the_worker_and_all_later_requests_hang(raised: type[BaseException]) -> None:
    model = Model()

    async def process(items: list[int]) -> list[int]:
        if items == [7]:
            raise raised
        return await model(items)

    async def main() -> None:
        async with Batcher(process, BatchPolicy(max_items=1)) as batcher:
            for item in range(20):  # more often than there are workers, replacements, or lives
                expected = PassFailed if issubclass(raised, Exception) else WorkerDied
                assert await ends(start(batcher, 7, item % 7)) == [expected, 2 * (item % 7)]
            assert not batcher.is_stalled

    run_virtual(main())


def test_one_bad_item_fails_the_whole_batch() -> None:
    async def main() -> None:
        async with Batcher(Model()) as batcher:
            expected: list[int | type[BaseException]] = [2 * item for item in range(32)]
            expected[20] = PassFailed
            assert await ends(start(batcher, *range(20), -20, *range(21, 32))) == expected

    run_virtual(main())


@pytest.mark.parametrize("idle_flush", [True, False])
def test_a_loop_that_polls_makes_a_full_batch_wait_and_wakes_while_idle(idle_flush: bool) -> None:
    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(max_items=16, window=0.030, idle_flush=idle_flush)) as batcher:
            outcomes = await asyncio.gather(*start(batcher, *range(16)))
            assert {outcome.wait for outcome in outcomes} == {0.0}
            before = turns()
            await asyncio.sleep(3600)
            assert turns() - before <= 2  # the sleep's own

    run_virtual(main())


def test_the_window_is_counted_from_the_loop_s_phase_or_from_the_last_item() -> None:
    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(max_items=16, window=0.200, idle_flush=False)) as batcher:
            await asyncio.sleep(7.123)
            tasks = []
            for item in range(5):  # one every 45 ms: the window ends for all of them with the first one's
                tasks += start(batcher, item)
                await asyncio.sleep(0.045)
            outcomes = await asyncio.gather(*tasks)
            assert [outcome.wait for outcome in outcomes] == pytest.approx([0.200, 0.155, 0.110, 0.065, 0.020])
            assert (await batcher.submit(9)).wait == pytest.approx(0.200)

    run_virtual(main())


def test_the_queue_or_the_number_of_concurrent_passes_has_no_bound() -> None:
    async def main() -> None:
        model = Model()
        policy = BatchPolicy(max_items=4, max_queued=100, workers=2)
        async with Batcher(model, policy) as batcher:
            tasks = start(batcher, *range(1000))
            await asyncio.sleep(0.001)
            seen = batcher.statistics()
            assert (seen.running_passes, seen.queued, seen.in_flight) == (2, 92, 8)
            outcomes = await ends(tasks)
            assert outcomes.count(QueueFull) == 900
            assert outcomes[:100] == [2 * item for item in range(100)]
        assert model.most_running == 2
        assert batcher.statistics().peak_queued == 100

    run_virtual(main())


def test_the_model_of_latency_is_made_of_lone_requests_and_sheds_what_would_fit() -> None:
    """A line through passes of one cost has any slope that the noise gives it."""

    async def main() -> None:
        noise = random.Random(600)
        model = Model()
        async with Batcher(model, BatchPolicy(max_items=16)) as batcher:
            for item in range(200):
                model.seconds = noise.uniform(0.009, 0.013)
                await batcher.submit(item)
                await asyncio.sleep(0.1)
            # 600 requests within a second: the worker has time for 1,400, and each has the time of several passes.
            tasks = []
            for item in range(600):
                model.seconds = noise.uniform(0.009, 0.013)
                tasks += start(batcher, item, timeout=0.1)
                await asyncio.sleep(1 / 600)
            assert await ends(tasks) == [2 * item for item in range(600)]
            assert batcher.statistics().unmeetable == 0

    run_virtual(main())


def test_the_work_of_clients_that_left_is_still_computed() -> None:
    async def main() -> Model:
        model = Model()
        async with Batcher(model, BatchPolicy(max_items=4)) as batcher:
            tasks = start(batcher, 0)
            await asyncio.sleep(0.001)
            tasks += start(batcher, *range(1, 41))
            await asyncio.sleep(0.001)
            for task in tasks[2:40]:
                task.cancel()
            assert [end for end in await ends(tasks) if end is not asyncio.CancelledError] == [0, 2, 80]
            assert batcher.statistics().dropped == 38
        return model

    assert run_virtual(main()).batches == [[0], [1, 40]]


def test_deadlines_are_noticed_only_after_the_pass_in_flight() -> None:
    async def main() -> None:
        async with Batcher(Model(seconds=10.0)) as batcher:
            running = start(batcher, 1, timeout=0.5)
            await asyncio.sleep(0.1)
            queued = start(batcher, 2, timeout=0.1)
            assert await ends(queued) == [DeadlineExceeded]
            assert now() == pytest.approx(0.2)
            assert await ends(running) == [DeadlineExceeded]
            assert now() == pytest.approx(0.5)
            assert adds_up(batcher)

    run_virtual(main())


def test_shutting_down_drops_what_was_accepted() -> None:
    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(max_items=2)) as batcher:
            tasks = start(batcher, *range(7))
            await asyncio.sleep(0.001)
            closing = asyncio.create_task(batcher.close())
            await asyncio.sleep(0.001)
            assert await ends(start(batcher, 9)) == [BatcherClosed]  # a named error, of which a server can make a 503
            assert await closing
            assert await ends(tasks) == [2 * item for item in range(7)]
        slow = Batcher(Model(), BatchPolicy(max_items=2), drain_timeout=0.025)
        async with slow:
            tasks = start(slow, *range(7))
            await asyncio.sleep(0)
        assert await ends(tasks) == [0, 2, 4, 6] + [BatcherClosed] * 3
        assert adds_up(slow)

    run_virtual(main())


def test_who_is_refused_is_not_told_when_to_come_back_or_always_the_same() -> None:
    async def main() -> None:
        told = []
        model = Model(per_unit=0.010)
        async with Batcher(model, BatchPolicy(max_items=2, max_queued=8), cost=lambda item: item) as batcher:
            for item in (1, 10) * 12:
                await batcher.submit(item)
            for item in (1, 10, 20):
                tasks = start(batcher, item, item)
                await asyncio.sleep(0.001)
                tasks += start(batcher, *[item] * 8)
                await asyncio.sleep(0)
                began = now()
                with pytest.raises(QueueFull) as refused:
                    await batcher.submit(item)
                await asyncio.gather(*tasks)
                told.append(refused.value.retry_after)
                assert refused.value.retry_after == pytest.approx(now() - began)
        assert told == pytest.approx([5 * 0.030 - 0.001, 5 * 0.210 - 0.001, 5 * 0.410 - 0.001])

    run_virtual(main())
