"""In which script a text is written: the share of its letters that belong to none of the usual ones."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from functools import lru_cache


def foreign_share(text: str, scripts: Collection[str] = ("LATIN",)) -> float:
    """The share of a text's letters outside the scripts, as Unicode's names of characters begin; 0 for a text without letters."""
    if text.isascii() and "LATIN" in scripts:
        return 0.0
    letters = [letter for letter in text if letter.isalpha()]
    return sum(_script(letter) not in scripts for letter in letters) / max(len(letters), 1)


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]
