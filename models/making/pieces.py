"""What texts are wrapped in: greetings, signatures, quoted messages, HTML of mail programs and more, read from a TOML file.

A file has three parts:

- `[slots]`: words for the `{{name}}` in pieces, such as names, companies and dates. In them, `#` stands for any digit and `~` for
  any hexadecimal digit.
- `[pieces]`: lists of texts, by kind. A piece with `{{ticket}}` goes around the text; without it, it goes before or after it, as
  its kind says. `{{message}}` stands for any piece of the kind `message`, and `{{>message}}` for the same as a quotation, with `> `
  before each line.
- `[[html]]`: pages of mail programs. `page` has `{{body}}`, `paragraph` has `{{line}}`, and `newline` stands between the lines of a
  paragraph.

Within one text a slot has one value, so a sender has one name; values with `#` or `~` are made afresh each time.
"""

from __future__ import annotations

import hashlib
import html
import random
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# Those that training uses unless other ones are given, and those that are measured with and never trained on.
TRAINING_PIECES: Final = Path(__file__).parent / "wrapping" / "training.toml"
HELD_OUT_PIECES: Final = Path(__file__).parent / "wrapping" / "held_out.toml"

TICKET: Final = "ticket"
MESSAGE: Final = "message"
# What pieces may be of, and what code gives them besides slots and messages.
PIECE_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "greeting": (TICKET,),
    "signature": (TICKET,),
    "disclaimer": (TICKET,),
    "quote": (TICKET,),
    "forward": (TICKET,),
    "header": (TICKET,),
    "languages": (TICKET,),
    "form": (TICKET,),
    "markdown": (TICKET,),
    "reference": (TICKET,),
    "log": (TICKET,),
    MESSAGE: (),
}
_PLACE: Final = re.compile(r"\{\{(>?)(\w+)\}\}")
_DIGITS: Final = {"#": "0123456789", "~": "0123456789abcdef"}
_PAGE_KEYS: Final = {"page": "body", "paragraph": "line", "newline": None}


class PiecesError(Exception):
    """Raised when a file of pieces cannot be used; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Page:
    """A mail program's HTML: `page` around the `{{body}}`, `paragraph` around each `{{line}}`, `newline` between lines in one."""

    page: str
    paragraph: str
    newline: str


@dataclass(frozen=True, slots=True)
class Pieces:
    """A file of pieces; `sha256` is that of its bytes."""

    slots: Mapping[str, tuple[str, ...]]
    texts: Mapping[str, tuple[str, ...]]
    pages: tuple[Page, ...]
    sha256: str


