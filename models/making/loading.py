"""Checkpoints loaded by transformers, in float32, with an error for whatever it would pass over with a warning. Needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import logging as transformers_logging

from models.making.config import CheckpointError, read_config
from models.making.encoder import no_head
from models.making.weights import read_tensors


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in float32; `left_out` are tensors of the files that it does not read, `new` those of its head that are random."""

    model: PreTrainedModel
    left_out: list[str]
    new: list[str]


def load_classifier(folder: Path, *, new_head: bool = False, **options: Any) -> Loaded:  # noqa: ANN401 - as transformers has them
    """Load a sequence classifier; `options` replace values of its config.

    With `new_head`, its head may be missing, or of another size, and is then random; the encoder never is. Raises `CheckpointError`
    when transformers cannot load it, when tensors are missing, of another shape or not finite, or when the encoder has more of them
    than the config says.
    """
    read_tensors(folder)  # damaged files and names of shards that lead elsewhere are found here
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # each architecture raises what it likes at a config that it cannot take
        if "trust_remote_code" in str(error):
            raise CheckpointError(f"{folder}: it needs Python code of its own (auto_map), which is never run here") from error
        raise CheckpointError(f"{folder}: transformers cannot load it: {one_line(error)}") from error
    parts = _Parts(model)
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    mismatched = sorted(report["mismatched_keys"])
    for name, stored, wanted in mismatched:
        if not new_head or parts.is_encoder(name):
            raise CheckpointError(f"{folder}: {name!r} has shape {list(stored)}, the config asks for {list(wanted)}")
    if lost := [name for name in missing if parts.is_encoder(name)]:
        raise CheckpointError(f"{folder}: no tensor {lost[0]!r}, which the config asks for")
    if missing and not new_head:
        raise CheckpointError(no_head(folder, read_config(folder), f"no tensor {missing[0]!r}"))
    if odd := [name for name in unexpected if parts.is_encoder(name) or (parts.is_head(name) and not new_head)]:
        raise CheckpointError(f"{folder}: tensors with no place in the model of this config: {', '.join(odd[:5])}")
    new = missing + [name for name, _, _ in mismatched]
    for name, value in model.named_parameters():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{folder}: {name!r} has values that are not finite")
    return Loaded(model.float(), unexpected, sorted(new))


class _Parts:
    """Which part of a model a tensor belongs to, by its name."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._prefix = f"{model.base_model_prefix}."
        self._inside = {name for name, _ in getattr(model, model.base_model_prefix, torch.nn.Module()).named_children()}
        self._outside = {name for name, _ in model.named_children()} - {model.base_model_prefix}

    def is_encoder(self, name: str) -> bool:
        """A part of the encoder; its pooler counts to the head, and index buffers to nothing."""
        inner = name.removeprefix(self._prefix)
        return inner.split(".")[0] in self._inside - self._outside - {"pooler"} and not _is_buffer(name)

    def is_head(self, name: str) -> bool:
        """A part of what follows the encoder."""
        return name.split(".", maxsplit=1)[0] in self._outside and not _is_buffer(name)


def _is_buffer(name: str) -> bool:
    return name.endswith(("position_ids", "token_type_ids"))


def one_line(error: BaseException, most: int = 300) -> str:
    """What an error says at its root, as one line of at most so many characters."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else text[: most - 3] + "..."
