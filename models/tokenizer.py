"""Text to token ids, with the Rust tokenizer that the bundle's `tokenizer.json` describes."""

from __future__ import annotations

from functools import cached_property
from typing import Final

import tokenizers

from models.types import BlankTextError, Encoding, End, Token

# How much of a text is looked at, in characters for each token of the limit. Text has some 4 characters a token, so the first cut
# is enough for all but sparse ones (white space, very long words), and the second for those that have something to classify.
# Without a bound, one text of a megabyte would keep the interpreter busy, and every other request waiting, for half a second.
FIRST_CUT, LAST_CUT = 16, 64
_DIRECTIONS: Final = {End.START: "right", End.END: "left"}  # as the library says it: where it cuts


class TokenizerError(ValueError):
    """Raised when a tokenizer file cannot be read."""


class Tokenizer:
    """Encodes one text at a time; truncates at `max_length` tokens and never pads. Thread-safe: encoding changes nothing.

    Long texts lose their end, or their beginning where the file's own truncation has the direction "Left"; unless a call says which
    end is to be kept. What few calls ask for is made when the first one does.
    """

    def __init__(self, content: bytes, max_length: int) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(content)
        except Exception as error:  # the library raises plain Exception
            raise TokenizerError(f"not a tokenizer.json: {error}") from error
        # The file may carry settings of its own (all-MiniLM's pads and truncates at 128).
        self._tokenizer.no_padding()
        direction = str((self._tokenizer.truncation or {}).get("direction", "right")).lower()
        self._tokenizer.enable_truncation(max_length, direction=direction)
        self._keeps = End.END if direction == "left" else End.START
        self._max_length = max_length
        self._by_overlap: dict[int, tokenizers.Tokenizer] = {}
        self._specials = self._tokenizer.num_special_tokens_to_add(is_pair=False)

    @property
    def vocabulary(self) -> int:
        """One more than the largest token id there is, added tokens included; ids may have gaps."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    @property
    def pieces(self) -> list[str]:
        """The string of each token id, up to the largest; empty where there is none."""
        found = [""] * self.vocabulary
        for piece, token in self._tokenizer.get_vocab(with_added_tokens=True).items():
            found[token] = piece
        return found

    def encode(self, text: str, keep: End | None = None) -> Encoding:
        """Token ids of the text, special tokens included; what lies beyond 64 characters a token of the limit is not looked at.

        Of a text that is too long, `keep` names the end to keep. Raises `BlankTextError` when nothing but special tokens is left.
        """
        keep = keep or self._keeps
        tokenizer = self._tokenizer if keep is self._keeps else self._other_end
        encoded = tokenizer.encode(_cut(text, self._max_length * FIRST_CUT, keep))
        if len(text) > self._max_length * FIRST_CUT and not encoded.overflowing:
            encoded = tokenizer.encode(_cut(text, self._max_length * LAST_CUT, keep))
        ids = encoded.ids  # a new list each time
        if len(ids) <= self._specials:
            raise BlankTextError
        return Encoding(tuple(ids), bool(encoded.overflowing) or len(text) > self._max_length * LAST_CUT)

    def windows(self, text: str, overlap: int, most: int) -> list[Encoding]:
        """The text in windows of `max_length` tokens that share `overlap` tokens, or half of what fits if that is less.

        A text that fits is one window. There are at most `most`: of a longer text, those of the end that is kept are given, and the
        last one is `truncated`. Raises `BlankTextError`.
        """
        tokenizer = self._windowed(min(overlap, (self._max_length - self._specials) // 2))
        encoded = tokenizer.encode(_cut(text, most * self._max_length * FIRST_CUT, self._keeps))
        if len(text) > most * self._max_length * FIRST_CUT and len(encoded.overflowing) < most:
            encoded = tokenizer.encode(_cut(text, most * self._max_length * LAST_CUT, self._keeps))
        if len(encoded.ids) <= self._specials:
            raise BlankTextError
        found = [encoded, *encoded.overflowing]
        is_cut = len(found) > most or len(text) > most * self._max_length * LAST_CUT
        encodings = [Encoding(tuple(window.ids), truncated=False) for window in found[:most]]
        return [*encodings[:-1], Encoding(encodings[-1].ids, truncated=is_cut)]

    def tokens(self, text: str, *, special: bool) -> list[Token]:
        """All tokens of the text's first 64 characters for each token of the limit; with special tokens or without."""
        text = text[: self._max_length * LAST_CUT]
        encoded = self._uncut.encode(text, add_special_tokens=special)
        return [
            Token(number, name, special=True, start=None, stop=None)
            if is_special
            else Token(number, text[start:stop], special=False, start=start, stop=stop)
            for number, name, is_special, (start, stop) in zip(
                encoded.ids, encoded.tokens, encoded.special_tokens_mask, encoded.offsets, strict=True
            )
        ]

    def _windowed(self, overlap: int) -> tokenizers.Tokenizer:
        if overlap not in self._by_overlap:
            copy = self._copy()
            copy.enable_truncation(self._max_length, stride=overlap, direction=_DIRECTIONS[self._keeps])
            self._by_overlap[overlap] = copy
        return self._by_overlap[overlap]

    @cached_property
    def _other_end(self) -> tokenizers.Tokenizer:
        copy = self._copy()
        other = End.START if self._keeps is End.END else End.END
        copy.enable_truncation(self._max_length, direction=_DIRECTIONS[other])
        return copy

    @cached_property
    def _uncut(self) -> tokenizers.Tokenizer:
        copy = self._copy()
        copy.no_truncation()
        return copy

    def _copy(self) -> tokenizers.Tokenizer:
        return tokenizers.Tokenizer.from_str(self._tokenizer.to_str())


def _cut(text: str, characters: int, keep: End) -> str:
    return text[-characters:] if keep is End.END else text[:characters]
