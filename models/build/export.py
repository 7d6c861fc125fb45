"""Checkpoint to ONNX: traced by torch with dynamic axes, then INT8 weights with activations quantized on the fly."""

from __future__ import annotations

import json
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel
from transformers.utils import logging as transformers_logging

from models.classifier import INPUTS

OPSET = 20


class ExportError(Exception):
    """Raised when a folder is not a checkpoint that can be exported; the message says why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A sequence classifier read from a Hugging Face checkpoint folder."""

    model: PreTrainedModel
    labels: list[str]
    max_length: int
    pad_token_id: int
    tokenizer: bytes


def read_checkpoint(folder: Path, max_length: int | None = None) -> Checkpoint:
    """Read model, labels and tokenizer. `max_length` in tokens; by default what training used, at most the model's positions.

    Raises `ExportError`.
    """
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ExportError(f"{folder}: no {name}; a Hugging Face checkpoint with a fast tokenizer is needed")
    transformers_logging.disable_progress_bar()
    try:
        # eager attention: plain MatMul and Softmax, which the runtime can fuse; sdpa adds masks and NaN checks to every layer.
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, attn_implementation="eager"
        ).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise ExportError(f"{folder}: {error}") from error
    positions = int(getattr(model.config, "max_position_embeddings", 512))
    longest = max_length or min(int(tokenizer.model_max_length), positions)
    if longest > positions:
        raise ExportError(f"max length {longest} is over the model's {positions} positions")
    return Checkpoint(
        model=model,
        labels=[model.config.id2label[index] for index in range(model.config.num_labels)],
        max_length=longest,
        pad_token_id=int(tokenizer.pad_token_id or 0),
        tokenizer=(folder / "tokenizer.json").read_bytes(),
    )


class _LogitsOnly(torch.nn.Module):  # type: ignore[misc]
    """Token ids and attention mask, shape [texts, tokens], to logits, shape [texts, labels]."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self._model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def export_onnx(checkpoint: Checkpoint, path: Path) -> None:
    """Write the fp32 graph with dynamic axes `texts` and `tokens` as one self-contained file."""
    axes = {0: torch.export.Dim("texts", min=1, max=4096), 1: torch.export.Dim("tokens", min=2, max=checkpoint.max_length)}
    # Two texts of different lengths: a trace on one text alone would fix the first axis at 1.
    ids = torch.ones((2, 16), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _LogitsOnly(checkpoint.model),
            (ids, mask),
            path,
            input_names=list(INPUTS),
            output_names=["logits"],
            dynamic_shapes=dict.fromkeys(("input_ids", "attention_mask"), axes),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def quantize_int8(source: Path, target: Path) -> None:
    """Dynamic INT8: signed weights, one scale per output channel; activations unsigned, scaled at run time.

    Signed weights with unsigned activations (U8S8) is what the VNNI instructions take; unsigned weights were twice as slow.
    """
    quiet = logging.getLogger()
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # it advises shape inference first, which changes nothing for this graph
    try:
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True)
    finally:
        quiet.setLevel(level)
