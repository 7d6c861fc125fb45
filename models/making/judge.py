"""How well a model does on labelled texts, by its problem type: the truth as arrays, the figures, and what calibrates it.

A truth is an array with a row for each text: class indices (single-label), booleans of shape [texts, labels] (multi-label), or
numbers of shape [texts] (one-label and regression). Scores are those of `models.problem`, shape [texts, labels].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from models.making.dataset import DatasetError, Example, labels_of
from models.making.metrics import (
    Booleans,
    Floats,
    Indices,
    accuracy,
    average_precision,
    binary_calibration_error,
    binary_negative_log_likelihood,
    confusion_matrix,
    exact_match,
    expected_calibration_error,
    f1_by_label,
    macro_f1,
    mean_absolute_error,
    micro_f1,
    negative_log_likelihood,
    spearman,
)
from models.problem import DECIMALS, DEFAULT_THRESHOLD, MultiLabel, Problem, ProblemType
from models.tables import LabelKind

Truth: TypeAlias = npt.NDArray[Any]
# The temperatures that are tried.
COLDEST, HOTTEST = 0.05, 8.0


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures over one labelled set; those that do not exist there are not a number."""

    texts: int

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps` and the manifest: None for what is not a number."""
        return {name: _finite(value) for name, value in asdict(self).items()}


def _finite(value: object) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, slots=True)
class LabelQuality(Quality):
    """Of texts with one label each; `confidence` is the mean; `confusion` rows are true labels, columns predicted ones, in the
    classifier's order.
    """

    accuracy: float
    macro_f1: float
    ece: float
    nll: float
    confusion: list[list[int]]
    confidence: float


@dataclass(frozen=True, slots=True)
class OneOfSeveral:
    """Of one label among several: in how many texts it is; precision, recall and F1 at its threshold; average precision; ECE."""

    texts: int
    threshold: float
    precision: float
    recall: float
    f1: float
    average_precision: float
    ece: float


@dataclass(frozen=True, slots=True)
class LabelsQuality(Quality):
    """Of texts with any number of labels. Macro-F1 and mean average precision are over the labels that have such a figure, `ece` is
    the mean over labels, `nll` that over texts and labels; `labels` has each label's own figures.
    """

    micro_f1: float
    macro_f1: float
    mean_average_precision: float
    exact_match: float
    ece: float
    nll: float
    labels: dict[str, OneOfSeveral]


@dataclass(frozen=True, slots=True)
class NumberQuality(Quality):
    """Of texts with a number each: mean absolute error, and Spearman's rank correlation."""

    mae: float
    spearman: float


@dataclass(frozen=True, slots=True)
class ProbabilityQuality(NumberQuality):
    """The same where the number is a probability, and its calibration."""

    ece: float
    nll: float


class Judge(ABC):
    """Judges models of one problem type."""

    # How texts are labelled, and the figures there are.
    kind: ClassVar[LabelKind]
    quality_type: ClassVar[type[Any]]
    # Whether a temperature calibrates the scores.
    has_temperature: ClassVar[bool] = True

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    @property
    def figures(self) -> list[str]:
        """The names of the figures, as `quality` has them."""
        return [field.name for field in fields(self.quality_type)]

    @abstractmethod
    def truth(self, examples: Sequence[Example]) -> Truth:
        """What is true of the texts. Raises `DatasetError` for labels that the model does not have."""

    @abstractmethod
    def loss(self, truth: Truth, scores: Floats) -> float:
        """What the best temperature makes least."""

    @abstractmethod
    def quality(self, truth: Truth, scores: Floats) -> Any:  # noqa: ANN401 - the judge's own kind of `Quality`
        """Judge scores by the truth."""

    def fit_temperature(self, truth: Truth, logits: Floats) -> float:
        """The temperature in [0.05, 8] with the least loss (temperature scaling, Guo et al., 2017); 1 where there is none.

        The loss has one minimum in the inverse temperature, so a golden-section search over its logarithm finds it.
        """
        if not self.has_temperature:
            return 1.0
        low, high = math.log(COLDEST), math.log(HOTTEST)
        ratio = (5**0.5 - 1) / 2

        def loss(log_temperature: float) -> float:
            return self.loss(truth, self.problem.scores(logits / np.exp(log_temperature)))

        while high - low > 1e-4:
            left, right = high - ratio * (high - low), low + ratio * (high - low)
            if loss(left) < loss(right):
                high = right
            else:
                low = left
        return math.exp((low + high) / 2)


class LabelJudge(Judge):
    """One label a text."""

    kind = LabelKind.ONE
    quality_type = LabelQuality

    def truth(self, examples: Sequence[Example]) -> Indices:
        """Class indices, shape [texts]."""
        return targets_of(examples, self.problem.labels)

    def loss(self, truth: Truth, scores: Floats) -> float:
        """The negative log-likelihood."""
        return negative_log_likelihood(truth, scores)

    def quality(self, truth: Truth, scores: Floats) -> LabelQuality:
        """Accuracy, macro-F1, calibration."""
        predicted = scores.argmax(axis=1).astype(np.int64)
        labels = scores.shape[1]
        return LabelQuality(
            texts=len(truth),
            accuracy=accuracy(truth, predicted),
            macro_f1=macro_f1(truth, predicted, labels),
            confidence=float(scores.max(axis=1).mean()),
            ece=expected_calibration_error(truth, scores),
            nll=negative_log_likelihood(truth, scores),
            confusion=confusion_matrix(truth, predicted, labels).tolist(),
        )


class LabelsJudge(Judge):
    """Any number of labels a text. One temperature is fitted for all labels together."""

    kind = LabelKind.SEVERAL
    quality_type = LabelsQuality

    def truth(self, examples: Sequence[Example]) -> Booleans:
        """Which labels each text has, shape [texts, labels]."""
        index = _index_of(examples, self.problem.labels)
        found = np.zeros((len(examples), len(index)), dtype=bool)
        for row, example in enumerate(examples):
            found[row, [index[label] for label in labels_of(example)]] = True
        return found

    def loss(self, truth: Truth, scores: Floats) -> float:
        """The negative log-likelihood of each label's truth."""
        return binary_negative_log_likelihood(truth, scores)

    def quality(self, truth: Truth, scores: Floats) -> LabelsQuality:
        """F1, average precision, exact match, calibration of each label."""
        predicted = self.problem.predicted(scores)
        f1 = f1_by_label(truth, predicted)
        labels: dict[str, OneOfSeveral] = {}
        for number, label in enumerate(self.problem.labels):
            true, said, score = truth[:, number], predicted[:, number], scores[:, number]
            hits = int((true & said).sum())
            labels[label] = OneOfSeveral(
                texts=int(true.sum()),
                threshold=self.problem.thresholds[number],
                precision=_ratio(hits, int(said.sum())),
                recall=_ratio(hits, int(true.sum())),
                f1=float(f1[number]),
                average_precision=average_precision(true, score),
                ece=binary_calibration_error(true, score),
            )
        return LabelsQuality(
            texts=len(truth),
            micro_f1=micro_f1(truth, predicted),
            macro_f1=_mean([found.f1 for found in labels.values()]),
            mean_average_precision=_mean([found.average_precision for found in labels.values()]),
            exact_match=exact_match(truth, predicted),
            ece=_mean([found.ece for found in labels.values()]),
            nll=self.loss(truth, scores),
            labels=labels,
        )


class NumberJudge(Judge):
    """A number a text. There is nothing that a temperature could calibrate."""

    kind = LabelKind.NUMBER
    quality_type: ClassVar[type[Any]] = NumberQuality
    has_temperature = False

    def truth(self, examples: Sequence[Example]) -> Floats:
        """The numbers, shape [texts]."""
        return np.array([number_of(example) for example in examples])

    def loss(self, truth: Truth, scores: Floats) -> float:
        """The mean squared error."""
        return float(((scores[:, 0] - truth) ** 2).mean())

    def quality(self, truth: Truth, scores: Floats) -> NumberQuality:
        """Errors and order."""
        numbers = scores[:, 0]
        return NumberQuality(len(truth), mean_absolute_error(truth, numbers), spearman(truth, numbers))


class ProbabilityJudge(NumberJudge):
    """A probability a text: its labels are 0 and 1, or shares between."""

    quality_type = ProbabilityQuality
    has_temperature = True

    def truth(self, examples: Sequence[Example]) -> Floats:
        """The shares, shape [texts]."""
        found = super().truth(examples)
        if wrong := [value for value in found.tolist() if not 0 <= value <= 1]:
            raise DatasetError(f"labels of a one-label model are from 0 to 1, and there is {wrong[0]:g}")
        return found

    def loss(self, truth: Truth, scores: Floats) -> float:
        """The negative log-likelihood."""
        return binary_negative_log_likelihood(truth, scores[:, 0])

    def quality(self, truth: Truth, scores: Floats) -> ProbabilityQuality:
        """Errors, order and calibration."""
        numbers = scores[:, 0]
        mae, order = mean_absolute_error(truth, numbers), spearman(truth, numbers)
        return ProbabilityQuality(len(truth), mae, order, binary_calibration_error(truth, numbers), self.loss(truth, scores))


JUDGES: Final[dict[ProblemType, type[Judge]]] = {
    "single-label": LabelJudge,
    "multi-label": LabelsJudge,
    "one-label": ProbabilityJudge,
    "regression": NumberJudge,
}


def judge_of(problem: Problem) -> Judge:
    """Who judges models of a problem type."""
    return JUDGES[problem.type](problem)


def choose_thresholds(truth: Booleans, probabilities: Floats) -> list[float]:
    """For each label the threshold with the highest F1 on these texts, in the middle between two probabilities, to 6 decimals.

    Of several that are as good, the one nearest to 0.5. A label that no text has keeps 0.5.
    """
    return [_best_threshold(truth[:, number], probabilities[:, number]) for number in range(truth.shape[1])]


def _best_threshold(truth: Booleans, probabilities: Floats) -> float:
    if not truth.any():
        return DEFAULT_THRESHOLD
    values = np.unique(np.round(probabilities, DECIMALS))
    edges = np.unique(np.round(np.concatenate([[values[0] / 2, DEFAULT_THRESHOLD], (values[1:] + values[:-1]) / 2]), DECIMALS))
    edges = edges[(edges > 0) & (edges < 1)]
    order = np.argsort(probabilities, kind="stable")
    # As `MultiLabel` compares: by the rounded probability.
    below = np.searchsorted(probabilities[order], edges - 0.5 * 10**-DECIMALS, side="left")
    hits = truth.sum() - np.concatenate([[0], np.cumsum(truth[order])])[below]
    f1 = 2 * hits / (truth.sum() + len(truth) - below)
    best = edges[f1 >= f1.max() - 1e-12]
    return float(best[np.argmin(np.abs(best - DEFAULT_THRESHOLD))])


def with_thresholds(problem: Problem, thresholds: Sequence[float]) -> Problem:
    """The multi-label problem with other thresholds."""
    return MultiLabel(problem.labels, thresholds)


def targets_of(examples: Sequence[Example], labels: Sequence[str]) -> Indices:
    """Class indices, shape [texts]. Raises `DatasetError` for labels the classifier does not have."""
    index = _index_of(examples, labels)
    return np.array([index[label] for example in examples for label in labels_of(example)], dtype=np.int64)


def number_of(example: Example) -> float:
    """The number that a text is labelled with."""
    assert isinstance(example.label, float)
    return example.label


def _index_of(examples: Sequence[Example], labels: Sequence[str]) -> dict[str, int]:
    if unknown := sorted({label for example in examples for label in labels_of(example)} - set(labels)):
        raise DatasetError(f"labels that the model does not have: {unknown}; it has {list(labels)}")
    return {label: number for number, label in enumerate(labels)}


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean(values: Sequence[float]) -> float:
    """Of those that are numbers; not a number without any."""
    found = [value for value in values if not math.isnan(value)]
    return sum(found) / len(found) if found else math.nan
