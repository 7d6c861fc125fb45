"""Folders that are no checkpoint: each message names what is there, and how to convert it."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.making.config import CheckpointError
from models.making.formats import require_files


def folder_of(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ((), "no config.json"),
        (("0_Transformer/config.json",), "there is one at .*0_Transformer"),
        (("snapshots/abc/config.json",), "there is one at .*abc"),
        (("config.json", "tokenizer.json"), "no model.safetensors; a Hugging Face checkpoint"),
        (("config.json", "tokenizer.json", "tf_model.h5"), "only tf_model.h5, which is not read"),
        (("config.json", "tokenizer.json", "model.fp16.safetensors"), "only model.fp16.safetensors; .* rename it"),
        (("config.json", "model.safetensors"), "no tokenizer.json; put the tokenizer"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, names: tuple[str, ...], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason) as raised:
        require_files(folder_of(tmp_path, *names))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("names", "reason", "statement"),
    [
        (
            ("config.json", "tokenizer.json", "pytorch_model.bin"),
            "a pickle, which is never read",
            "AutoModelForSequenceClassification",
        ),
        (("config.json", "tokenizer.json", "pytorch_model.bin.index.json"), "never read", "AutoModelForSequenceClassification"),
        (("config.json", "model.safetensors", "vocab.txt"), "only vocab.txt", "AutoTokenizer"),
        (("config.json", "model.safetensors", "spiece.model"), "only spiece.model", "AutoTokenizer"),
        (("adapter_config.json", "adapter_model.safetensors"), "only an adapter", "AutoPeftModelForSequenceClassification"),
        (("adapter_model.bin", "config.json", "tokenizer.json"), "only an adapter", "merge_and_unload"),
    ],
)
def test_what_can_be_converted_comes_with_two_lines_of_python(
    tmp_path: Path, names: tuple[str, ...], reason: str, statement: str
) -> None:
    with pytest.raises(CheckpointError, match=reason) as raised:
        require_files(folder_of(tmp_path, *names))
    _, *lines = str(raised.value).splitlines()
    assert len(lines) == 2
    compile("\n".join(line.strip() for line in lines), "message", "exec")
    assert statement in lines[1]


def test_the_lines_for_an_encoder_load_no_classifier(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"AutoModel\.from_pretrained"):
        require_files(folder_of(tmp_path, "config.json", "tokenizer.json", "pytorch_model.bin"), "AutoModel")


def test_a_file_or_nothing_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        require_files(tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="not a folder"):
        require_files(tmp_path / "file")


@pytest.mark.parametrize("weights", ["model.safetensors", "model.safetensors.index.json"])
def test_a_whole_checkpoint_passes_also_with_a_pickle_in_it(tmp_path: Path, weights: str) -> None:
    require_files(folder_of(tmp_path, "config.json", "tokenizer.json", "pytorch_model.bin", "vocab.txt", weights))
