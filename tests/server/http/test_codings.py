"""Content codings, undone and applied piece by piece."""

from __future__ import annotations

import gzip
import random
import zlib

import pytest

from server.http.codings import PIECE_BYTES, Deflater, Inflater, deflater
from server.http.errors import RequestError

TEXT = b"".join(b"line %d\n" % number for number in range(5_000)) + random.Random(1).randbytes(100_000)


def bare(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def undone(coding: str, body: bytes, size: int) -> bytes:
    inflater = Inflater(coding)
    found = b"".join(piece for start in range(0, len(body), size) for piece in inflater.pieces(body[start : start + size]))
    inflater.end()
    return found


@pytest.mark.parametrize("size", [1, 7, 5_000, 1 << 30])
@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT, 0)),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", bare(TEXT)),
        ("gzip", b"".join(gzip.compress(TEXT[start : start + 1_000]) for start in range(0, len(TEXT), 1_000))),
        ("gzip", gzip.compress(b"") + gzip.compress(TEXT)),
    ],
    ids=["gzip", "stored", "zlib", "bare", "members", "empty member"],
)
def test_a_body_is_the_same_in_whatever_pieces_it_comes(coding: str, body: bytes, size: int) -> None:
    assert undone(coding, body, size) == TEXT


def test_what_comes_out_at_a_time_is_bounded_and_nothing_is_held_back() -> None:
    body = zlib.compress(bytes(50_000_000), 9)
    assert len(body) < 50_000
    inflater = Inflater("deflate")
    sizes = [len(piece) for piece in inflater.pieces(body)]
    assert max(sizes) == PIECE_BYTES
    assert sum(sizes) == 50_000_000
    inflater.end()


@pytest.mark.parametrize(
    ("coding", "body", "message"),
    [
        ("gzip", b"plain text", "the body is not gzip data, as Content-Encoding says"),
        ("gzip", gzip.compress(TEXT) + b"more", "the body is not gzip data, as Content-Encoding says"),
        ("gzip", gzip.compress(TEXT)[:-9] + b"x" + gzip.compress(TEXT)[-8:], "the body is not gzip data, as Content-Encoding says"),
        ("deflate", b"plain text", "the body is not deflate data, as Content-Encoding says"),
        ("gzip", gzip.compress(TEXT)[:-1], "the body is cut off: its gzip data has no end"),
        ("deflate", zlib.compress(TEXT)[:-1], "the body is cut off: its deflate data has no end"),
        ("gzip", b"", "the body is cut off: its gzip data has no end"),
        ("deflate", b"x", "the body is cut off: its deflate data has no end"),
    ],
)
@pytest.mark.parametrize("size", [3, 1 << 30])
def test_a_body_that_is_damaged_or_cut_off_is_refused(coding: str, body: bytes, message: str, size: int) -> None:
    with pytest.raises(RequestError, match=message) as refused:
        undone(coding, body, size)
    assert (refused.value.status, refused.value.code) == (400, "malformed_body")


@pytest.mark.parametrize(("coding", "bits"), [("gzip", 31), ("deflate", 15)])
def test_a_block_is_whole_for_its_reader_as_soon_as_it_has_come(coding: str, bits: int) -> None:
    made, reader = Deflater(coding), zlib.decompressobj(bits)
    for block in (b"one\n", b"two\n" * 1_000, b""):
        assert reader.decompress(made.block(block)) == block
    assert reader.decompress(made.end()) == b""
    assert reader.eof


def test_an_answer_is_compressed_only_for_who_asks() -> None:
    found = [deflater(accepted) for accepted in ("", "identity", "br, zstd", "gzip;q=0", "*")]
    assert found == [None] * 5
    assert [made.coding for accepted in ("gzip, br", "deflate", "br, GZIP;q=0.5") if (made := deflater(accepted))] == [
        "gzip",
        "deflate",
        "gzip",
    ]
