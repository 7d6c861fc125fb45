from __future__ import annotations

import contextlib
import math
import select
from itertools import pairwise
from statistics import mean, stdev
from time import perf_counter

from loadtest.arrivals import Alarm, Pace, poisson


def test_the_moments_are_those_of_a_poisson_process() -> None:
    moments = list(poisson([Pace("", 100, 200)], seed=3))
    gaps = [after - before for before, after in pairwise(moments)]
    # 20,000 arrivals, give or take four standard deviations; exponential gaps spread as much as they last.
    assert abs(len(moments) - 20_000) < 4 * math.sqrt(20_000)
    assert abs(stdev(gaps) / mean(gaps) - 1) < 0.03
    # Counts in equal windows scatter as much as they are large; evenly spaced moments would not scatter at all.
    counts = [sum(1 for moment in moments if second <= moment < second + 1) for second in range(100)]
    assert 0.6 < stdev(counts) ** 2 / mean(counts) < 1.5


def test_each_pace_has_its_own_rate_and_time() -> None:
    paces = [Pace("slow", 10, 10), Pace("none", 5, 0), Pace("fast", 10, 1000)]
    moments = list(poisson(paces, seed=1))
    assert moments == sorted(moments)
    assert 60 < sum(moment < 10 for moment in moments) < 140
    assert not [moment for moment in moments if 10 <= moment < 15]
    assert 9_600 < sum(15 <= moment < 25 for moment in moments) < 10_400
    assert moments[-1] < 25


def test_the_same_seed_gives_the_same_moments_and_another_does_not() -> None:
    paces = [Pace("", 1, 100)]
    assert list(poisson(paces, 5)) == list(poisson(paces, 5))
    assert list(poisson(paces, 5)) != list(poisson(paces, 6))


def test_an_alarm_rings_at_its_moment_and_not_before_and_for_a_past_one_at_once() -> None:
    with contextlib.closing(Alarm()) as alarm:
        for moment in (perf_counter() + 0.02, perf_counter() + 0.0003, perf_counter() - 1):
            alarm.set(moment)
            assert select.select([alarm], [], [], 10)[0] == [alarm]
            assert perf_counter() >= moment
            alarm.clear()
            assert select.select([alarm], [], [], 0)[0] == []
