"""What people do to letters: typing errors, shouting, lower case without punctuation. Seeded by the generator that is given."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Final

# The keys beside each, on a QWERTY keyboard.
_NEIGHBOURS: Final[Mapping[str, str]] = {
    "q": "wa", "w": "qes", "e": "wrd", "r": "etf", "t": "ryg", "y": "tuh", "u": "yij", "i": "uok", "o": "ipl", "p": "ol",
    "a": "qsz", "s": "adwx", "d": "sfec", "f": "dgrv", "g": "fhtb", "h": "gjyn", "j": "hkum", "k": "jlim", "l": "kop",
    "z": "xas", "x": "zcsd", "c": "xvdf", "v": "cbfg", "b": "vngh", "n": "bmhj", "m": "njk",
}  # fmt: skip
# Within a number or an address punctuation is what holds it together, and people leave it there.
_PUNCTUATION: Final = re.compile(r"(?<!\S)[^\w\s]+|[^\w\s]+(?!\S)|['\u2019](?=\w)")


def mistype(text: str, share: float, generator: random.Random) -> str:
    """The text with typing errors in about `share` of its letters: another key, a letter left out, twice or swapped."""
    typed: list[str] = []
    letters = list(text)
    position = 0
    while position < len(letters):
        letter = letters[position]
        position += 1
        if letter.lower() not in _NEIGHBOURS or generator.random() >= share:
            typed.append(letter)
            continue
        error = generator.choice(("other", "missing", "twice", "swapped"))
        if error == "other":
            key = generator.choice(_NEIGHBOURS[letter.lower()])
            typed.append(key.upper() if letter.isupper() else key)
        elif error == "twice":
            typed += [letter, letter]
        elif error == "swapped" and position < len(letters) and letters[position].isalpha():
            typed += [letters[position], letter]
            position += 1
        elif error == "swapped":
            typed.append(letter)
    # A text that was all errors is still a text.
    return "".join(typed) if "".join(typed).strip() else text


def without_punctuation(text: str) -> str:
    """Lower case, without apostrophes and the punctuation around words; numbers and addresses keep theirs."""
    bare = _PUNCTUATION.sub("", text.lower())
    return bare if bare.strip() else text.lower()


def shout(text: str, generator: random.Random) -> str:
    """Upper case, now and then with exclamation marks at its end."""
    return text.upper() + generator.choice(("", "", "!", "!!!", " !!!"))
