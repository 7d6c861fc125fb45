"""Problem types: from logits to scores, and from scores to what is answered."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.problem import MultiLabel, OneLabel, Problem, ProblemType, Regression, SingleLabel, problem_of, sigmoid
from models.types import Prediction

LABELS = ("billing", "general", "technical")


def predicted(problem: Problem, *logits: float) -> Prediction:
    """As a classifier makes it."""
    scores = problem.scores(np.array([logits], dtype=np.float32))[0].tolist()
    best = scores.index(max(scores))
    return Prediction(problem.labels[best], scores[best], tuple(scores), logits)


def test_a_single_label_is_the_most_probable_one() -> None:
    problem = SingleLabel(LABELS)
    prediction = predicted(problem, 2.0, 0.0, -1.0)
    assert sum(prediction.scores) == pytest.approx(1)
    assert problem.record(prediction) == {"label": "billing", "confidence": 0.843795}
    assert problem.chosen(prediction) == [0]
    assert (problem.abstains(0.7, 0.7), problem.abstains(0.7, 0.700001)) == (False, True)


def test_several_labels_are_those_that_reach_their_thresholds_the_surest_first() -> None:
    problem = MultiLabel(LABELS, (0.5, 0.9, 0.1))
    prediction = predicted(problem, 1.0, 2.0, 1.5)
    assert problem.record(prediction) == {"labels": ["technical", "billing"], "confidences": [0.817574, 0.731059]}
    assert problem.answer(predicted(problem, -1.0, 2.0, -3.0)) == []
    assert (problem.abstains([0.8, 0.6], 0.6), problem.abstains([0.8, 0.6], 0.7), problem.abstains([], 1.0)) == (False, True, False)


def test_a_threshold_is_reached_by_the_probability_that_the_client_sees() -> None:
    problem = MultiLabel(("a",), (0.75,))
    for score, answer in ((0.7499994, []), (0.7499996, ["a"]), (0.75, ["a"])):
        prediction = Prediction("a", score, (score,), (0.0,))
        assert problem.answer(prediction) == answer
        assert problem.predicted(np.array([[score]])).tolist() == [[bool(answer)]]


def test_one_label_is_a_probability_and_regression_the_number_itself() -> None:
    for problem, answer in ((OneLabel(("toxic",)), 0.880797), (Regression(("stars",)), 2.0)):
        prediction = predicted(problem, 2.0)
        assert problem.record(prediction) == {"value": answer}
        assert (problem.answer(prediction), problem.sureness(prediction)) == (answer, None)
        assert not problem.abstains(None, 1.0)
        assert not problem.predicted(np.array([[2.0]])).any()


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=4))
def test_a_sigmoid_never_overflows_and_is_symmetric(logits: list[float]) -> None:
    values, mirrored = sigmoid(np.array(logits)), sigmoid(-np.array(logits))
    assert ((values >= 0) & (values <= 1)).all()
    assert np.abs(values + mirrored - 1).max() < 1e-12


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0.01, 0.99)), min_size=1, max_size=6))
def test_measuring_and_answering_predict_the_same_labels(pairs: list[tuple[float, float]]) -> None:
    scores, thresholds = zip(*pairs, strict=True)
    problem = MultiLabel([str(number) for number in range(len(pairs))], thresholds)
    prediction = Prediction("0", 0.0, scores, scores)
    assert set(problem.chosen(prediction)) == set(np.flatnonzero(problem.predicted(np.array([scores]))[0]))


@pytest.mark.parametrize(
    ("kind", "labels", "thresholds", "message"),
    [
        ("single-label", ["a"], [], "two or more"),
        ("single-label", ["a", "b"], [0.5, 0.5], "has none"),
        ("multi-label", ["a", "b"], [0.5], "1 for 2 labels"),
        ("one-label", ["a", "b"], [], "has one, not 2"),
        ("regression", ["a", "b"], [], "has one, not 2"),
        ("regression", ["a"], [0.5], "has none"),
    ],
)
def test_labels_and_thresholds_must_fit(kind: ProblemType, labels: list[str], thresholds: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        problem_of(kind, labels, thresholds)
