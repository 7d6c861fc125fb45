"""JSON as programs send it: strict, but for half a surrogate pair in a string.

JavaScript's strings are UTF-16, and `text.slice(0, 280)` may cut an emoji in two. `JSON.stringify` then writes the half that is
left as an escape such as `\\ud83d`. It stands for no character, and strict parsers refuse the whole document.
"""

from __future__ import annotations

import re
from typing import Final

import orjson

_HEX: Final = rb"[0-9a-fA-F]{2}"
_HIGH, _LOW = rb"\\u[dD][89abAB]" + _HEX, rb"\\u[dD][c-fC-F]" + _HEX
# A backslash begins an escape only after an even number of others: `\\ud83d` is a backslash and five characters. Every match begins
# at a run's first backslash and gives nothing back, so the time is linear in the content, whatever it is.
_PAIRS, _LONE = rb"(?:" + _HIGH + _LOW + rb")++", rb"(?:" + _HIGH + rb"(?!" + _LOW + rb")|" + _LOW + rb")++"
_SURROGATES: Final = re.compile(rb"(?<!\\)((?:\\\\)*+)(?:" + _PAIRS + rb"|(" + _LONE + rb"))")
# As long as what it replaces, so that the position in an error message stays right.
_REPLACEMENT: Final = rb"\ufffd"


def loads_lenient(content: bytes) -> object:
    """Parse a JSON document as `orjson.loads` does, with U+FFFD for each lone surrogate escape in its strings and keys.

    Costs nothing more for a document without one. Raises `orjson.JSONDecodeError` for all that orjson refuses otherwise.
    """
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        repaired = _SURROGATES.sub(_replace_lone, content)
        if repaired == content:
            raise
    return orjson.loads(repaired)


def _replace_lone(match: re.Match[bytes]) -> bytes:
    backslashes, lone = match.groups()
    return match[0] if lone is None else backslashes + _REPLACEMENT * (len(lone) // len(_REPLACEMENT))
