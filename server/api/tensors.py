"""Tensors as the Open Inference Protocol's binary extension has them: raw bytes behind the JSON part of a body.

Each string (BYTES) comes after its length in bytes: 32 bits, little-endian. Numbers are little-endian, too; a boolean is a byte.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final

HEADER: Final = "Inference-Header-Content-Length"
_LENGTH: Final = struct.Struct("<I")


class TensorError(ValueError):
    """Raised when bytes are not the tensor that they should be; the message says what is wrong."""


def split_strings(data: bytes) -> list[bytes]:
    """The elements of a BYTES tensor. Raises `TensorError`."""
    found, position = [], 0
    while position < len(data):
        if position + _LENGTH.size > len(data):
            raise TensorError(f"{len(data) - position} bytes are left where a length of 4 bytes should be")
        (length,) = _LENGTH.unpack_from(data, position)
        position += _LENGTH.size
        if position + length > len(data):
            raise TensorError(f"a string of {length} bytes is cut off after {len(data) - position}")
        found.append(data[position : position + length])
        position += length
    return found


def join_strings(strings: Iterable[str]) -> bytes:
    """A BYTES tensor."""
    return b"".join(_LENGTH.pack(len(encoded)) + encoded for encoded in map(str.encode, strings))


def pack_floats(numbers: Sequence[float]) -> bytes:
    """An FP32 tensor."""
    return struct.pack(f"<{len(numbers)}f", *numbers)


def pack_booleans(values: Sequence[bool]) -> bytes:
    """A BOOL tensor."""
    return bytes(values)
