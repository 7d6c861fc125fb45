"""Encodings to predictions: one ONNX Runtime session, shared by all worker threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from models.bundle import MODEL, TOKENIZER, Bundle, BundleError, Golden, Manifest
from models.packing import near_length_groups
from models.tokenizer import Tokenizer, TokenizerError
from models.types import Encoding, Prediction

INPUTS = ("input_ids", "attention_mask")

Packing = Callable[[Sequence[int]], list[list[int]]]
Floats = npt.NDArray[np.floating[Any]]


class SelfCheckFailed(Exception):
    """Raised when the model does not give its golden texts' logits on this machine."""


class Classifier:
    """A verified bundle, ready to classify. Implements `models.types.TextClassifier`; holds no mutable state of its own.

    `packing` divides the indices of a batch, given the texts' lengths in tokens, into the passes that will run.
    """

    def __init__(self, bundle: Bundle, packing: Packing = near_length_groups) -> None:
        manifest = bundle.manifest
        self.manifest: Manifest = manifest
        self._packing = packing
        self.labels = tuple(manifest.labels)
        self.identity = f"{manifest.name}@{manifest.version}"
        try:
            self._tokenizer = Tokenizer(bundle.tokenizer, manifest.max_length)
        except TokenizerError as error:
            raise BundleError(f"{TOKENIZER}: {error}") from error
        self._session = _open_session(bundle.model)
        self._check_signature()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a bundle folder. Raises `BundleError` when it is not whole or not loadable."""
        return cls(Bundle.open(folder))

    def encode(self, text: str) -> Encoding:
        """Tokenize one text. Raises `BlankTextError`."""
        return self._tokenizer.encode(text)

    def predict(self, encodings: Sequence[Encoding]) -> list[Prediction]:
        """Classify encodings; as many predictions, in the same order. Raises `ArithmeticError` if a logit is not finite."""
        scores = softmax(self.logits(encodings) / self.manifest.temperature)
        if not np.isfinite(scores).all():
            raise ArithmeticError(f"{self.identity} computed values that are not finite")
        best = scores.argmax(axis=1)
        return [
            Prediction(self.labels[winner], row[winner], tuple(row))
            for winner, row in zip(best.tolist(), scores.tolist(), strict=True)
        ]

    def logits(self, encodings: Sequence[Encoding]) -> Floats:
        """Raw logits, shape [texts, labels], before temperature."""
        logits = np.empty((len(encodings), len(self.labels)), dtype=np.float32)
        for group in self._packing([len(encoding) for encoding in encodings]):
            logits[group] = self._pass([encodings[index] for index in group])
        return logits

    def self_check(self) -> None:
        """Compare the golden texts' logits with the manifest's. Raises `SelfCheckFailed` with the worst difference and a remedy."""
        goldens = self.manifest.goldens
        differences = [self._golden_difference(golden) for golden in goldens]
        worst = int(np.argmax(differences))  # the first NaN, should there be one
        allowed = self.manifest.golden_tolerance
        if not differences[worst] <= allowed:
            raise SelfCheckFailed(
                f"{self.identity} computes wrong logits on this machine: off by {differences[worst]:.4g} where {allowed:.4g} is"
                f" allowed, on the golden text {goldens[worst].text[:40]!r}. On an x86 CPU without VNNI, 8-bit products can"
                " saturate: build the bundle again with --precision fp32"
            )

    def warm_up(self) -> None:
        """Run passes of several shapes: the first customer shall neither pay for the first allocations nor find the first fault."""
        ids = self.encode(self.manifest.goldens[0].text).ids
        for length in (8, 32, self.manifest.max_length):
            self.logits([Encoding((ids * length)[:length], truncated=False)])
        self._pass([Encoding(ids, truncated=False), Encoding(ids * 2, truncated=False)])  # one with padding

    def _golden_difference(self, golden: Golden) -> float:
        logits = self.logits([self.encode(golden.text)])[0]
        return float(np.abs(logits - np.asarray(golden.logits)).max())

    def _pass(self, encodings: Sequence[Encoding]) -> Floats:
        """One padded pass: shape [texts, longest] in, [texts, labels] out."""
        longest = max(map(len, encodings))
        ids = np.full((len(encodings), longest), self.manifest.pad_token_id, dtype=np.int64)
        mask = np.zeros((len(encodings), longest), dtype=np.int64)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding)] = encoding.ids
            mask[row, : len(encoding)] = 1
        (logits,) = self._session.run(None, dict(zip(INPUTS, (ids, mask), strict=True)))
        return np.asarray(logits)

    def _check_signature(self) -> None:
        inputs = tuple(value.name for value in self._session.get_inputs())
        outputs = [tuple(value.shape) for value in self._session.get_outputs()]
        if inputs != INPUTS or len(outputs) != 1 or outputs[0][-1] != len(self.labels):
            raise BundleError(
                f"{MODEL}: inputs {inputs} and outputs {outputs} are not ({', '.join(INPUTS)}) -> [texts, {len(self.labels)}]"
            )


def softmax(logits: Floats) -> Floats:
    """Probabilities over the last axis in float64, shifted by the maximum so that nothing overflows."""
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    probabilities: Floats = shifted / shifted.sum(axis=-1, keepdims=True)
    return probabilities


def _open_session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # Each worker thread runs whole passes alone: two threads inside one pass run in lockstep, which loses on a busy machine.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    # A spinning thread burns a core that the event loop or another worker could use.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Memory patterns are planned per input shape; with lengths that vary they only grow.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions share no public base class
        raise BundleError(f"{MODEL}: ONNX Runtime cannot load it: {error}") from error
