"""Was the answer right? Channels for feedback, and estimates of accuracy and of the mix of classes with intervals.

Feedback tests only what was drawn at random: corrections that customers volunteer come from wrong answers far more often than from
right ones. Where answers were drawn with different probabilities, each stands for 1 / probability of them (Hajek).

Without feedback there are estimates only, and they rest on assumptions:

    error estimate   that texts of this confidence, rarity and length are as often wrong as those it was fitted on
    class mix        that within each class, texts are as they were (Lipton et al. 2018)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from drift.channels import Channel

SURE: Final = 0.9
Z: Final = 1.96  # intervals of 95 %
DRAWS: Final = 400
ESTIMATE_EDGES: Final = tuple(round(step / 50, 2) for step in range(1, 50))

Array = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share with an interval of 95 %; `texts` is what it rests on."""

    value: float
    low: float
    high: float
    texts: int


def outcome_channels(labels: Sequence[str]) -> list[Channel]:
    """Wrong answers among all labelled texts, among those of each true label, and among those that the model was sure of."""
    names = ["error", *(f"error on {label}" for label in labels), "error of the sure"]
    return [Channel(name, "outcome", categories=("right", "wrong"), rising=True) for name in names]


def outcome_values(labels: Sequence[str], predicted: Labels, true: Labels, confidence: Array) -> dict[str, Array]:
    """The value of each labelled text in each outcome channel, as `Layout.count` takes them."""
    wrong = (predicted != true).astype(np.float64)
    values = {"error": wrong, "error of the sure": np.where(confidence >= SURE, wrong, np.nan)}
    for number, label in enumerate(labels):
        values[f"error on {label}"] = np.where(true == number, wrong, np.nan)
    return values


def weighted_share(hits: npt.ArrayLike, probabilities: npt.ArrayLike) -> Estimate:
    """The share of hits in all texts, from those drawn, each with its probability.

    Raises `ValueError` without any text, or for a probability of 0.
    """
    values, chances = np.asarray(hits, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
    if not len(values) or not (np.all(chances > 0) and np.all(chances <= 1)):
        raise ValueError("at least one text is needed, and each with a probability above 0 and at most 1")
    weights = 1 / chances
    share = float((weights * values).sum() / weights.sum())
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    return _wilson(share, effective, len(values))


def _wilson(share: float, effective: float, texts: int) -> Estimate:
    """Wilson's interval: it does not collapse where no error was seen."""
    middle = (share + Z * Z / (2 * effective)) / (1 + Z * Z / effective)
    half = Z / (1 + Z * Z / effective) * math.sqrt(share * (1 - share) / effective + Z * Z / (4 * effective**2))
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half), texts)


def corrected_share(estimated: Array, sample: Array, sample_hits: Array) -> Estimate:
    """A share from estimates of all texts, put right by a random sample of `sample` estimates whose truth is known (PPI).

    Raises `ValueError` with fewer than two texts in either.
    """
    if len(estimated) < 2 or len(sample) < 2:
        raise ValueError("at least two texts are needed")
    errors = sample_hits - sample
    value = float(estimated.mean() + errors.mean())
    half = Z * math.sqrt(float(estimated.var(ddof=1)) / len(estimated) + float(errors.var(ddof=1)) / len(sample))
    return Estimate(min(max(value, 0.0), 1.0), max(0.0, value - half), min(1.0, value + half), len(sample))


def class_mix(predicted: npt.ArrayLike, confusion: npt.NDArray[np.integer[Any]], seed: int = 0) -> list[Estimate]:
    """The shares of the true classes, from counts of predicted ones and the [predicted, true] counts of held-out texts.

    Intervals by drawing both counts again. Raises `ValueError` where a class has no held-out text, or nothing was predicted.
    """
    counts, held = np.asarray(predicted, dtype=np.int64), np.asarray(confusion, dtype=np.int64)
    if not counts.sum() or not np.all(held.sum(axis=0)):
        raise ValueError("there must be predictions, and held-out texts of each class")
    rng = np.random.default_rng(seed)
    value = _mix(counts / counts.sum(), held / held.sum(axis=0))
    draws = []
    for _ in range(DRAWS):
        columns = [rng.multinomial(column.sum(), column / column.sum()) / column.sum() for column in held.T]
        draws.append(_mix(rng.multinomial(counts.sum(), counts / counts.sum()) / counts.sum(), np.stack(columns, axis=1)))
    low, high = np.quantile(draws, (0.025, 0.975), axis=0)
    texts = int(counts.sum())
    low, high = np.minimum(low, value), np.maximum(high, value)
    return [Estimate(float(value[k]), float(low[k]), float(high[k]), texts) for k in range(len(value))]


def _mix(predicted: Array, confusion: Array) -> Array:
    """Solve confusion @ mix = predicted by least squares, and bring it back among the shares."""
    mix = np.clip(np.linalg.lstsq(confusion, predicted, rcond=None)[0], 0, None)
    return np.asarray(mix / mix.sum())


def mean_of_bins(counts: npt.ArrayLike, edges: Sequence[float], lowest: float = 0.0, highest: float = 1.0) -> float:
    """The mean of what a histogram counted, each text at the middle of its bin. Raises `ValueError` for an empty one."""
    found = np.asarray(counts, dtype=np.float64)
    if not found.sum():
        raise ValueError("the histogram is empty")
    borders = np.array([lowest, *edges, highest])
    return float(found @ ((borders[1:] + borders[:-1]) / 2) / found.sum())


def estimated_accuracy(counts: Mapping[str, npt.NDArray[np.int64]]) -> float:
    """From the histogram of the error estimate (`Layout` channel "error estimate")."""
    return 1 - mean_of_bins(counts["error estimate"], ESTIMATE_EDGES)
