"""Deadlines in virtual time: on time whatever the pass does, and refused at the door only on a sound measurement.

Numbers in names are the invariants of `batching.batcher`.
"""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import replace

import pytest

from batching import Batcher, BatchPolicy, DeadlineExceeded, DeadlineUnmeetable, DropReason, Priority
from tests.batching.fakes import Model, adds_up, ends, now, start
from tests.batching.virtual_time import run_virtual, virtual_loop

# So many items of a mean cost of 50 make a batch that the estimate of the work is exact for them.
ROOMY = BatchPolicy(max_items=128)


async def measured(batcher: Batcher[int, int], *costs: int) -> None:
    """Lone passes of these costs, so many that the pace may be sound."""
    for cost in costs * (24 // len(costs)):
        await batcher.submit(cost)


def test_15_a_queued_item_gets_its_error_at_the_deadline_and_costs_no_pass() -> None:
    async def main() -> None:
        model = Model(seconds=1.0)
        async with Batcher(model) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.1)
            with pytest.raises(DeadlineExceeded, match="the deadline came before the answer"):
                await batcher.submit(2, timeout=0.3)
            assert now() == pytest.approx(0.4)
            assert batcher.statistics().queued == 0
            assert await ends([*tasks, *start(batcher, 3)]) == [2, 6]
            seen = batcher.statistics()
            assert (seen.expired, seen.dropped, seen.unmeetable, seen.failed) == (1, 1, 0, 0)
            assert seen.drops == {DropReason.ABANDONED: 0, DropReason.EXPIRED: 1}
            assert adds_up(batcher)
        assert model.batches == [[1], [3]]

    run_virtual(main())


def test_15_an_item_in_a_pass_gets_its_error_at_the_deadline_and_its_batch_mates_their_answers() -> None:
    async def main() -> None:
        async with Batcher(Model(seconds=1.0)) as batcher:
            mates = start(batcher, 1, 2)
            assert await ends(start(batcher, 3, timeout=0.3)) == [DeadlineExceeded]
            assert now() == pytest.approx(0.3)
            assert repr(batcher) == "<Batcher open reserved=0 queued=0 in_flight=2 passes=1/1>"
            assert await ends(mates) == [2, 4]
            seen = batcher.statistics()
            assert (seen.expired, seen.dropped, seen.answered, seen.items_passed) == (1, 0, 2, 3)
            assert adds_up(batcher)

    run_virtual(main())


