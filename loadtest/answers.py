"""What the right answer is: answers are checked against what the server itself said of the same text, asked alone beforehand.

The server promises that an answer does not depend on what else is in the pass, to the bit, so confidences are compared too, to the
last of the 6 decimals that it prints. A server that pads its batches cannot promise that: of it, only labels are compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import orjson

OK: Final = "ok"
LEFT: Final = "left"  # the client went before the answer came, as it was told to
DISCONNECTED: Final = "disconnected"  # no connection, or it broke before the answer was complete
TIMEOUT: Final = "timeout"  # no answer for so long that the client gave up, unasked
WRONG_LABEL: Final = "wrong_label"
WRONG_CONFIDENCE: Final = "wrong_confidence"
MALFORMED: Final = "malformed"

TOLERANCE = 1.5e-6  # one unit of the last decimal, and what binary fractions do to it


class Answer(NamedTuple):
    """Of one text: its labels, and for each the confidence. Of a model that gives a number, that number and no label."""

    labels: tuple[str, ...]
    numbers: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """What the server said of the known texts on its own, and of itself.

    `labels` are all that its model has, empty if it does not tell. `pass_ms` is the median time of a pass with one known text,
    None if the server does not tell. With `exact`, confidences must be the same again.
    """

    model: str = ""
    labels: frozenset[str] = frozenset()
    answers: Mapping[str, Answer] = field(default_factory=dict)
    exact: bool = True
    pass_ms: float | None = None

    def expected(self, texts: Sequence[str]) -> tuple[Answer | None, ...]:
        """For each text, its answer, None if it is not known."""
        return tuple(self.answers.get(text) for text in texts)


def parse_answers(body: bytes) -> list[Answer]:
    """The answers in a response's body, in the singular or plural. Raises `ValueError` if it has another form."""
    try:
        content = orjson.loads(body)
        if "prediction" in content:
            return [_answer(content["prediction"], content.get("confidence"))]
        predictions = content["predictions"]
        confidences = content.get("confidences", [None] * len(predictions))
        return [_answer(*pair) for pair in zip(predictions, confidences, strict=True)]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not an answer of /classify: {error}") from error


def judge(status: int, body: bytes, expected: Sequence[Answer | None], reference: Reference) -> str:
    """The outcome of a request that was answered: OK, or what is wrong; a status other than 200 stands for itself.

    `expected` has an entry for each text that was sent.
    """
    if status != 200:
        return str(status)
    try:
        found = parse_answers(body)
    except ValueError:
        return MALFORMED
    if len(found) != len(expected) or (
        reference.labels and not all(reference.labels.issuperset(answer.labels) for answer in found)
    ):
        return MALFORMED
    pairs = [(right, answer) for right, answer in zip(expected, found, strict=True) if right is not None]
    if any(answer.labels != right.labels for right, answer in pairs):
        return WRONG_LABEL
    numbers = [pair for right, answer in pairs for pair in zip(answer.numbers, right.numbers, strict=True)]
    if reference.exact and any(abs(found - right) > TOLERANCE * max(1.0, abs(right)) for found, right in numbers):
        return WRONG_CONFIDENCE
    return OK


def _answer(prediction: object, confidence: object) -> Answer:
    if confidence is None:
        if not isinstance(prediction, float | int) or not math.isfinite(prediction):
            raise ValueError("a prediction without a confidence must be a number")
        return Answer((), (prediction,))
    given = prediction if isinstance(prediction, list) else [prediction]
    sure = confidence if isinstance(confidence, list) else [confidence]
    labels = tuple(label for label in given if isinstance(label, str) and label)
    numbers = tuple(number for number in sure if isinstance(number, float | int) and 0.0 < number <= 1.0)
    if not len(given) == len(sure) == len(labels) == len(numbers):
        raise ValueError("a label must be a text, and its confidence a number over 0 and at most 1")
    return Answer(labels, numbers)
