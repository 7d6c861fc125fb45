"""How a batch becomes logits: the padding-free pass, and the padded one for graphs that were traced.

An engine owns one ONNX Runtime session, which all worker threads share, and holds no mutable state besides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from models import passes
from models.bundle import MODEL, BundleError, EngineName, Manifest
from models.packing import near_length_groups
from models.types import Encoding

Floats = npt.NDArray[np.floating[Any]]

# The outputs of a padding-free graph. By name: without names, the runtime's Python part looks for them at each pass. The second is
# what the head reads, the last layer's row of each text's first token; graphs of bundles of format 2 do not give it.
LOGITS: Final = ("logits",)
WITH_FIRST: Final = ("logits", "first")


@dataclass(frozen=True, slots=True)
class Outputs:
    """What a model computes: logits, shape [texts, labels], and perhaps first-token vectors, shape [texts, hidden]."""

    logits: Floats
    first: Floats | None


class Engine(Protocol):
    """Encodings to logits. May be called from any thread, also at the same time."""

    # True if a text's logits are the same, to the bit, whatever texts share its batch.
    is_batch_invariant: bool
    # Dimensions of the first-token vectors; None if the graph gives none.
    first_width: int | None

    def logits(self, encodings: Sequence[Encoding]) -> Floats:
        """Raw logits, shape [texts, labels], in the order of the encodings; at least one encoding."""

    def outputs(self, encodings: Sequence[Encoding]) -> Outputs:
        """The same logits, with the first-token vectors where the graph gives them."""

    def divide(self, lengths: Sequence[int]) -> Sequence[Sequence[int]]:
        """The passes that `logits` makes of texts of these lengths, as indices."""


class PackedEngine:
    """The padding-free graph that `models.making.graph` writes; its inputs are `models.passes.INPUTS`."""

    is_batch_invariant = True

    def __init__(self, model: bytes, manifest: Manifest, threads: int = 1) -> None:
        # The graph is written with the operators that are to run. More optimization fuses 4 of its 262 nodes and gains nothing
        # (2.61 against 2.63 ms a text); what a later runtime would fuse, such as SkipLayerNormalization, might be slower, or let
        # batch-mates have a say.
        self._session = open_session(model, ort.GraphOptimizationLevel.ORT_ENABLE_BASIC, threads)
        check_signature(self._session, tuple(passes.INPUTS), len(manifest.labels))
        outputs = self._session.get_outputs()
        self.first_width: int | None = outputs[1].shape[1] if len(outputs) == len(WITH_FIRST) else None

    def logits(self, encodings: Sequence[Encoding]) -> Floats:
        """Raw logits, shape [texts, labels]."""
        return packed_logits(self._session, encodings)

    def outputs(self, encodings: Sequence[Encoding]) -> Outputs:
        """The same logits, with the first-token vectors where the graph gives them."""
        if self.first_width is None:
            return Outputs(self.logits(encodings), None)
        return Outputs(*_packed(self._session, encodings, WITH_FIRST))

    def divide(self, lengths: Sequence[int]) -> Sequence[Sequence[int]]:
        """The passes that `logits` makes of texts of these lengths, as indices."""
        return passes.plan(lengths)


def packed_logits(session: ort.InferenceSession, encodings: Sequence[Encoding]) -> Floats:
    """Run a batch through a padding-free graph, in the passes that `models.passes` plans."""
    return _packed(session, encodings, LOGITS)[0]


def _packed(session: ort.InferenceSession, encodings: Sequence[Encoding], names: Sequence[str]) -> list[Floats]:
    """The named outputs, an array with a row a text for each."""
    if len(encodings) == 1:  # nothing to plan, and at low load nearly all batches are of one text
        return [rows[:1] for rows in session.run(names, passes.feeds(encodings))]
    groups = passes.plan([len(encoding) for encoding in encodings])
    found = [session.run(names, passes.feeds([encodings[index] for index in group])) for group in groups]
    outputs: list[Floats] = [np.empty((len(encodings), rows.shape[1]), dtype=np.float32) for rows in found[0]]
    for group, parts in zip(groups, found, strict=True):
        for output, rows in zip(outputs, parts, strict=True):
            output[group] = rows[: len(group)]  # a lone text has a second row
    return outputs


class PaddedEngine:
    """A traced graph that takes token ids and a mask, shape [texts, longest]; texts of near length share a pass."""

    INPUTS: Final = ("input_ids", "attention_mask")
    is_batch_invariant = False
    first_width: int | None = None

    def __init__(self, model: bytes, manifest: Manifest, threads: int = 1) -> None:
        self._session = open_session(model, ort.GraphOptimizationLevel.ORT_ENABLE_ALL, threads)
        check_signature(self._session, self.INPUTS, len(manifest.labels))
        self._labels = len(manifest.labels)
        self._pad = manifest.pad_token_id

    def logits(self, encodings: Sequence[Encoding]) -> Floats:
        """Raw logits, shape [texts, labels]."""
        logits = np.empty((len(encodings), self._labels), dtype=np.float32)
        for group in self.divide([len(encoding) for encoding in encodings]):
            logits[group] = self.run([encodings[index] for index in group])
        return logits

    def outputs(self, encodings: Sequence[Encoding]) -> Outputs:
        """The logits. A traced graph gives no vectors: which of its tensors the head reads is known to torch alone."""
        return Outputs(self.logits(encodings), None)

    def divide(self, lengths: Sequence[int]) -> Sequence[Sequence[int]]:
        """The passes that `logits` makes of texts of these lengths, as indices."""
        return near_length_groups(lengths)

    def run(self, encodings: Sequence[Encoding]) -> Floats:
        """One padded pass."""
        arrays = padded([encoding.ids for encoding in encodings], self._pad)
        (logits,) = self._session.run(None, dict(zip(self.INPUTS, arrays, strict=True)))
        return np.asarray(logits)


def padded(texts: Sequence[Sequence[int]], pad: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Token ids filled up with `pad`, and the attention mask, both of shape [texts, longest]."""
    longest = max(map(len, texts))
    ids = np.full((len(texts), longest), pad, dtype=np.int64)
    mask = np.zeros((len(texts), longest), dtype=np.int64)
    for row, tokens in enumerate(texts):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return ids, mask


