from __future__ import annotations

import math

import numpy as np
import pytest

from drift.bounds import binomial_below, lower_share, unlikely_chi_square, upper_share


def below(hits: int, n: int, share: float) -> float:
    return sum(math.comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(hits + 1))


@pytest.mark.parametrize("n", [1, 7, 40, 300])
def test_the_binomial_distribution_function_is_the_sum_of_its_terms(n: int) -> None:
    hits = np.arange(n, dtype=np.float64)
    for share in (1e-4, 0.03, 0.5, 0.9, 0.9999):
        found = binomial_below(hits, np.full(n, float(n)), np.full(n, share))
        assert found == pytest.approx([below(k, n, share) for k in range(n)], rel=1e-9, abs=1e-12)


def test_the_upper_bound_is_the_share_under_which_so_few_hits_have_the_probability_of_the_risk() -> None:
    for hits, n in ((0, 5), (3, 40), (40, 41), (100, 300)):
        assert below(hits, n, float(upper_share(hits, n, 1e-4))) == pytest.approx(1e-4, rel=1e-6)
    assert float(upper_share(0, 1000, 0.01)) == pytest.approx(1 - 0.01 ** (1 / 1000))
    # Far too many for the sum: one in a million, of a million texts.
    assert float(upper_share(500_000, 1_000_000, 1e-6)) == pytest.approx(0.5 + 4.7534 * 0.0005, abs=2e-6)


@pytest.mark.parametrize("risk", [0.01, 0.2])
def test_the_truth_lies_above_the_bound_with_the_risk_at_most(risk: float) -> None:
    n = 30
    bounds = upper_share(np.arange(n + 1), n, risk)
    chances = [math.comb(n, k) for k in range(n + 1)]
    for share in np.linspace(0.001, 0.999, 97).tolist():
        missed = sum(chances[k] * share**k * (1 - share) ** (n - k) for k in range(n + 1) if bounds[k] < share)
        assert missed <= risk
    assert 0.5 ** (1 / n) > bounds[0] > 0


def test_what_was_never_seen_may_be_all_or_nothing() -> None:
    assert float(upper_share(0, 0, 0.01)) == 1
    assert float(lower_share(0, 0, 0.01)) == 0
    assert float(upper_share(9, 9, 0.01)) == 1
    assert float(lower_share(3, 40, 0.01)) == pytest.approx(1 - float(upper_share(37, 40, 0.01)))


@pytest.mark.parametrize(("hits", "n", "risk"), [(-1, 3, 0.1), (4, 3, 0.1), (1, 3, 0.0), (1, 3, 1.0)])
def test_impossible_counts_are_refused(hits: int, n: int, risk: float) -> None:
    with pytest.raises(ValueError, match="hits must lie between"):
        upper_share(hits, n, risk)


def test_the_chi_square_rule_has_its_two_standard_errors() -> None:
    # Of 10 degrees of freedom, 20.48 has a probability of 2.5 %: 1.96 standard errors.
    assert unlikely_chi_square(20.6, 10, 1.96)
    assert not unlikely_chi_square(20.3, 10, 1.96)
    assert not unlikely_chi_square(99.0, 0, 1.96)
