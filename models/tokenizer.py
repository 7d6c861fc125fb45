"""Text to token ids, with the Rust tokenizer that the bundle's `tokenizer.json` describes."""

from __future__ import annotations

import tokenizers

from models.types import BlankTextError, Encoding

# How much of a text is looked at, in characters for each token of the limit. Text has some 4 characters a token, so the first cut
# is enough for all but sparse ones (white space, very long words), and the second for those that have something to classify.
# Without a bound, one text of a megabyte would keep the interpreter busy, and every other request waiting, for half a second.
FIRST_CUT, LAST_CUT = 16, 64


class TokenizerError(ValueError):
    """Raised when a tokenizer file cannot be read."""


class Tokenizer:
    """Encodes one text at a time; truncates at `max_length` tokens and never pads. Thread-safe: encoding changes nothing.

    Long texts lose their end, or their beginning where the file's own truncation has the direction "Left".
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
        self._keeps_end = direction == "left"
        self._max_length = max_length
        self._specials = self._tokenizer.num_special_tokens_to_add(is_pair=False)

    @property
    def vocabulary(self) -> int:
        """One more than the largest token id there is, added tokens included; ids may have gaps."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def encode(self, text: str) -> Encoding:
        """Token ids of the text, special tokens included; what lies beyond 64 characters a token of the limit is not looked at.

        Raises `BlankTextError` when nothing but special tokens is left.
        """
        encoded = self._tokenizer.encode(self._cut(text, self._max_length * FIRST_CUT))
        if len(text) > self._max_length * FIRST_CUT and not encoded.overflowing:
            encoded = self._tokenizer.encode(self._cut(text, self._max_length * LAST_CUT))
        if len(encoded.ids) <= self._specials:
            raise BlankTextError
        return Encoding(tuple(encoded.ids), bool(encoded.overflowing) or len(text) > self._max_length * LAST_CUT)

    def _cut(self, text: str, characters: int) -> str:
        return text[-characters:] if self._keeps_end else text[:characters]
