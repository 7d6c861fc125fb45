"""How near two classifiers are to each other, and what batch-mates do to a text; `judge` has how well one does. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.classifier import Classifier
from models.making.dataset import DatasetError
from models.making.metrics import Floats
from models.problem import Problem
from models.types import BlankTextError, Encoding

LARGEST_BATCH = 32


@dataclass(frozen=True, slots=True)
class Agreement:
    """How near two sets of scores over the same texts are: how many texts get the same labels, and how far a probability moves, or
    the number of a regression model.
    """

    texts: int
    label_match: float
    largest_probability_change: float
    mean_probability_change: float


@dataclass(frozen=True, slots=True)
class Compositions:
    """What batch-mates do to a text: over `texts` places in random batches, how many answers got other labels, and how many any
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
    problem: Problem | None = None,
    seed: int = 1,
    on_step: Callable[[int], None] | None = None,
) -> Compositions:
    """Classify texts in `count` random batches of 1 to 32 of them and compare with `alone`, their logits without batch-mates.

    `problem` says which labels scores stand for, by default the classifier's own.
    """
    generator, problem = np.random.default_rng(seed), problem or classifier.problem
    texts = flips = moved = 0
    largest = 0.0
    for _ in range(count):
        chosen = generator.integers(0, len(encodings), int(generator.integers(1, LARGEST_BATCH + 1)))
        together, expected = classifier.logits([encodings[index] for index in chosen]), alone[chosen]
        texts += len(chosen)
        moved += int((together != expected).any(axis=1).sum())
        found = agreement(problem, problem.scores(together / temperature), problem.scores(expected / temperature))
        flips += round((1 - found.label_match) * len(chosen))
        largest = float(np.maximum(largest, found.largest_probability_change))  # keeps NaN
        if on_step is not None:
            on_step(1)
    return Compositions(count, texts, flips, moved, largest)


def agreement(problem: Problem, scores: Floats, reference: Floats) -> Agreement:
    """Compare scores, shape [texts, labels], with a reference's for the same texts."""
    change = np.abs(scores - reference)
    return Agreement(
        texts=len(reference),
        label_match=float((problem.predicted(scores) == problem.predicted(reference)).all(axis=1).mean()),
        largest_probability_change=float(change.max()),
        mean_probability_change=float(change.mean()),
    )
