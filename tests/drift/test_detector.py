"""The promise, by enumeration: what `drift.detector` numbers 1 to 4."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift.baseline import Baseline, BaselineError, learn
from drift.channels import Channel, Layout
from drift.detector import FEWEST_BLOCKS, MOVED, Detector, Experts, advance

LENGTH = Channel("length", "input", edges=(2.0, 5.0))
KIND = Channel("kind", "input", categories=("a", "b"))
LAYOUT = Layout([LENGTH, KIND, Channel("label", "output", categories=("x", "y", "z"))])
Array = npt.NDArray[np.float64]


def baseline(*strata: tuple[int, ...]) -> Baseline:
    return Baseline(LAYOUT, np.array(strata))


NORMAL = baseline((50, 900, 50, 800, 200, 500, 300, 200))
some_counts = st.lists(st.integers(0, 2000), min_size=8, max_size=8).map(tuple)


def worst(experts: Experts, expert: int, stratum: int, share: float, inside: Array) -> Array:
    """A distribution over the expert's channel whose tail has this share of its bound, spread as `inside` says."""
    tail = expert % len(experts.channels)
    mine = experts.tails[tail] > 0
    others = (experts.wholes[tail] > 0) & ~mine
    mass = share * experts.bounds[stratum, tail]
    return np.asarray(mine * inside / inside[mine].sum() * mass + others * inside / inside[others].sum() * (1 - mass))


@settings(deadline=None, max_examples=25)
@given(some_counts, some_counts, st.floats(0, 1), st.lists(st.floats(0.01, 1), min_size=8, max_size=8), st.floats(0, 0.1))
def test_an_experts_expected_evidence_is_at_most_one_over_the_null_region(
    night: tuple[int, ...], day: tuple[int, ...], share: float, inside: list[float], tolerance: float
) -> None:
    experts = Experts.of(baseline(night, day), "input", tolerance)
    texts = np.eye(LAYOUT.width, dtype=np.int64)
    for stratum in (0, 1):
        evidence = np.exp(experts.evidence(texts, stratum, cap=np.inf))
        for expert in range(evidence.shape[1]):
            chances = worst(experts, expert, stratum, share, np.array(inside))
            assert chances.sum() == pytest.approx(1)
            assert chances @ evidence[:, expert] <= 1 + 1e-9
            # At the bound itself nothing is given away.
            assert worst(experts, expert, stratum, 1.0, np.array(inside)) @ evidence[:, expert] == pytest.approx(1)


@settings(deadline=None, max_examples=15)
@given(st.floats(0.0, 3.0), st.integers(1, 3))
def test_blocks_of_several_texts_and_their_cap_keep_the_expectation(cap: float, texts: int) -> None:
    experts = Experts.of(NORMAL, "input")
    ones = np.eye(LAYOUT.width, dtype=np.int64)
    for expert in range(0, len(experts.log_weights), 3):
        chances = worst(experts, expert, 0, 1.0, np.ones(LAYOUT.width))
        mean = 0.0
        for bins in product(np.flatnonzero(chances).tolist(), repeat=texts):
            mean += np.prod(chances[list(bins)]) * np.exp(experts.evidence(ones[list(bins)].sum(axis=0), 0, cap)[expert])
        assert mean <= 1 + 1e-9


def test_after_so_many_blocks_the_mean_of_m_is_at_most_so_many() -> None:
    experts = Experts.of(NORMAL, "input")
    ones = np.eye(LAYOUT.width, dtype=np.int64)
    for expert in range(len(experts.log_weights)):
        chances = worst(experts, expert, 0, 1.0, np.ones(LAYOUT.width))
        mean = 0.0
        for bins in product(np.flatnonzero(chances).tolist(), repeat=3):
            log_m = np.full(len(experts.log_weights), -np.inf)
            for place in bins:
                log_m = advance(log_m, experts.evidence(ones[place], 0, 5.0))
            mean += np.prod(chances[list(bins)]) * np.exp(log_m[expert])
        assert mean <= 3 + 1e-9


def test_time_alone_is_no_evidence_and_blocks_without_a_text_keep_the_expectation() -> None:
    experts, nothing = Experts.of(NORMAL, "input"), 0
    outcomes = [*np.eye(LAYOUT.width, dtype=np.int64), np.zeros(LAYOUT.width, dtype=np.int64)]
    for expert in range(0, len(experts.log_weights), 3):
        # Of the blocks, 2 in 5 have no text.
        chances = np.append(worst(experts, expert, 0, 1.0, np.ones(LAYOUT.width)) * 0.6, 0.4)
        mean = 0.0
        for block in product(np.flatnonzero(chances).tolist(), repeat=3):
            log_m = np.full(len(experts.log_weights), -np.inf)
            for place in block:
                log_m = advance(log_m, experts.evidence(outcomes[place], 0, 5.0))
            mean += np.prod(chances[list(block)]) * np.exp(log_m[expert])
            nothing += np.isneginf(log_m[expert])
        assert mean <= 3 * 0.6 + 1e-9
    assert nothing
    detector = Detector(NORMAL, "input", blocks=1000)
    for _ in range(2000):
        assert detector.advance(np.zeros(LAYOUT.width, dtype=np.int64)) == -np.inf


