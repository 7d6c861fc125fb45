"""What a model is judged by.

Where a text has one label, targets and predictions are class indices, shape [texts]; probabilities [texts, labels].
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]
Booleans = npt.NDArray[np.bool_]


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


# Of several labels a text: targets and predictions are booleans, probabilities floats, all of shape [texts, labels].


def f1_by_label(targets: Booleans, predicted: Booleans) -> Floats:
    """F1 of each label, shape [labels]; not a number for one that occurs neither in truth nor prediction."""
    hits = (targets & predicted).sum(axis=0)
    total = targets.sum(axis=0) + predicted.sum(axis=0)
    return np.where(total > 0, 2 * hits / np.maximum(total, 1), np.nan)


def micro_f1(targets: Booleans, predicted: Booleans) -> float:
    """F1 over all labels of all texts together; 1 where no label occurs, neither in truth nor prediction."""
    total = int(targets.sum() + predicted.sum())
    return 2 * int((targets & predicted).sum()) / total if total else 1.0


def exact_match(targets: Booleans, predicted: Booleans) -> float:
    """The share of texts whose predicted labels are the true ones, none missing and none too many."""
    return float((targets == predicted).all(axis=1).mean())


def average_precision(targets: Booleans, scores: Floats) -> float:
    """Of one label, both of shape [texts]: the mean over its texts of the precision at their scores; equal scores count together.
    Not a number without any such text.
    """
    if not targets.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # the last place of each score
    hits = np.cumsum(targets[order])[ends]
    return float((np.diff(hits, prepend=0) * hits / (ends + 1)).sum() / hits[-1])


def binary_calibration_error(targets: Floats, probabilities: Floats, bins: int = 15) -> float:
    """ECE of one label, both of shape [texts]: the mean over equal-width bins of |share of its texts - probability|,
    weighted by bin size. Targets may be shares themselves.
    """
    which = np.clip((probabilities * bins).astype(np.int64), 0, bins - 1)
    counts = np.bincount(which, minlength=bins)
    gaps = np.abs(np.bincount(which, targets - probabilities, bins))
    return float(gaps.sum() / counts.sum())


def binary_negative_log_likelihood(targets: Floats, probabilities: Floats) -> float:
    """The mean of -log p(truth) over texts and labels, in nats; both of one shape."""
    clipped = np.clip(probabilities, 1e-12, 1 - 1e-12)
    return float(-(targets * np.log(clipped) + (1 - targets) * np.log1p(-clipped)).mean())


# Of a number a text: both of shape [texts].


def mean_absolute_error(targets: Floats, numbers: Floats) -> float:
    """The mean of |number - truth|."""
    return float(np.abs(numbers - targets).mean())


def spearman(targets: Floats, numbers: Floats) -> float:
    """Spearman's rank correlation, -1 to 1: Pearson's of the ranks, equal values sharing their mean rank. Not a number where all
    truths, or all numbers, are equal.
    """
    ours, theirs = (ranks - ranks.mean() for ranks in (_ranks(targets), _ranks(numbers)))
    scale = np.sqrt((ours**2).sum() * (theirs**2).sum())
    return float((ours * theirs).sum() / scale) if scale else float("nan")


def _ranks(values: Floats) -> Floats:
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[which])
