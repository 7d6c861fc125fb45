"""`tokenizer.json` as transformers has it after loading a checkpoint, without transformers.

Its tokenizer classes take more from themselves and from `tokenizer_config.json` than from `tokenizer.json`: what is done to case
and accents, the special tokens around a text, which end of a long text is cut. Where the files disagree, what transformers takes
is taken here too, and said. Classes that are not known here are as their `tokenizer.json` says, which is what transformers does
with most of them; `models.making.tokens` compares the outcome where transformers is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tokenizers
from tokenizers import normalizers, pre_tokenizers, processors

from models.making.config import CheckpointError, Config, read_json
from models.making.formats import TOKENIZER

MAX_TOKENIZER_BYTES: Final = 256 << 20
CONFIG: Final = "tokenizer_config.json"
SPECIALS: Final = "special_tokens_map.json"
PROBE: Final = "a"


@dataclass(frozen=True, slots=True)
class _Family:
    """What a tokenizer class of transformers has of its own: the tokens around a text, by the names and defaults they have in the
    config, and the kind of tokenizer it makes.
    """

    first: tuple[str, str]
    last: tuple[str, str]
    model: type[Any]


_WORD_PIECE: Final = _Family(("cls_token", "[CLS]"), ("sep_token", "[SEP]"), tokenizers.models.WordPiece)
_MPNET: Final = _Family(("cls_token", "<s>"), ("sep_token", "</s>"), tokenizers.models.WordPiece)
_BYTE_PAIRS: Final = _Family(("cls_token", "<s>"), ("sep_token", "</s>"), tokenizers.models.BPE)
_UNIGRAM: Final = _Family(("bos_token", "<s>"), ("eos_token", "</s>"), tokenizers.models.Unigram)
FAMILIES: Final[Mapping[str, _Family]] = {
    "BertTokenizer": _WORD_PIECE,
    "ConvBertTokenizer": _WORD_PIECE,
    "DistilBertTokenizer": _WORD_PIECE,
    "ElectraTokenizer": _WORD_PIECE,
    "LayoutLMTokenizer": _WORD_PIECE,
    "MobileBertTokenizer": _WORD_PIECE,
    "SqueezeBertTokenizer": _WORD_PIECE,
    "MPNetTokenizer": _MPNET,
    "RobertaTokenizer": _BYTE_PAIRS,
    "CamembertTokenizer": _UNIGRAM,
    "XLMRobertaTokenizer": _UNIGRAM,
}
# The class that an architecture has where the files name none.
DEFAULT_CLASSES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("bert", "convbert", "distilbert", "electra", "layoutlm", "squeezebert"), "BertTokenizer"),
    "mobilebert": "MobileBertTokenizer",
    "mpnet": "MPNetTokenizer",
    **dict.fromkeys(("roberta", "data2vec-text"), "RobertaTokenizer"),
    "camembert": "CamembertTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
# Tokenizers that are nothing but their tokenizer.json; a config may name this class to have the file as it is.
AS_IT_IS: Final = "PreTrainedTokenizerFast"


def prepare_tokenizer(folder: Path, config: Config) -> tuple[bytes, tuple[str, ...]]:
    """The content of `tokenizer.json` with what the tokenizer's class and config change, and a sentence about each change.

    The content is the file's own, byte for byte, where nothing changes. Raises `CheckpointError`.
    """
    file = folder / TOKENIZER
    if (size := file.stat().st_size) > MAX_TOKENIZER_BYTES:
        raise CheckpointError(f"{file}: {size} bytes is over the limit of {MAX_TOKENIZER_BYTES}")
    content = file.read_bytes()
    try:
        tokenizer = tokenizers.Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises plain Exception
        raise CheckpointError(f"{file}: not a tokenizer.json: {error}") from error
    settings = Settings(folder)
    named = settings.get("tokenizer_class", config.get("tokenizer_class"))
    name = str(named or DEFAULT_CLASSES.get(str(config.get("model_type")), AS_IT_IS)).removesuffix("Fast")
    notes = _truncation(tokenizer, settings)
    family = FAMILIES.get(name)
    if family is None or not isinstance(tokenizer.model, family.model):
        notes += _nothing_added(tokenizer) + _ignored(tokenizer, settings, name)
    else:
        if family.model is tokenizers.models.WordPiece:
            notes += _normalizer(tokenizer, settings, name)
        if family.model is tokenizers.models.BPE:
            notes += _leading_space(tokenizer, settings, name)
        notes += _special_tokens(tokenizer, settings, family, name)
    changed = [note for note in notes if note.changes]
    return tokenizer.to_str().encode() if changed else content, tuple(note.text for note in notes)


class Settings:
    """What `tokenizer_config.json` and, for special tokens, `special_tokens_map.json` say."""

    def __init__(self, folder: Path) -> None:
        self._values: dict[str, Any] = {}
        for file in (folder / SPECIALS, folder / CONFIG):
            if file.exists():
                values = read_json(file)
                if not isinstance(values, dict):
                    raise CheckpointError(f"{file}: not a JSON object")
                self._values |= {name: value for name, value in values.items() if value is not None}

    def get(self, name: str, default: object = None) -> Any:  # noqa: ANN401 - JSON
        """The value, or the default where the key is absent or null."""
        return self._values.get(name, default)

    def flag(self, name: str, default: bool | None) -> bool | None:
        """True, false or the default. Raises `CheckpointError`."""
        value = self._values.get(name, default)
        if value is not None and not isinstance(value, bool):
            raise CheckpointError(f"{CONFIG}: {name} is {value!r}, true or false is needed")
        return value

    def token(self, name: str, default: str) -> str:
        """A special token's text. Raises `CheckpointError`."""
        value = self._values.get(name, default)
        value = value.get("content") if isinstance(value, dict) else value
        if not isinstance(value, str) or not value:
            raise CheckpointError(f"{CONFIG}: {name} is {self._values.get(name)!r}, a token is needed")
        return value


