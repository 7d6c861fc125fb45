"""The model as it is mostly run: texts tokenized with padding to the longest among them, one ONNX Runtime pass, softmax."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import tokenizers

Array = npt.NDArray[Any]


class Session(Protocol):
    """What is used of an ONNX Runtime session."""

    def run(self, output_names: None, input_feed: Mapping[str, Array], /) -> Sequence[Array]:
        """One pass."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A text's label, and its probability."""

    prediction: str
    confidence: float


class PaddedModel:
    """A classifier of texts. Thread-safe: neither the session nor the tokenizer changes by use."""

    def __init__(
        self, session: Session, tokenizer: tokenizers.Tokenizer, labels: Sequence[str], max_length: int, temperature: float
    ) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self._labels = labels
        self._temperature = temperature
        tokenizer.enable_padding()
        tokenizer.enable_truncation(max_length)

    @classmethod
    def open(cls, bundle: Path, options: ort.SessionOptions) -> Self:
        """The padded bundle in a folder. Raises `OSError`, or what its parts raise, when it is not one."""
        manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
        if manifest["engine"] != "padded":
            raise ValueError(f"{bundle}: a baseline needs a bundle that was built with --engine padded")
        return cls(
            ort.InferenceSession(str(bundle / "model.onnx"), options, providers=["CPUExecutionProvider"]),
            tokenizers.Tokenizer.from_file(str(bundle / "tokenizer.json")),
            manifest["labels"],
            manifest["max_length"],
            manifest["temperature"],
        )

    def predict(self, texts: Sequence[str]) -> list[Answer]:
        """Classify texts in one pass; as many answers, in their order."""
        encodings = self._tokenizer.encode_batch(list(texts))
        feed = {
            "input_ids": np.array([encoding.ids for encoding in encodings], dtype=np.int64),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64),
        }
        logits = self._session.run(None, feed)[0] / self._temperature
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponents / exponents.sum(axis=1, keepdims=True)
        return [Answer(self._labels[int(row.argmax())], float(row.max())) for row in probabilities]


def one_thread_a_pass() -> ort.SessionOptions:
    """For passes side by side in threads: each on a thread of its own, which sleeps while it has nothing to do."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
