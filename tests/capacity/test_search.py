"""The search for the highest rate, on a server that is a formula."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from capacity.search import MOST_RATES, OutOfTime, search


def limited(limit: float, noise: float = 0.0, seed: int = 1) -> tuple[Callable[[float], bool], list[tuple[float, bool]]]:
    """A server that is good up to a limit, as it seems through noise; and what was asked of it."""
    generator, asked = random.Random(seed), list[tuple[float, bool]]()

    def is_good(rate: float) -> bool:
        asked.append((rate, rate * generator.lognormvariate(0, noise) <= limit))
        return asked[-1][1]

    return is_good, asked


@pytest.mark.parametrize("guess", [50.0, 400.0, 500.0, 600.0, 3000.0])
def test_without_noise_the_limit_lies_between_two_rates_that_are_near(guess: float) -> None:
    is_good, _ = limited(510.0)
    found = search(is_good, guess, tolerance=0.04)
    assert found.confirmed is not None
    assert found.rejected is not None
    assert found.confirmed <= 510 < found.rejected
    assert found.ratio <= 1.04


def test_with_noise_it_is_near_takes_a_bounded_number_of_tries_and_reports_no_rejected_rate() -> None:
    for seed in range(200):
        is_good, asked = limited(510.0, noise=0.05, seed=seed)
        found = search(is_good, 600.0, tolerance=0.04)
        assert len(asked) <= 3 * MOST_RATES
        assert found.confirmed is not None
        assert found.confirmed == pytest.approx(510, rel=0.15)
        verdicts = [good for rate, good in asked if rate == found.confirmed]
        assert verdicts.count(True) == 2
        assert found.confirmed < (found.rejected or math.inf)


def test_a_try_that_was_disturbed_decides_nothing() -> None:
    is_good, asked = limited(510.0)
    found = search(lambda rate: is_good(rate) and len(asked) != 1, 500.0, tolerance=0.04)
    assert found.confirmed is not None
    assert found.confirmed >= 500


def test_where_no_rate_or_every_rate_is_good_it_ends_all_the_same() -> None:
    assert search(lambda _: False, 500.0, tolerance=0.04).confirmed is None
    assert search(lambda _: True, 500.0, tolerance=0.04).rejected is None


def test_when_time_is_up_it_says_what_is_known() -> None:
    is_good, asked = limited(510.0)

    def in_time(rate: float) -> bool:
        if len(asked) == 5:
            raise OutOfTime
        return is_good(rate)

    # 500 was good twice, 575 bad twice; of the rate between them, there was one try.
    found = search(in_time, 500.0, tolerance=0.04)
    assert found.confirmed == 500.0
    assert found.rejected == pytest.approx(575.0)
