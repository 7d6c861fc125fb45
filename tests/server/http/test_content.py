"""Bodies as clients really send them: compressed, with a byte order mark, in other encodings; and those that cannot be used."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from server.http.content import ACCEPTED, MOST_MEMBERS, decode
from server.http.errors import RequestError
from server.settings import Settings
from tests.server.conftest import running

LIMIT = 10_000
BODY = json.dumps({"text": "payment failed"}).encode()


def zipped(data: bytes) -> bytes:
    """gzip without the time, so that a test has the same name in every process."""
    return gzip.compress(data, mtime=0)


def bare_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def refused(body: bytes, **headers: str) -> tuple[int, str, str]:
    named = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    with pytest.raises(RequestError) as error:
        decode(body, named, LIMIT)
    return error.value.status, error.value.code, error.value.message


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", zipped),
        ("GZIP", zipped),
        ("x-gzip", zipped),
        ("deflate", zlib.compress),
        ("deflate", bare_deflate),
        ("identity", bytes),
        ("", bytes),
        ("identity, gzip", zipped),
    ],
)
@given(st.binary(max_size=200))
def test_what_was_compressed_is_what_is_read(coding: str, encode: Callable[[bytes], bytes], data: bytes) -> None:
    assert decode(encode(b"{" + data), Headers({"content-encoding": coding}), LIMIT) == b"{" + data


def test_gzip_in_several_members() -> None:
    assert decode(zipped(b"{") * MOST_MEMBERS, Headers({"content-encoding": "gzip"}), LIMIT) == b"{" * MOST_MEMBERS


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (BODY, "the body is not gzip data"),
        (b"", "the body is cut off"),
        (zipped(BODY)[:-1], "the body is cut off"),
        (zipped(BODY)[:-9] + b"\0" * 9, "the body is not gzip data"),
        (zipped(BODY) + b"more", "the body is not gzip data"),
        (zlib.compress(BODY), "the body is not gzip data"),
        (zipped(b"") * (MOST_MEMBERS + 1), f"the body has over {MOST_MEMBERS} gzip members"),
    ],
)
def test_what_is_not_compressed_as_it_says_is_refused(body: bytes, message: str) -> None:
    status, code, said = refused(body, content_encoding="gzip")
    assert (status, code) == (400, "malformed_body")
    assert said.startswith(message)


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "gzip;q=1", "\xe9"])
def test_other_codings_are_refused_with_those_that_are_accepted(coding: str) -> None:
    with pytest.raises(RequestError) as error:
        decode(BODY, Headers({"content-encoding": coding}), LIMIT)
    assert (error.value.status, error.value.code) == (415, "unsupported_content_encoding")
    assert error.value.headers == {"Accept-Encoding": ACCEPTED}
    assert coding in error.value.message


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    bomb = zipped(b"0" * 200_000_000)
    started = time.process_time()
    assert refused(bomb, content_encoding="gzip")[:2] == (413, "body_too_large")
    many = zipped(b"0" * (LIMIT // 2)) * 3
    assert refused(many, content_encoding="gzip")[:2] == (413, "body_too_large")
    assert time.process_time() - started < 0.1  # to make it took a second
    assert decode(zipped(b"0" * LIMIT), Headers({"content-encoding": "gzip"}), LIMIT) == b"0" * LIMIT


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", '"utf-8"', "us-ascii"])
def test_what_is_utf_8_by_its_charset_is_read(charset: str) -> None:
    assert decode(BODY, Headers({"content-type": f"application/json; charset={charset}"}), LIMIT) == BODY


@pytest.mark.parametrize("charset", ["iso-8859-1", "utf-16", "windows-1252", "nonsense", "a" * 500, ""])
def test_another_charset_is_refused_by_name(charset: str) -> None:
    status, code, message = refused(BODY, content_type=f"application/json; charset={charset}")
    assert (status, code) == (415, "unsupported_charset")
    assert (charset[:100] or "unnamed") in message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_utf_16_is_known_by_its_mark(encoding: str) -> None:
    status, code, message = refused(BODY.decode().encode(encoding))
    assert (status, code, encoding.upper() in message) == (415, "unsupported_charset", True)


def test_a_byte_order_mark_of_utf_8_is_no_part_of_the_body() -> None:
    assert decode(b"\xef\xbb\xbf" + BODY, Headers({}), LIMIT) == BODY
    assert decode(zipped(b"\xef\xbb\xbf" + BODY), Headers({"content-encoding": "gzip"}), LIMIT) == BODY


async def test_a_compressed_request_is_answered_and_its_answer_is_not_compressed(settings: Callable[..., Settings]) -> None:
    async with running(settings(max_body_bytes=LIMIT)) as app:
        headers = {"Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
        response = await app.client.post("/classify", content=zipped(BODY), headers=headers)
        assert (response.status_code, response.json()["prediction"]) == (200, "billing")
        assert "content-encoding" not in response.headers
        bomb = await app.client.post("/classify", content=zipped(b" " * 10 * LIMIT + BODY), headers=headers)
        assert (bomb.status_code, bomb.json()["error"]["code"]) == (413, "body_too_large")
        other = await app.client.post("/classify", content=BODY, headers={"Content-Encoding": "br"})
        assert (other.status_code, other.headers["accept-encoding"]) == (415, ACCEPTED)


@pytest.mark.parametrize(
    ("body", "status", "code", "message"),
    [
        (zipped(BODY), 400, "malformed_body", "the body is gzip data; say so with Content-Encoding: gzip"),
        (BODY.decode().encode("utf-16-le"), 415, "unsupported_charset", "the body is in UTF-16 or UTF-32; it must be in UTF-8"),
        (BODY.decode().encode("utf-32-be"), 415, "unsupported_charset", "the body is in UTF-16 or UTF-32; it must be in UTF-8"),
        ('{"text": "caf\xe9"}'.encode("latin-1"), 400, "malformed_json", "the body is not valid UTF-8 (byte 13)"),
    ],
)
async def test_a_body_that_is_no_text_in_utf_8_is_told_so(
    settings: Callable[..., Settings], body: bytes, status: int, code: str, message: str
) -> None:
    async with running(settings()) as app:
        response = await app.client.post("/classify", content=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["message"]) == (status, code, message)
