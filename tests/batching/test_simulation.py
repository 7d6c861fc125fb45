"""The simulation against what can be reckoned by hand, closed forms, and conservation."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from batching.balance import Balance, by_connection, in_turn, least_loaded
from batching.policy import BatchPolicy, Priority
from batching.simulation import Item, Machine, Pass, PassSeconds, simulate

INTERACTIVE, BULK = Priority.INTERACTIVE, Priority.BULK
ORDERED = BatchPolicy(max_items=32, max_cost=512, workers=2, look_ahead=0, max_passed_over=0)
ONE_WORKER = replace(ORDERED, workers=1)
LOOK_AHEAD = replace(ORDERED, look_ahead=64, max_passed_over=3)
STRICT_WINDOW = replace(ORDERED, idle_flush=False, window=0.040)
ONE_BY_ONE = replace(ONE_WORKER, max_items=1, max_queued=1_000_000)


def tenth(_: Sequence[int]) -> float:
    return 0.1


def by_cost(costs: Sequence[int]) -> float:
    return 0.001 * sum(costs)


def arrivals(number: int, rate: float, seed: int = 1) -> list[Item]:
    """At random moments, of costs from 1 to 99."""
    generator, moment, items = random.Random(seed), 0.0, []
    for _ in range(number):
        moment += generator.expovariate(rate)
        items.append(Item(generator.randint(1, 99), moment))
    return items


def latencies(items: Sequence[Item]) -> list[float]:
    return [item.latency for item in items]


def costs(passes: Sequence[Pass]) -> list[list[int]]:
    return [one.costs for one in passes]


def test_an_item_that_comes_alone_takes_as_long_as_its_pass() -> None:
    items = [Item(10, 0.0), Item(20, 1.0), Item(30, 2.0)]
    simulate(items, ORDERED, by_cost)
    assert latencies(items) == pytest.approx([0.010, 0.020, 0.030])


def test_a_pass_that_waits_besides_its_work_holds_its_worker_and_no_core() -> None:
    waits = Machine(cores=1, pass_wait=0.030)
    items = [Item(10, 0.0), Item(20, 0.005)]
    passes = simulate(items, ONE_WORKER, by_cost, waits)
    assert [(one.started, one.ended) for one in passes] == [pytest.approx((0.0, 0.040)), pytest.approx((0.040, 0.090))]
    # With two workers, the second works while the first waits.
    passes = simulate([Item(10, 0.0), Item(20, 0.010)], ORDERED, by_cost, waits)
    assert [(one.started, one.ended) for one in passes] == [pytest.approx((0.0, 0.040)), pytest.approx((0.010, 0.060))]


def test_with_a_strict_window_it_waits_the_window_before() -> None:
    items = [Item(10, 0.0), Item(20, 1.0)]
    simulate(items, STRICT_WINDOW, by_cost)
    assert latencies(items) == pytest.approx([0.050, 0.060])


def test_a_window_that_ends_while_all_workers_are_busy_ends_with_the_pass() -> None:
    items = [Item(200, 0.0), Item(10, 0.1)]
    simulate(items, replace(STRICT_WINDOW, workers=1), by_cost)
    assert latencies(items) == pytest.approx([0.240, 0.150])


def test_what_comes_during_a_pass_leaves_together_when_it_ends() -> None:
    items = [Item(1, 0.0), Item(2, 0.04), Item(3, 0.05)]
    passes = simulate(items, ONE_WORKER, tenth)
    assert [(one.started, one.ended) for one in passes] == [(0.0, 0.1), (0.1, 0.2)]
    assert costs(passes) == [[1], [2, 3]]
    assert latencies(items) == pytest.approx([0.1, 0.16, 0.15])


def test_what_comes_at_the_same_moment_shares_the_first_batch() -> None:
    assert costs(simulate([Item(1, 0.0), Item(2, 0.0), Item(3, 0.0)], ONE_WORKER, tenth)) == [[1, 2, 3]]


def test_workers_that_are_free_share_what_comes_at_the_same_moment() -> None:
    assert costs(simulate([Item(2, 0.0), Item(2, 0.0), Item(2, 0.0), Item(2, 0.0)], ORDERED, tenth)) == [[2, 2], [2, 2]]


def test_what_is_better_passed_apart_is_passed_apart() -> None:
    items = [Item(1, 0.0), Item(9, 0.0), Item(1, 0.0)]
    by_cost = lambda costs: [[i for i, cost in enumerate(costs) if cost < 5], [i for i, cost in enumerate(costs) if cost >= 5]]  # noqa: E731
    assert costs(simulate(items, replace(LOOK_AHEAD, workers=1), tenth, divide=by_cost)) == [[1, 1], [9]]


def test_as_many_passes_run_at_once_as_there_are_workers() -> None:
    passes = simulate(arrivals(500, 400.0), ORDERED, tenth)
    running = [sum(other.started <= one.started < other.ended for other in passes) for one in passes]
    assert max(running) == ORDERED.workers


@pytest.mark.parametrize("rate", [15.0, 100.0])
def test_every_item_is_answered_once_or_found_no_place(rate: float) -> None:
    items = arrivals(2000, rate)
    machine = Machine(cores=2, slowdown=1.1, loop_item=0.001, loop_pass=0.001, client_item=0.001)
    passes = simulate(items, replace(LOOK_AHEAD, max_queued=50), by_cost, machine)
    passed = [item for one in passes for item in one.items]
    assert len(passed) == len(set(passed))
    assert set(passed) == {item for item in items if item.latency < math.inf}
    assert (len(passed) < len(items)) == (rate > 40)


def test_places_are_of_each_class() -> None:
    items = [Item(1, 0.0)] + [Item(1, 0.01, priority) for priority in Priority for _ in range(3)]
    simulate(items, replace(ONE_WORKER, max_queued=2), tenth)
    assert [item.latency < math.inf for item in items] == [True, True, True, False, True, True, False]


def test_so_is_the_room_for_costs_and_an_empty_queue_takes_any() -> None:
    items = [Item(1, 0.0), Item(9, 0.01), Item(1, 0.02), Item(1, 0.03), Item(20, 0.04, BULK)]
    simulate(items, replace(ONE_WORKER, max_queued_cost=10), tenth)
    assert [item.latency < math.inf for item in items] == [True, True, True, False, True]


def test_the_same_input_gives_the_same_run() -> None:
    first, second = ([(one.started, one.costs) for one in simulate(arrivals(500, 60.0), LOOK_AHEAD, by_cost)] for _ in range(2))
    assert first == second


def test_without_passing_over_items_leave_in_the_order_in_which_they_came() -> None:
    places = [item.place for one in simulate(arrivals(2000, 60.0), ORDERED, by_cost) for item in one.items]
    assert places == list(range(2000))


def test_items_are_passed_over_as_often_as_the_policy_allows_and_no_more() -> None:
    items = arrivals(2000, 60.0)
    simulate(items, LOOK_AHEAD, by_cost)
    assert max(item.passed_over for item in items) == LOOK_AHEAD.max_passed_over


def test_an_item_is_passed_over_when_a_younger_one_of_its_class_leaves_before_it() -> None:
    first, *others = [Item(50, 0.0), Item(1, 0.01), Item(50, 0.02), Item(1, 0.03), Item(7, 0.04, BULK)]
    passes = simulate([first, *others], replace(LOOK_AHEAD, workers=1, max_items=2), tenth)
    assert costs(passes) == [[50], [7], [1, 1], [50]]
    assert [item.passed_over for item in others] == [0, 1, 0, 0]


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_one_by_one_in_equal_times_the_mean_wait_is_that_of_an_m_d_1_queue(load: float) -> None:
    items = arrivals(20_000, load / 0.1)
    simulate(items, ONE_BY_ONE, tenth)
    waits = [item.latency - 0.1 for item in items]
    assert statistics.fmean(waits) == pytest.approx(load * 0.1 / (2 * (1 - load)), rel=0.06)
    assert sum(wait < 1e-9 for wait in waits) / len(waits) == pytest.approx(1 - load, abs=0.015)


def test_items_in_the_system_are_their_rate_times_their_time_in_it() -> None:
    items = arrivals(2000, 30.0)
    simulate(items, LOOK_AHEAD, by_cost, Machine(cores=2, loop_item=0.001))
    events = sorted([(item.arrives_at, 1) for item in items] + [(item.answered_at, -1) for item in items])
    inside = area = 0.0
    for (moment, change), (after, _) in pairwise(events):
        inside += change
        area += inside * (after - moment)
    seconds = events[-1][0] - events[0][0]
    assert area / seconds == pytest.approx(len(items) / seconds * statistics.fmean(latencies(items)))


# --- the machine


def test_everything_on_an_items_way_takes_its_seconds() -> None:
    item = Item(1, 0.0)
    (one,) = simulate([item], ORDERED, tenth, Machine(loop_item=0.02, loop_pass=0.004, client_item=0.06))
    assert one.started == pytest.approx(0.030 + 0.010)
    assert item.latency == pytest.approx(0.06 + 0.02 + 0.004 + 0.1)


def test_threads_share_the_cores_evenly() -> None:
    items = [Item(200, 0.0), Item(100, 0.05)]
    # Both run on one core from 0.05 on, half as fast: the second needs 0.2 s; then the first has 0.05 s left.
    simulate(items, replace(ORDERED, workers=2), by_cost, Machine(cores=1))
    assert latencies(items) == pytest.approx([0.3, 0.2])


def test_who_comes_while_others_share_finds_them_as_far_as_they_got() -> None:
    items = [Item(200, 0.0), Item(200, 0.0), Item(50, 0.1)]
    # At 0.1 the first two have 0.15 s left each. Three share until the last is done, at 0.25; then they have 0.1 s left each.
    simulate(items, replace(ORDERED, workers=3, max_items=1), by_cost, Machine(cores=1))
    assert latencies(items) == pytest.approx([0.45, 0.45, 0.15])


def test_busy_cores_slow_each_other_down() -> None:
    machine = Machine(cores=3, slowdown=1.5)
    assert [machine.speed(busy) for busy in (1, 2, 3, 6)] == pytest.approx([1, 1 / 1.25, 1 / 1.5, 1 / 3])
    assert [Machine(cores=1, slowdown=1.5).speed(busy) for busy in (1, 2)] == pytest.approx([1 / 1.5, 1 / 3])
    assert Machine().speed(1000) == 1.0


def test_the_event_loop_caps_the_rate_however_many_workers_there_are() -> None:
    items = arrivals(2000, 400.0)
    simulate(items, replace(ORDERED, workers=64, max_queued=10_000), lambda _: 0.001, Machine(cores=64, loop_item=0.005))
    assert len(items) / max(item.answered_at for item in items) == pytest.approx(200, rel=0.03)


def test_so_does_the_client() -> None:
    items = arrivals(2000, 400.0)
    simulate(items, replace(ORDERED, workers=64, max_queued=10_000), lambda _: 0.001, Machine(cores=64, client_item=0.005))
    assert len(items) / max(item.answered_at for item in items) == pytest.approx(200, rel=0.03)


def test_the_loop_starts_the_next_pass_before_it_answers() -> None:
    items = [Item(1, 0.0), Item(2, 0.05)]
    first, second = simulate(items, ONE_WORKER, tenth, Machine(loop_item=0.020))
    assert second.started == pytest.approx(first.ended)
    assert latencies(items) == pytest.approx([0.010 + 0.1 + 0.010, 0.060 + 0.1 + 0.010])


def test_what_the_loop_has_to_read_already_is_read_before_a_batch_is_taken() -> None:
    items = [Item(1, 0.0), Item(2, 0.001), Item(3, 0.002), Item(4, 0.015)]
    # The first is read until 0.010; the other two have come by then, and the last one has not.
    assert costs(simulate(items, ONE_WORKER, tenth, Machine(loop_item=0.020))) == [[1, 2, 3], [4]]


def test_so_it_is_while_a_worker_becomes_free() -> None:
    items = [Item(1, 0.0), Item(2, 0.105), Item(3, 0.106)]
    # The pass ends at 0.110, while the second is being read; the third is read before the loop looks after the worker.
    assert costs(simulate(items, ONE_WORKER, tenth, Machine(loop_item=0.020))) == [[1], [2, 3]]


def test_a_window_counts_from_when_the_loop_has_read_the_item() -> None:
    item = Item(10, 0.0)
    simulate([item], STRICT_WINDOW, by_cost, Machine(loop_item=0.020))
    assert item.latency == pytest.approx(0.010 + 0.040 + 0.010 + 0.010)


# --- several groups


def exponential(number: int, rate: float, mean_cost: int, seed: int = 1) -> list[Item]:
    """At random moments, of costs that are as good as exponentially distributed."""
    generator, moment, items = random.Random(seed), 0.0, []
    for _ in range(number):
        moment += generator.expovariate(rate)
        items.append(Item(1 + int(generator.expovariate(1 / mean_cost)), moment))
    return items


def mean_wait(items: Sequence[Item], seconds: PassSeconds) -> float:
    return statistics.fmean(item.latency - seconds([item.cost]) for item in items)


def test_of_one_group_it_does_not_matter_how_it_is_balanced() -> None:
    runs = []
    for balance in (least_loaded, in_turn(), by_connection(3, 1)):
        items = arrivals(500, 60.0)
        passes = simulate(items, LOOK_AHEAD, by_cost, Machine(cores=2, loop_item=0.001), groups=1, balance=balance)
        runs.append((latencies(items), costs(passes)))
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("balance", [least_loaded, in_turn(), by_connection(6, 1)], ids=["least loaded", "in turn", "connections"])
def test_every_item_of_several_groups_is_answered_once_or_found_no_place(balance: Balance) -> None:
    items = arrivals(2000, 100.0)
    machine = Machine(cores=3, slowdown=1.1, loop_item=0.001, loop_pass=0.001, client_item=0.001, pass_wait=0.001)
    passes = simulate(items, replace(LOOK_AHEAD, workers=1, max_queued=20), by_cost, machine, groups=3, balance=balance)
    passed = [item for one in passes for item in one.items]
    assert len(passed) == len(set(passed)) < len(items)
    assert set(passed) == {item for item in items if item.latency < math.inf}
    assert {one.group for one in passes} == {0, 1, 2}


def test_each_group_has_its_workers_and_no_others() -> None:
    passes = simulate(arrivals(500, 400.0), ORDERED, tenth, groups=3, balance=in_turn())
    for group in range(3):
        own = [one for one in passes if one.group == group]
        assert max(sum(other.started <= one.started < other.ended for other in own) for one in own) == ORDERED.workers


def test_an_item_may_wait_in_one_group_while_a_worker_of_another_is_free() -> None:
    items = [Item(200, 0.0), Item(10, 0.01), Item(10, 0.02)]
    simulate(items, ONE_WORKER, by_cost, groups=2, balance=in_turn())
    assert latencies(items) == pytest.approx([0.2, 0.01, 0.19])
    # It would not with one queue, nor if it went to the group with the fewest in hand.
    for policy, groups in ((ORDERED, 1), (ONE_WORKER, 2)):
        items = [Item(200, 0.0), Item(10, 0.01), Item(10, 0.03)]
        simulate(items, policy, by_cost, groups=groups, balance=least_loaded)
        assert latencies(items) == pytest.approx([0.2, 0.01, 0.01])


def test_what_was_refused_is_no_longer_in_hand() -> None:
    items = [Item(1, 0.0), Item(1, 0.01), Item(1, 0.02), Item(1, 0.03)]
    seen: list[list[int]] = []

    def first(in_hand: Sequence[int]) -> int:
        seen.append(list(in_hand))
        return 0

    simulate(items, replace(ONE_WORKER, max_queued=1), tenth, groups=2, balance=first)
    assert seen == [[0, 0], [1, 0], [2, 0], [2, 0]]


def test_groups_share_the_cores() -> None:
    items = [Item(100, 0.0), Item(100, 0.0)]
    simulate(items, ONE_WORKER, by_cost, Machine(cores=1), groups=2, balance=in_turn())
    assert latencies(items) == pytest.approx([0.2, 0.2])


def test_two_event_loops_do_twice_as_much_as_one() -> None:
    items = arrivals(4000, 800.0)
    policy = replace(ORDERED, workers=32, max_queued=10_000)
    simulate(items, policy, lambda _: 0.001, Machine(cores=64, loop_item=0.005), groups=2, balance=in_turn())
    assert len(items) / max(item.answered_at for item in items) == pytest.approx(400, rel=0.03)


def test_each_group_has_a_window_of_its_own() -> None:
    items = [Item(10, 0.0), Item(10, 0.020)]
    simulate(items, replace(STRICT_WINDOW, workers=1), by_cost, groups=2, balance=in_turn())
    assert latencies(items) == pytest.approx([0.050, 0.050])


def test_one_queue_waits_as_erlang_says_and_one_for_each_worker_as_that_of_a_lone_worker() -> None:
    load, workers, mean = 0.5, 4, 0.1001
    one_by_one = replace(ONE_BY_ONE, workers=workers)
    precise = lambda costs: 1e-4 * sum(costs)  # noqa: E731
    pooled, split = (exponential(20_000, load * workers / mean, 1000) for _ in range(2))
    simulate(pooled, one_by_one, precise)
    # So many connections that each item goes to a group at random.
    simulate(split, ONE_BY_ONE, precise, groups=workers, balance=by_connection(100_000, 1))
    offered = load * workers
    terms = [offered**number / math.factorial(number) for number in range(workers)]
    last = offered**workers / math.factorial(workers) / (1 - load)
    assert mean_wait(pooled, precise) == pytest.approx(last / (sum(terms) + last) * mean / (workers * (1 - load)), rel=0.1)
    assert mean_wait(split, precise) == pytest.approx(mean * load / (1 - load), rel=0.1)


def test_in_turn_items_of_equal_times_wait_as_long_as_in_one_queue() -> None:
    # Whoever came so many before it, as there are workers, is the first whose worker is free: the one whose turn it was.
    one, several = arrivals(4000, 0.7 * 4 / 0.1), arrivals(4000, 0.7 * 4 / 0.1)
    simulate(one, replace(ONE_BY_ONE, workers=4), tenth)
    simulate(several, ONE_BY_ONE, tenth, groups=4, balance=in_turn())
    assert latencies(several) == pytest.approx(latencies(one))


def test_balancing_by_request_is_better_than_at_random_and_few_connections_are_worse() -> None:
    def wait(balance: Balance) -> float:
        items = arrivals(4000, 0.7 * 4 / 0.1)
        simulate(items, ONE_BY_ONE, tenth, groups=4, balance=balance)
        return statistics.fmean(latencies(items)) - 0.1

    at_random = wait(by_connection(100_000, 1))
    assert max(wait(least_loaded), wait(in_turn())) < at_random / 2
    assert wait(by_connection(8, 1)) > 5 * at_random
