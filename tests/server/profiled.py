"""A fake model with a profile, for drift detection, and texts that it takes as usual or not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from drift import Observations, Profile, learn_profile
from models.fake import FakeClassifier
from models.types import Encoding, End, Prediction

LABELS = FakeClassifier.labels
VOCABULARY = 200
PIECES = ["", *(f"w{'abcdefghijklmnopqrst'[number // 10]}{'abcdefghij'[number % 10]}" for number in range(VOCABULARY - 1))]


def drawn(number: int, seed: int, first_id: int = 10) -> list[tuple[int, ...]]:
    """Texts over 40 ids from `first_id` on, early ones more often."""
    rng = np.random.default_rng(seed)
    return [tuple((first_id + rng.geometric(0.1, rng.integers(4, 12)) % 40).tolist()) for _ in range(number)]


def learned(width: int = 0) -> Profile:
    """A profile of the usual texts, with first-token vectors of this width; 0 for none."""
    rng = np.random.default_rng(0)

    def observed(number: int, seed: int, first_id: int = 10) -> Observations:
        ids = drawn(number, seed, first_id)
        vectors = rng.normal(size=(number, width)).astype(np.float32) if width else None
        return Observations(ids, rng.integers(3, size=number), np.full(number, 0.8), vectors, np.zeros(number))

    held_out, odd = observed(500, 2), observed(300, 3, 100)
    harder = [(odd, (odd.labels + 1) % 3)]
    true = np.where(rng.random(500) < 0.9, held_out.labels, (held_out.labels + 1) % 3)
    return learn_profile(observed(800, 1), held_out, true, labels=LABELS, vocabulary=VOCABULARY, harder=harder)


PROFILE = learned()


def prediction(ids: tuple[int, ...]) -> Prediction:
    label = LABELS[sum(ids) % 3]
    return Prediction(label, 0.8, (0.8, 0.1, 0.1), (0.0, 0.0, 0.0))


def _number(word: str) -> int:
    """A piece's own id, or some id that a word always gets."""
    return PIECES.index(word) if word in PIECES else 1 + sum(word.encode()) % (VOCABULARY - 1)


class Profiled(FakeClassifier):
    """A fake model with a profile; a word is a token, by its letters."""

    profile = PROFILE.to_bytes()
    pieces = PIECES

    def encode(self, text: str, keep: End | None = None) -> Encoding:  # noqa: ARG002 - no text is too long
        return Encoding(tuple(map(_number, text.split())), truncated=False)

    def predict(self, encodings: Sequence[Encoding]) -> list[Prediction]:
        return [prediction(encoding.ids) for encoding in encodings]