def test_15_an_answer_before_the_deadline_leaves_no_timer_behind() -> None:
    async def main() -> None:
        async with Batcher(Model()) as batcher:
            assert (await batcher.submit(1, timeout=5.0)).result == 2
            assert batcher.statistics().expired == 0
            await batcher.close()
            timers = [handle for handle in virtual_loop()._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
            assert timers == []

    run_virtual(main())


def test_15_the_items_of_a_call_have_one_deadline_and_those_done_before_it_are_lost_with_it() -> None:
    async def main() -> None:
        async with Batcher(Model(), BatchPolicy(max_items=1)) as batcher:
            with batcher.reserve(3, timeout=0.015) as places, pytest.raises(DeadlineExceeded) as late:
                await places.submit([1, 2, 3])
            assert now() == pytest.approx(0.015)
            assert late.value.index == 1
            seen = batcher.statistics()
            assert (seen.answered, seen.expired, seen.dropped) == (1, 2, 1)

    run_virtual(main())


def test_15_the_deadline_is_counted_from_the_reservation() -> None:
    async def main() -> None:
        async with Batcher(Model(seconds=1.0)) as batcher:
            with batcher.reserve(timeout=0.5) as places:
                await asyncio.sleep(0.4)  # the item is being made
                with pytest.raises(DeadlineExceeded):
                    await places.submit([1])
            assert now() == pytest.approx(0.5)
            with batcher.reserve(timeout=0.5) as places:
                await asyncio.sleep(0.6)
                with pytest.raises(DeadlineExceeded):
                    await places.submit([2])
            seen = batcher.statistics()
            assert (seen.accepted, seen.expired, seen.late, seen.reserved) == (1, 1, 1, 0)

    run_virtual(main())


@pytest.mark.parametrize("timeout", [0.0, -1.0])
def test_15_no_time_at_all_is_refused_at_the_door(timeout: float) -> None:
    async def main() -> None:
        model = Model()
        async with Batcher(model) as batcher:
            with pytest.raises(DeadlineExceeded) as refused:
                await batcher.submit(1, timeout=timeout)
            assert not isinstance(refused.value, DeadlineUnmeetable)
            with pytest.raises(DeadlineExceeded):
                batcher.reserve(3, timeout=timeout)
            seen = batcher.statistics()
            assert (seen.accepted, seen.expired, seen.late, seen.unmeetable, seen.reserved) == (0, 0, 4, 0, 0)
        assert model.batches == []

    run_virtual(main())


def test_an_endless_timeout_is_none() -> None:
    async def main() -> None:
        async with Batcher(Model(per_unit=0.001), ROOMY, cost=abs) as batcher:
            await measured(batcher, 1, 100)
            assert (await batcher.submit(1000, timeout=math.inf)).result == 2000

    run_virtual(main())


def test_15_a_deadline_that_the_loop_notices_late_is_dropped_before_compute() -> None:
    async def main() -> None:
        model = Model()
        async with Batcher(model) as batcher:
            tasks = [*start(batcher, 1, timeout=0.005), *start(batcher, 2), *start(batcher, 3, timeout=0.5)]
            await asyncio.sleep(0)  # queued; their batch leaves in the next turn, before the timers of that turn
            virtual_loop().block(0.020)
            assert await ends(tasks) == [DeadlineExceeded, 4, 6]
            seen = batcher.statistics()
            assert (seen.expired, seen.dropped, seen.items_passed) == (1, 1, 2)
            assert adds_up(batcher)
        assert model.batches == [[2, 3]]

    run_virtual(main())


def test_15_a_deadline_that_the_clock_reaches_before_the_loop_s_timer_is_met_by_the_next_batch() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        model = Model()
        async with Batcher(model, clock=lambda: 2 * loop.time()) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.001)
            assert await ends(start(batcher, 2, timeout=0.010)) == [DeadlineExceeded]
            assert now() == pytest.approx(0.010)  # when the worker became free; the timer would have come a little later
            assert await ends(tasks) == [2]
            assert adds_up(batcher)
        assert model.batches == [[1]]

    run_virtual(main())


def test_15_a_deadline_that_comes_during_a_bisection_takes_its_item_out_of_it() -> None:
    async def main() -> None:
        model = Model()
        async with Batcher(model) as batcher:
            tasks = [*start(batcher, 1, timeout=0.015), *start(batcher, 2, 3, timeout=0.005), *start(batcher, -4)]
            assert (await ends(tasks))[:3] == [DeadlineExceeded] * 3
            assert batcher.statistics().expired == 3
        assert model.batches == [[1, 2, 3, -4], [1], [-4]]

    run_virtual(main())


def test_before_enough_passes_nothing_is_refused_on_an_estimate() -> None:
    async def main() -> None:
        async with Batcher(Model(per_unit=0.001), ROOMY, cost=abs) as batcher:
            for cost in (1, 100) * 11:
                await batcher.submit(cost)
            assert await ends(start(batcher, 100, timeout=0.001)) == [DeadlineExceeded]
            assert batcher.statistics().unmeetable == 0

    run_virtual(main())


