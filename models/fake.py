"""A classifier without a model, for tests and for measuring everything around the model. It decides by keywords."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence

from models.types import BlankTextError, Encoding, End, Prediction, Token

KEYWORDS = {"billing": ("payment", "invoice", "refund", "charge"), "technical": ("crash", "error", "log in", "bug")}


def _nothing(_: Sequence[Encoding]) -> None:
    return None


class FakeClassifier:
    """One token a word; a token's id is the index of the label that its word stands for. `on_pass` is called with each batch."""

    identity = "fake@1"
    fingerprint = "fake"
    labels = ("billing", "general", "technical")
    profile: bytes | None = None
    golden_texts: Sequence[str] = ()
    first_width: int | None = None
    pieces: Sequence[str] = labels

    def __init__(self, on_pass: Callable[[Sequence[Encoding]], None] = _nothing, max_length: int = 256) -> None:
        self._on_pass = on_pass
        self.max_length = max_length

    def encode(self, text: str, keep: End | None = None) -> Encoding:
        """Tokenize one text; of one that is too long, keep the beginning unless `keep` says otherwise. Raises `BlankTextError`."""
        words = text.lower().split()
        if not words:
            raise BlankTextError
        ids = tuple(self._token(word) for word in words)
        kept = ids[-self.max_length :] if keep is End.END else ids[: self.max_length]
        return Encoding(kept, len(ids) > self.max_length)

    def tokens(self, text: str, *, special: bool) -> list[Token]:
        """The words; the one special token is the last, END."""
        words = [
            Token(self._token(match[0].lower()), match[0], special=False, start=match.start(), stop=match.end())
            for match in re.finditer(r"\S+", text)
        ]
        return [*words, Token(len(self.labels), "END", special=True, start=None, stop=None)] if special else words

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

    def _token(self, word: str) -> int:
        for label, keywords in KEYWORDS.items():
            if any(word.startswith(keyword) for keyword in keywords):
                return self.labels.index(label)
        return self.labels.index("general")

    def _prediction(self, encoding: Encoding) -> Prediction:
        general = self.labels.index("general")
        winner = next((token for token in encoding.ids if token != general), general)
        scores = tuple(0.8 if index == winner else 0.1 for index in range(len(self.labels)))
        return Prediction(self.labels[winner], 0.8, scores, tuple(map(math.log, scores)))
