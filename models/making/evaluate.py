"""How well a classifier does on labelled texts, and how near two classifiers are to each other. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.classifier import Classifier
from models.making.dataset import DatasetError, Example
from models.making.metrics import (
    Floats,
    Indices,
    accuracy,
    confusion_matrix,
    expected_calibration_error,
    macro_f1,
    negative_log_likelihood,
)
from models.problem import softmax
from models.types import BlankTextError, Encoding

LARGEST_BATCH = 32


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures over one labelled set; `confidence` is the mean; `confusion` rows are true labels, columns predicted ones, in the
    classifier's order.
    """

    texts: int
    accuracy: float
    macro_f1: float
    ece: float
    nll: float
    confusion: list[list[int]]
    confidence: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near two sets of probabilities over the same texts are."""

    texts: int
    label_match: float
    largest_probability_change: float
    mean_probability_change: float


@dataclass(frozen=True, slots=True)
class Compositions:
    """What batch-mates do to a text: over `texts` places in random batches, how many answers got another label, and how many any
    other bit in their logits.
    """

    batches: int
    texts: int
    flips: int
    moved: int
    largest_probability_change: float


class TextEncoder(Protocol):
    """Whatever tokenizes: a classifier or its tokenizer alone."""

    def encode(self, text: str) -> Encoding:
        """Tokenize one text. Raises `BlankTextError`."""


def targets_of(examples: Sequence[Example], labels: Sequence[str]) -> Indices:
    """Class indices, shape [texts]. Raises `DatasetError` for labels the classifier does not have."""
    if unknown := sorted({example.label for example in examples} - set(labels)):
        raise DatasetError(f"labels that the model does not have: {unknown}; it has {list(labels)}")
    index = {label: number for number, label in enumerate(labels)}
    return np.array([index[example.label] for example in examples], dtype=np.int64)


def logits_alone(
    classifier: Classifier, texts: Sequence[str], on_step: Callable[[int], None] | None = None
) -> npt.NDArray[np.float32]:
    """Logits, shape [texts, labels], each text in a pass of its own, so that no batch-mate has a say."""
    rows: list[npt.NDArray[Any]] = []
    for encoding in encode_all(classifier, texts):
        rows.append(classifier.logits([encoding]))
        if on_step is not None:
            on_step(1)
    return np.concatenate(rows)


def encode_all(encoder: TextEncoder, texts: Sequence[str]) -> list[Encoding]:
    """Tokenize texts. Raises `DatasetError` naming the row (from 1) that has no token."""
    encodings = []
    for number, text in enumerate(texts, start=1):
        try:
            encodings.append(encoder.encode(text))
        except BlankTextError as error:
            raise DatasetError(f"row {number} has no token that the model knows: {error}") from error
    return encodings


def compositions(
    classifier: Classifier,
    encodings: Sequence[Encoding],
    alone: Floats,
    count: int,
    temperature: float,
    seed: int = 1,
    on_step: Callable[[int], None] | None = None,
) -> Compositions:
    """Classify texts in `count` random batches of 1 to 32 of them and compare with `alone`, their logits without batch-mates."""
    generator = np.random.default_rng(seed)
    texts = flips = moved = 0
    largest = 0.0
    for _ in range(count):
        chosen = generator.integers(0, len(encodings), int(generator.integers(1, LARGEST_BATCH + 1)))
        together, expected = classifier.logits([encodings[index] for index in chosen]), alone[chosen]
        texts += len(chosen)
        flips += int((together.argmax(axis=1) != expected.argmax(axis=1)).sum())
        moved += int((together != expected).any(axis=1).sum())
        change = np.abs(softmax(together / temperature) - softmax(expected / temperature))
        largest = float(np.maximum(largest, change.max()))  # keeps NaN
        if on_step is not None:
            on_step(1)
    return Compositions(count, texts, flips, moved, largest)


def quality(targets: Indices, logits: Floats, temperature: float) -> Quality:
    """Judge logits, shape [texts, labels], at a temperature against the true classes."""
    probabilities = softmax(logits / temperature)
    predicted = probabilities.argmax(axis=1).astype(np.int64)
    labels = logits.shape[1]
    return Quality(
        texts=len(targets),
        accuracy=accuracy(targets, predicted),
        macro_f1=macro_f1(targets, predicted, labels),
        confidence=float(probabilities.max(axis=1).mean()),
        ece=expected_calibration_error(targets, probabilities),
        nll=negative_log_likelihood(targets, probabilities),
        confusion=confusion_matrix(targets, predicted, labels).tolist(),
    )


def agreement(probabilities: Floats, reference: Floats) -> Agreement:
    """Compare probabilities, shape [texts, labels], with a reference's for the same texts."""
    change = np.abs(probabilities - reference)
    return Agreement(
        texts=len(reference),
        label_match=float((probabilities.argmax(axis=1) == reference.argmax(axis=1)).mean()),
        largest_probability_change=float(change.max()),
        mean_probability_change=float(change.mean()),
    )


def fit_temperature(targets: Indices, logits: Floats) -> float:
    """The temperature in [0.25, 8] with the least negative log-likelihood (temperature scaling, Guo et al., 2017).

    The likelihood has one minimum in the inverse temperature, so a golden-section search over its logarithm finds it.
    """
    low, high = float(np.log(0.25)), float(np.log(8.0))
    ratio = (5**0.5 - 1) / 2

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(targets, softmax(logits / np.exp(log_temperature)))

    while high - low > 1e-4:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))
