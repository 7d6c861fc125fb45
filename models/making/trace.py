"""For architectures that the padding-free graph does not know: traced by torch, quantized by ONNX Runtime, run in padded passes."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path

import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import logging as transformers_logging

from models.engines import PaddedEngine
from models.making.checkpoint import CheckpointError

OPSET = 20


class _LogitsOnly(torch.nn.Module):  # type: ignore[misc]
    """Token ids and attention mask, shape [texts, tokens], to logits, shape [texts, labels]."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self._model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def trace(folder: Path, max_length: int, path: Path) -> None:
    """Write the fp32 graph of a checkpoint with dynamic axes `texts` and `tokens` as one self-contained file.

    Raises `CheckpointError` when transformers cannot load it.
    """
    transformers_logging.disable_progress_bar()
    try:
        # eager attention: plain MatMul and Softmax, which the runtime can fuse; sdpa adds masks and NaN checks to every layer.
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, attn_implementation="eager"
        ).eval()
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{folder}: {error}") from error
    axes = {0: torch.export.Dim("texts", min=1, max=4096), 1: torch.export.Dim("tokens", min=2, max=max_length)}
    # Two texts of different lengths: a trace on one text alone would fix the first axis at 1.
    ids = torch.ones((2, 16), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _LogitsOnly(model),
            (ids, mask),
            path,
            input_names=list(PaddedEngine.INPUTS),
            output_names=["logits"],
            dynamic_shapes=dict.fromkeys(PaddedEngine.INPUTS, axes),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def quantize_int8(source: Path, target: Path, *, reduce_range: bool = False) -> None:
    """Dynamic INT8: signed weights, one scale per output channel; activations unsigned, scaled at run time.

    Signed weights with unsigned activations (U8S8) is what the VNNI instructions take; unsigned weights were twice as slow.
    """
    quiet = logging.getLogger()
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # it advises shape inference first, which changes nothing for this graph
    try:
        quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True, reduce_range=reduce_range)
    finally:
        quiet.setLevel(level)
