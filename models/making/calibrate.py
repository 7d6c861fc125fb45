"""Runs calibration texts through the fp32 graph and makes each product's INT8 recipe from what its input was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from models import passes
from models.engines import open_session
from models.making.architecture import Encoder
from models.making.config import CheckpointError
from models.making.graph import Writer
from models.making.quantize import LEAST, Recipe, by_row, fixed
from models.types import Encoding

# Tokens whose values are kept for each product: above the largest usual number of inputs (3,072), so that the second moments have
# full rank, and a few hundred MB at most for a DistilBERT.
MOST_ROWS: Final = 4096
# Texts beyond this many add nothing that the rows kept could show.
MOST_TEXTS: Final = 384
TEXTS_PER_PASS: Final = 8


def make_recipes(
    encoder: Encoder, encodings: Sequence[Encoding], *, reduce_range: bool = False, writer: type[Writer] = Writer
) -> dict[str, Recipe]:
    """A recipe for each product of the graph that `writer` makes of the encoder, from encodings of typical texts.

    Raises `CheckpointError` where the model computes values that are not finite.
    """
    probing = writer(encoder, probe=True)
    session = open_session(probing.write().SerializeToString(), ort.GraphOptimizationLevel.ORT_ENABLE_BASIC)
    inputs = list(dict.fromkeys(tensor for product in probing.probes.values() for tensor in product.inputs))
    rows: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in inputs}
    # Every so many, so that a long file that is sorted by anything is seen from end to end.
    chosen = encodings[:: -(-len(encodings) // MOST_TEXTS)]
    share = min(1.0, MOST_ROWS / sum(map(len, chosen)))
    for start in range(0, len(chosen), TEXTS_PER_PASS):
        outputs = session.run(inputs, passes.feeds(chosen[start : start + TEXTS_PER_PASS]))
        for name, values in zip(inputs, map(np.asarray, outputs), strict=True):
            keep = max(1, round(len(values) * share))
            rows[name].append(values[np.linspace(0, len(values) - 1, keep).astype(np.int64)])
    samples = {name: np.concatenate(parts) for name, parts in rows.items()}
    recipes: dict[str, Recipe] = {}
    for name, product in probing.probes.items():
        # As many rows where layers share the product, of each of them.
        sample = np.concatenate([samples[tensor][:: len(product.inputs)] for tensor in product.inputs])
        if not np.isfinite(sample).all():
            raise CheckpointError(f"the model computes values that are not finite before {name}: damaged or too large weights")
        kind = name.rpartition(".")[2]
        if kind == "down":
            least = None if encoder.is_gated else LEAST[encoder.activation]
            recipes[name] = by_row(product.dense, sample, least, reduce_range=reduce_range)
        elif kind == "context" or len(product.inputs) > 1:  # no one scale suits both the first layers and the last
            recipes[name] = by_row(product.dense, sample, None, reduce_range=reduce_range)
        else:
            recipes[name] = fixed(product.dense, sample, reduce_range=reduce_range)
    return recipes
