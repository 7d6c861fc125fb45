"""The tensors of a checkpoint folder: `model.safetensors`, or the shards that `model.safetensors.index.json` lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.making.config import CheckpointError, read_json
from models.making.formats import INDEX, WEIGHTS

Floats = npt.NDArray[np.float32]

READABLE: Final = frozenset({"F64", "F32", "F16", "BF16"})


class Tensors:
    """The tensors of a checkpoint by name, read when asked for; remembers which were."""

    def __init__(self, tensors: dict[str, tuple[str, Any]]) -> None:
        """`tensors` has, for each name, the file's name and the open file."""
        self._tensors = {_modern(name, tensors): (name, *place) for name, place in tensors.items()}
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __call__(self, name: str, *shape: int) -> Floats:
        """One tensor in fp32. Raises `CheckpointError` when it is missing, not finite, or of another shape (-1 fits any size)."""
        if name not in self._tensors:
            raise CheckpointError(f"{WEIGHTS}: no tensor {name!r}")
        stored, file, stream = self._tensors[name]
        described = stream.get_slice(stored)
        have = described.get_shape()
        if len(have) != len(shape) or any(want not in (-1, size) for want, size in zip(shape, have, strict=True)):
            raise CheckpointError(f"{file}: {stored!r} has shape {list(have)}, the config asks for {list(shape)}")
        if (kind := described.get_dtype()) not in READABLE:
            raise CheckpointError(f"{file}: {stored!r} has type {kind}; save the checkpoint in float32, float16 or bfloat16")
        self._read.add(name)
        with np.errstate(over="ignore"):  # what float32 cannot hold is found below
            value = np.asarray(stream.get_tensor(stored)).astype(np.float32)
        if not np.isfinite(value).all():
            raise CheckpointError(f"{file}: {stored!r} has values that are not finite")
        return value

    def unread(self) -> list[str]:
        """The tensors that nobody asked for, by their names in the file."""
        return sorted(stored for name, (stored, _, _) in self._tensors.items() if name not in self._read)


def weight_files(folder: Path) -> dict[Path, set[str] | None]:
    """The files that hold the weights, each with the tensors that the index says it has; None where there is no index.

    Raises `CheckpointError` for an index that names files outside the folder or files that are not there.
    """
    if (folder / WEIGHTS).is_file():  # transformers prefers it, too
        return {folder / WEIGHTS: None}
    file = folder / INDEX
    values = read_json(file)
    places = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{file}: no weight_map")
    shards: dict[Path, set[str]] = {}
    for tensor, name in places.items():
        if not _is_plain(name):
            raise CheckpointError(f"{file}: {tensor!r} is in {name!r}, which is not the name of a .safetensors file in this folder")
        if not (folder / name).is_file():
            raise CheckpointError(f"{file}: {tensor!r} is in {name}, which is not there")
        shards.setdefault(folder / name, set()).add(tensor)
    return {**shards}


def _is_plain(name: object) -> bool:
    """Whether this names a file in the folder itself: anything else could be a path to somebody else's file."""
    return isinstance(name, str) and name == Path(name).name and name.endswith(".safetensors") and not {"\\", "\0"} & set(name)


def read_tensors(folder: Path) -> Tensors:
    """Open the weights; headers are checked, contents read when asked for. Raises `CheckpointError`."""
    import ml_dtypes  # noqa: F401 - it gives numpy bfloat16
    from safetensors import SafetensorError, safe_open

    tensors: dict[str, tuple[str, Any]] = {}
    for file, expected in weight_files(folder).items():
        try:
            stream: Any = safe_open(file, framework="np")
            names = set(stream.offset_keys())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file}: {error}; the file is damaged or incomplete") from error
        if expected is not None and names != expected:
            odd = min(names ^ expected)
            found = "not in the file" if odd in expected else "in the file all the same"
            where = "lists" if odd in expected else "does not list"
            raise CheckpointError(f"{file}: {INDEX} {where} {odd!r} for it, which is {found}")
        tensors |= dict.fromkeys(names, (file.name, stream))
    return Tensors(tensors)


def _modern(name: str, names: dict[str, tuple[str, Any]]) -> str:
    """Checkpoints converted from TensorFlow call a norm's weight and bias gamma and beta."""
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        if name.endswith(old) and (renamed := name.removesuffix(old) + new) not in names:
            return renamed
    return name