def test_passes_of_one_cost_say_nothing_that_anything_is_refused_on() -> None:
    async def main() -> None:
        async with Batcher(Model(seconds=1.0), cost=abs) as batcher:
            await measured(batcher, 5)
            await measured(batcher, 5)
            # The last 48 passes took 1 s each. It is taken all the same: a pass of another cost may be as fast as it likes.
            assert await ends(start(batcher, 5, timeout=0.040)) == [DeadlineExceeded]
            seen = batcher.statistics()
            assert (seen.unmeetable, seen.expired) == (0, 1)

    run_virtual(main())


def test_by_a_sound_measurement_the_impossible_is_refused_and_the_possible_is_not() -> None:
    async def main() -> None:
        async with Batcher(Model(per_unit=0.001), ROOMY, cost=abs) as batcher:
            await measured(batcher, 1, 100)
            running = start(batcher, 90)  # 100 ms
            await asyncio.sleep(0.050)
            began = now()
            with pytest.raises(DeadlineUnmeetable, match=r"expected to take 0\.160 s") as refused:
                await batcher.submit(100, timeout=0.100)
            assert now() == began
            assert refused.value.expected == pytest.approx(0.160)
            assert (await batcher.submit(100, timeout=0.161)).result == 200
            assert await ends(running) == [180]
            assert (await batcher.submit(30, timeout=0.050)).result == 60
            seen = batcher.statistics()
            assert (seen.unmeetable, seen.expired, seen.reserved) == (1, 0, 0)

    run_virtual(main())


def test_the_measurement_is_given_the_benefit_of_doubt() -> None:
    async def main() -> None:
        async with Batcher(Model(per_unit=0.001), ROOMY, cost=abs) as batcher:
            await measured(batcher, 1, 100)
            running = start(batcher, 90)  # 100 ms
            await asyncio.sleep(0.050)
            assert await ends(start(batcher, 100, timeout=0.8 * 0.160 - 0.001)) == [DeadlineUnmeetable]
            assert await ends(start(batcher, 100, timeout=0.8 * 0.160 + 0.001)) == [DeadlineExceeded]
            assert batcher.statistics().unmeetable == 1
            assert await ends(running) == [180]


def test_an_idle_batcher_refuses_nothing_and_so_notices_when_the_pace_has_become_another() -> None:
    async def main() -> None:
        model = Model(per_unit=0.01)
        async with Batcher(model, ROOMY, cost=abs) as batcher:
            await measured(batcher, 1, 100)
            model.seconds, model.per_unit = 0.001, 0.0
            # By the measurement so far, each of these would take half a second.
            assert [(await batcher.submit(50, timeout=0.050)).result for _ in range(100)] == [100] * 100
            running = start(batcher, 50)
            await asyncio.sleep(0.0005)
            assert await ends(start(batcher, 50, timeout=0.050)) == [100]
            assert batcher.statistics().unmeetable == 0
            assert await ends(running) == [100]

    run_virtual(main())

    run_virtual(main())


