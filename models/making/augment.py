"""Seeded augmentation: texts as they really arrive, inside e-mail, HTML and forms, with typing errors and without punctuation.

A text is changed in steps, always in the same order: its letters, what is pasted into it, the e-mail around it, the markup around
that. The label stays: pieces may mention anything, but ask for nothing. Pure code: the same generator state gives the same text.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from models.making.letters import mistype, shout, without_punctuation
from models.making.pieces import TICKET, Filling, Pieces, PiecesError

# Typing errors in training, as shares of the letters.
MISTYPED: Final = (0.01, 0.08)

_LETTERS: Final[Mapping[str, Callable[[str, random.Random], str]]] = {
    "typos": lambda text, generator: mistype(text, generator.uniform(*MISTYPED), generator),
    "typos 3%": lambda text, generator: mistype(text, 0.03, generator),
    "typos 6%": lambda text, generator: mistype(text, 0.06, generator),
    "lowercase": lambda text, _: without_punctuation(text),
    "shouting": shout,
}
# Where a piece goes that does not say so by {{ticket}}.
_BEFORE: Final = frozenset({"greeting", "forward", "header"})
# The steps in their order.
STEPS: Final = (
    *_LETTERS,
    "reference",
    "log",
    "greeting",
    "signature",
    "disclaimer",
    "languages",
    "form",
    "markdown",
    "forward",
    "header",
    "quote",
    "html",
)
# How often an e-mail has each part.
_EMAIL: Final[Mapping[str, float]] = {
    "greeting": 0.6,
    "signature": 0.7,
    "disclaimer": 0.45,
    "quote": 0.5,
    "header": 0.25,
    "forward": 0.15,
}
# What `--augment` takes, and what it needs pieces of. A text gets at most one of each line, since they exclude each other.
_EXCLUSIVE: Final = (
    ("lowercase", "shouting"),
    ("typos",),
    ("references", "logs"),
    ("email", "form", "languages"),
    ("html", "markdown"),
)
_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "email": tuple(_EMAIL),
    "html": ("html",),
    "markdown": ("markdown",),
    "form": ("form",),
    "languages": ("languages",),
    "references": ("reference",),
    "logs": ("log",),
    "typos": (),
    "lowercase": (),
    "shouting": (),
}
KINDS: Final = tuple(_NEEDS)
# One kind for most texts, up to three for some.
_ANOTHER: Final = 0.5
_MOST: Final = 3


def change(text: str, steps: Sequence[str], pieces: Pieces, generator: random.Random) -> str:
    """The text after these `STEPS`, which are taken in their own order. Raises `PiecesError` where there are no pieces for one."""
    filling = Filling(pieces, generator)
    for step in sorted(steps, key=STEPS.index):
        if step in _LETTERS:
            text = _LETTERS[step](text, generator)
        elif step == "html":
            text = filling.html(text)
        else:
            text = _around(text, step, filling)
    return text


def _around(text: str, step: str, filling: Filling) -> str:
    piece = filling.piece(step)
    filled = filling.fill(piece, {TICKET: text})
    if f"{{{{{TICKET}}}}}" in piece:
        return filled
    return f"{filled}\n\n{text}" if step in _BEFORE else f"{text}\n\n{filled}"


class Augmenter:
    """Changes a text with a chance, by one to three of the kinds; `kinds` maps each to how often it is taken relative to others."""

    def __init__(self, kinds: Mapping[str, float], chance: float, pieces: Pieces) -> None:
        """Raises `PiecesError` for an unknown kind, and for one that the pieces have nothing of."""
        if unknown := sorted(kinds.keys() - _NEEDS.keys()):
            raise PiecesError(f"{unknown[0]!r} is no kind of augmentation; there are {', '.join(KINDS)}")
        for kind in kinds:
            if missing := [need for need in _NEEDS[kind] if not (pieces.pages if need == "html" else pieces.texts.get(need))]:
                raise PiecesError(f"{kind}: there are no pieces of the kind {missing[0]!r}")
        self._kinds = dict(kinds)
        self._chance = chance
        self._pieces = pieces

    def record(self) -> dict[str, object]:
        """What decides the outcome besides the seed."""
        return {"kinds": self._kinds, "chance": self._chance, "pieces_sha256": self._pieces.sha256}

    def __call__(self, text: str, generator: random.Random) -> str:
        """The text, changed or not."""
        if generator.random() >= self._chance:
            return text
        return change(text, self._steps(generator), self._pieces, generator)

    def _steps(self, generator: random.Random) -> list[str]:
        left = dict(self._kinds)
        steps: list[str] = []
        for _ in range(_MOST):
            (kind,) = generator.choices(list(left), list(left.values()))
            steps += _email(generator) if kind == "email" else list(_NEEDS[kind]) or [kind]
            excluded = next(kinds for kinds in _EXCLUSIVE if kind in kinds)
            left = {other: weight for other, weight in left.items() if other not in excluded}
            if not left or generator.random() >= _ANOTHER:
                break
        return steps


def _email(generator: random.Random) -> list[str]:
    """Parts of an e-mail, at least one."""
    parts = [part for part, chance in _EMAIL.items() if generator.random() < chance]
    return parts or [generator.choice(list(_EMAIL))]
