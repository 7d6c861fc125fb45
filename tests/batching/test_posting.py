"""Items whose callers are told their outcomes, instead of waiting for them; and one timer for all deadlines.

Numbers in names are the invariants of `batching.batcher`.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from batching import Batcher, BatcherClosed, BatchPolicy, DeadlineExceeded, Outcome, PassFailed, Priority, QueueFull
from batching.callers import Caller, Entry
from batching.deadlines import Deadlines
from tests.batching.fakes import Model, now
from tests.batching.virtual_time import run_virtual

ONE = BatchPolicy(max_items=1, max_queued=2, workers=1)
Told = list[object]


def kinds(told: Told) -> list[object]:
    """Results, and the kinds of errors."""
    return [outcome.result if isinstance(outcome, Outcome) else type(outcome) for outcome in told]


def test_9_each_posted_item_is_told_its_own_outcome_once() -> None:
    async def main() -> None:
        told: Told = []
        async with Batcher(Model(), BatchPolicy(max_items=4, workers=1)) as batcher:
            for item in (1, -2, 3):
                batcher.post(item, told.append)
            assert told == []  # never before `post` is through
            await asyncio.sleep(1)
            assert sorted(map(str, kinds(told))) == ["2", "6", str(PassFailed)]
            seen = batcher.statistics()
            assert (seen.accepted, seen.answered, seen.failed, seen.waiting) == (3, 2, 1, 0)

    run_virtual(main())


def test_11_who_leaves_is_told_nothing_and_costs_no_pass() -> None:
    async def main() -> None:
        told: Told = []
        model = Model()
        async with Batcher(model, ONE) as batcher:
            first, second = (batcher.post(item, told.append) for item in (1, 2))
            await asyncio.sleep(0.005)
            batcher.leave(first)  # in its pass, whose result is for nobody
            batcher.leave(second)
            batcher.leave(second)
            await asyncio.sleep(1)
            assert (told, model.batches) == ([], [[1]])
            seen = batcher.statistics()
            assert (seen.abandoned, seen.drops[next(iter(seen.drops))], seen.waiting) == (2, 1, 0)

    run_virtual(main())


def test_9_who_was_told_has_left_too_late() -> None:
    async def main() -> None:
        told: Told = []
        async with Batcher(Model(), ONE) as batcher:
            caller = batcher.post(1, told.append)
            await asyncio.sleep(1)
            batcher.leave(caller)
            assert (kinds(told), batcher.statistics().abandoned) == ([2], 0)

    run_virtual(main())


def test_a_caller_that_fails_when_it_is_told_harms_no_other() -> None:
    async def main() -> None:
        told: Told = []
        complaints: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))

        def fail(_: object) -> None:
            raise ZeroDivisionError

        async with Batcher(Model(), BatchPolicy(workers=1)) as batcher:
            batcher.post(1, fail)
            batcher.post(2, told.append)
            await asyncio.sleep(1)
            seen = batcher.statistics()
            assert (kinds(told), seen.answered, seen.deaths, seen.running_passes) == ([4], 2, 0, 0)
        assert [type(context["exception"]) for context in complaints] == [ZeroDivisionError]

    run_virtual(main())


def test_15_posted_items_are_told_when_their_deadline_comes() -> None:
    async def main() -> None:
        told: list[tuple[float, object]] = []
        async with Batcher(Model(seconds=10.0), BatchPolicy(max_items=1, workers=2)) as batcher:
            for seconds in (0.3, 0.1, 0.2):
                batcher.post(1, lambda outcome: told.append((now(), type(outcome))), deadline=batcher.check(timeout=seconds))
            await asyncio.sleep(1)
            assert [kind for _, kind in told] == [DeadlineExceeded] * 3
            assert [at for at, _ in told] == pytest.approx([0.1, 0.2, 0.3])

    run_virtual(main())


def test_13_posting_meets_the_bounds_of_the_queue() -> None:
    async def main() -> None:
        told: Told = []
        async with Batcher(Model(), ONE, cost=abs) as batcher:
            batcher.post(1, told.append)
            await asyncio.sleep(0)
            batcher.post(2, told.append)
            batcher.post(3, told.append)
            for refused in (batcher.check, lambda: batcher.post(4, told.append)):
                with pytest.raises(QueueFull):
                    refused()
            assert math.isinf(batcher.check(priority=Priority.BULK))
            batcher.post(5, told.append, priority=Priority.BULK)
            assert (batcher.statistics().accepted_bulk, batcher.statistics().peak_queued) == (1, 2)
            with pytest.raises(ValueError, match="cost"):
                batcher.post(0, told.append, priority=Priority.BULK)
            await asyncio.sleep(1)
            assert sorted(map(str, kinds(told))) == ["10", "2", "4", "6"]

    run_virtual(main())


def test_13_an_item_too_dear_for_the_room_there_is_is_refused_when_it_is_posted() -> None:
    async def main() -> None:
        told: Told = []
        policy = BatchPolicy(max_items=1, max_cost=10, max_queued=10, max_queued_cost=10, workers=1)
        async with Batcher(Model(seconds=1.0), policy, cost=abs) as batcher:
            batcher.post(1, told.append)
            await asyncio.sleep(0)
            batcher.post(8, told.append)
            batcher.check()
            with pytest.raises(QueueFull):
                batcher.post(3, told.append)
            assert batcher.statistics().waiting == 2

    run_virtual(main())


def test_equal_posted_items_share_a_pass_and_an_urgent_one_takes_it_along() -> None:
    async def main() -> None:
        told: Told = []
        model = Model()
        async with Batcher(model, ONE, key=lambda item: item) as batcher:
            batcher.post(1, told.append)
            await asyncio.sleep(0)
            batcher.post(2, told.append, priority=Priority.BULK)
            batcher.post(2, told.append)
            assert batcher.statistics().queued_bulk == 0
            await asyncio.sleep(1)
            assert (kinds(told), model.batches, batcher.statistics().coalesced) == ([2, 4, 4], [[1], [2]], 1)

    run_virtual(main())


def test_14_posted_items_are_told_when_the_batcher_closes() -> None:
    async def main() -> None:
        told: Told = []
        batcher = Batcher(Model(seconds=60.0), ONE, drain_timeout=0.1)
        async with batcher:
            batcher.post(1, told.append)
            batcher.post(2, told.append)
        assert kinds(told) == [BatcherClosed, BatcherClosed]
        for late in (batcher.check, lambda: batcher.post(3, told.append)):
            with pytest.raises(BatcherClosed):
                late()

    run_virtual(main())


def caller() -> Caller[int, int]:
    """One without an outcome."""
    return Caller(Entry(1, None, 1, Priority.INTERACTIVE, 0.0, math.inf), 0.0, lambda _: None)


def test_deadlines_in_order_need_one_timer_and_forget_who_is_done() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        timers: list[float] = []
        set_timer = loop.call_later

        def call_later(seconds: float, *rest: object) -> asyncio.TimerHandle:
            timers.append(seconds)
            return set_timer(seconds, *rest)  # type: ignore[arg-type]

        loop.call_later = call_later  # type: ignore[method-assign, assignment]
        expired: list[tuple[float, int]] = []
        deadlines = Deadlines(now, lambda callers: expired.append((now(), len(callers))))
        done = [caller() for _ in range(1000)]
        for index, one in enumerate(done):
            deadlines.add(10 + index / 1000, [one])
            one.is_done = True
            assert len(deadlines._waiting) <= 1
        assert timers == [10]
        deadlines.add(5.0, [caller(), caller()])
        assert timers == [10, 5]
        await asyncio.sleep(7)
        assert expired == [(5.0, 2)]
        deadlines.add(8.0, [caller()])
        deadlines.close()
        await asyncio.sleep(20)
        assert expired == [(5.0, 2)]

    run_virtual(main())


def test_a_timer_that_fires_for_nobody_is_the_last_one() -> None:
    async def main() -> None:
        expired: list[int] = []
        deadlines = Deadlines(now, lambda callers: expired.append(sum(not one.is_done for one in callers)))
        one, later = caller(), caller()
        deadlines.add(1.0, [one])
        deadlines.add(2.0, [later])
        one.is_done = True
        await asyncio.sleep(3)
        assert sum(expired) == 1
        assert deadlines._timer is None
        deadlines.add(4.0, [caller()])
        await asyncio.sleep(2)
        assert sum(expired) == 2

    run_virtual(main())
