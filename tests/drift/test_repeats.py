from __future__ import annotations

import hashlib

from drift import Repeats


def key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def test_a_text_is_new_once_in_each_hour_of_the_clock() -> None:
    repeats = Repeats()
    assert [repeats.is_new(key(text), 7200 + second) for second, text in enumerate("abacab")] == [
        True,
        True,
        False,
        True,
        False,
        False,
    ]
    assert not repeats.is_new(key("a"), 7200 + 3599)
    assert repeats.is_new(key("a"), 7200 + 3600)
    assert not repeats.is_new(key("a"), 7200 + 3601)
    assert repeats.is_new(key("a"), 3600), "the clock was set back"


def test_different_texts_are_new_but_for_a_few_and_negative_hashes_are_hashes() -> None:
    repeats = Repeats()
    new = sum(repeats.is_new(key(str(number)), 0.0) for number in range(20_000))
    assert 19_700 < new < 20_000
    assert [repeats.is_new(-7, 3600.0), repeats.is_new(-7, 3600.0), repeats.is_new(-8, 3600.0)] == [True, False, True]
