"""Predictions as numbers for labels, in the ways that other servers' clients ask for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from typing import Self

import numpy as np
from typing_extensions import TypedDict

from models.problem import DECIMALS, Problem, softmax
from models.types import Prediction


class Function(Enum):
    """What is applied to the logits, by the name that transformers' pipelines have for it; `OWN` is what the problem type applies,
    after temperature.
    """

    OWN = "own"
    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"
    NONE = "none"

    @classmethod
    def of(cls, asked: str | None, problem: Problem) -> Self:
        """What was asked for by its name. Who asks for what the problem type applies anyway gets its calibrated scores."""
        return cls("own" if asked in {None, problem.activation} else asked)

    @classmethod
    def of_probability(cls, problem: Problem) -> Self:
        """What makes probabilities, also of a model that gives numbers: for those who cannot take others."""
        return cls.of(problem.probability, problem)


class Score(TypedDict):
    """One label's number."""

    label: str
    score: float


def values(prediction: Prediction, function: Function = Function.OWN) -> list[float]:
    """A number for each label, in their order.

    What the problem type applies gives the calibrated probabilities, which are those of the logits divided by the bundle's
    temperature, or the number; other functions are of the logits as they are.
    """
    if function is Function.OWN:
        found: Sequence[float] = prediction.scores
    elif function is Function.NONE:
        found = prediction.logits
    elif function is Function.SOFTMAX:
        found = softmax(np.array(prediction.logits)).tolist()
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


def chosen(problem: Problem, prediction: Prediction, numbers: Sequence[float]) -> list[Score]:
    """What is answered, with these numbers of all labels: one label, all predicted ones, or what the number is of."""
    return [{"label": problem.labels[index], "score": numbers[index]} for index in problem.chosen(prediction)]
