"""Feedback: what people say of answers, by a token that the answer carried, or by the id of its request.

A token holds all that is needed of the answer, signed: so feedback works months later, after restarts and on any replica that has
the same secret, and nothing is stored for it. By request id, it works among the last answers of this process.

    model     4 bytes of the model's fingerprint      minute   4 bytes, since 1970
    label     2 bytes, its index                      review   1 byte: whether the answer was drawn
    confidence 2 bytes, in 1/65535                    id       8 bytes, counted from a random number on
                                                      and 10 bytes of keyed BLAKE2b over all of it

1. Only answers that were drawn at random (`review`) prove how often the model is wrong. Who sends in corrections unasked does so
   because something was wrong, so these are counted, but never tested. An answer is drawn when its token is made, since the token
   brings the news: of an answer whose caller was told nothing, only corrections would come.
2. An answer counts once: ids of the last feedback are kept.
3. What was forged, or is of another model, of an unknown request or of long ago is counted and changes nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import random
import secrets
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from typing import Final, NamedTuple

from models.types import Prediction

_LAYOUT: Final = struct.Struct(">4sHHI?Q")
_SIGNATURE: Final = 10
_CONFIDENCES: Final = 65_535
MOST_IDS: Final = 100_000
LONGEST_DAYS: Final = 366


class Outcome(StrEnum):
    """What became of an item of feedback."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    UNKNOWN = "unknown"
    EXPIRED = "expired"
    FORGED = "forged"


class Labelled(NamedTuple):
    """An answer whose true label is known: both labels as indices."""

    predicted: int
    true: int
    confidence: float


@dataclass(frozen=True, slots=True)
class Item:
    """Feedback on an answer: its token, or its request's id and the text's index in it; `label` is the true label's index."""

    label: int
    token: str | None = None
    request_id: str | None = None
    index: int = 0


class Feedback:
    """Issues tokens and takes feedback. `model` tells models apart, `sample` is the share of answers drawn for review, `remembered`
    how many answers can be named by their request's id; `clock` gives seconds since 1970. To be used on one thread.
    """

    def __init__(
        self,
        labels: Sequence[str],
        model: str,
        *,
        secret: str = "",
        sample: float = 0.0,
        remembered: int = MOST_IDS,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], float] = random.SystemRandom().random,  # noqa: B008 - one source for all
    ) -> None:
        self.labels = tuple(labels)
        self._index = {label: number for number, label in enumerate(labels)}
        self._model = hashlib.blake2b(model.encode(), digest_size=4).digest()
        self._key = hashlib.blake2b(secret.encode()).digest() if secret else secrets.token_bytes(64)
        self._sample = sample
        self._remembered = remembered
        self._clock = clock
        self._draw = draw
        # All mutable state. Dictionaries for their order: the oldest entry goes first.
        self._answers: dict[tuple[str, int], bytes] = {}
        self._taken: dict[int, None] = {}
        # From anywhere, so that replicas hardly have the same; half of the numbers are left to count.
        self._numbers = count(secrets.randbits(63))
        self.outcomes = dict.fromkeys(Outcome, 0)
        self.reviews = 0
        self.labelled: dict[tuple[str, str, bool], int] = {}

    def remember(self, request_id: str, predictions: Sequence[Prediction], first: int = 0) -> None:
        """Answers that may be named by their request's id from now on, the index of the first one being `first`."""
        if not self._remembered:
            return
        for index, prediction in enumerate(predictions, start=first):
            self._answers.pop((request_id, index), None)
            self._answers[request_id, index] = self._content(prediction, review=False)
        while len(self._answers) > self._remembered:
            del self._answers[next(iter(self._answers))]

    def token(self, request_id: str, index: int, prediction: Prediction) -> tuple[str, bool]:
        """A token for an answer, and whether the answer was drawn for review."""
        review = self._sample > 0 and self._draw() < self._sample
        self.reviews += review
        known = self._answers.get((request_id, index))
        if known is None:
            content = self._content(prediction, review=review)
        else:
            model, label, confidence, minute, _, number = _LAYOUT.unpack(known)
            content = self._answers[request_id, index] = _LAYOUT.pack(model, label, confidence, minute, review, number)
        return base64.urlsafe_b64encode(content + self._signed(content)).decode().rstrip("="), review

    def take(self, items: Sequence[Item]) -> tuple[dict[Outcome, int], list[Labelled]]:
        """Count feedback: what became of the items, and the answers among them that were drawn for review."""
        outcomes, drawn = dict.fromkeys(Outcome, 0), []
        for item in items:
            outcome, labelled, review = self._take(item)
            outcomes[outcome] += 1
            if labelled is not None:
                key = self.labels[labelled.predicted], self.labels[labelled.true], review
                self.labelled[key] = self.labelled.get(key, 0) + 1
                if review:
                    drawn.append(labelled)
        for outcome, number in outcomes.items():
            self.outcomes[outcome] += number
        return outcomes, drawn

    def _take(self, item: Item) -> tuple[Outcome, Labelled | None, bool]:
        if item.token is not None:
            found = self._verified(item.token)
            if found is None:
                return Outcome.FORGED, None, False
        else:
            found = self._answers.get((item.request_id or "", item.index))
            if found is None:
                return Outcome.UNKNOWN, None, False
        model, label, confidence, minute, review, number = _LAYOUT.unpack(found)
        if model != self._model or not 0 <= self._clock() / 60 - minute + 1 <= LONGEST_DAYS * 1440:
            return Outcome.EXPIRED, None, False
        if number in self._taken:
            return Outcome.DUPLICATE, None, False
        self._taken[number] = None
        if len(self._taken) > MOST_IDS:
            del self._taken[next(iter(self._taken))]
        return Outcome.ACCEPTED, Labelled(label, item.label, confidence / _CONFIDENCES), review

    def _content(self, prediction: Prediction, *, review: bool) -> bytes:
        confidence = round(prediction.confidence * _CONFIDENCES)
        minute = int(self._clock() // 60)
        return _LAYOUT.pack(self._model, self._index[prediction.label], confidence, minute, review, next(self._numbers))

    def _signed(self, content: bytes) -> bytes:
        return hashlib.blake2b(content, key=self._key, digest_size=_SIGNATURE).digest()

    def _verified(self, token: str) -> bytes | None:
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            return None
        content, signature = raw[: _LAYOUT.size], raw[_LAYOUT.size :]
        is_ours = len(raw) == _LAYOUT.size + _SIGNATURE and hmac.compare_digest(self._signed(content), signature)
        # An index beyond the labels would be our own mistake, or a secret shared with another model.
        return content if is_ours and (_LAYOUT.unpack(content)[1] < len(self.labels)) else None
