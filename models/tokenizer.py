"""Text to token ids, with the Rust tokenizer that the bundle's `tokenizer.json` describes."""

from __future__ import annotations

import tokenizers

from models.types import BlankTextError, Encoding

# A text is first cut to this many characters for each token of the limit. Text has some 4 characters a token, so what lies beyond
# cannot reach the first `max_length` tokens, and a text of a megabyte costs no more than one of a few pages.
CHARACTERS_PER_TOKEN = 16


class TokenizerError(ValueError):
    """Raised when a tokenizer file cannot be read."""


class Tokenizer:
    """Encodes one text at a time; truncates at `max_length` tokens and never pads. Thread-safe: encoding changes nothing."""

    def __init__(self, content: bytes, max_length: int) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_buffer(content)
        except Exception as error:  # the library raises plain Exception
            raise TokenizerError(f"not a tokenizer.json: {error}") from error
        # The file may carry settings of its own (all-MiniLM's pads and truncates at 128).
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_length)
        self._max_length = max_length
        self._specials = self._tokenizer.num_special_tokens_to_add(is_pair=False)

    def encode(self, text: str) -> Encoding:
        """Token ids of the text, special tokens included. Raises `BlankTextError` when nothing but special tokens is left."""
        window = self._max_length * CHARACTERS_PER_TOKEN
        encoded = self._tokenizer.encode(text[:window])
        while window < len(text) and not encoded.overflowing:  # sparse text: white space, very long words
            window *= 4
            encoded = self._tokenizer.encode(text[:window])
        if len(encoded.ids) <= self._specials:
            raise BlankTextError
        return Encoding(tuple(encoded.ids), bool(encoded.overflowing))
