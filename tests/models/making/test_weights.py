"""Weights in one file and in several, of every type that is read, and files that lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models.making.config import CheckpointError

safetensors_numpy = pytest.importorskip("safetensors.numpy")
ml_dtypes = pytest.importorskip("ml_dtypes")

from models.making.weights import read_tensors, weight_files  # noqa: E402 - needs what may be missing

FIRST, SECOND, INDEX = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"


def save(folder: Path, name: str = "model.safetensors", **tensors: npt.NDArray[Any]) -> None:
    safetensors_numpy.save_file({key.replace("__", "."): value for key, value in tensors.items()}, folder / name)


def index(folder: Path, places: object) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": places}))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    save(tmp_path, FIRST, a=np.full((2, 3), 1.5, np.float32))
    save(tmp_path, SECOND, b=np.full(4, 2.5, np.float32))
    index(tmp_path, {"a": FIRST, "b": SECOND})
    return tmp_path


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "bfloat16"])
def test_every_kind_of_float_is_read_as_float32(tmp_path: Path, kind: str) -> None:
    values = np.array([[1.5, -0.375], [1024.0, 0.0]])  # exact in all of them
    save(tmp_path, a=values.astype(np.dtype(kind)))
    read = read_tensors(tmp_path)("a", 2, 2)
    assert read.dtype == np.float32
    assert np.array_equal(read, values.astype(np.float32))


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "float8_e4m3fn"])
def test_a_type_that_is_no_float_or_too_small_is_named(tmp_path: Path, kind: str) -> None:
    save(tmp_path, a=np.zeros(2, np.dtype(kind)), b=np.ones(2, np.float32))
    tensors = read_tensors(tmp_path)
    assert tensors("b", 2).tolist() == [1, 1]
    with pytest.raises(CheckpointError, match=r"model\.safetensors: 'a' has type \w+; save the checkpoint in float32"):
        tensors("a", 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_value_that_float32_cannot_hold_is_named(tmp_path: Path, value: float) -> None:
    save(tmp_path, a=np.array([0.0, value]))
    with pytest.raises(CheckpointError, match="'a' has values that are not finite"):
        read_tensors(tmp_path)("a", 2)


def test_shards_are_read_as_one_file_is(sharded: Path) -> None:
    tensors = read_tensors(sharded)
    assert tensors("b", 4).tolist() == [2.5] * 4
    assert tensors.unread() == ["a"]
    assert tensors("a", 2, -1).tolist() == [[1.5] * 3] * 2
    assert tensors.unread() == []
    assert sorted(file.name for file in weight_files(sharded)) == [FIRST, SECOND]


def test_a_single_file_wins_over_an_index_as_in_transformers(sharded: Path) -> None:
    save(sharded, a=np.zeros(1, np.float32))
    assert list(weight_files(sharded)) == [sharded / "model.safetensors"]
    assert read_tensors(sharded)("a", 1).tolist() == [0]


@pytest.mark.parametrize(
    "name",
    [
        "../other.safetensors",
        "/etc/other.safetensors",
        "sub/other.safetensors",
        "..",
        "",
        "a\\b.safetensors",
        "x.bin",
        7,
        None,
        ["a"],
    ],
)
def test_a_shard_outside_the_folder_is_never_opened(sharded: Path, name: object) -> None:
    save(sharded.parent, "other.safetensors", b=np.zeros(4, np.float32))
    index(sharded, {"a": FIRST, "b": name})
    with pytest.raises(CheckpointError, match=r"index\.json: 'b' is in .*, which is not the name of a \.safetensors file"):
        read_tensors(sharded)


def test_a_shard_that_is_a_link_is_read_as_hub_caches_need(sharded: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    blob = (sharded / SECOND).rename(tmp_path_factory.mktemp("blobs") / "blob")
    (sharded / SECOND).symlink_to(blob)
    assert read_tensors(sharded)("b", 4).tolist() == [2.5] * 4


def test_a_shard_that_is_missing_is_named(sharded: Path) -> None:
    (sharded / SECOND).unlink()
    with pytest.raises(CheckpointError, match=f"'b' is in {SECOND}, which is not there"):
        read_tensors(sharded)


@pytest.mark.parametrize(
    ("places", "reason"),
    [
        ({"a": FIRST, "b": SECOND, "c": SECOND}, "lists 'c' for it, which is not in the file"),
        ({"a": FIRST}, None),
        ({"a": SECOND, "b": SECOND}, "lists 'a' for it, which is not in the file"),
        ({"b": FIRST, "a": SECOND}, "'a'|'b'"),
    ],
)
def test_an_index_that_contradicts_its_shards_is_refused(sharded: Path, places: dict[str, str], reason: str | None) -> None:
    index(sharded, places)
    if reason is None:  # a shard that no tensor is in is not opened
        assert "b" not in read_tensors(sharded)
    else:
        with pytest.raises(CheckpointError, match=reason):
            read_tensors(sharded)


def test_a_tensor_in_two_shards_is_refused(sharded: Path) -> None:
    save(sharded, SECOND, b=np.zeros(4, np.float32), a=np.zeros((2, 3), np.float32))
    with pytest.raises(CheckpointError, match=f"{SECOND}: {INDEX} does not list 'a' for it, which is in the file all the same"):
        read_tensors(sharded)


@pytest.mark.parametrize("content", ["[]", "{}", '{"weight_map": {}}', '{"weight_map": []}', "{", ""])
def test_an_index_that_is_none_is_refused(sharded: Path, content: str) -> None:
    (sharded / INDEX).write_text(content)
    with pytest.raises(CheckpointError, match=r"index\.json"):
        read_tensors(sharded)


@pytest.mark.parametrize("size", [2**63, 10**9, 5, 0])
def test_a_header_that_lies_is_refused(tmp_path: Path, size: int) -> None:
    save(tmp_path, a=np.zeros(8, np.float32))
    file = tmp_path / "model.safetensors"
    file.write_bytes(size.to_bytes(8, "little") + file.read_bytes()[8:])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: .*damaged or incomplete"):
        read_tensors(tmp_path)


def test_names_from_tensorflow_are_those_of_today(tmp_path: Path) -> None:
    save(tmp_path, x__LayerNorm__gamma=np.ones(2, np.float32), x__LayerNorm__beta=np.zeros(2, np.float32))
    tensors = read_tensors(tmp_path)
    assert tensors("x.LayerNorm.weight", 2).tolist() == [1, 1]
    assert tensors("x.LayerNorm.bias", 2).tolist() == [0, 0]
    assert tensors.unread() == []
