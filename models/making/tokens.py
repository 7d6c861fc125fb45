"""Whether a bundle's tokenizer gives the token ids that the checkpoint's own tokenizer gives in transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from models.types import BlankTextError, Encoding

# What tokenizers disagree about: case, accents, scripts, white space, control characters, special tokens as text, length.
TRICKY_TEXTS: Final = (
    "PAYMENT failed TWICE",
    "Crème brûlée à la carte, naïve façade, Ångström, İstanbul",
    "Cre\u0301me bru\u0302le\u0301e (the accents are characters of their own)",
    "Ärger über die Öffnungszeiten, Straße 7",
    "发票付款失败了\uff0c怎么办\uff1f",
    "請求書が届きません。カスタマーサポート",
    "결제가 실패했습니다",
    "لم أستلم الفاتورة",
    "ไม่สามารถเข้าสู่ระบบ",
    "great 👍🏽 thanks 👩‍👩‍👧 🇩🇪 ❤️",
    "  two  spaces\tand\na new line\r\n\u00a0no-break \u3000wide ",
    "soft\u00adhyphen zero\u200bwidth \ufeffmark \x07bell",
    "it's -- \u201cquoted\u201d \u2026 3.50€ 50% #42 @me a_b c/d user@example.com https://example.com/?q=1&r=2",
    "[CLS] [SEP] [MASK] [PAD] <s> </s> <pad> <mask> <unk>",
    "ﬁne ½ ² Ⅷ \uff26\uff35\uff2c\uff2c",
    "Pneumonoultramicroscopicsilicovolcanoconiosis" * 4,
    "first " + "word and Another, " * 1500 + "last",
)


@dataclass(frozen=True, slots=True)
class Difference:
    """A text, its ids in the bundle and its ids in transformers."""

    text: str
    ours: list[int]
    theirs: list[int]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Token ids of `texts` texts next to those of `tokenizer`, a class of transformers."""

    tokenizer: str
    texts: int
    differences: list[Difference]

    def __str__(self) -> str:
        if not self.differences:
            return f"token ids of {self.texts} texts are those of the checkpoint's own {self.tokenizer}"
        worst = self.differences[0]
        place = next(
            (at for at, pair in enumerate(zip(worst.ours, worst.theirs, strict=False)) if pair[0] != pair[1]),
            min(len(worst.ours), len(worst.theirs)),
        )
        ours, theirs = (ids[place : place + 5] for ids in (worst.ours, worst.theirs))
        return (
            f"token ids of {len(self.differences)} of {self.texts} texts are not those of the checkpoint's own {self.tokenizer},"
            f" such as {worst.text[:40]!r}: {ours} where it has {theirs}, from token {place + 1} on"
        )


class NotCompared(Exception):
    """Raised when there is nothing to compare with; the message says why."""


def compare_tokens(folder: Path, encode: Callable[[str], Encoding], max_length: int, texts: Iterable[str]) -> Comparison:
    """Compare `encode` with the tokenizer that transformers loads from a checkpoint folder, on `texts` and on tricky ones.

    Raises `NotCompared` where transformers is not installed or cannot load the tokenizer.
    """
    try:
        from transformers import AutoTokenizer
        from transformers.utils import logging as transformers_logging
    except ImportError as error:
        raise NotCompared("transformers is not installed") from error
    transformers_logging.set_verbosity_error()
    try:
        theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever its classes raise at a file that they do not expect
        raise NotCompared(f"transformers cannot load the tokenizer: {' '.join(str(error).split())[:200]}") from error
    tried = 0
    differences: list[Difference] = []
    for text in dict.fromkeys([*texts, *TRICKY_TEXTS]):
        expected: list[int] = theirs(text, truncation=True, max_length=max_length)["input_ids"]
        try:
            found = list(encode(text).ids)
        except BlankTextError:  # nothing but special tokens: not classified at all
            continue
        tried += 1
        if found != expected:
            differences.append(Difference(text, found, expected))
    return Comparison(type(theirs).__name__, tried, differences)
