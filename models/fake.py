"""A classifier without a model, for tests and for measuring everything around the model. It decides by keywords."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from models.problem import Problem, SingleLabel
from models.types import BlankTextError, Encoding, End, Prediction, Token
from models.windows import Join, join_logits

LABELS = ("billing", "general", "technical")
KEYWORDS = {"billing": ("payment", "invoice", "refund", "charge"), "technical": ("crash", "error", "log in", "bug")}


def _nothing(_: Sequence[Encoding]) -> None:
    return None


class FakeClassifier:
    """One token a word; a token's id is the index of the label that its word stands for. `on_pass` is called with each batch.

    With another problem type than single label, a label that a keyword stands for has the logit 3 less its index, and all others
    have -2; of a model of one label, the logit is the number of keywords.
    """

    identity = "fake@1"
    fingerprint = "fake"
    labels: tuple[str, ...] = LABELS
    profile: bytes | None = None
    golden_texts: Sequence[str] = ()
    first_width: int | None = None
    pieces: Sequence[str] = LABELS

    def __init__(
        self,
        on_pass: Callable[[Sequence[Encoding]], None] = _nothing,
        max_length: int = 256,
        problem: Problem | None = None,
    ) -> None:
        self._on_pass = on_pass
        self.max_length = max_length
        self.problem = problem or SingleLabel(self.labels)
        self._is_single = problem is None
        if problem is not None:
            self.labels = problem.labels

    def encode(self, text: str, keep: End | None = None) -> Encoding:
        """Tokenize one text; of one that is too long, keep the beginning unless `keep` says otherwise. Raises `BlankTextError`."""
        ids = self._ids(text)
        kept = ids[-self.max_length :] if keep is End.END else ids[: self.max_length]
        return Encoding(kept, len(ids) > self.max_length)

    def windows(self, text: str, overlap: int, most: int) -> list[Encoding]:
        """The words in windows."""
        ids, step = self._ids(text), self.max_length - min(overlap, self.max_length // 2)
        starts = range(0, max(1, len(ids) - self.max_length + step), step)
        found = [Encoding(ids[start : start + self.max_length], truncated=False) for start in starts]
        *before, last = found[:most]
        return [*before, Encoding(last.ids, len(found) > most)]

    def joined(self, windows: Sequence[Prediction], join: Join) -> Prediction:
        """The same as of a real model."""
        logits = join_logits(np.array([prediction.logits for prediction in windows]), join)
        scores: list[float] = self.problem.scores(logits[None])[0].tolist()
        best = max(range(len(scores)), key=scores.__getitem__)
        return Prediction(self.labels[best], scores[best], tuple(scores), tuple(logits.tolist()))

    def tokens(self, text: str, *, special: bool) -> list[Token]:
        """The words; the one special token is the last, END."""
        words = [
            Token(self._token(match[0].lower()), match[0], special=False, start=match.start(), stop=match.end())
            for match in re.finditer(r"\S+", text)
        ]
        return [*words, Token(len(LABELS), "END", special=True, start=None, stop=None)] if special else words

    def predict(self, encodings: Sequence[Encoding]) -> list[Prediction]:
        """Classify encodings; as many predictions, in the same order."""
        self._on_pass(encodings)
        return [self._prediction(encoding) for encoding in encodings]

    def observe(self, encodings: Sequence[Encoding]) -> list[Prediction]:
        """As `predict`; there are no vectors."""
        return self.predict(encodings)

    def divide(self, lengths: Sequence[int]) -> Sequence[Sequence[int]]:
        """All in one pass."""
        return [range(len(lengths))]

    def _ids(self, text: str) -> tuple[int, ...]:
        words = text.lower().split()
        if not words:
            raise BlankTextError
        return tuple(self._token(word) for word in words)

    def _token(self, word: str) -> int:
        for label, keywords in KEYWORDS.items():
            if any(word.startswith(keyword) for keyword in keywords):
                return LABELS.index(label)
        return LABELS.index("general")

    def _prediction(self, encoding: Encoding) -> Prediction:
        general = LABELS.index("general")
        if not self._is_single:
            return self._other(encoding, general)
        winner = next((token for token in encoding.ids if token != general), general)
        scores = tuple(0.8 if index == winner else 0.1 for index in range(len(self.labels)))
        return Prediction(self.labels[winner], 0.8, scores, tuple(map(math.log, scores)))

    def _other(self, encoding: Encoding, general: int) -> Prediction:
        if len(self.labels) == 1:
            logits = [float(sum(token != general for token in encoding.ids))]
        else:
            words = set(encoding.ids) - {general}
            logits = [3.0 - index if index in words else -2.0 for index in range(len(self.labels))]
        scores: list[float] = self.problem.scores(np.array([logits]))[0].tolist()
        best = max(range(len(scores)), key=scores.__getitem__)
        return Prediction(self.labels[best], scores[best], tuple(scores), tuple(logits))
