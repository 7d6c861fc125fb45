"""From a body as it was sent to UTF-8 bytes: content codings are undone, other character encodings are refused by name."""

from __future__ import annotations

import codecs
import re
import zlib
from typing import Final

from starlette.datastructures import Headers

from server.http.errors import RequestError

# The codings that are understood, as RFC 9110, 8.4.1 names them, and the window bits that zlib knows them by.
_GZIP: Final = 16 + zlib.MAX_WBITS
WINDOW_BITS: Final = {"gzip": _GZIP, "x-gzip": _GZIP, "deflate": zlib.MAX_WBITS}
ACCEPTED: Final = "gzip, deflate"
# What fits into one packet is not made smaller for anybody's good.
WORTH_COMPRESSING: Final = 1400
# Quality 0, RFC 9110, 12.4.2.
_REFUSES: Final = re.compile(r"q\s*=\s*0(\.0{0,3})?")
# gzip data may be several pieces, one after the other. What follows a piece is copied, so there is a bound.
MOST_MEMBERS: Final = 100
_CHARSET: Final = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]*)", re.IGNORECASE)
# Encodings of which every text is a text in UTF-8, too.
_UTF8: Final = frozenset({"utf-8", "ascii"})
_UTF16_AND_32: Final = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def decode(body: bytes, headers: Headers, limit: int) -> bytes:
    """The body in UTF-8, without a byte order mark, decompressed if `Content-Encoding` says so.

    Raises `RequestError`: 413 when it is longer than `limit` bytes, of which no more than one is decompressed beyond; 400 when it
    cannot be decompressed; 415 for another coding or character encoding.
    """
    codings: list[str] = []
    for name, value in headers.raw:
        if name == b"content-encoding":
            codings += value.decode("latin-1").lower().split(",")
        elif name == b"content-type" and (found := _CHARSET.search(value.decode("latin-1"))) is not None:
            _check_charset(found[1])
    if codings:
        body = _undo(codings, body, limit)
    if body[:1] == b"{":
        return body  # as nearly always
    for mark, charset in _UTF16_AND_32:
        if body.startswith(mark):
            raise _unsupported_charset(charset)
    return body.removeprefix(codecs.BOM_UTF8)


def coding_of(headers: Headers) -> str:
    """The content coding of a body that is not read yet; empty for none.

    Raises `RequestError` (415) for another coding than ours, or if the body is said to be in another character encoding than UTF-8.
    """
    codings: list[str] = []
    for name, value in headers.raw:
        if name == b"content-encoding":
            codings += value.decode("latin-1").lower().split(",")
        elif name == b"content-type" and (found := _CHARSET.search(value.decode("latin-1"))) is not None:
            _check_charset(found[1])
    return _single(codings)


def compress(body: bytes, accepted: str) -> tuple[bytes, str]:
    """(the body, its content coding), compressed if an `Accept-Encoding` header allows gzip or deflate and it is worth it."""
    if len(body) < WORTH_COMPRESSING or not (coding := accepted_coding(accepted)):
        return body, ""
    compressor = zlib.compressobj(level=1, wbits=WINDOW_BITS[coding])
    return compressor.compress(body) + compressor.flush(), coding


def accepted_coding(accepted: str) -> str:
    """The first coding of ours that an `Accept-Encoding` header allows; empty for none."""
    for part in accepted.lower().split(","):
        coding, _, parameters = part.partition(";")
        if coding.strip() in {"gzip", "deflate"} and not _REFUSES.fullmatch(parameters.strip()):
            return coding.strip()
    return ""


def fault_of(body: bytes) -> RequestError | None:
    """Why a body that is not JSON cannot be, if it is not a text in UTF-8 at all; to be asked when parsing has failed."""
    if body.startswith(b"\x1f\x8b"):
        return RequestError(400, "malformed_body", "the body is gzip data; say so with Content-Encoding: gzip")
    if body[:1] == b"\0" or body[1:2] == b"\0":
        return _unsupported_charset("UTF-16 or UTF-32")
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return RequestError(400, "malformed_json", f"the body is not valid UTF-8 (byte {error.start})")
    return None


def too_large(limit: int) -> RequestError:
    """The error for a body over `limit` bytes."""
    return RequestError(413, "body_too_large", f"the body is over {limit} bytes", {"Connection": "close"})


def _undo(codings: list[str], body: bytes, limit: int) -> bytes:
    coding = _single(codings)
    return _decompress(body, coding, limit) if coding else body


def _single(codings: list[str]) -> str:
    """The one coding that was used. More would multiply the work for a body of a given size, and nobody has a use for it."""
    used = [coding for coding in map(str.strip, codings) if coding not in {"", "identity"}]
    if not used:
        return ""
    if len(used) > 1 or used[0] not in WINDOW_BITS:
        message = f"Content-Encoding: {', '.join(used)[:100]} is not supported (only one of {ACCEPTED})"
        raise RequestError(415, "unsupported_content_encoding", message, {"Accept-Encoding": ACCEPTED})
    return used[0]


def _decompress(body: bytes, coding: str, limit: int) -> bytes:
    bits = deflate_bits(body) if coding == "deflate" else WINDOW_BITS[coding]
    decompressed = bytearray()
    for _ in range(MOST_MEMBERS):
        member = zlib.decompressobj(bits)
        try:
            decompressed += member.decompress(body, limit + 1 - len(decompressed))
        except zlib.error as error:
            raise RequestError(400, "malformed_body", f"the body is not {coding} data, as Content-Encoding says") from error
        if len(decompressed) > limit:
            raise too_large(limit)
        if not member.eof:
            raise RequestError(400, "malformed_body", f"the body is cut off: its {coding} data has no end")
        body = member.unused_data
        if not body:
            return bytes(decompressed)
    raise RequestError(400, "malformed_body", f"the body has over {MOST_MEMBERS} gzip members")


def deflate_bits(body: bytes) -> int:
    """The window bits for a body that begins so and is said to be deflate.

    That means zlib (RFC 1950, 2.2: deflate is the method, and the first two bytes are a multiple of 31), but some clients send bare
    deflate under this name, which browsers accept.
    """
    has_header = len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
    return zlib.MAX_WBITS if has_header else -zlib.MAX_WBITS


def _check_charset(name: str) -> None:
    try:
        is_utf8 = codecs.lookup(name).name in _UTF8
    except (LookupError, ValueError):
        is_utf8 = False
    if not is_utf8:
        raise _unsupported_charset(name)


def _unsupported_charset(name: str) -> RequestError:
    return RequestError(415, "unsupported_charset", f"the body is in {name[:100] or 'an unnamed charset'}; it must be in UTF-8")
