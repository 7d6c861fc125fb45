"""Passes that hang, workers that die, listeners that fail: nobody waits for them, and what can go on goes on. In virtual time.

Numbers in names are the invariants of `batching.batcher`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import replace
from typing import Any

import pytest

from batching import (
    Batcher,
    BatcherClosed,
    BatcherStalled,
    BatchPolicy,
    FlushReason,
    PassEnd,
    PassFailed,
    PassReport,
    PassTimedOut,
    WorkerDied,
)
from tests.batching.fakes import Model, Process, adds_up, ends, now, start
from tests.batching.virtual_time import run_virtual, virtual_loop

ONE = BatchPolicy(max_items=1, pass_timeout=1.0)
TWO = BatchPolicy(max_items=1, pass_timeout=1.0, workers=2)


class Stop(BaseException):
    """What no processing function should raise."""


def pass_task() -> asyncio.Task[Any]:
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "batching.pass")
    return task


# --- hanging passes


def test_a_pass_that_ends_in_the_moment_in_which_it_is_given_up_has_ended() -> None:
    async def main() -> None:
        def process(items: list[int]) -> asyncio.Future[list[int]]:
            loop = asyncio.get_running_loop()
            passed: asyncio.Future[list[int]] = loop.create_future()
            # One turn after the time has come: before the pass is given up, but its callers are told a turn later.
            loop.call_later(1.0, loop.call_soon, passed.set_result, [2 * item for item in items])
            return passed

        async with Batcher(process, BatchPolicy(pass_timeout=1.0)) as batcher:
            assert await ends(start(batcher, 1, 2)) == [2, 4]
            assert (batcher.hung_passes, batcher.statistics().hangs) == (0, 0)

    run_virtual(main())


def test_a_clock_that_fails_when_a_hanging_pass_ends_gives_its_place_back_once() -> None:
    async def main() -> None:
        is_broken = False

        def clock() -> float:
            nonlocal is_broken
            if is_broken:
                is_broken = False
                raise ZeroDivisionError
            return now()

        def listen(report: PassReport) -> None:
            nonlocal is_broken
            is_broken = report.end is PassEnd.RECOVERED  # the next look at the clock is the dispatch

        failures: list[BaseException] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context["exception"]))
        model = Model(stuck=[7])
        async with Batcher(model, ONE, clock=clock, on_pass=listen) as batcher:
            assert await ends(start(batcher, 7)) == [PassTimedOut]
            others = start(batcher, 1, 2)  # one has the replacement, and for the other a dispatch has something to look at
            await asyncio.sleep(0.001)
            model.free()
            assert await ends(others) == [2, 4]
            assert [type(failure) for failure in failures] == [ZeroDivisionError]
            seen = batcher.statistics()
            assert (seen.hung_passes, seen.running_passes, seen.deaths) == (0, 0, 0)
            assert await ends(start(batcher, 1)) == [2]

    run_virtual(main())


def test_9_a_pass_that_hangs_is_given_up_and_its_worker_replaced() -> None:
    async def main() -> None:
        model = Model(stuck=[7])
        async with Batcher(model, BatchPolicy(max_items=2, pass_timeout=1.0)) as batcher:
            stuck = start(batcher, 7, 8)
            await asyncio.sleep(0.5)
            later = start(batcher, 1)
            assert await ends(stuck) == [PassTimedOut] * 2
            assert now() == 1.0
            assert (batcher.hung_passes, batcher.is_stalled) == (1, False)
            assert repr(batcher) == "<Batcher open reserved=0 queued=0 in_flight=1 passes=1/1 hung=1>"
            assert await ends(later) == [2]
            assert now() == pytest.approx(1.010)
            seen = batcher.statistics()
            assert (seen.hung_passes, seen.hangs, seen.running_passes, seen.failed) == (1, 1, 0, 2)
            assert (seen.passes, seen.failed_passes, seen.deaths) == (1, 0, 0)
            assert adds_up(batcher)
        assert model.batches == [[7, 8], [1]]

    run_virtual(main())


def test_the_error_of_a_hanging_pass_tells_its_bound() -> None:
    async def main() -> None:
        async with Batcher(Model(stuck=[7]), BatchPolicy(pass_timeout=1.5)) as batcher:
            errors = await asyncio.gather(*start(batcher, 7, 8), return_exceptions=True)
            assert [str(error) for error in errors] == ["the pass over 2 items did not end within 1.5 s"] * 2
            assert errors[0] is not errors[1]
            assert isinstance(errors[0], PassTimedOut)
            assert errors[0].items == 2

    run_virtual(main())


def test_9_the_late_result_of_a_pass_that_was_given_up_is_ignored_and_its_replacement_goes() -> None:
    async def main() -> None:
        model = Model(stuck=[7])
        async with Batcher(model, ONE) as batcher:
            assert await ends(start(batcher, 7)) == [PassTimedOut]
            model.free()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert batcher.hung_passes == 0
            seen = batcher.statistics()
            assert (seen.hangs, seen.answered, seen.passes, seen.failed) == (1, 0, 0, 1)
            assert await ends(start(batcher, 7, 8)) == [14, 16]
            assert model.most_running == 1

    run_virtual(main())


def test_a_late_failure_of_a_pass_that_was_given_up_is_not_bisected() -> None:
    async def main() -> None:
        model = Model(stuck=[7])
        async with Batcher(model, BatchPolicy(pass_timeout=1.0)) as batcher:
            assert await ends(start(batcher, 7, -1)) == [PassTimedOut] * 2
            model.free()
            await asyncio.sleep(0.1)
            seen = batcher.statistics()
            assert (seen.passes, seen.failed_passes, seen.extra_passes, seen.failed, seen.hung_passes) == (0, 0, 0, 2, 0)
        assert len(model.batches) == 1

    run_virtual(main())


def test_a_late_death_of_a_pass_that_was_given_up_is_a_death_and_its_place_is_back() -> None:
    async def main() -> None:
        async with Batcher(Model(stuck=[7]), ONE) as batcher:
            assert await ends(start(batcher, 7)) == [PassTimedOut]
            pass_task().cancel()
            await asyncio.sleep(0.1)
            seen = batcher.statistics()
            assert (seen.hung_passes, seen.running_passes, seen.hangs, seen.deaths, seen.failed) == (0, 0, 1, 1, 1)
            assert await ends(start(batcher, 1, 2)) == [2, 4]

    run_virtual(main())


def test_a_pass_that_ends_in_time_is_not_given_up_afterwards() -> None:
    async def main() -> None:
        async with Batcher(Model(), ONE) as batcher:
            assert await ends(start(batcher, 1, -1)) == [2, PassFailed]
            await asyncio.sleep(5.0)
            assert batcher.statistics().hangs == 0

    run_virtual(main())


def test_without_a_bound_a_pass_takes_as_long_as_it_takes() -> None:
    async def main() -> None:
        async with Batcher(Model(seconds=1e6), BatchPolicy(pass_timeout=math.inf), drain_timeout=math.inf) as batcher:
            assert await ends(start(batcher, 1)) == [2]
            assert batcher.statistics().hangs == 0

    run_virtual(main())


def test_the_bound_is_for_each_pass_of_a_bisection() -> None:
    async def main() -> None:
        async with Batcher(Model(seconds=0.6), BatchPolicy(pass_timeout=1.0)) as batcher:
            assert await ends(start(batcher, 1, 2, 3, -4)) == [2, 4, 6, PassFailed]
            assert now() == pytest.approx(5 * 0.6)
            assert batcher.statistics().hangs == 0

    run_virtual(main())


def test_16_when_a_half_hangs_the_other_goes_on_in_its_place() -> None:
    async def main() -> None:
        model = Model()
        async with Batcher(model, BatchPolicy(pass_timeout=1.0), key=abs) as batcher:
            tasks = start(batcher, 1, 2, 3, -4, 5, 6, 7, 8)
            await asyncio.sleep(0.025)  # 1 to 4 failed again, 1 and 2 are in their pass
            model.stuck = frozenset([3])
            assert await ends(tasks) == [2, 4, PassTimedOut, PassTimedOut, 10, 12, 14, 16]
            assert now() == pytest.approx(1.040)
            assert batcher._register._by_key == {}
            assert (batcher.statistics().bisected, batcher.statistics().extra_passes) == (1, 4)
            model.free()
            await asyncio.sleep(0.1)
            assert adds_up(batcher)
        assert model.batches[3:] == [[3, -4], [5, 6, 7, 8]]

    run_virtual(main())


def test_16_what_goes_on_after_a_hang_has_the_extra_passes_that_were_left() -> None:
    async def main() -> None:
        model = Model()
        async with Batcher(model, BatchPolicy(pass_timeout=1.0, max_extra_passes=2)) as batcher:
            tasks = start(batcher, 3, 4, -5, 6)
            await asyncio.sleep(0.015)
            model.stuck = frozenset([3])
            assert await ends(tasks) == [PassTimedOut, PassTimedOut, PassFailed, PassFailed]
            model.free()
            await asyncio.sleep(0.1)
        assert model.batches == [[3, 4, -5, 6], [3, 4], [-5, 6]]

    run_virtual(main())


def test_the_expected_wait_counts_only_with_the_workers_that_are_left() -> None:
    async def main() -> None:
        model = Model(seconds=0.5, stuck=[7, 8, 9])
        policy = BatchPolicy(workers=2, pass_timeout=1.0, max_items=1)
        async with Batcher(model, policy) as batcher:
            await ends(start(batcher, 1))
            assert await ends(start(batcher, 7, 8, 9)) == [PassTimedOut] * 3
            tasks = start(batcher, 1, 2, 3)
            await asyncio.sleep(0.1)
            assert (batcher.hung_passes, batcher.statistics().running_passes) == (3, 1)
            assert batcher.expected_wait() == pytest.approx(0.4 + 2 * 0.5)
            assert await ends(tasks) == [2, 4, 6]
            assert now() == pytest.approx(0.5 + 2 * 1.0 + 3 * 0.5)
            model.free()
            await asyncio.sleep(0.1)

    run_virtual(main())


def test_16_when_a_half_hangs_and_no_worker_is_left_the_other_is_told() -> None:
    async def main() -> None:
        model = Model(stuck=[7])
        async with Batcher(model, BatchPolicy(pass_timeout=1.0), key=abs) as batcher:
            hanging = start(batcher, 7)
            assert await ends(hanging) == [PassTimedOut]
            tasks = start(batcher, -1, 2)
            await asyncio.sleep(0.015)
            model.stuck = frozenset([7, -1])
            assert await ends(tasks) == [PassTimedOut, PassTimedOut]
            assert batcher.is_stalled
            model.free()
            await asyncio.sleep(0.1)
            assert await ends(start(batcher, 5)) == [10]
            assert adds_up(batcher)

    run_virtual(main())


def test_16_when_the_worker_of_a_half_dies_the_other_goes_on() -> None:
    async def main() -> None:
        model = Model()
        async with Batcher(model) as batcher:
            tasks = start(batcher, 1, -2, 3, 4)
            await asyncio.sleep(0.015)  # the first half is in its pass
            pass_task().cancel()
            assert await ends(tasks) == [WorkerDied, WorkerDied, 6, 8]
            assert (batcher.statistics().deaths, batcher.statistics().running_passes) == (1, 0)
            assert adds_up(batcher)

    run_virtual(main())


@pytest.mark.parametrize("seconds", [0.050, 0.450])
def test_a_pass_that_is_slow_because_all_was_stopped_for_a_while_is_no_hang(seconds: float) -> None:
    async def main() -> None:
        async with Batcher(Model(seconds=seconds), BatchPolicy(pass_timeout=0.2)) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.010)
            virtual_loop().block(0.400)
            assert await ends(tasks) == [2]
            assert batcher.statistics().hangs == 0

    run_virtual(main())


def test_who_waits_for_room_is_let_go_when_all_workers_hang() -> None:
    async def main() -> None:
        model = Model(stuck=[7, 8])
        async with Batcher(model, replace(ONE, max_queued=2)) as batcher:
            stuck = start(batcher, 7, 8)
            await asyncio.sleep(1.5)
            with batcher.reserve(2):
                await batcher.room()
                assert now() == 2.0
                with pytest.raises(BatcherStalled):
                    batcher.reserve()
            assert await ends(stuck) == [PassTimedOut] * 2
            model.free()

    run_virtual(main())


def test_9_when_all_workers_and_replacements_hang_everybody_is_told_at_once() -> None:
    async def main() -> None:
        model = Model(stuck=[7, 8])
        async with Batcher(model, ONE) as batcher:
            stuck = start(batcher, 7, 8)
            await asyncio.sleep(1.5)
            queued = start(batcher, 1, 2)
            with batcher.reserve() as places:
                assert await ends(stuck) == [PassTimedOut] * 2
                assert now() == 2.0
                assert (batcher.hung_passes, batcher.is_stalled) == (2, True)
                assert await ends(queued) == [BatcherStalled] * 2
                assert now() == 2.0
                with pytest.raises(BatcherStalled, match="passes hang on all workers"):
                    await places.submit([3])
            assert await ends(start(batcher, 4)) == [BatcherStalled]
            with pytest.raises(BatcherStalled):
                batcher.reserve()
            seen = batcher.statistics()
            assert (seen.running_passes, seen.queued, seen.reserved, seen.accepted, seen.failed) == (0, 0, 0, 4, 4)
            model.free()
            await asyncio.sleep(0.1)
            assert (batcher.hung_passes, batcher.is_stalled) == (0, False)
            assert await ends(start(batcher, 5)) == [10]
            assert adds_up(batcher)

    run_virtual(main())


def test_a_stalled_batcher_serves_again_when_one_hanging_pass_has_ended() -> None:
    async def main() -> None:
        async with Batcher(Model(stuck=[7, 8]), ONE) as batcher:
            assert await ends(start(batcher, 7, 8)) == [PassTimedOut] * 2
            assert batcher.is_stalled
            next(task for task in asyncio.all_tasks() if task.get_name() == "batching.pass").cancel()
            await asyncio.sleep(0.1)
            assert (batcher.hung_passes, batcher.is_stalled) == (1, False)
            assert await ends(start(batcher, 1)) == [2]

    run_virtual(main())


def test_12_replacements_are_no_more_than_workers_and_then_each_hang_costs_a_worker() -> None:
    async def main() -> None:
        model = Model(seconds=0.1, stuck=[6, 7, 8])
        async with Batcher(model, TWO) as batcher:
            assert await ends(start(batcher, 6, 7)) == [PassTimedOut] * 2
            # Two hang and two are replaced: as before, two at a time.
            began = now()
            assert await ends(start(batcher, 1, 2, 3, 4)) == [2, 4, 6, 8]
            assert now() == pytest.approx(began + 0.2)
            assert await ends(start(batcher, 8)) == [PassTimedOut]
            began = now()
            assert await ends(start(batcher, 1, 2, 3, 4)) == [2, 4, 6, 8]
            assert now() == pytest.approx(began + 0.4)
            assert model.most_running == 4
            assert (batcher.hung_passes, batcher.is_stalled) == (3, False)
            # What ended makes room at once, also for what is queued already.
            tasks = start(batcher, 1, 2)
            await asyncio.sleep(0.05)
            model.free()
            assert await ends(tasks) == [2, 4]
            assert now() == pytest.approx(began + 0.4 + 0.15)

    run_virtual(main())


def test_14_closing_does_not_wait_for_passes_that_were_given_up() -> None:
    async def main() -> None:
        async with Batcher(Model(stuck=[7]), ONE) as batcher:
            assert await ends(start(batcher, 7)) == [PassTimedOut]
            assert await batcher.close()
            assert now() == 1.0
            assert (batcher.hung_passes, batcher.statistics().deaths) == (0, 0)

    run_virtual(main())


def test_14_closing_waits_for_a_hang_to_be_noticed_and_then_goes_on_with_the_queue() -> None:
    async def main() -> None:
        async with Batcher(Model(stuck=[7]), ONE) as batcher:
            tasks = start(batcher, 7, 1)
            await asyncio.sleep(0.1)
            assert await batcher.close()
            assert now() == pytest.approx(1.010)
            assert await ends(tasks) == [PassTimedOut, 2]

    run_virtual(main())


def test_14_a_stalled_batcher_closes_at_once() -> None:
    async def main() -> None:
        async with Batcher(Model(stuck=[7, 8]), ONE) as batcher:
            tasks = start(batcher, 7, 8, 1)
            await asyncio.sleep(1.9)
            assert await batcher.close()  # it is stalled while it drains
            assert now() == 2.0
            assert await ends(tasks) == [PassTimedOut, PassTimedOut, BatcherStalled]
            assert adds_up(batcher)

    run_virtual(main())


def test_14_a_pass_that_outlives_the_closing_and_its_bound_harms_nobody() -> None:
    async def process(_: list[int]) -> list[int]:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(1000)
        await asyncio.sleep(10)
        return [0]

    async def main() -> None:
        async with Batcher(process, BatchPolicy(pass_timeout=3.0), drain_timeout=1.0) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0)
        assert await ends(tasks) == [BatcherClosed]
        await asyncio.sleep(20)
        assert batcher.hung_passes == 0
        assert repr(batcher) == "<Batcher closed reserved=0 queued=0 in_flight=0 passes=0/1>"
        assert adds_up(batcher)

    run_virtual(main())


def test_14_closing_amid_a_bisection_leaves_nobody_waiting() -> None:
    async def main() -> None:
        async with Batcher(Model(seconds=1.0), BatchPolicy(max_items=4), key=abs, drain_timeout=1.4) as batcher:
            tasks = start(batcher, 1, 2, 3, -4, 5)
            await asyncio.sleep(0.1)
            assert not await batcher.close()
            assert now() == 1.5
            assert await ends(tasks) == [BatcherClosed] * 5
            seen = batcher.statistics()
            assert (seen.failed, seen.waiting, seen.running_passes, seen.deaths) == (5, 0, 0, 0)
            assert batcher._register._by_key == {}

    run_virtual(main())


def test_nobody_waits_for_a_pass_that_was_given_up_and_so_it_is_not_in_the_expected_wait() -> None:
    async def main() -> None:
        async with Batcher(Model(per_unit=0.100, stuck=[9]), ONE, cost=abs) as batcher:
            await batcher.submit(1)
            assert await ends(start(batcher, 1000)) == [PassTimedOut]  # of 100 seconds
            assert batcher.expected_wait() == 0.0

    run_virtual(main())


# --- dying workers


async def ends_the_process(_: list[int]) -> list[int]:
    raise Stop


async def cancels_itself(_: list[int]) -> list[int]:
    raise asyncio.CancelledError


@pytest.mark.parametrize(("process", "cause"), [(ends_the_process, Stop), (cancels_itself, asyncio.CancelledError)])
def test_9_a_pass_that_ends_as_none_should_answers_its_callers_and_the_next_are_served(
    process: Process, cause: type[BaseException]
) -> None:
    model = Model()

    async def sometimes(items: list[int]) -> list[int]:
        return await (process(items) if 7 in items else model(items))

    async def main() -> None:
        async with Batcher(sometimes, BatchPolicy(max_items=2)) as batcher:
            tasks = start(batcher, 7, 8, 1)
            errors = await asyncio.gather(*tasks[:2], return_exceptions=True)
            assert errors[0] is not errors[1]
            for error in errors:
                assert isinstance(error, WorkerDied)
                assert str(error) == "the worker died in its pass over 2 items"
                assert error.items == 2
                assert isinstance(error.__cause__, cause)
            assert await ends([*tasks[2:], *start(batcher, 2, 3)]) == [2, 4, 6]
            seen = batcher.statistics()
            assert (seen.deaths, seen.failed, seen.passes, seen.failed_passes, seen.running_passes) == (1, 2, 2, 0, 0)
            assert adds_up(batcher)

    run_virtual(main())


@pytest.mark.parametrize("at", [0.0, 0.005], ids=["before it began", "while it runs"])
def test_9_a_pass_that_is_cancelled_from_outside_answers_its_callers_and_the_next_are_served(at: float) -> None:
    async def main() -> None:
        model = Model()
        async with Batcher(model, BatchPolicy(max_items=2), key=abs) as batcher:
            tasks = start(batcher, 1, 2, 3)
            if at:
                await asyncio.sleep(at)
            else:
                await asyncio.sleep(0)
                batcher._dispatch()
            pass_task().cancel()
            assert await ends(tasks) == [WorkerDied, WorkerDied, 6]
            assert await ends(start(batcher, 1)) == [2]
            seen = batcher.statistics()
            assert (seen.deaths, seen.failed, seen.answered, seen.hangs) == (1, 2, 2, 0)
            assert adds_up(batcher)

    run_virtual(main())


def test_9_a_worker_that_dies_in_a_bisection_answers_all_that_it_still_held() -> None:
    async def main() -> None:
        async with Batcher(Model(), key=abs) as batcher:
            tasks = start(batcher, 1, 2, 3, -4)
            await asyncio.sleep(0.025)  # 1 and 2 are answered, 3 and -4 are in their pass
            pass_task().cancel()
            assert await ends(tasks) == [2, 4, WorkerDied, WorkerDied]
            assert batcher._register._by_key == {}
            assert await ends(start(batcher, 3)) == [6]
            assert adds_up(batcher)

    run_virtual(main())


def test_9_a_worker_that_dies_does_not_hide_a_newer_equal_item_of_one_that_it_had_done() -> None:
    async def main() -> None:
        model = Model()
        async with Batcher(model, key=abs) as batcher:
            tasks = start(batcher, 1, 2, 3, -4)
            await asyncio.sleep(0.025)  # 1 and 2 are answered
            again = start(batcher, 1)
            await asyncio.sleep(0)
            pass_task().cancel()
            await asyncio.sleep(0.001)
            assert await ends([*tasks, *again, *start(batcher, 1)]) == [2, 4, WorkerDied, WorkerDied, 2, 2]
            assert batcher.statistics().coalesced == 1
        assert model.batches[-1] == [1]

    run_virtual(main())


def test_9_results_that_lie_about_their_number_are_a_dead_worker() -> None:
    class Lie(list[int]):
        def __len__(self) -> int:
            return 2

    async def process(_: list[int]) -> list[int]:
        return Lie([1])

    async def main() -> None:
        async with Batcher(process, BatchPolicy(max_items=2)) as batcher:
            for _ in range(3):
                assert (await ends(start(batcher, 1, 2)))[1] is WorkerDied
            assert repr(batcher) == "<Batcher open reserved=0 queued=0 in_flight=0 passes=0/1>"
            assert adds_up(batcher)

    run_virtual(main())


def test_a_processing_function_that_is_not_asynchronous_is_a_failed_pass() -> None:
    def process(_: list[int]) -> list[int]:
        raise ValueError("at once")

    async def main() -> None:
        batcher: Batcher[int, int] = Batcher(process)  # type: ignore[arg-type]
        async with batcher:
            assert await ends(start(batcher, 1)) == [PassFailed]

    run_virtual(main())


def test_14_a_worker_that_dies_while_draining_does_not_hold_it() -> None:
    async def main() -> None:
        async with Batcher(Model(seconds=1.0)) as batcher:
            tasks = start(batcher, 1)
            await asyncio.sleep(0.1)
            draining = asyncio.create_task(batcher.drain())
            await asyncio.sleep(0.1)
            pass_task().cancel()
            assert await draining
            assert now() == pytest.approx(0.2)
            assert await ends(tasks) == [WorkerDied]

    run_virtual(main())


# --- reports


def test_each_pass_is_reported_with_what_became_of_it() -> None:
    async def main() -> list[PassReport]:
        reports: list[PassReport] = []
        model = Model(seconds=0.25, stuck=[7])
        async with Batcher(model, BatchPolicy(max_items=3, pass_timeout=1.0), cost=abs, on_pass=reports.append) as batcher:
            assert await ends(start(batcher, 1, 2)) == [2, 4]
            assert await ends(start(batcher, 3, -4, 5)) == [6, PassFailed, 10]
            assert await ends(start(batcher, 7, 1)) == [PassTimedOut] * 2
            await asyncio.sleep(0.5)
            model.free()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            tasks = start(batcher, 2)
            await asyncio.sleep(0.125)
            pass_task().cancel()
            assert await ends(tasks) == [WorkerDied]
        return reports

    reports = run_virtual(main())
    assert [(report.end, report.items, report.cost, report.reason, report.seconds) for report in reports] == [
        (PassEnd.DONE, 2, 3, FlushReason.IDLE, 0.25),
        (PassEnd.HALVED, 3, 12, FlushReason.FULL, 0.25),
        (PassEnd.DONE, 1, 3, FlushReason.FULL, 0.25),
        (PassEnd.HALVED, 2, 9, FlushReason.FULL, 0.25),
        (PassEnd.FAILED, 1, 4, FlushReason.FULL, 0.25),
        (PassEnd.DONE, 1, 5, FlushReason.FULL, 0.25),
        (PassEnd.HUNG, 2, 8, FlushReason.IDLE, 1.0),
        (PassEnd.RECOVERED, 2, 8, FlushReason.IDLE, 1.5),
        (PassEnd.DIED, 1, 2, FlushReason.IDLE, 0.125),
    ]
    failures = [type(report.error) for report in reports if report.error is not None]
    assert failures == [ValueError, ValueError, ValueError, asyncio.CancelledError]


def test_a_listener_that_fails_harms_nobody() -> None:
    class Deaf(Exception):
        pass

    def on_pass(report: PassReport) -> None:
        raise Deaf(report.end)

    async def main() -> list[PassEnd]:
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        model = Model(stuck=[7])
        async with Batcher(model, BatchPolicy(max_items=2, pass_timeout=1.0), on_pass=on_pass) as batcher:
            assert await ends(start(batcher, 1, -2)) == [2, PassFailed]
            assert await ends(start(batcher, 7)) == [PassTimedOut]
            model.free()
            await asyncio.sleep(0.1)
            tasks = start(batcher, 3)
            await asyncio.sleep(0.005)
            pass_task().cancel()
            assert await ends(tasks) == [WorkerDied]
            assert await ends(start(batcher, 4)) == [8]
            assert adds_up(batcher)
        assert {context["message"] for context in complaints} == {"the batcher's on_pass failed"}
        return [context["exception"].args[0] for context in complaints]

    assert run_virtual(main()) == [
        PassEnd.HALVED,
        PassEnd.DONE,
        PassEnd.FAILED,
        PassEnd.HUNG,
        PassEnd.RECOVERED,
        PassEnd.DIED,
        PassEnd.DONE,
    ]


def test_the_next_batch_begins_before_the_callers_of_the_last_go_on() -> None:
    async def main() -> list[str]:
        order: list[str] = []
        model = Model()

        async def process(items: list[int]) -> list[int]:
            order.append(f"pass {items}")
            return await model(items)

        async def caller(item: int) -> None:
            await batcher.submit(item)
            order.append(f"caller {item}")

        async with Batcher(process, BatchPolicy(max_items=1)) as batcher:
            await asyncio.gather(caller(1), caller(2))
        return order

    assert run_virtual(main()) == ["pass [1]", "pass [2]", "caller 1", "caller 2"]
