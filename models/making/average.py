"""The average of several fine-tuned checkpoints: one model, as fast as any of them.

Checkpoints that were trained from the same one, with other seeds, lie in one valley of the loss. The mean of their weights is as
good as their ensemble, or nearly so, and better than each on texts of other sources (Wortsman et al., "Model soups", 2022).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from models.making.config import CheckpointError

WEIGHTS = "model.safetensors"
# What made it, beside the weights.
RECORD = "averaged.json"


def average(checkpoints: Sequence[Path], out: Path) -> None:
    """Write a checkpoint to `out` whose weights are the means of those in `checkpoints`; all else is the first one's.

    Raises `CheckpointError` when they do not have the same tensors, and `FileExistsError` when `out` exists.
    """
    weights = [load_file(folder / WEIGHTS) for folder in checkpoints]
    first = {name: (tensor.shape, tensor.dtype) for name, tensor in weights[0].items()}
    for folder, tensors in zip(checkpoints, weights, strict=True):
        if {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()} != first:
            raise CheckpointError(f"{folder} has other tensors than {checkpoints[0]}: they cannot be averaged")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(checkpoints[0], partial)
    averaged = {
        name: torch.stack([tensors[name].double() for tensors in weights]).mean(dim=0).to(dtype)
        for name, (_, dtype) in first.items()
    }
    save_file(averaged, partial / WEIGHTS, metadata={"format": "pt"})
    (partial / RECORD).write_text(json.dumps([folder.name for folder in checkpoints]) + "\n", encoding="utf-8")
    if out.exists():
        raise FileExistsError(f"{out} exists")
    partial.rename(out)
