"""Predictions as numbers for labels, in the ways that other servers' clients ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import Final

from typing_extensions import TypedDict

from models.types import Prediction

# Far below what INT8 can tell apart, and sums of probabilities stay 1 to a few millionths.
DECIMALS: Final = 6


class Function(Enum):
    """What is applied to the logits, by the name that transformers' pipelines have for it."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NONE = "none"


class Score(TypedDict):
    """One label's number."""

    label: str
    score: float


def values(prediction: Prediction, function: Function = Function.SOFTMAX) -> list[float]:
    """A number for each label, in their order.

    Softmax gives the calibrated probabilities, which are those of the logits divided by the bundle's temperature; the others are of
    the logits as they are.
    """
    if function is Function.SOFTMAX:
        found: Sequence[float] = prediction.scores
    elif function is Function.NONE:
        found = prediction.logits
    else:
        found = [_sigmoid(logit) for logit in prediction.logits]
    return [round(value, DECIMALS) for value in found]


def _sigmoid(value: float) -> float:
    """The logistic function; written with tanh, it cannot overflow."""
    return 0.5 * (1 + math.tanh(value / 2))


def scores(labels: Sequence[str], numbers: Sequence[float]) -> list[Score]:
    """The numbers with their labels, in the order of the labels."""
    return [{"label": label, "score": number} for label, number in zip(labels, numbers, strict=True)]


def ranked(labels: Sequence[str], numbers: Sequence[float], top: int | None = None) -> list[Score]:
    """The highest `top` numbers with their labels, or all, the highest first."""
    return sorted(scores(labels, numbers), key=lambda score: -score["score"])[:top]
