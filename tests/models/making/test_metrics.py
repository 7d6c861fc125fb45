import numpy as np
import pytest

from models.making.evaluate import agreement
from models.making.judge import LabelJudge
from models.making.metrics import accuracy, confusion_matrix, expected_calibration_error, macro_f1, negative_log_likelihood
from models.problem import SingleLabel, softmax

TRUE = np.array([0, 0, 1, 1, 2, 2])
PREDICTED = np.array([0, 1, 1, 1, 2, 0])


def test_confusion_rows_are_true_labels() -> None:
    assert confusion_matrix(TRUE, PREDICTED, 3).tolist() == [[1, 1, 0], [0, 2, 0], [1, 0, 1]]


def test_accuracy_and_macro_f1_by_hand() -> None:
    assert accuracy(TRUE, PREDICTED) == pytest.approx(4 / 6)
    # F1: class 0 is 2*1/(2+1+1), class 1 is 2*2/(4+1+0), class 2 is 2*1/(2+0+1)
    assert macro_f1(TRUE, PREDICTED, 3) == pytest.approx((1 / 2 + 4 / 5 + 2 / 3) / 3)


def test_macro_f1_leaves_out_labels_that_never_occur() -> None:
    assert macro_f1(np.array([0, 1]), np.array([0, 1]), 3) == 1.0


def test_ece_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    targets = np.array([0, 1, 0, 0])
    # confident bin: accuracy 0.5 against 0.9; the other: 1.0 against 0.6; half of the texts each
    assert expected_calibration_error(targets, probabilities) == pytest.approx(0.4)


def test_nll_of_certain_truth_is_zero_and_of_certain_error_is_finite() -> None:
    assert negative_log_likelihood(np.array([0]), np.array([[1.0, 0.0]])) == 0.0
    assert np.isfinite(negative_log_likelihood(np.array([1]), np.array([[1.0, 0.0]])))


def test_the_fitted_temperature_undoes_an_overconfident_scale() -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(size=(4000, 3))
    targets = np.array([generator.choice(3, p=row) for row in softmax(logits)])
    judge = LabelJudge(SingleLabel(("a", "b", "c")))
    assert judge.fit_temperature(targets, 3.0 * logits) == pytest.approx(3.0, rel=0.1)
    sharp, calibrated = (judge.quality(targets, softmax(scale * logits)) for scale in (3.0, 1.0))
    assert calibrated.ece < sharp.ece / 3
    assert calibrated.accuracy == sharp.accuracy


def test_agreement_by_hand() -> None:
    seen = agreement(SingleLabel(("a", "b")), np.array([[0.6, 0.4], [0.2, 0.8]]), np.array([[0.4, 0.6], [0.1, 0.9]]))
    assert seen.label_match == 0.5
    assert seen.largest_probability_change == pytest.approx(0.2)
    assert seen.mean_probability_change == pytest.approx(0.15)