def read_pieces(path: Path) -> Pieces:
    """Read and check a file. Raises `PiecesError`."""
    try:
        content = path.read_bytes()
        data = tomllib.loads(content.decode("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PiecesError(f"{path}: cannot be read as TOML: {error}") from error
    if unknown := sorted(data.keys() - {"slots", "pieces", "html"}):
        raise PiecesError(f"{path}: {unknown[0]!r} is none of slots, pieces, html")
    slots = _lists(path, data, "slots")
    texts = _lists(path, data, "pieces")
    if unknown := sorted(texts.keys() - PIECE_KINDS.keys()):
        raise PiecesError(f"{path}: pieces.{unknown[0]}: is none of {', '.join(PIECE_KINDS)}")
    pages = tuple(_page(path, number, entry) for number, entry in enumerate(_entries(path, data), start=1))
    known = slots.keys() | ({MESSAGE} if MESSAGE in texts else set())
    for kind, pieces in texts.items():
        _check_places(path, f"pieces.{kind}", pieces, known | set(PIECE_KINDS[kind]))
    for number, page in enumerate(pages, start=1):
        _check_places(path, f"html {number}: page", [page.page], known | {"body"})
        _check_places(path, f"html {number}: paragraph", [page.paragraph], known | {"line"})
    _check_slots(path, slots)
    return Pieces(slots, texts, pages, hashlib.sha256(content).hexdigest())


def _lists(path: Path, data: Mapping[str, Any], key: str) -> dict[str, tuple[str, ...]]:
    table = data.get(key, {})
    if not isinstance(table, dict):
        raise PiecesError(f"{path}: {key}: must be a table of lists of strings")
    for name, values in table.items():
        if not isinstance(values, list) or not values or not all(isinstance(value, str) and value.strip() for value in values):
            raise PiecesError(f"{path}: {key}.{name}: must be a list of strings, at least one, none of them blank")
    return {name: tuple(value.strip("\n") for value in values) for name, values in table.items()}


def _entries(path: Path, data: Mapping[str, Any]) -> list[Any]:
    entries = data.get("html", [])
    if not isinstance(entries, list):
        raise PiecesError(f"{path}: html: must be tables, each under [[html]]")
    return entries


def _page(path: Path, number: int, entry: object) -> Page:
    if not isinstance(entry, dict) or entry.keys() != _PAGE_KEYS.keys() or not all(isinstance(v, str) for v in entry.values()):
        raise PiecesError(f"{path}: html {number}: must have page, paragraph and newline, all strings")
    for key, place in _PAGE_KEYS.items():
        if place is not None and entry[key].count(f"{{{{{place}}}}}") != 1:
            raise PiecesError(f"{path}: html {number}: {key}: must have {{{{{place}}}}} once")
    return Page(**{key: value.strip("\n") for key, value in entry.items()})


def _places(text: str) -> set[str]:
    return {name for _, name in _PLACE.findall(text)}


def _check_places(path: Path, where: str, texts: Iterable[str], known: Iterable[str]) -> None:
    known = set(known)
    for number, text in enumerate(texts, start=1):
        if unknown := sorted(_places(text) - known):
            raise PiecesError(f"{path}: {where}, number {number}: {{{{{unknown[0]}}}}} is not in [slots]")


def _check_slots(path: Path, slots: Mapping[str, tuple[str, ...]]) -> None:
    """Slots may use slots, if it ends somewhere."""
    needs = {name: set().union(*map(_places, values)) for name, values in slots.items()}
    for name, values in slots.items():
        _check_places(path, f"slots.{name}", values, slots)
    settled: set[str] = set()
    while ready := [name for name in needs if name not in settled and needs[name] <= settled]:
        settled.update(ready)
    if circle := sorted(needs.keys() - settled):
        raise PiecesError(f"{path}: slots.{circle[0]}: needs itself, by way of other slots")


class Filling:
    """The pieces of one text: draws them and fills their slots, each with one value from first to last."""

    def __init__(self, pieces: Pieces, generator: random.Random) -> None:
        self._pieces = pieces
        self._generator = generator
        self._values: dict[str, str] = {}

    def piece(self, kind: str) -> str:
        """Any piece of a kind, its slots not filled yet."""
        return self._generator.choice(self._pieces.texts[kind])

    def fill(self, template: str, given: Mapping[str, str]) -> str:
        """The template with its slots filled; `given` are values that are taken as they are."""

        def value(match: re.Match[str]) -> str:
            quoted, name = match.groups()
            text = given[name] if name in given else self._value(name)
            return "\n".join(f"> {line}".rstrip() for line in text.splitlines()) if quoted else text

        return _PLACE.sub(value, template)

    def _value(self, name: str) -> str:
        if name in self._values:
            return self._values[name]
        if name == MESSAGE:
            return self.fill(self.piece(MESSAGE), {})
        drawn = self._generator.choice(self._pieces.slots[name])
        filled = re.sub("[#~]", lambda match: self._generator.choice(_DIGITS[match[0]]), drawn)
        filled = self.fill(filled, {})
        if not re.search("[#~]", drawn):
            self._values[name] = filled
        return filled

    def html(self, text: str) -> str:
        """The text as the HTML of any mail program: paragraphs are what blank lines divide."""
        page = self._generator.choice(self._pieces.pages)
        paragraphs = []
        for paragraph in re.split(r"\n\s*\n", text.strip()):
            line = page.newline.join(html.escape(line, quote=False) for line in paragraph.split("\n"))
            paragraphs.append(self.fill(page.paragraph, {"line": line}))
        return self.fill(page.page, {"body": "\n".join(paragraphs)})
