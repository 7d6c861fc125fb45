"""The bundle's token ids next to those of transformers, for each setting that its tokenizer classes take from elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from models.bundle import TOKENIZER, embedded_bundle
from models.making.config import read_config
from models.making.tokenization import prepare_tokenizer
from models.making.tokens import TRICKY_TEXTS, Comparison, NotCompared, compare_tokens
from models.tokenizer import Tokenizer

pytest.importorskip("transformers")

pytestmark = [
    pytest.mark.build,
    # The libraries' own deprecations, on their way through each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

LIMIT = 24
NO_SPECIALS: dict[str, Any] = {"post_processor": None}
CASED: dict[str, Any] = {
    "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": False}
}
LEFT: dict[str, Any] = {"truncation": {"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0}}


def checkpoint(folder: Path, changes: dict[str, Any], settings: object, model_type: str = "bert") -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    content = json.loads((embedded_bundle() / TOKENIZER).read_text(encoding="utf-8"))
    (folder / TOKENIZER).write_text(json.dumps(content | changes), encoding="utf-8")
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def compare(folder: Path, content: bytes) -> Comparison:
    return compare_tokens(folder, Tokenizer(content, LIMIT).encode, LIMIT, ["My payment failed twice"])


@pytest.mark.parametrize(
    ("changes", "settings", "model_type"),
    [
        ({}, None, "bert"),
        (NO_SPECIALS, None, "bert"),
        (NO_SPECIALS, {"tokenizer_class": "PreTrainedTokenizerFast"}, "bert"),
        (NO_SPECIALS, {"tokenizer_class": "DistilBertTokenizer"}, "distilbert"),
        (CASED, None, "bert"),
        (CASED, {}, "electra"),
        (CASED, {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True}, "bert"),
        ({}, {"do_lower_case": False}, "bert"),
        ({}, {"strip_accents": False}, "bert"),
        ({}, {"tokenize_chinese_chars": False}, "bert"),
        ({"normalizer": {"type": "NFC"}}, {"tokenizer_class": "BertTokenizerFast"}, "bert"),
        ({}, {"truncation_side": "left"}, "bert"),
        (LEFT, {}, "bert"),
        (LEFT, {"truncation_side": "right"}, "bert"),
        (LEFT, {"tokenizer_class": "PreTrainedTokenizerFast"}, "bert"),
    ],
)
def test_prepared_as_transformers_loads_it(tmp_path: Path, changes: dict[str, Any], settings: object, model_type: str) -> None:
    folder = checkpoint(tmp_path, changes, settings, model_type)
    content, _ = prepare_tokenizer(folder, read_config(folder))
    compared = compare(folder, content)
    assert compared.differences == []
    assert compared.texts == len(TRICKY_TEXTS) + 1
    assert str(compared).startswith(f"token ids of {compared.texts} texts are those of the checkpoint's own")


@pytest.mark.parametrize(
    ("changes", "settings"),
    [
        (NO_SPECIALS, None),
        (CASED, None),
        ({}, {"do_lower_case": False}),
        ({}, {"strip_accents": False}),
        ({}, {"truncation_side": "left"}),
    ],
)
def test_the_file_as_it_is_would_differ(tmp_path: Path, changes: dict[str, Any], settings: object) -> None:
    folder = checkpoint(tmp_path, changes, settings)
    compared = compare(folder, (folder / TOKENIZER).read_bytes())
    assert compared.differences
    assert f"token ids of {len(compared.differences)} of {compared.texts} texts are not those" in str(compared)


def test_what_cannot_be_compared_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = checkpoint(tmp_path, {}, {"do_lower_case": "no"})
    with pytest.raises(NotCompared, match=r"transformers cannot load the tokenizer: .*bool"):
        compare(folder, (folder / TOKENIZER).read_bytes())
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(NotCompared, match="transformers is not installed"):
        compare(folder, (folder / TOKENIZER).read_bytes())