def test_what_runs_and_what_is_queued_ahead_counts_at_the_door_before_the_item_is_made() -> None:
    async def main() -> None:
        async with Batcher(Model(per_unit=0.001), BatchPolicy(max_items=2), cost=abs) as batcher:
            await measured(batcher, 10, 100)
            tasks = start(batcher, 90)  # 100 ms
            await asyncio.sleep(0.020)
            tasks += start(batcher, 100, 100, 100, 100)  # two passes of 210 ms
            await asyncio.sleep(0)
            with pytest.raises(DeadlineUnmeetable) as refused:
                batcher.reserve(2, timeout=0.300)
            assert refused.value.expected == pytest.approx(0.080 + 2 * 0.210)
            # Bulk work that has not come yet is not ahead of anybody; what runs is ahead of all.
            with pytest.raises(DeadlineUnmeetable) as refused:
                batcher.reserve(timeout=0.020, priority=Priority.BULK)
            assert refused.value.expected == pytest.approx(0.080 + 0.011)
            with batcher.reserve(timeout=0.600):
                assert batcher.statistics().unmeetable == 3
            await asyncio.gather(*tasks)

    run_virtual(main())


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("policy", [BatchPolicy(max_items=2), ROOMY, BatchPolicy(max_cost=40)])
def test_what_is_ample_at_a_glance_is_never_too_little_at_a_second_look(
    policy: BatchPolicy, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batching.batcher.BENEFIT_OF_DOUBT", 1.0)

    async def main() -> None:
        looks = 0
        generator = random.Random(1)
        async with Batcher(Model(per_unit=0.001), replace(policy, workers=workers), cost=abs) as batcher:
            await measured(batcher, 10, 100)
            tasks = start(batcher, *(generator.choice([1, 10, 100, 300]) for _ in range(30 + workers)))
            for _ in range(40):
                item, priority = generator.choice([1, 30, 200]), generator.choice(list(Priority))
                tasks.append(asyncio.create_task(batcher.submit(item, priority=priority)))
                await asyncio.sleep(generator.choice([0.0, 0.001, 0.050]))
                if batcher._workers.free:
                    continue
                assert batcher._workers.pace.is_sound
                for costs in ([], [1], [200], [3, 3, 400]):
                    ample = batcher._ample_time(costs)
                    batcher._ample_time = lambda costs: math.inf  # type: ignore[method-assign]  # noqa: ARG005
                    for priority in Priority:
                        batcher._check_deadline(costs, 1, now() + ample + 1e-9, priority, now())
                        with pytest.raises(DeadlineUnmeetable):
                            batcher._check_deadline(costs, 1, now() + 1e-6, priority, now())
                        looks += 1
                    del batcher._ample_time
            assert looks > 50
            await asyncio.gather(*tasks)

    run_virtual(main())


def test_a_free_worker_does_not_wait_for_the_busy_one() -> None:
    async def main() -> None:
        async with Batcher(Model(per_unit=0.001), BatchPolicy(max_items=128, workers=2), cost=abs) as batcher:
            await measured(batcher, 1, 100)
            tasks = start(batcher, 1000)
            await asyncio.sleep(0.001)
            assert (await batcher.submit(50, timeout=0.061)).result == 100
            await asyncio.gather(*tasks)

    run_virtual(main())


def test_13_a_call_that_cannot_meet_its_deadline_is_refused_whole() -> None:
    async def main() -> None:
        async with Batcher(Model(per_unit=0.001), ROOMY, cost=abs) as batcher:
            await measured(batcher, 1, 100)
            running = start(batcher, 1)
            await asyncio.sleep(0.001)
            accepted = batcher.statistics().accepted
            with batcher.reserve(3, timeout=0.150) as places, pytest.raises(DeadlineUnmeetable):
                await places.submit([100, 100, 100])
            seen = batcher.statistics()
            assert (seen.accepted, seen.unmeetable, seen.reserved, seen.queued) == (accepted, 3, 0, 0)
            assert await ends(running) == [2]

    run_virtual(main())


@pytest.mark.parametrize(("policy", "timeout"), [(BatchPolicy(max_items=1), 0.5), (BatchPolicy(max_cost=10), 0.15)])
def test_an_item_is_one_pass_however_much_it_costs(policy: BatchPolicy, timeout: float) -> None:
    async def main() -> None:
        async with Batcher(Model(per_unit=0.001), policy, cost=abs) as batcher:
            for item in (1, 100) * 12:
                await batcher.submit(item)
            assert (await batcher.submit(100, timeout=timeout)).duration == pytest.approx(0.110)

    run_virtual(main())


def test_nobody_waits_for_an_item_that_was_dropped_late() -> None:
    async def main() -> None:
        async with Batcher(Model()) as batcher:
            task = asyncio.create_task(batcher.submit(1, timeout=0.005))
            await asyncio.sleep(0)
            (entry,) = batcher._queue
            virtual_loop().block(0.020)
            with pytest.raises(DeadlineExceeded):
                await task
            assert entry.waiting == 0
            assert adds_up(batcher)

    run_virtual(main())
