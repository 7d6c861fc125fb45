import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bundle import TOKENIZER, embedded_bundle
from models.tokenizer import Tokenizer, TokenizerError
from models.types import BlankTextError, End, Token

CONTENT = (embedded_bundle() / TOKENIZER).read_bytes()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(CONTENT, 16)


def test_a_short_text_is_not_padded(tokenizer: Tokenizer) -> None:
    encoding = tokenizer.encode("app crashed")
    assert 4 <= len(encoding) <= 6
    assert not encoding.truncated


def test_a_long_text_is_cut_at_the_limit_and_says_so(tokenizer: Tokenizer) -> None:
    encoding = tokenizer.encode("word " * 15)
    assert len(encoding) == 16
    assert encoding.truncated
    assert not tokenizer.encode("word " * 14).truncated


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u200b", "\x00\x01"])
def test_a_text_without_tokens_is_blank(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(BlankTextError):
        tokenizer.encode(text)


def test_a_text_that_begins_with_much_white_space_is_still_read(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode(" " * 900 + "app crashed") == tokenizer.encode("app crashed")


def test_what_lies_far_beyond_the_limit_is_not_looked_at_and_the_text_is_called_truncated(tokenizer: Tokenizer) -> None:
    encoding = tokenizer.encode("app crashed" + " " * 1_000_000 + "again")
    assert encoding.ids == tokenizer.encode("app crashed").ids
    assert encoding.truncated


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=40), st.integers(1, 40))
def test_looking_at_the_beginning_only_gives_the_same_tokens_as_the_whole_text(words: list[str], times: int) -> None:
    from tokenizers import Tokenizer as Whole

    whole = Whole.from_buffer(CONTENT)
    whole.no_padding()
    whole.enable_truncation(16)
    text = (" ".join(words * times) + " end")[-1000:]
    assert Tokenizer(CONTENT, 16).encode(text).ids == tuple(whole.encode(text).ids)


def test_a_file_that_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(TokenizerError, match=r"not a tokenizer\.json"):
        Tokenizer(b"{}", 16)


def test_a_file_that_cuts_at_the_left_keeps_the_end_of_a_text_of_any_length() -> None:
    content = json.loads((embedded_bundle() / TOKENIZER).read_text(encoding="utf-8"))
    content["truncation"]["direction"] = "Left"
    tokenizer = Tokenizer(json.dumps(content).encode(), 8)
    end = "one two three four five six"
    short = tokenizer.encode(end).ids
    for text in (f"zero {end}", "filler " * 500 + end, " " * 900 + f"and {end}"):
        encoding = tokenizer.encode(text)
        assert encoding.ids == short
        assert encoding.truncated


def test_a_call_may_say_which_end_of_a_long_text_to_keep(tokenizer: Tokenizer) -> None:
    text = "payment " * 20 + "crash " * 20
    start, end = tokenizer.encode(text, End.START), tokenizer.encode(text, End.END)
    assert (len(start), len(end), start.truncated, end.truncated) == (16, 16, True, True)
    assert start == tokenizer.encode(text)
    assert start.ids[1:-1] == tokenizer.encode("payment " * 14).ids[1:-1]
    assert end.ids[1:-1] == tokenizer.encode("crash " * 14).ids[1:-1]
    assert (start.ids[0], start.ids[-1]) == (end.ids[0], end.ids[-1])
    assert tokenizer.encode("app crashed", End.END) == tokenizer.encode("app crashed")


def test_of_a_very_long_text_the_end_is_looked_at_when_it_is_to_be_kept(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("payment " * 100_000 + "crash " * 20, End.END).ids == tokenizer.encode("crash " * 20, End.END).ids


def test_tokens_say_where_in_the_text_they_are_and_are_not_cut_at_the_limit(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.tokens("Ünïted app crashed", special=True)
    assert [tokens[0].text, tokens[-1].text] == ["[CLS]", "[SEP]"]
    assert {(token.special, token.start, token.stop) for token in (tokens[0], tokens[-1])} == {(True, None, None)}
    assert tokens[1:-1] == tokenizer.tokens("Ünïted app crashed", special=False)
    assert tokens[-2] == Token(tokens[-2].id, "crashed", special=False, start=11, stop=18)
    assert [token.id for token in tokens] == list(tokenizer.encode("Ünïted app crashed").ids)
    assert len(tokenizer.tokens("word " * 40, special=True)) == 42


def test_tokens_of_a_very_long_text_are_those_of_its_first_64_characters_a_token(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.tokens("a" + " b" * 100_000, special=False)
    assert tokens[-1].stop == 16 * 64 - 1
