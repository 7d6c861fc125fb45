"""INT8 for one product x @ W + b: how its input is scaled, and which whole numbers stand for its weights.

Nothing here depends on which texts share a pass. Two ways of scaling the input are used, chosen by measuring (docs/engine.md):

- fixed: after a layer normalization the values of all tokens are alike, and one scale for all of them, found by calibration, costs
  nothing at run time. Channels with outliers are first brought nearer to the others, their weights growing by what they shrink
  (SmoothQuant, Xiao et al., 2023); how far, and where to clip, is what gives the least squared error on the calibration texts.
- by row: the context that attention gives, and what the activation function gives, differ much between tokens; each token's row is
  scaled by its own maximum.

Weights are signed, with a scale for each output channel. Rounding them one input channel at a time, the error of each is passed on
to the channels that are not rounded yet, as far as the calibration texts correlate them (GPTQ, Frantar et al., 2023).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from models.making.architecture import Activation, Dense

Floats = npt.NDArray[np.float32]

# The most extreme integers that stand for a weight. With 7 bits, no pair of products with 8-bit activations leaves 16 bits, which
# is where x86 CPUs without VNNI saturate.
WEIGHT_LEVELS: Final = {False: 127, True: 63}
# Rows are scaled to 127 on both sides of this zero point, or, where values have a least one near zero, to 239 above the lower one.
ZERO_POINT: Final = 128
LEVELS: Final = 127
LOW_ZERO_POINT: Final = 16
LOW_LEVELS: Final = 255 - LOW_ZERO_POINT
# The least value of an activation function with one, rounded away from zero.
LEAST: Final[dict[Activation, float]] = {"gelu": 0.17, "gelu_tanh": 0.1701, "relu": 0.0}
# A scale below this stands for values that are zero for any purpose.
TINY: Final = 1e-6
# How much of the difference between channels moves into the weights, and what share of the seen range is kept.
STRENGTHS: Final = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
CLIPS: Final = (1.0, 0.9, 0.8, 0.7)
# Rows of the calibration texts used for the search.
SEARCH_ROWS: Final = 512
# Added to the diagonal of the second moments, relative to its mean: what correlations of a finite sample cannot be trusted with.
DAMPING: Final = 0.01
BLOCK: Final = 128


@dataclass(frozen=True, slots=True)
class Fixed:
    """A scale and zero point for all rows; `smoothing`, shape [inputs], multiplies the values before."""

    scale: float
    zero_point: int
    smoothing: Floats | None


@dataclass(frozen=True, slots=True)
class ByRow:
    """A scale for each row, at run time; `least` is the least value there can be, None if values may be negative at will."""

    least: float | None


@dataclass(frozen=True, slots=True)
class Recipe:
    """One product in INT8: weights of shape [inputs, outputs] with their scales, shape [outputs], and the scaling of its input."""

    weight: npt.NDArray[np.int8]
    scale: Floats
    scaling: Fixed | ByRow


def fixed(dense: Dense, sample: Floats, *, reduce_range: bool = False) -> Recipe:
    """A recipe with a fixed scale; `sample` are rows of the product's input, shape [rows, inputs]."""
    rows = sample[:: max(1, len(sample) // SEARCH_ROWS)][:SEARCH_ROWS]
    expected = rows @ dense.weight
    levels = WEIGHT_LEVELS[reduce_range]

    def loss(choice: tuple[float, float]) -> float:
        scaling, weight = _scaling(dense.weight, sample, *choice)
        scale = _weight_scale(weight, levels)
        return float(np.square(_through(rows, scaling) @ (np.rint(weight / scale) * scale) - expected).sum())

    scaling, weight = _scaling(dense.weight, sample, *min(product(STRENGTHS, CLIPS), key=loss))
    inputs = sample if scaling.smoothing is None else sample * scaling.smoothing
    return Recipe(*round_weights(weight, inputs, levels), scaling)


def by_row(dense: Dense, sample: Floats, least: float | None, *, reduce_range: bool = False) -> Recipe:
    """A recipe with a scale for each row; `sample` as for `fixed`."""
    return Recipe(*round_weights(dense.weight, sample, WEIGHT_LEVELS[reduce_range]), ByRow(least))


def round_weights(weight: Floats, sample: Floats, levels: int) -> tuple[npt.NDArray[np.int8], Floats]:
    """Integers and scales for weights of shape [inputs, outputs], with errors passed on (GPTQ's algorithm 1, without grouping)."""
    scale = _weight_scale(weight, levels)
    moments = sample.astype(np.float64).T @ sample.astype(np.float64)
    moments[np.diag_indices_from(moments)] += DAMPING * max(float(np.diag(moments).mean()), 1e-12)
    # Row k of this factor says how an error in channel k is best made good by the channels after it.
    factor = np.linalg.cholesky(np.linalg.inv(moments)).T
    left = weight.astype(np.float64)
    rounded = np.empty(weight.shape, dtype=np.int8)
    for start in range(0, len(left), BLOCK):
        end = min(start + BLOCK, len(left))
        errors = np.empty((end - start, left.shape[1]))
        for k in range(start, end):
            rounded[k] = np.clip(np.rint(left[k] / scale), -levels, levels)
            errors[k - start] = (left[k] - rounded[k] * scale) / factor[k, k]
            left[k + 1 : end] -= np.outer(factor[k, k + 1 : end], errors[k - start])
        left[end:] -= factor[start:end, end:].T @ errors
    return rounded, scale


def _weight_scale(weight: Floats, levels: int) -> Floats:
    scale: Floats = np.maximum(np.abs(weight).max(axis=0) / levels, 1e-12).astype(np.float32)
    return scale


def _scaling(weight: Floats, sample: Floats, strength: float, clip: float) -> tuple[Fixed, Floats]:
    """The scaling for one choice, and the weights that go with it."""
    low, high = sample.min(axis=0), sample.max(axis=0)
    smoothing = None
    if strength:
        largest = np.maximum(np.maximum(-low, high), 1e-5)
        ratio = largest**strength / np.maximum(np.abs(weight).max(axis=1), 1e-5) ** (1 - strength)
        smoothing = (np.exp(np.log(ratio).mean()) / ratio).astype(np.float32)
        weight, low, high = weight / smoothing[:, None], low * smoothing, high * smoothing
    least, greatest = min(0.0, clip * float(low.min())), max(TINY, clip * float(high.max()))
    scale = (greatest - least) / 255
    return Fixed(scale, int(np.clip(np.rint(-least / scale), 0, 255)), smoothing), weight


def _through(rows: Floats, scaling: Fixed) -> npt.NDArray[Any]:
    """Values quantized and back."""
    values = rows if scaling.smoothing is None else rows * scaling.smoothing
    quantized = np.clip(np.rint(values / scaling.scale) + scaling.zero_point, 0, 255)
    return np.asarray((quantized - scaling.zero_point) * scaling.scale)
