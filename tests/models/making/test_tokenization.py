"""What a tokenizer's class and config change of `tokenizer.json`, and that it is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from models.bundle import TOKENIZER, embedded_bundle
from models.making.config import CheckpointError, Config
from models.making.tokenization import prepare_tokenizer
from models.tokenizer import Tokenizer

Json = dict[str, Any]
BERT = Config({"model_type": "bert"})
CLS, SEP = 101, 102


def folder_with(folder: Path, edit: Callable[[Json], object] = lambda _: None, settings: object = None) -> Path:
    """A folder with the embedded model's tokenizer, edited."""
    content = json.loads((embedded_bundle() / TOKENIZER).read_text(encoding="utf-8"))
    edit(content)
    (folder / TOKENIZER).write_text(json.dumps(content), encoding="utf-8")
    if settings is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def ids(content: bytes, text: str, max_length: int = 64) -> list[int]:
    return list(Tokenizer(content, max_length).encode(text).ids)


def no_specials(content: Json) -> None:
    content["post_processor"] = None


def cased(content: Json) -> None:
    content["normalizer"]["lowercase"] = False


def left(content: Json) -> None:
    content["truncation"]["direction"] = "Left"


def test_a_tokenizer_that_nothing_contradicts_is_kept_byte_for_byte(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, settings={"tokenizer_class": "BertTokenizerFast", "do_lower_case": True})
    assert prepare_tokenizer(folder, BERT) == ((folder / TOKENIZER).read_bytes(), ())


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        (None, "BertTokenizer"),
        ({}, "BertTokenizer"),
        ({"tokenizer_class": "BertTokenizer"}, "BertTokenizer"),
        ({"tokenizer_class": "DistilBertTokenizerFast"}, "DistilBertTokenizer"),
    ],
)
def test_special_tokens_that_the_file_lacks_are_added_as_the_class_does(tmp_path: Path, settings: object, name: str) -> None:
    content, notes = prepare_tokenizer(folder_with(tmp_path, no_specials, settings), BERT)
    found = ids(content, "payment failed")
    assert (found[0], found[-1]) == (CLS, SEP)
    assert notes == (f"tokenizer.json has no special tokens around a text; added [CLS] and [SEP], as {name} does",)


def test_special_tokens_are_those_that_the_config_names(tmp_path: Path) -> None:
    settings = {"cls_token": {"content": "[MASK]"}, "sep_token": "[PAD]"}
    content, notes = prepare_tokenizer(folder_with(tmp_path, settings=settings), BERT)
    found = ids(content, "payment")
    assert (found[0], found[-1]) == (103, 0)
    assert "has other special tokens around a text; added [MASK] and [PAD]" in notes[0]


def test_a_special_token_that_there_is_not_is_named(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, no_specials, {"cls_token": "[KLS]"})
    with pytest.raises(CheckpointError, match=r"no token '\[KLS\]', which BertTokenizer puts around each text"):
        prepare_tokenizer(folder, BERT)


def test_a_class_that_is_nothing_but_its_file_adds_nothing_and_that_is_said(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, no_specials, {"tokenizer_class": "PreTrainedTokenizerFast"})
    content, notes = prepare_tokenizer(folder, BERT)
    assert content == (folder / TOKENIZER).read_bytes()
    assert notes == ("tokenizer.json puts no special tokens around a text, and its class adds none in transformers either",)


@pytest.mark.parametrize("model_type", ["roberta", "xlm-roberta", "camembert"])
def test_roberta_and_its_kin_have_their_own_special_tokens(tmp_path: Path, model_type: str) -> None:
    if model_type == "roberta":
        model: Any = tokenizers.models.BPE(vocab={"<s>": 0, "<pad>": 1, "</s>": 2, "a": 3, "\u0120": 4}, merges=[])
    else:
        pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("a", -1.0)]
        model = tokenizers.models.Unigram(pieces, unk_id=3)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(tmp_path / TOKENIZER))
    content, notes = prepare_tokenizer(tmp_path, Config({"model_type": model_type}))
    assert ids(content, "a") == [0, *ids(content, "a")[1:-1], 2]
    assert "added <s> and </s>" in notes[-1]


