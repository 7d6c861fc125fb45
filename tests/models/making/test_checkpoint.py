from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from models.bundle import TOKENIZER, embedded_bundle
from models.classifier import Classifier
from models.making.checkpoint import read_checkpoint
from models.making.config import CheckpointError
from models.making.evaluate import compositions
from models.problem import ProblemType
from models.tokenizer import Tokenizer

GOOD: dict[str, Any] = {
    "model_type": "bert",
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "id2label": {"0": "a", "1": "b"},
}


def folder_with(folder: Path, config: object, tokenizer_config: object = None) -> Path:
    """A checkpoint folder without real weights, which `read_checkpoint` does not open."""
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if tokenizer_config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config))
    shutil.copy(embedded_bundle() / TOKENIZER, folder)
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def test_the_limit_is_the_tokenizer_s_or_the_positions(tmp_path: Path) -> None:
    assert read_checkpoint(folder_with(tmp_path, GOOD)).max_length == 512
    assert read_checkpoint(folder_with(tmp_path, GOOD, {"model_max_length": 128})).max_length == 128
    assert read_checkpoint(folder_with(tmp_path, GOOD, {"model_max_length": 1e30})).max_length == 512
    assert read_checkpoint(tmp_path, 64).max_length == 64


def test_roberta_s_positions_begin_after_its_padding_token_s_even_where_the_config_is_silent(tmp_path: Path) -> None:
    config = {**GOOD, "model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": None}
    checkpoint = read_checkpoint(folder_with(tmp_path, config))
    assert (checkpoint.max_length, checkpoint.pad_token_id) == (512, 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"problem_type": "ranking"}, "problem_type = 'ranking' is not supported"),
        ({"problem_type": ["regression"]}, r"problem_type = \['regression'\] is not supported"),
        (
            {"problem_type": "regression"},
            "problem_type = regression, and id2label has 2; labels: a regression model has one",
        ),
        ({"problem_type": "single_label_classification", "id2label": {"0": "a"}}, "id2label has 1; labels: a single-label"),
        ({"pad_token_id": -1}, "pad_token_id"),
        ({"pad_token_id": True}, "pad_token_id"),
        ({"max_position_embeddings": "512"}, "max_position_embeddings"),
        ({"max_position_embeddings": 2}, "max length 2"),
        ({"max_position_embeddings": 100_000}, "max length 100000"),
        ({"id2label": {"0": "a", "2": "b"}}, "id2label"),
        ({"id2label": {"0": "a", "one": "b"}}, "id2label is not numbered"),
        ({"id2label": {"0": "a", "1": "a"}}, "id2label"),
        ({"id2label": {"0": "a", "1": ""}}, "id2label"),
        ({"id2label": None, "num_labels": 10**10}, "more than 4096 labels"),
    ],
)
def test_a_config_that_cannot_be_right_is_refused_by_name(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read_checkpoint(folder_with(tmp_path, GOOD | change))


@pytest.mark.parametrize(
    ("stated", "labels", "asked", "found"),
    [
        (None, 2, None, "single-label"),
        (None, 1, None, "one-label"),
        ("regression", 1, None, "regression"),
        ("multi_label_classification", 2, None, "multi-label"),
        ("single_label_classification", 2, "multi-label", "multi-label"),
        (None, 1, "regression", "regression"),
        (None, 1, "multi-label", "multi-label"),
        ("ranking", 2, "single-label", "single-label"),
    ],
)
def test_the_problem_type_is_what_was_asked_for_or_what_the_config_says(
    tmp_path: Path, stated: str | None, labels: int, asked: ProblemType | None, found: str
) -> None:
    config = GOOD | {"problem_type": stated, "id2label": {str(number): f"label {number}" for number in range(labels)}}
    checkpoint = read_checkpoint(folder_with(tmp_path, config), problem_type=asked)
    assert (checkpoint.problem.type, len(checkpoint.problem.labels)) == (found, labels)


def test_a_problem_type_that_was_asked_for_must_fit(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="--problem-type = one-label, and id2label has 2; labels: a one-label model has one"):
        read_checkpoint(folder_with(tmp_path, GOOD), problem_type="one-label")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000])
def test_a_config_that_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_checkpoint(folder_with(tmp_path, content))


@pytest.mark.parametrize("limit", [-1, 0, True, "128", float("nan")])
def test_a_tokenizer_limit_that_is_no_length_is_refused(tmp_path: Path, limit: object) -> None:
    with pytest.raises(CheckpointError, match="model_max_length"):
        read_checkpoint(folder_with(tmp_path, GOOD, {"model_max_length": limit}))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    (folder_with(tmp_path, GOOD) / name).unlink()
    with pytest.raises(CheckpointError, match=f"no {name}"):
        read_checkpoint(tmp_path)


def test_a_vocabulary_with_gaps_ends_at_its_largest_id() -> None:
    model = tokenizers.models.WordLevel({"[UNK]": 0, "hello": 1, "far": 1000}, unk_token="[UNK]")  # noqa: S106 - not a password
    assert Tokenizer(tokenizers.Tokenizer(model).to_str().encode(), 8).vocabulary == 1001


def test_answers_that_are_not_numbers_are_a_change_in_random_batches(
    classifier: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    encodings = [classifier.encode(text) for text in ("hello", "payment failed")]
    alone = np.concatenate([classifier.logits([encoding]) for encoding in encodings])
    assert compositions(classifier, encodings, alone, 20, 1.0).moved == 0
    monkeypatch.setattr(classifier, "logits", lambda batch: np.full((len(batch), 3), np.nan, dtype=np.float32))
    broken = compositions(classifier, encodings, alone, 20, 1.0)
    assert broken.moved == broken.texts
    assert np.isnan(broken.largest_probability_change)
