"""What training asks of a problem type: targets for torch, the loss, and what the best epoch is chosen by. Needs torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from models.making.dataset import Example
from models.making.judge import Judge, Truth, judge_of
from models.making.metrics import Floats
from models.problem import Problem, ProblemType


class Task:
    """One label a text: cross-entropy, and the best epoch by macro-F1."""

    figures: tuple[str, ...] = ("accuracy", "macro_f1")
    # The figure that the best epoch is chosen by, and whether more of it is better.
    best: tuple[str, int] = ("macro_f1", 1)

    def __init__(self, judge: Judge, label_smoothing: float) -> None:
        self.judge = judge
        self._smoothing = label_smoothing

    def targets(self, examples: Sequence[Example]) -> npt.NDArray[Any]:
        """What `loss` takes, a row a text."""
        return self.judge.truth(examples)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The mean over a batch, from logits of shape [texts, labels]."""
        return torch.nn.functional.cross_entropy(logits, targets, label_smoothing=self._smoothing)

    def judged(self, truth: Truth, logits: Floats) -> tuple[dict[str, float], float]:
        """The figures by name, and the score by which the best epoch is chosen: more is better."""
        quality = self.judge.quality(truth, self.judge.problem.scores(logits))
        figure, sign = self.best
        score = sign * getattr(quality, figure)
        # Of dev texts without any label there is no such figure.
        return {name: getattr(quality, name) for name in self.figures}, score if math.isfinite(score) else -math.inf


class _Sigmoids(Task):
    """Any number of labels: binary cross-entropy of each. By mean average precision, since thresholds are chosen later."""

    figures = ("micro_f1", "mean_average_precision")
    best = ("mean_average_precision", 1)

    def targets(self, examples: Sequence[Example]) -> npt.NDArray[Any]:
        """Floats of shape [texts, labels]."""
        truth = self.judge.truth(examples).astype(np.float32)
        return truth.reshape(len(examples), -1)

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Label smoothing draws each target towards one half."""
        smooth = targets * (1 - self._smoothing) + 0.5 * self._smoothing
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, smooth)


class _Probability(_Sigmoids):
    """The probability of one label: binary cross-entropy, also with shares between 0 and 1."""

    figures = ("mae", "spearman")
    best = ("mae", -1)


class _Number(_Probability):
    """A number: squared error."""

    def loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Smoothing has no meaning here."""
        return torch.nn.functional.mse_loss(logits, targets)


_TASKS: Final[dict[ProblemType, type[Task]]] = {
    "single-label": Task,
    "multi-label": _Sigmoids,
    "one-label": _Probability,
    "regression": _Number,
}


def task_of(problem: Problem, label_smoothing: float) -> Task:
    """The task of a problem type."""
    return _TASKS[problem.type](judge_of(problem), label_smoothing)
