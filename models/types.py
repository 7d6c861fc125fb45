"""The records that travel between the stations, and what a classifier must offer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.problem import Problem
from models.windows import Join


class End(Enum):
    """An end of a text."""

    START = "start"
    END = "end"


@dataclass(frozen=True, slots=True)
class Encoding:
    """A tokenized text: its token ids with special tokens, at most the bundle's `max_length`; `truncated` if it was longer."""

    ids: tuple[int, ...]
    truncated: bool

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Prediction:
    """A classified text: `scores` are the calibrated probabilities in the order of the labels, `label` the most probable one, and
    `confidence` its probability. What is answered follows from the problem type: `models.problem`. Where that is regression, the
    one score, and `confidence`, is the number.

    `logits` are what the model computed, before temperature and softmax, in the same order. `first` is the first-token vector that
    they were made of, float32 of shape [hidden], where it was asked for and the model gives it.
    """

    label: str
    confidence: float
    scores: tuple[float, ...]
    logits: tuple[float, ...]
    first: npt.NDArray[np.floating[Any]] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of a text as the tokenizer splits it: from character `start` up to `stop`, which special tokens do not have."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class BlankTextError(ValueError):
    """Raised when a text has no token of its own: white space, control characters, zero-width characters."""

    def __init__(self) -> None:
        super().__init__("the text is blank")


class TextClassifier(Protocol):
    """What the server and the command line ask of a model. Its methods may be called from any thread, also at the same time."""

    @property
    def identity(self) -> str:
        """`name@version`."""

    @property
    def fingerprint(self) -> str:
        """Equal for two models only if they answer every text alike."""

    @property
    def profile(self) -> bytes | None:
        """What drift detection measures texts against (`drift.Profile`); None if there is none."""

    @property
    def first_width(self) -> int | None:
        """Dimensions of the first-token vectors that `observe` gives; None if it gives none."""

    @property
    def pieces(self) -> Sequence[str]:
        """The strings of all token ids, in their order; empty for ids that there are not."""

    @property
    def golden_texts(self) -> Sequence[str]:
        """Texts whose answers are known; none if there are none."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names in the order of the classes."""

    @property
    def problem(self) -> Problem:
        """What its logits mean, and what is answered: its problem type with its labels."""

    @property
    def max_length(self) -> int:
        """The most tokens of an encoding."""

    def encode(self, text: str, keep: End | None = None) -> Encoding:
        """Tokenize one text; of one that is too long, keep this end, or the one that the model was trained on.

        Raises `BlankTextError`.
        """

    def windows(self, text: str, overlap: int, most: int) -> list[Encoding]:
        """Tokenize one text, in at most `most` windows that share `overlap` tokens if it is longer than the model reads.

        The last window is `truncated` if there would be more. Raises `BlankTextError`.
        """

    def joined(self, windows: Sequence[Prediction], join: Join) -> Prediction:
        """One prediction from those of a text's windows."""

    def tokens(self, text: str, *, special: bool) -> list[Token]:
        """The tokens of a text, which is not cut at `max_length`; with the model's special tokens or without."""

    def predict(self, encodings: Sequence[Encoding]) -> list[Prediction]:
        """Classify encodings; as many predictions, in the same order."""

    def observe(self, encodings: Sequence[Encoding]) -> list[Prediction]:
        """The same predictions to the bit, with their first-token vectors where the model gives them."""

    def divide(self, lengths: Sequence[int]) -> Sequence[Sequence[int]]:
        """Divide texts of these lengths, in tokens, into the forward passes that `predict` would make of them, as indices."""