@dataclass(frozen=True, slots=True)
class _Note:
    """A sentence for the person who builds; `changes` if `tokenizer.json` is not what it was."""

    text: str
    changes: bool


def _truncation(tokenizer: tokenizers.Tokenizer, settings: Settings) -> list[_Note]:
    """Which end of a long text is cut; the bundle's tokenizer keeps it as the direction of its truncation."""
    stored = (tokenizer.truncation or {}).get("direction", "right").lower()
    asked = settings.get("truncation_side", stored)
    if asked not in {"left", "right"}:
        raise CheckpointError(f"{CONFIG}: truncation_side is {asked!r}, 'left' or 'right' is needed")
    # The limit is the bundle's, and there is no padding: only the direction is read from there.
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if asked == "left":
        tokenizer.enable_truncation(512, direction="left")
    if asked == stored:
        return [_Note("long texts are cut at their beginning (truncation_side 'left')", changes=False)] if asked == "left" else []
    end = {"left": "beginning", "right": "end"}[asked]
    return [_Note(f"long texts are cut at their {end}: {CONFIG} says truncation_side {asked!r}", changes=True)]


def _normalizer(tokenizer: tokenizers.Tokenizer, settings: Settings, name: str) -> list[_Note]:
    """BERT's classes replace whatever normalizer the file has by their own."""
    wanted: dict[str, Any] = {
        "lowercase": settings.flag("do_lower_case", True),
        "strip_accents": settings.flag("strip_accents", None),
        "handle_chinese_chars": settings.flag("tokenize_chinese_chars", True),
        "clean_text": True,
    }
    current = tokenizer.normalizer
    if isinstance(current, normalizers.BertNormalizer):
        stored = {key: getattr(current, key) for key in wanted}
        if stored == wanted:
            return []
        differing = ", ".join(
            f"{key} is {stored[key]} there and {wanted[key]} here" for key in wanted if stored[key] != wanted[key]
        )
    else:
        differing = f"its normalizer is {type(current).__name__ if current is not None else 'none'}"
    tokenizer.normalizer = normalizers.BertNormalizer(**wanted)
    return [
        _Note(
            f"{TOKENIZER} contradicts {name} with the settings of {CONFIG}: {differing}; taken as transformers does, from the class"
            f" and {CONFIG}. If {TOKENIZER} is right, set tokenizer_class to {AS_IT_IS!r} in {CONFIG}",
            changes=True,
        )
    ]


