"""What a model's logits mean: the problem type, from logits to scores and from scores to what is answered.

| type | scores | answer |
| --- | --- | --- |
| `single-label` | softmax over the labels | the most probable label |
| `multi-label` | a sigmoid for each label | all labels that reach their thresholds, the most probable first; perhaps none |
| `one-label` | the sigmoid of the one logit | that probability, a number |
| `regression` | the one logit itself | that number |

Whoever tells a prediction asks its `Problem`, and need not know the type.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Literal, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Booleans = npt.NDArray[np.bool_]

ProblemType = Literal["single-label", "multi-label", "one-label", "regression"]
PROBLEM_TYPES: Final[tuple[ProblemType, ...]] = get_args(ProblemType)
# What makes scores of logits, by the names that transformers' pipelines have.
Activation = Literal["softmax", "sigmoid", "none"]
Answer: TypeAlias = str | list[str] | float
# Of the label, of each of the labels, or none for a number.
Sureness: TypeAlias = float | list[float] | None

# What is told is rounded: six decimals are far below what INT8 can tell apart.
DECIMALS: Final = 6
DEFAULT_THRESHOLD: Final = 0.5


class Scored(Protocol):
    """Of a prediction: its scores in the order of the labels, the label with the highest one, and that score."""

    @property
    def label(self) -> str:
        """The label."""

    @property
    def confidence(self) -> float:
        """Its score."""

    @property
    def scores(self) -> tuple[float, ...]:
        """Of all labels."""


class Problem(ABC):
    """A problem type with a model's labels, in the order of its classes. Immutable; may be used from any thread."""

    type: ClassVar[ProblemType]
    # What makes the scores; and what makes a probability of each logit, for those who need one.
    activation: ClassVar[Activation]
    probability: ClassVar[Activation] = "sigmoid"
    # What the parts of an answer are called in files.
    columns: ClassVar[tuple[str, ...]]
    # Whether an answer is labels, each with a confidence; else it is a number.
    gives_labels: ClassVar[bool] = True
    # Whether an answer is exactly one label, so that it is right or wrong; or any number of them.
    gives_one_label: ClassVar[bool] = False
    gives_several_labels: ClassVar[bool] = False

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = tuple(labels)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The least probability of each label with which it is predicted; empty where there is no such thing."""
        return ()

    @abstractmethod
    def scores(self, logits: Floats) -> Floats:
        """Scores in float64 from logits after temperature; both of shape [texts, labels]."""

    @abstractmethod
    def predicted(self, scores: Floats) -> Booleans:
        """Which labels are predicted, shape [texts, labels], by the scores of the same shape; none where numbers are."""

    @abstractmethod
    def chosen(self, prediction: Scored) -> list[int]:
        """The labels that a prediction tells, as indices: the predicted ones, the highest score first, or the one of a number."""

    @abstractmethod
    def answer(self, prediction: Scored) -> Answer:
        """What is answered; numbers are rounded to 6 decimals."""

    @abstractmethod
    def sureness(self, prediction: Scored) -> Sureness:
        """The confidence of the answer, 0 to 1, to 6 decimals: a list beside a list of labels, None beside a number."""

    def told(self, prediction: Scored) -> dict[str, Any]:
        """The answer as `prediction`, beside its `confidence` if it has one."""
        sureness = self.sureness(prediction)
        return {"prediction": self.answer(prediction)} | ({} if sureness is None else {"confidence": sureness})

    def abstains(self, sureness: Sureness, least: float) -> bool:
        """Whether a label of an answer is less sure than this."""
        found = sureness if isinstance(sureness, list) else [] if sureness is None else [sureness]
        return any(each < least for each in found)

    def record(self, prediction: Scored) -> dict[str, Answer | Sureness]:
        """The answer by `columns`, for files."""
        return dict(zip(self.columns, (self.answer(prediction), self.sureness(prediction)), strict=False))


class SingleLabel(Problem):
    """One of several labels."""

    type = "single-label"
    activation = "softmax"
    probability = "softmax"
    columns = ("label", "confidence")
    gives_one_label = True

    def scores(self, logits: Floats) -> Floats:
        """Probabilities that sum to 1."""
        return softmax(logits)

    def predicted(self, scores: Floats) -> Booleans:
        """The highest of each row."""
        return np.asarray(np.arange(scores.shape[1]) == scores.argmax(axis=1)[:, None])

    def chosen(self, prediction: Scored) -> list[int]:
        """The label."""
        return [self.labels.index(prediction.label)]

    def answer(self, prediction: Scored) -> str:
        """The label."""
        return prediction.label

    def sureness(self, prediction: Scored) -> float:
        """Its probability."""
        return round(prediction.confidence, DECIMALS)

    def told(self, prediction: Scored) -> dict[str, Any]:
        """As for any problem type, without further calls: nearly all requests come here."""
        return {"prediction": prediction.label, "confidence": round(prediction.confidence, DECIMALS)}

    def record(self, prediction: Scored) -> dict[str, Answer | Sureness]:
        """Likewise."""
        return {"label": prediction.label, "confidence": round(prediction.confidence, DECIMALS)}


class MultiLabel(Problem):
    """Any number of labels. `thresholds` has one for each label, to 6 decimals; 0.5 for all where there are none."""

    type = "multi-label"
    activation = "sigmoid"
    columns = ("labels", "confidences")
    gives_several_labels = True

    def __init__(self, labels: Sequence[str], thresholds: Sequence[float] = ()) -> None:
        super().__init__(labels)
        self._thresholds = tuple(thresholds) or (DEFAULT_THRESHOLD,) * len(self.labels)
        # By the rounded probability, so that a client who compares for itself comes to the same.
        self._least = tuple(threshold - 0.5 * 10**-DECIMALS for threshold in self._thresholds)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """One for each label."""
        return self._thresholds

    def scores(self, logits: Floats) -> Floats:
        """A probability for each label; they need not sum to 1."""
        return sigmoid(logits)

    def predicted(self, scores: Floats) -> Booleans:
        """Those at or over their thresholds."""
        return np.asarray(scores >= np.array(self._least))

    def chosen(self, prediction: Scored) -> list[int]:
        """The predicted labels."""
        pairs = zip(prediction.scores, self._least, strict=True)
        found = [index for index, (score, least) in enumerate(pairs) if score >= least]
        return sorted(found, key=lambda index: -prediction.scores[index])

    def answer(self, prediction: Scored) -> list[str]:
        """The predicted labels."""
        return [self.labels[index] for index in self.chosen(prediction)]

    def sureness(self, prediction: Scored) -> list[float]:
        """Their probabilities."""
        return [round(prediction.scores[index], DECIMALS) for index in self.chosen(prediction)]


class _Number(Problem):
    """A number from one logit."""

    columns = ("value",)
    gives_labels = False

    def predicted(self, scores: Floats) -> Booleans:
        """None."""
        return np.zeros(scores.shape, dtype=bool)

    def chosen(self, prediction: Scored) -> list[int]:  # noqa: ARG002 - there is one only
        """What the number is of."""
        return [0]

    def answer(self, prediction: Scored) -> float:
        """The number."""
        return round(prediction.scores[0], DECIMALS)

    def sureness(self, prediction: Scored) -> None:  # noqa: ARG002 - a number has none
        """Nothing is known of it."""
        return


class Regression(_Number):
    """The number that the model gives."""

    type = "regression"
    activation = "none"

    def scores(self, logits: Floats) -> Floats:
        """The numbers."""
        return np.asarray(logits, dtype=np.float64)


class OneLabel(_Number):
    """The probability of the one label there is, a number from 0 to 1."""

    type = "one-label"
    activation = "sigmoid"

    def scores(self, logits: Floats) -> Floats:
        """The probabilities."""
        return sigmoid(logits)


def problem_of(kind: ProblemType, labels: Sequence[str], thresholds: Sequence[float] = ()) -> Problem:
    """The problem type with a model's labels. Raises `ValueError` for a number of labels or thresholds that does not fit."""
    if kind == "multi-label":
        if thresholds and len(thresholds) != len(labels):
            raise ValueError(f"thresholds: {len(thresholds)} for {len(labels)} labels")
        return MultiLabel(labels, thresholds)
    if thresholds:
        raise ValueError(f"thresholds: a {kind} model has none")
    if kind == "single-label":
        if len(labels) < 2:
            raise ValueError("labels: a single-label model has two or more")
        return SingleLabel(labels)
    if len(labels) != 1:
        raise ValueError(f"labels: a {kind} model has one, not {len(labels)}")
    return OneLabel(labels) if kind == "one-label" else Regression(labels)


def softmax(logits: Floats) -> Floats:
    """Probabilities over the last axis in float64, shifted by the maximum so that nothing overflows."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    probabilities: Floats = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def sigmoid(logits: Floats) -> Floats:
    """The logistic function in float64; written with tanh, it cannot overflow."""
    return np.asarray(0.5 * (1 + np.tanh(np.asarray(logits, dtype=np.float64) / 2)))
