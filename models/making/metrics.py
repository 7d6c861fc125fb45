"""What a classifier is judged by. Targets and predictions are class indices, shape [texts]; probabilities [texts, labels]."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]


def confusion_matrix(targets: Indices, predicted: Indices, labels: int) -> Indices:
    """Counts, shape [labels, labels]: rows are the true labels, columns the predicted ones."""
    matrix = np.zeros((labels, labels), dtype=np.int64)
    np.add.at(matrix, (targets, predicted), 1)
    return matrix


def accuracy(targets: Indices, predicted: Indices) -> float:
    """The share of texts whose predicted label is the true one."""
    return float((targets == predicted).mean())


def macro_f1(targets: Indices, predicted: Indices, labels: int) -> float:
    """The mean over labels of F1 = 2 TP / (2 TP + FP + FN); labels that occur neither in truth nor prediction are left out."""
    matrix = confusion_matrix(targets, predicted, labels)
    hits = np.diag(matrix)
    total = matrix.sum(axis=0) + matrix.sum(axis=1)
    present = total > 0
    return float((2 * hits[present] / total[present]).mean())


def expected_calibration_error(targets: Indices, probabilities: Floats, bins: int = 15) -> float:
    """ECE over equal-width confidence bins: the mean of |accuracy - confidence| weighted by bin size (Guo et al., 2017)."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == targets
    which = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
    total = 0.0
    for index in range(bins):
        members = which == index
        if members.any():
            total += float(members.mean()) * abs(float(correct[members].mean()) - float(confidence[members].mean()))
    return total


def negative_log_likelihood(targets: Indices, probabilities: Floats) -> float:
    """The mean of -log p(true label), in nats."""
    chosen = probabilities[np.arange(len(targets)), targets]
    return float(-np.log(np.clip(chosen, 1e-12, None)).mean())