def test_the_mean_time_to_a_false_alarm_is_at_least_the_promise_at_the_edge_of_the_null_region() -> None:
    promised, runs = 60.0, []
    rng = np.random.default_rng(0)
    detector = Detector(NORMAL, "input", blocks=promised)
    experts = detector.experts
    tail = next(k for k in range(len(experts.channels)) if experts.tails[k, :3].tolist() == [0, 0, 1])
    edge = worst(experts, tail, 0, 1.0, NORMAL.counts[0] / 1000)
    for _ in range(150):
        detector, block = Detector(NORMAL, "input", blocks=promised), 0
        while detector.evidence < detector.threshold and block < 600:
            detector.advance(rng.multinomial(20, edge))
            block += 1
        runs.append(block)
    assert np.mean(runs) >= promised


def test_a_shift_is_found_and_its_tail_and_beginning_named() -> None:
    detector = Detector(NORMAL, "input", blocks=525_600)
    rng = np.random.default_rng(0)
    normal, shifted = np.array([0.05, 0.9, 0.05, 0, 0, 0, 0, 0]), np.array([0.05, 0.5, 0.45, 0, 0, 0, 0, 0])
    for _ in range(500):
        assert detector.advance(rng.multinomial(16, normal)) < detector.threshold
    blocks = 0
    while detector.advance(rng.multinomial(16, shifted)) < detector.threshold:
        blocks += 1
    tail, began = detector.leader()
    assert blocks < 20
    assert abs(began - 500) <= 3
    assert LENGTH.describe(detector.experts.tails[tail, :3].astype(bool)) == "length at least 5"


def test_one_block_alone_never_alarms_however_strange_it_is() -> None:
    detector = Detector(NORMAL, "input", blocks=525_600)
    flood = np.array([0, 0, 10_000_000, 0, 10_000_000, 0, 0, 0])
    for _ in range(FEWEST_BLOCKS - 1):
        assert detector.advance(flood) < detector.threshold - 1
    assert any(detector.advance(flood) >= detector.threshold for _ in range(3))


def test_evidence_is_forgotten_when_the_shift_ends() -> None:
    detector = Detector(NORMAL, "input", blocks=525_600)
    for _ in range(50):
        detector.advance(np.array([0, 0, 16, 8, 8, 0, 0, 0]))
    high = detector.evidence
    for _ in range(200):
        detector.advance(np.array([1, 14, 1, 13, 3, 0, 0, 0]))
    assert detector.evidence < high / 3


def test_a_block_without_texts_is_no_evidence() -> None:
    experts = Experts.of(NORMAL, "input")
    assert not experts.evidence(np.zeros(LAYOUT.width, dtype=np.int64), 0, 5.0).any()


def test_without_baseline_texts_nothing_is_evidence() -> None:
    experts = Experts.of(learn(LAYOUT, []), "input")
    assert not experts.evidence(np.full(LAYOUT.width, 1000), 0, np.inf).any()


def test_channels_have_equal_weight_and_the_weights_sum_to_one() -> None:
    experts = Experts.of(NORMAL, "input")
    weights = np.exp(experts.log_weights)
    assert weights.sum() == pytest.approx(1)
    length = np.tile([channel is LENGTH for channel in experts.channels], len(MOVED))
    assert weights[length].sum() == pytest.approx(0.5)


def test_a_stratum_has_the_bounds_of_its_own_texts() -> None:
    night, day = (900, 50, 50, 800, 200, 0, 0, 0), (50, 50, 900, 800, 200, 0, 0, 0)
    experts = Experts.of(baseline(night, day), "input")
    long_texts = np.array([0, 0, 10, 0, 0, 0, 0, 0])
    assert experts.evidence(long_texts, 0, np.inf).max() > 5
    assert experts.evidence(long_texts, 1, np.inf).max() < 1


def test_a_level_without_channels_and_a_promise_of_nothing_are_refused() -> None:
    with pytest.raises(BaselineError, match="no channel of level outcome"):
        Detector(NORMAL, "outcome", blocks=100)
    with pytest.raises(ValueError, match="more than one block"):
        Detector(NORMAL, "input", blocks=1)