def test_roberta_s_leading_space_is_the_config_s(tmp_path: Path) -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab={"<s>": 0, "</s>": 2, "a": 3, "\u0120": 4}, merges=[]))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.save(str(tmp_path / TOKENIZER))
    content, notes = prepare_tokenizer(tmp_path, Config({"model_type": "roberta"}))
    assert ids(content, "a") == [0, 3, 2]
    assert "has add_prefix_space True, RobertaTokenizer with the settings of tokenizer_config.json" in notes[0]
    (tmp_path / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    assert ids(prepare_tokenizer(tmp_path, Config({"model_type": "roberta"}))[0], "a") == [0, 4, 3, 2]


def test_case_is_the_config_s_or_the_class_s_default(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, settings={"do_lower_case": False})
    content, notes = prepare_tokenizer(folder, BERT)
    assert ids(content, "PAYMENT") == [CLS, 100, SEP]
    assert "tokenizer.json contradicts BertTokenizer" in notes[0]
    assert "lowercase is True there and False here" in notes[0]
    folder = folder_with(tmp_path, cased, {})
    content, notes = prepare_tokenizer(folder, BERT)
    assert ids(content, "PAYMENT") == ids(content, "payment") != [CLS, 100, SEP]
    assert "lowercase is False there and True here" in notes[0]
    folder = folder_with(tmp_path, cased, {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True})
    content, notes = prepare_tokenizer(folder, BERT)
    assert content == (folder / TOKENIZER).read_bytes()
    assert "tokenizer.json is taken" in notes[0]


def test_accents_and_chinese_characters_are_the_config_s(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, settings={"strip_accents": False, "tokenize_chinese_chars": False})
    content, notes = prepare_tokenizer(folder, BERT)
    assert ids(content, "café") == [CLS, 100, SEP]
    assert "strip_accents is None there and False here, handle_chinese_chars is True there and False here" in notes[0]


def test_another_normalizer_gives_way_to_the_class_s(tmp_path: Path) -> None:
    def edit(content: Json) -> None:
        content["normalizer"] = {"type": "NFC"}

    content, notes = prepare_tokenizer(folder_with(tmp_path, edit), BERT)
    assert ids(content, "Café") == ids((embedded_bundle() / TOKENIZER).read_bytes(), "Café")
    assert "its normalizer is NFC" in notes[0]


@pytest.mark.parametrize(
    ("edit", "settings", "side", "said"),
    [
        (lambda _: None, {"truncation_side": "left"}, "left", "cut at their beginning: tokenizer_config.json says"),
        (left, {}, "left", "cut at their beginning"),
        (left, {"truncation_side": "right"}, "right", "cut at their end: tokenizer_config.json says"),
        (lambda _: None, {"truncation_side": "right"}, "right", None),
    ],
)
def test_long_texts_lose_the_end_that_the_config_says(
    tmp_path: Path, edit: Callable[[Json], object], settings: object, side: str, said: str | None
) -> None:
    content, notes = prepare_tokenizer(folder_with(tmp_path, edit, settings), BERT)
    kept = {"left": "y z", "right": "a b"}[side]
    assert ids(content, "a b c d e f x y z", 4) == ids(content, kept, 4)
    assert [said in note for note in notes] == [True] if said else notes == ()


def test_padding_and_truncation_in_the_file_hide_no_special_tokens(tmp_path: Path) -> None:
    def edit(content: Json) -> None:
        content["padding"] = {
            "strategy": {"Fixed": 16},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        }
        content["truncation"]["max_length"] = 2

    folder = folder_with(tmp_path, edit)
    assert prepare_tokenizer(folder, BERT) == ((folder / TOKENIZER).read_bytes(), ())


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"do_lower_case": "false"}, "do_lower_case is 'false', true or false is needed"),
        ({"strip_accents": 1}, "strip_accents is 1"),
        ({"truncation_side": "middle"}, "truncation_side is 'middle'"),
        ({"cls_token": 7}, "cls_token is 7, a token is needed"),
        ([], "not a JSON object"),
    ],
)
def test_a_setting_that_cannot_be_right_is_named(tmp_path: Path, settings: object, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        prepare_tokenizer(folder_with(tmp_path, settings=settings), BERT)


@pytest.mark.parametrize("content", ["", "{}", "[]", "{"])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / TOKENIZER).write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a tokenizer\.json"):
        prepare_tokenizer(tmp_path, BERT)