ENGINES: Final[Mapping[EngineName, type[PackedEngine | PaddedEngine]]] = {"packed": PackedEngine, "padded": PaddedEngine}


def open_session(model: bytes, level: ort.GraphOptimizationLevel, threads: int = 1) -> ort.InferenceSession:
    """A session on the CPU. Raises `BundleError` when the runtime cannot load the graph."""
    options = ort.SessionOptions()
    # Each worker thread runs whole passes alone. On two cores, two such workers gave 2.0 times the texts of one, one pass on two
    # threads 1.55 times (`supportbot tune`): threads inside a pass run in lockstep and wait for each other.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # A spinning thread burns a core that the event loop or another worker could use. (One thread a pass has nobody to spin for.)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Memory patterns are planned for each shape of the inputs, and kept: with them, 8,000 mixed tickets left 40 MB more resident
    # than without, at the same speed (MiniLM-L6).
    options.enable_mem_pattern = False
    options.graph_optimization_level = level
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions share no public base class
        raise BundleError(f"{MODEL}: ONNX Runtime cannot load it: {error}") from error


def check_signature(session: ort.InferenceSession, inputs: Sequence[str], labels: int) -> None:
    """Raise `BundleError` unless the graph takes these inputs and gives logits, shape [texts, labels], and perhaps `first`."""
    found = tuple(value.name for value in session.get_inputs())
    outputs = {value.name: tuple(value.shape) for value in session.get_outputs()}
    if found != tuple(inputs) or tuple(outputs) not in (LOGITS, WITH_FIRST) or outputs["logits"][-1:] != (labels,):
        wanted = f"({', '.join(inputs)}) -> logits [texts, {labels}]"
        raise BundleError(f"{MODEL}: inputs {found} and outputs {outputs} are not {wanted}")
