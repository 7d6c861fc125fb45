"""A failing batch is halved until the items at fault fail alone, within a bound. In virtual time; a negative number is at fault.

Numbers in names are the invariants of `batching.batcher`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from batching import Batcher, BatcherStatistics, BatchPolicy, Outcome, PassFailed, WrongResultCount
from tests.batching.fakes import Model, adds_up, ends, start
from tests.batching.virtual_time import run_virtual


def numbers(count: int, at_fault: Iterable[int]) -> list[int]:
    """1 to `count`, those at the places `at_fault` negative."""
    return [-number if number - 1 in at_fault else number for number in range(1, count + 1)]


def bisected(items: list[int], policy: BatchPolicy | None = None) -> tuple[list[Outcome[int] | PassFailed], BatcherStatistics]:
    """All of them in one batch, and the batcher lives on."""

    async def main() -> tuple[list[Outcome[int] | PassFailed], BatcherStatistics]:
        async with Batcher(Model(), policy) as batcher:
            outcomes = await asyncio.gather(*start(batcher, *items), return_exceptions=True)
            seen = batcher.statistics()
            assert adds_up(batcher)
            assert (await batcher.submit(4)).result == 8
        found: list[Outcome[int] | PassFailed] = []
        for outcome in outcomes:
            assert isinstance(outcome, Outcome | PassFailed)
            found.append(outcome)
        return found, seen

    return run_virtual(main())


@pytest.mark.parametrize("place", [0, 13, 31])
def test_16_one_item_of_32_at_fault_fails_alone_after_ten_more_passes(place: int) -> None:
    outcomes, seen = bisected(numbers(32, [place]))
    error = outcomes.pop(place)
    assert isinstance(error, PassFailed)
    assert str(error) == "the pass over this item alone failed"
    assert error.items == 1
    assert isinstance(error.__cause__, ValueError)
    assert [type(outcome) for outcome in outcomes] == [Outcome] * 31
    assert [outcome.result for outcome in outcomes if isinstance(outcome, Outcome)] == [
        2 * number for number in range(1, 33) if number != place + 1
    ]
    assert (seen.passes, seen.extra_passes, seen.failed_passes, seen.bisected) == (11, 10, 6, 1)
    assert (seen.answered, seen.failed) == (31, 1)
    assert seen.items_passed == 32 + 32 + 16 + 8 + 4 + 2


def test_16_two_items_at_fault_fail_alone_and_the_others_are_answered() -> None:
    outcomes, seen = bisected(numbers(32, [0, 31]), BatchPolicy(max_extra_passes=18))
    assert [place for place, outcome in enumerate(outcomes) if isinstance(outcome, PassFailed)] == [0, 31]
    assert [outcome.items for outcome in outcomes if isinstance(outcome, PassFailed)] == [1, 1]
    assert (seen.extra_passes, seen.passes) == (18, 19)


def test_16_when_the_extra_passes_are_used_up_the_rest_of_the_group_fails_with_the_item_at_fault() -> None:
    outcomes, seen = bisected(numbers(32, [0, 31]))
    errors = {place: outcome for place, outcome in enumerate(outcomes) if isinstance(outcome, PassFailed)}
    assert {place: error.items for place, error in errors.items()} == {0: 1, 30: 2, 31: 2}
    assert str(errors[30]) == "the pass over 2 items failed"
    assert (seen.extra_passes, seen.passes) == (16, 17)


def test_16_when_all_items_are_at_fault_all_fail_within_the_bound() -> None:
    outcomes, seen = bisected(numbers(32, range(32)))
    assert [type(outcome) for outcome in outcomes] == [PassFailed] * 32
    assert len({id(outcome) for outcome in outcomes}) == 32
    assert (seen.passes, seen.extra_passes, seen.failed_passes, seen.bisected, seen.failed) == (17, 16, 17, 1, 32)


@pytest.mark.parametrize(("most", "spent"), [(0, 0), (1, 0), (2, 2), (3, 2), (4, 4)])
def test_16_never_more_extra_passes_than_the_policy_grants(most: int, spent: int) -> None:
    outcomes, seen = bisected(numbers(8, [2, 6]), BatchPolicy(max_extra_passes=most))
    assert (seen.extra_passes, seen.passes) == (spent, 1 + spent)
    assert seen.bisected == (spent > 0)
    failed = {place: outcome.items for place, outcome in enumerate(outcomes) if isinstance(outcome, PassFailed)}
    assert (
        failed
        == {
            0: dict.fromkeys(range(8), 8),
            2: dict.fromkeys(range(4), 4) | dict.fromkeys(range(4, 8), 4),
            4: {2: 2, 3: 2} | dict.fromkeys(range(4, 8), 4),
        }[spent]
    )


def test_16_a_failing_lone_item_costs_no_extra_pass() -> None:
    (outcome,), seen = bisected([-1])
    assert isinstance(outcome, PassFailed)
    assert (outcome.items, outcome.index) == (1, 0)
    assert (seen.passes, seen.extra_passes, seen.failed_passes, seen.bisected) == (1, 0, 1, 0)


def test_9_each_failing_caller_gets_an_exception_of_its_own_with_the_cause() -> None:
    outcomes, _ = bisected([1, -1, 2], BatchPolicy(max_extra_passes=0))
    assert [type(outcome) for outcome in outcomes] == [PassFailed] * 3
    assert len({id(outcome) for outcome in outcomes}) == 3
    for outcome in outcomes:
        assert isinstance(outcome, PassFailed)
        assert outcome.items == 3
        assert isinstance(outcome.__cause__, ValueError)


def test_an_answer_out_of_a_bisection_tells_of_the_pass_that_gave_it() -> None:
    outcomes, _ = bisected([1, 2, 3, -4])
    answers = [outcome for outcome in outcomes if isinstance(outcome, Outcome)]
    assert [answer.batch_size for answer in answers] == [2, 2, 1]
    assert [answer.wait for answer in answers] == pytest.approx([0.010, 0.010, 0.030])
    assert [answer.duration for answer in answers] == pytest.approx([0.010] * 3)


def test_12_a_bisection_keeps_to_its_worker() -> None:
    async def main() -> Model:
        model = Model()
        async with Batcher(model, BatchPolicy(max_items=2)) as batcher:
            assert await ends(start(batcher, 1, -2, 3)) == [2, PassFailed, 6]
        return model

    model = run_virtual(main())
    assert model.batches == [[1, -2], [1], [-2], [3]]
    assert model.most_running == 1


def test_11_who_left_during_the_failing_pass_is_not_passed_again() -> None:
    async def main() -> Model:
        model = Model()
        async with Batcher(model) as batcher:
            tasks = start(batcher, 1, -2, 3, 4, 5, 6, 7, 8)
            await asyncio.sleep(0.005)
            for place in (1, 2, 4, 5, 6, 7):  # with them the second half is empty
                tasks[place].cancel()
            assert [end for end in await ends(tasks) if end is not asyncio.CancelledError] == [2, 8]
            await asyncio.sleep(0)
            assert repr(batcher) == "<Batcher open reserved=0 queued=0 in_flight=0 passes=0/1>"
            assert adds_up(batcher)
        return model

    assert run_virtual(main()).batches == [[1, -2, 3, 4, 5, 6, 7, 8], [1, 4]]


def test_9_an_equal_item_does_not_join_one_that_a_bisection_has_dropped() -> None:
    async def main() -> Model:
        model = Model()
        async with Batcher(model, key=abs) as batcher:
            tasks = start(batcher, 1, 2, 3, -4)
            await asyncio.sleep(0.005)
            tasks[2].cancel()
            await asyncio.sleep(0.020)  # the second half is in its pass, without the item whose caller left
            assert (await batcher.submit(3)).result == 6
            assert await ends(tasks) == [2, 4, asyncio.CancelledError, PassFailed]
            assert batcher._register._by_key == {}
            assert adds_up(batcher)
        return model

    assert run_virtual(main()).batches == [[1, 2, 3, -4], [1, 2], [-4], [3]]


def test_9_an_equal_item_that_comes_before_its_half_is_passed_joins_it() -> None:
    async def main() -> Model:
        model = Model()
        async with Batcher(model, key=abs) as batcher:
            tasks = start(batcher, 1, 2, 3, -4)
            await asyncio.sleep(0.005)
            tasks[2].cancel()
            await asyncio.sleep(0.010)  # the first half is in its pass
            tasks += start(batcher, 3)
            assert await ends(tasks) == [2, 4, asyncio.CancelledError, PassFailed, 6]
            assert batcher._register._by_key == {}
        return model

    assert run_virtual(main()).batches == [[1, 2, 3, -4], [1, 2], [3, -4], [3], [-4]]


@pytest.mark.parametrize("results", [[], [1], [1, 2, 3]])
def test_9_a_wrong_number_of_results_is_a_named_error_and_nobody_s_fault(results: list[int]) -> None:
    async def process(_: list[int]) -> list[int]:
        return results

    async def main() -> None:
        async with Batcher(process) as batcher:
            errors = await asyncio.gather(*start(batcher, 1, 2), return_exceptions=True)
            assert len({id(error) for error in errors}) == 2
            for error in errors:
                assert isinstance(error, WrongResultCount)
                assert str(error) == f"the pass returned {len(results)} results for 2 items"
                assert (error.items, error.results) == (2, len(results))
            seen = batcher.statistics()
            assert (seen.passes, seen.failed_passes, seen.bisected, seen.extra_passes, seen.failed) == (1, 1, 0, 0, 2)

    run_virtual(main())


def test_the_index_of_an_error_is_the_place_of_its_item_in_the_call() -> None:
    async def main() -> None:
        async with Batcher(Model()) as batcher:
            with batcher.reserve(5) as places:
                with pytest.raises(PassFailed) as failed:
                    await places.submit([1, 2, -3])
                assert (failed.value.index, failed.value.items) == (2, 1)
                with pytest.raises(PassFailed) as failed:
                    await places.submit([-1, -2])
                assert failed.value.index == 0

    run_virtual(main())


def test_a_half_that_nobody_wants_any_more_is_no_extra_pass() -> None:
    async def main() -> None:
        async with Batcher(Model()) as batcher:
            tasks = start(batcher, 1, -1)
            await asyncio.sleep(0.005)
            tasks[0].cancel()
            await ends(tasks)
            seen = batcher.statistics()
            assert seen.extra_passes == seen.passes - 1 == 1

    run_virtual(main())
