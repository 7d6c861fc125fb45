"""Answers to texts that were classified before, at most so many; the least recently used goes first."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cachetools import LRUCache

from models.types import Prediction


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """What was answered, from how many tokens, whether the text was truncated for it, and in how many windows it was read."""

    prediction: Prediction
    tokens: int
    truncated: bool
    windows: int = 1


class AnswerCache:
    """Answers by the model's fingerprint and the text. Texts are not kept, only 128 bits of their BLAKE2b, keyed by the model.

    `size` 0 keeps nothing. `hits` and `misses` count texts that were looked up.
    """

    def __init__(self, size: int, fingerprint: str) -> None:
        self._size = size
        self._model = hashlib.sha256(fingerprint.encode()).digest()
        self._answers: LRUCache[bytes, CachedAnswer] = LRUCache(size)
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, text: str) -> CachedAnswer | None:
        """The answer to this text; None if there is none."""
        if not self._size:
            return None
        answer = self._answers.get(self._key(text))
        if answer is None:
            self.misses += 1
        else:
            self.hits += 1
        return answer

    def put(self, text: str, answer: CachedAnswer) -> None:
        """Keep an answer."""
        if self._size:
            self._answers[self._key(text)] = answer

    def _key(self, text: str) -> bytes:
        return hashlib.blake2b(text.encode(), key=self._model, digest_size=16).digest()
