"""The values of a row's fields: what is wrong with a text, and what its label says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import orjson

from models.json_text import loads_lenient
from models.tables.files import NAME_ENCODING
from models.tables.types import Label, LabelKind

# What separates the labels of a text that has several.
SEPARATOR: Final = "|"
_JSON_TYPES: Final = {dict: "an object", list: "a list", bool: "a boolean", int: "a number", float: "a number"}
_FLAGS: Final = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


class LabelFault(ValueError):
    """Raised for a label that is not of the kind that was asked for; the message says what it is."""


class Malformed(str):
    """A reason that stands in for a value that could not be parsed out of its line."""

    __slots__ = ()


def fault_of(value: object, column: str, encoding: str | None = None) -> str | None:
    """What is wrong with a field's value, or None when it is a non-blank string of valid Unicode.

    `encoding` is the one that the file was read in; None for what is not from a file.
    """
    if isinstance(value, Malformed):
        return str(value)
    if value is None:
        return f"no {column!r}"
    if not isinstance(value, str):
        return f"{column!r} is not a string but {_JSON_TYPES.get(type(value), 'something else')}"
    if not value.strip():
        return f"{column!r} is blank"
    if is_undecodable(value):
        return f"{column!r} is not valid {encoding}; {NAME_ENCODING}" if encoding else f"{column!r} is not valid UTF-8"
    return None


def is_undecodable(value: str) -> bool:
    """Whether it has bytes in it that could not be decoded, as surrogates, so that the rest of the file stays readable."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def read_label(value: object, column: str, kind: LabelKind, encoding: str) -> Label:
    """The label that a field has; of several columns, `value` has each one's. Raises `LabelFault`."""
    if isinstance(value, Malformed):
        raise LabelFault(value)
    if value is None:
        raise LabelFault(f"no {column!r}")
    if kind is LabelKind.NUMBER:
        return _number(value, column)
    if kind is LabelKind.SEVERAL:
        return _several(value, column, encoding)
    if (fault := fault_of(value, column, encoding)) is not None:
        raise LabelFault(fault)
    return str(value).strip()


def _number(value: object, column: str) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise LabelFault(f"{column!r} is not a number")
    return number


def _several(value: object, column: str, encoding: str) -> tuple[str, ...]:
    """The labels, none twice: of columns of 0 and 1, of a JSON list, or of a string with `|` between them. Blank is none."""
    if isinstance(value, Mapping):
        return tuple(name for name, flag in value.items() if _flag(flag, name))
    if isinstance(value, str):
        if is_undecodable(value):
            raise LabelFault(f"{column!r} is not valid {encoding}; {NAME_ENCODING}")
        if not value.lstrip().startswith("["):
            return tuple(dict.fromkeys(label for part in value.split(SEPARATOR) if (label := part.strip())))
        try:
            value = loads_lenient(value.encode())
        except orjson.JSONDecodeError:
            raise LabelFault(f"{column!r} begins like a JSON list and is none") from None
    if not isinstance(value, list):
        raise LabelFault(f"{column!r} is neither a string nor a list, but {_JSON_TYPES.get(type(value), 'something else')}")
    for label in value:
        if (fault := fault_of(label, column, encoding)) is not None:
            raise LabelFault(f"an element of the list: {fault}")
    return tuple(dict.fromkeys(label.strip() for label in value))


def _flag(value: object, column: str) -> bool:
    if isinstance(value, Malformed):
        raise LabelFault(value)
    if value is None:
        raise LabelFault(f"no {column!r}")
    found = _FLAGS.get(str(value).strip().lower()) if isinstance(value, str | int | float) else None
    if found is None:
        raise LabelFault(f"{column!r} is neither 0 nor 1")
    return found
