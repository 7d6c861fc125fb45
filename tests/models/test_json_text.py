"""JSON with halves of surrogate pairs: right, as strict as before, and linear in time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import orjson
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from models.json_text import loads_lenient

letters = st.one_of(st.characters(exclude_categories=[]), st.sampled_from('\ud83d\ude00\\"/u\n'), st.characters(categories=["Cs"]))
strings = st.text(letters, max_size=12)
documents = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False), strings
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(strings, inner, max_size=4)),
    max_leaves=12,
)


def repaired(value: object) -> object:
    """U+FFFD for each lone surrogate, found in another way: by Python's UTF-16 decoder."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [repaired(item) for item in value]
    if isinstance(value, dict):
        return {repaired(key): repaired(item) for key, item in value.items()}
    return value


@settings(max_examples=300)
@given(documents)
def test_every_lone_surrogate_and_nothing_else_is_replaced(document: object) -> None:
    escaped = json.dumps(document).encode()
    assert loads_lenient(escaped) == repaired(json.loads(escaped))


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=40), st.text(st.sampled_from('[]{}",:\\ud83eNa1e9 '), max_size=40).map(str.encode)))
def test_what_has_no_lone_surrogate_is_parsed_and_refused_as_orjson_does(content: bytes) -> None:
    def outcome(parse: Callable[[bytes], object]) -> object:
        try:
            return parse(content)
        except orjson.JSONDecodeError as error:
            return error.msg, error.pos

    expected = outcome(orjson.loads)
    assume(b"\\u" not in content or "surrogate" not in str(expected))
    assert outcome(loads_lenient) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (rb'"\ud83d"', "\ufffd"),
        (rb'"\uDE00 \uD83d"', "\ufffd \ufffd"),
        (rb'"\ud83d\ud83d\ude00\ude00"', "\ufffd\U0001f600\ufffd"),
        (rb'"\\ud83d \\\ud83d \\\\ud83d"', "\\ud83d \\\ufffd \\\\ud83d"),
        (rb'"\ud83d\\ude00"', "\ufffd\\ude00"),
        (rb'"\ude00\ud83d\ude00"', "\ufffd\U0001f600"),
        (rb'{"\ud83d": "a\u00e9"}', {"\ufffd": "a\u00e9"}),
    ],
)
def test_pairs_and_escaped_backslashes_stay(content: bytes, expected: object) -> None:
    assert loads_lenient(content) == expected


@pytest.mark.parametrize(
    "content",
    [b"", b"NaN", b"[1,]", rb'{"\ud83d": 1', rb'"\ud83"', rb"\ud83d", b'"\xed\xa0\xbd"', rb'["\ud83d", NaN]', b"[" * 2000],
)
def test_other_faults_are_still_faults(content: bytes) -> None:
    with pytest.raises(orjson.JSONDecodeError):
        loads_lenient(content)


def test_the_position_of_another_fault_stays_right() -> None:
    with pytest.raises(orjson.JSONDecodeError) as raised:
        loads_lenient(rb'["\ud83d", nope]')
    assert raised.value.pos == 11


@pytest.mark.parametrize(
    "content",
    [
        b'"' + b"\\" * (1 << 20),
        b'"' + b"\\" * ((1 << 20) + 1) + b'ud83d"',
        b'"' + rb"\ud83d" * 174_000 + b'"',
        b'"' + rb"\ud83d\ude00" * 87_000,
        b'"' + rb"\\\ud83d" * 131_000 + b'"',
        b'"' + rb"\ud83dx" * 149_000 + b'"',
        b'["\\ud83d",' * 104_000,
        b"[" * (1 << 20),
    ],
    ids=["backslashes", "a lone one after backslashes", "lone", "pairs", "both", "single", "deep with lone ones", "deep"],
)
def test_a_hostile_megabyte_takes_no_more_than_linear_time(content: bytes) -> None:
    started = time.process_time()
    try:
        loads_lenient(content)
    except orjson.JSONDecodeError as error:
        assert error.pos <= len(content)  # noqa: PT017 - some of them are valid
    # Under 0.2 s here. Quadratic would be minutes.
    assert time.process_time() - started < 3
