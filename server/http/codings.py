"""Content codings of bodies that have no bound: undone, and applied, piece by piece as the body comes or goes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from server.http.content import WINDOW_BITS, accepted_coding, deflate_bits
from server.http.errors import RequestError

# What comes out at a time, however well it was compressed.
PIECE_BYTES: Final = 64 * 1024
# What goes in at a time. Some of it is copied for each member that ends in it, and a member may have but 20 bytes.
_FED_BYTES: Final = 4 * 1024


class Inflater:
    """Undoes gzip or deflate. Of gzip there may be any number of members, one after the other."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        # None before the first byte, and between two members.
        self._member: zlib._Decompress | None = None
        self._is_begun = False
        # A first byte alone, which does not tell the two kinds of deflate apart.
        self._held = b""

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """What these bytes of the body were, in pieces of at most `PIECE_BYTES`. Raises `RequestError` (400)."""
        if self._coding == "deflate" and not self._is_begun:
            data, self._held = self._held + data, b""
            if len(data) < 2:
                self._held = data
                return
        for start in range(0, len(data), _FED_BYTES):
            yield from self._fed(data[start : start + _FED_BYTES])

    def end(self) -> None:
        """The body has ended. Raises `RequestError` (400) if its compressed data has not."""
        if self._member is not None or not self._is_begun:
            raise RequestError(400, "malformed_body", f"the body is cut off: its {self._coding} data has no end")

    def _fed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member is None:
                bits = WINDOW_BITS[self._coding] if self._coding != "deflate" else deflate_bits(data)
                self._member, self._is_begun = zlib.decompressobj(bits), True
            try:
                piece = self._member.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                message = f"the body is not {self._coding} data, as Content-Encoding says"
                raise RequestError(400, "malformed_body", message) from error
            if piece:
                yield piece
            data = self._member.unconsumed_tail
            if self._member.eof:
                data, self._member = self._member.unused_data, None


class Verbatim:
    """For a body of no coding."""

    def pieces(self, data: bytes) -> tuple[bytes]:
        """These bytes themselves."""
        return (data,)

    def end(self) -> None:
        """The body has ended, wherever that is."""


def undoing(coding: str) -> Inflater | Verbatim:
    """What makes a body of this coding plain; the empty one is none."""
    return Inflater(coding) if coding else Verbatim()


class Deflater:
    """Compresses an answer so that its reader has all of a block when the block has come."""

    def __init__(self, coding: str) -> None:
        self.coding = coding
        self._compressor = zlib.compressobj(level=1, wbits=WINDOW_BITS[coding])

    def block(self, data: bytes) -> bytes:
        """The next bytes of the compressed answer."""
        return self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        """The last bytes."""
        return self._compressor.flush()


def deflater(accepted: str) -> Deflater | None:
    """What compresses an answer, if the client's `Accept-Encoding` allows a coding of ours."""
    coding = accepted_coding(accepted)
    return Deflater(coding) if coding else None
