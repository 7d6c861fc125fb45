"""Figures of every problem type by hand, temperatures, and thresholds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.making.dataset import DatasetError, Example
from models.making.judge import choose_thresholds, judge_of
from models.making.metrics import average_precision, binary_calibration_error, exact_match, micro_f1, spearman
from models.problem import MultiLabel, OneLabel, Regression, sigmoid

# Three texts, three labels; the third label is never true nor predicted.
TRUE = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]], dtype=bool)
SCORES = np.array([[0.9, 0.6, 0.1], [0.4, 0.8, 0.2], [0.3, 0.1, 0.3]])


def test_several_labels_by_hand() -> None:
    judge = judge_of(MultiLabel(("a", "b", "c")))
    examples = [Example("x", ("a",)), Example("y", ("b", "a")), Example("z", ())]
    assert (judge.truth(examples) == TRUE).all()
    quality = judge.quality(TRUE, SCORES)
    # Predicted are a, b; b; none: 2 hits, 1 too many, 1 missing.
    assert quality.micro_f1 == pytest.approx(2 * 2 / (3 + 3))
    assert quality.exact_match == pytest.approx(1 / 3)
    a, b, c = quality.labels.values()
    assert (a.texts, a.precision, a.recall, a.f1) == (2, 1.0, 0.5, pytest.approx(2 / 3))
    assert (b.texts, b.precision, b.recall, b.f1) == (1, 0.5, 1.0, pytest.approx(2 / 3))
    assert (a.average_precision, b.average_precision) == (1.0, 1.0)
    assert c.texts == 0
    assert all(math.isnan(value) for value in (c.precision, c.recall, c.f1, c.average_precision))
    assert (quality.macro_f1, quality.mean_average_precision) == (pytest.approx(2 / 3), 1.0)
    told = quality.as_json()
    assert told["labels"]["c"]["f1"] is None
    assert told["labels"]["b"]["threshold"] == 0.5


def test_average_precision_counts_equal_scores_together() -> None:
    # At .9 one of one, at .5 two of three, at .1 three of five: each of the three texts has its precision.
    truth = np.array([True, True, False, True, False])
    scores = np.array([0.9, 0.5, 0.5, 0.1, 0.1])
    assert average_precision(truth, scores) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)


def test_nothing_true_and_nothing_predicted_is_right() -> None:
    nothing = np.zeros((2, 3), dtype=bool)
    assert (micro_f1(nothing, nothing), exact_match(nothing, nothing)) == (1.0, 1.0)


def test_calibration_of_one_label_by_hand() -> None:
    # One bin: half are true at a probability of 0.8; another: all at 0.2.
    assert binary_calibration_error(np.array([1, 0, 1, 1]), np.array([0.8, 0.8, 0.2, 0.2])) == pytest.approx((0.3 + 0.8) / 2)


def test_numbers_by_hand() -> None:
    judge = judge_of(Regression(("stars",)))
    quality = judge.quality(judge.truth([Example("x", 1.0), Example("y", 2.0), Example("z", 4.0)]), np.array([[1.5], [1.0], [9.0]]))
    assert quality.mae == pytest.approx((0.5 + 1 + 5) / 3)
    assert quality.spearman == pytest.approx(0.5)
    # Ties share their mean rank: 1.5, 1.5, 3 against 1, 2, 3.
    assert spearman(np.array([5.0, 5.0, 6.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(3**0.5 / 2)
    assert math.isnan(spearman(np.ones(3), np.arange(3.0)))
    assert judge.fit_temperature(np.ones(2), np.array([[5.0], [7.0]])) == 1.0


def test_a_probability_has_calibration_and_its_labels_bounds() -> None:
    judge = judge_of(OneLabel(("toxic",)))
    assert judge.figures == ["texts", "mae", "spearman", "ece", "nll"]
    quality = judge.quality(judge.truth([Example("x", 1.0), Example("y", 0.0)]), np.array([[0.8], [0.4]]))
    assert quality.mae == pytest.approx(0.3)
    assert quality.nll == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
    with pytest.raises(DatasetError, match="from 0 to 1, and there is 3"):
        judge.truth([Example("x", 3.0)])


def test_an_unknown_label_is_named() -> None:
    with pytest.raises(DatasetError, match=r"does not have: \['spam'\]"):
        judge_of(MultiLabel(("a", "b"))).truth([Example("x", ("a", "spam"))])


@pytest.mark.parametrize("problem", [MultiLabel(("a", "b")), OneLabel(("a",))])
def test_one_temperature_undoes_an_overconfident_scale_of_all_sigmoids(problem: MultiLabel | OneLabel) -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(4000, len(problem.labels)))
    truth = generator.random(logits.shape) < sigmoid(logits)
    judge = judge_of(problem)
    if len(problem.labels) == 1:
        truth = truth[:, 0]
    assert judge.fit_temperature(truth, 3.0 * logits) == pytest.approx(3.0, rel=0.1)
    sharp, calibrated = (judge.quality(truth, problem.scores(scale * logits)) for scale in (3.0, 1.0))
    assert calibrated.ece < sharp.ece / 3


def f1(truth: list[bool], scores: list[float], threshold: float) -> float:
    """By the definition, with probabilities as clients see them."""
    said = [round(score, 6) >= threshold for score in scores]
    hits = sum(a and b for a, b in zip(truth, said, strict=True))
    return 2 * hits / (sum(truth) + sum(said))


@given(st.lists(st.tuples(st.booleans(), st.floats(0.001, 0.999)), min_size=1, max_size=12))
def test_no_threshold_has_a_higher_f1_than_the_chosen_one(pairs: list[tuple[bool, float]]) -> None:
    truth, scores = map(list, zip(*pairs, strict=True))
    (chosen,) = choose_thresholds(np.array(truth)[:, None], np.array(scores)[:, None])
    assert 0 < chosen < 1
    if not any(truth):
        assert chosen == 0.5
        return
    best = f1(truth, scores, chosen)
    problem = MultiLabel(("a",), (chosen,))
    measured = judge_of(problem).quality(np.array(truth)[:, None], np.array(scores)[:, None])
    assert measured.labels["a"].f1 == pytest.approx(best)
    for threshold in (*scores, 0.0005, 0.5):
        assert best >= f1(truth, scores, round(threshold, 6)) - 1e-9