def _leading_space(tokenizer: tokenizers.Tokenizer, settings: Settings, name: str) -> list[_Note]:
    """RoBERTa's class makes its own byte-level splitting, with a space before the first word only if the config says so."""
    wanted = bool(settings.flag("add_prefix_space", False))
    current = tokenizer.pre_tokenizer
    if isinstance(current, pre_tokenizers.ByteLevel) and current.add_prefix_space == wanted:
        return []
    there = f"add_prefix_space {current.add_prefix_space}" if isinstance(current, pre_tokenizers.ByteLevel) else "other splitting"
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=wanted)
    return [
        _Note(
            f"{TOKENIZER} has {there}, {name} with the settings of {CONFIG} add_prefix_space {wanted}; taken as transformers does,"
            f" from the class and {CONFIG}. If {TOKENIZER} is right, set tokenizer_class to {AS_IT_IS!r} in {CONFIG}",
            changes=True,
        )
    ]


def _special_tokens(tokenizer: tokenizers.Tokenizer, settings: Settings, family: _Family, name: str) -> list[_Note]:
    """The tokens that the class puts around each text, whatever the file says."""
    first, last = settings.token(*family.first), settings.token(*family.last)
    ids = [tokenizer.token_to_id(token) for token in (first, last)]
    for token, number in zip((first, last), ids, strict=True):
        if number is None:
            raise CheckpointError(f"{TOKENIZER}: no token {token!r}, which {name} puts around each text")
    before, after = _around(tokenizer)
    if (before, after) == (ids[:1], ids[1:]):
        return []
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, ids[0]), (last, ids[1])] if first != last else [(first, ids[0])]
    )
    found = "has no special tokens" if not before + after else "has other special tokens"
    return [_Note(f"{TOKENIZER} {found} around a text; added {first} and {last}, as {name} does", changes=True)]


def _around(tokenizer: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """The ids before and after a text."""
    bare = tokenizer.encode(PROBE, add_special_tokens=False).ids
    whole = tokenizer.encode(PROBE).ids
    for start in range(len(whole) - len(bare) + 1):
        if bare and whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return whole, []


def _nothing_added(tokenizer: tokenizers.Tokenizer) -> list[_Note]:
    if tokenizer.num_special_tokens_to_add(is_pair=False):
        return []
    return [
        _Note(f"{TOKENIZER} puts no special tokens around a text, and its class adds none in transformers either", changes=False)
    ]


def _ignored(tokenizer: tokenizers.Tokenizer, settings: Settings, name: str) -> list[_Note]:
    """Settings that say something else than the file, for classes that do not read them."""
    current = tokenizer.normalizer
    if not isinstance(current, normalizers.BertNormalizer):
        return []
    pairs = (("do_lower_case", "lowercase"), ("strip_accents", "strip_accents"), ("tokenize_chinese_chars", "handle_chinese_chars"))
    return [
        _Note(
            f"{CONFIG} says {key} {settings.get(key)!r}, {TOKENIZER} {getattr(current, stored)!r}: {TOKENIZER} is taken, as"
            f" transformers does with a {name}",
            changes=False,
        )
        for key, stored in pairs
        if settings.get(key) is not None and settings.get(key) != getattr(current, stored)
    ]
