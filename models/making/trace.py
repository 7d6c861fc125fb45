"""For architectures that the padding-free graph does not know: traced by torch, quantized by ONNX Runtime, run in padded passes."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from transformers import PreTrainedModel

from models.engines import PaddedEngine
from models.making.config import CheckpointError
from models.making.encoder import left_out
from models.making.loading import load_classifier, one_line
from models.making.metrics import Floats

OPSET = 20
# Ids that stand for a text where the trace is made and checked; any but the padding's will do.
SOME_ID: Final = 5
TRACED_LENGTH: Final = 16
# How far the traced logits may be from torch's, relative to the largest.
TOLERANCE: Final = 1e-3


class _LogitsOnly(torch.nn.Module):  # type: ignore[misc]
    """Token ids and attention mask, shape [texts, tokens], to logits, shape [texts, labels]."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self._model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def trace(folder: Path, max_length: int, path: Path, say: Callable[[str], None] = lambda _: None) -> None:
    """Write the fp32 graph of a checkpoint with dynamic axes `texts` and `tokens` as one self-contained file.

    Raises `CheckpointError` when transformers cannot load it, the exporter cannot write it, it cannot take `max_length` tokens, or
    the graph does not give torch's logits for texts of other lengths than the traced ones.
    """
    # eager attention: plain MatMul and Softmax, which the runtime can fuse; sdpa adds masks and NaN checks to every layer.
    loaded = load_classifier(folder, attn_implementation="eager")
    if loaded.left_out:
        say(left_out(loaded.left_out, str(loaded.model.config.model_type)))
    model = _LogitsOnly(loaded.model.eval())
    pad = loaded.model.config.pad_token_id
    pad = pad if isinstance(pad, int) else 0
    _try_length(model, max_length, pad)
    # Before the export, and the longest first: some models choose their attention by the first short text that they see.
    lengths = sorted({min(max_length, length) for length in (3, TRACED_LENGTH + 7, max_length)}, reverse=True)
    with torch.inference_mode():
        expected = {length: model(*_batch(length, pad)).numpy() for length in lengths}
    if not all(np.isfinite(logits).all() for logits in expected.values()):
        raise CheckpointError(f"{folder}: the model computes values that are not finite: its weights are damaged or too large")
    axes = {0: torch.export.Dim("texts", min=1, max=4096), 1: torch.export.Dim("tokens", min=2, max=max_length)}
    # Two texts of different lengths: a trace on one text alone would fix the first axis at 1.
    ids = torch.ones((2, TRACED_LENGTH), dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    try:
        with _silence():
            torch.onnx.export(
                model,
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
    except Exception as error:  # the exporter's own, and whatever the model's code raises under it
        kind = loaded.model.config.model_type
        raise CheckpointError(f"{folder}: torch cannot export this {kind!r} as an ONNX graph: {one_line(error)}") from error
    _compare(expected, path, pad)


def _try_length(model: torch.nn.Module, max_length: int, pad: int) -> None:
    """Raise `CheckpointError` unless the model takes a text of `max_length` tokens, saying the longest that it takes."""
    if (reason := _fault(model, max_length, pad)) is None:
        return
    shortest, longest = 2, max_length
    while longest - shortest > 1:
        middle = (shortest + longest) // 2
        shortest, longest = (middle, longest) if _fault(model, middle, pad) is None else (shortest, middle)
    if _fault(model, shortest, pad) is not None:
        raise CheckpointError(f"the model fails on a text of {max_length} tokens, and on any other: {reason}")
    raise CheckpointError(f"the model fails on a text of {max_length} tokens ({reason}); it takes --max-length {shortest}")


def _fault(model: torch.nn.Module, length: int, pad: int) -> str | None:
    try:
        with torch.inference_mode():
            model(*_batch(length, pad))
    except (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        return one_line(error, 150)
    return None


def _batch(length: int, pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two texts, of `length` tokens and of half as many."""
    half = max(1, length // 2)
    row = torch.arange(length) % 2 + SOME_ID
    row[row == pad] = SOME_ID + 2
    ids, mask = row.repeat(2, 1), torch.ones((2, length), dtype=torch.int64)
    ids[1, half:], mask[1, half:] = pad, 0
    return ids, mask


def _compare(expected: Mapping[int, Floats], path: Path, pad: int) -> None:
    """Raise `CheckpointError` unless the graph gives torch's logits, by length: a trace may have taken a length for a constant."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    for length, logits in sorted(expected.items()):
        ids, mask = _batch(length, pad)
        try:
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            (found,) = session.run(None, dict(zip(PaddedEngine.INPUTS, (ids.numpy(), mask.numpy()), strict=True)))
        except Exception as error:  # the runtime's exceptions share no public base class
            raise CheckpointError(
                f"the traced graph fails on a text of {length} tokens: {one_line(error)}; this architecture cannot be traced"
            ) from error
        change = float(np.abs(np.asarray(found) - logits).max() / max(1.0, float(np.abs(logits).max())))
        if not change <= TOLERANCE:
            raise CheckpointError(
                f"the traced graph's logits of a text of {length} tokens differ from torch's by {change:.2g} of the largest: this"
                " architecture cannot be traced for texts of every length"
            )


@contextlib.contextmanager
def _silence() -> Generator[None]:
    """Keep the exporter's progress, advice and dumps of the graph from the terminal; its errors come as exceptions."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


def quantize_int8(source: Path, target: Path, *, reduce_range: bool = False) -> None:
    """Dynamic INT8: signed weights, one scale per output channel; activations unsigned, scaled at run time.

    Signed weights with unsigned activations (U8S8) is what the VNNI instructions take; unsigned weights were twice as slow. Raises
    `CheckpointError` when the runtime's quantizer cannot take the graph.
    """
    try:
        with _silence():  # it advises shape inference first, which changes nothing for this graph
            quantize_dynamic(source, target, weight_type=QuantType.QInt8, per_channel=True, reduce_range=reduce_range)
    except Exception as error:  # it raises plain ones of many kinds
        raise CheckpointError(f"ONNX Runtime cannot quantize the graph: {one_line(error)}; build with --precision fp32") from error
