"""Profiles are learned here: see `drift.profile` for what is in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from drift.channels import Layout
from drift.profile import (
    FEATURES,
    PAIR_BITS,
    RANKED,
    RARITY_STEPS,
    Observations,
    Profile,
    ProfileError,
    features,
    hashed_pairs,
    standard_channels,
)

FEWEST_TEXTS: Final = 100
FEWEST_PLACES: Final = 5
FEWEST_PAIR_TEXTS: Final = 3
COMPONENTS: Final = 48
RARE_SHARE: Final = 0.05

Array = npt.NDArray[np.float64]


def learn_profile(
    training: Observations,
    held_out: Observations,
    true: npt.NDArray[np.int64],
    *,
    labels: Sequence[str],
    vocabulary: int,
    specials: Sequence[int] = (),
    harder: Sequence[tuple[Observations, npt.NDArray[np.int64]]] = (),
) -> Profile:
    """A profile from the training texts, and from texts held out from training with their `true` labels as indices.

    `harder` are more texts with their true labels, for the error estimate alone: it must have seen texts that the model gets wrong,
    such as held-out texts with typing errors. Raises `ProfileError` if there are fewer than 100 texts of either kind.
    """
    if min(len(training), len(held_out)) < FEWEST_TEXTS:
        raise ProfileError(f"a profile needs {FEWEST_TEXTS} training texts and as many held-out ones at least")
    rarity, rare_from = _rarities(training.ids, vocabulary, specials)
    center, components = _components(training.first)
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, (held_out.labels, true), 1)
    # Evenly on a logarithmic scale: what matters of ranks is how far out in the upper tail.
    levels = 1 - np.geomspace(0.95, max(1 / len(held_out), 1e-4), 64)
    unknown = {name: np.zeros(len(levels)) for name in RANKED}
    profile = Profile(
        labels=tuple(labels),
        rarity=rarity,
        specials=tuple(specials),
        rare_from=rare_from,
        known=_known_pairs(training.ids),
        center=center,
        components=components,
        levels=levels,
        ranks=unknown,
        confusion=confusion,
        weights=np.zeros(FEATURES),
        layout=Layout([]),
    )
    scores = profile.scores(held_out)
    # Interpolation may fall by the last digit where it should rise.
    rising = {name: np.maximum.accumulate(np.quantile(values, levels)) for name, values in scores.items() if name in RANKED}
    ranks = unknown | rising
    profile = replace(profile, ranks=ranks)
    sets = [(held_out, true), *harder]
    rows = np.concatenate([features(profile.scores(texts), texts.confidence) for texts, _ in sets])
    wrong = np.concatenate([texts.labels != truth for texts, truth in sets])
    profile = replace(profile, weights=logistic(rows, wrong.astype(np.float64)))
    return replace(profile, layout=standard_channels(labels, profile.scores(held_out), held_out.confidence))


def _rarities(texts: Sequence[Sequence[int]], vocabulary: int, specials: Sequence[int]) -> tuple[npt.NDArray[np.uint8], float]:
    """Rarity of each id in steps of 1/12 bit, and the rarity in bits from which on a piece is rare."""
    flat = np.fromiter((token for ids in texts for token in ids), np.int64)
    if len(flat) and not (flat.min() >= 0 and flat.max() < vocabulary):
        raise ProfileError(f"a token id is not below {vocabulary}, the size of the vocabulary")
    flat = flat[~np.isin(flat, specials)]
    counts = np.bincount(flat, minlength=vocabulary)
    # What few texts have, nobody shall read from the profile.
    counts[counts < FEWEST_PLACES] = 0
    bits = -np.log2((counts + 1) / (counts.sum() + vocabulary))
    rarity = np.minimum(np.rint(bits * RARITY_STEPS), 255).astype(np.uint8)
    return rarity, float(np.quantile(rarity[flat], 1 - RARE_SHARE) / RARITY_STEPS) if len(flat) else 0.0


def _known_pairs(texts: Sequence[Sequence[int]]) -> npt.NDArray[np.uint8]:
    """The hashes of pairs that enough texts have, a bit each."""
    owner = np.repeat(np.arange(len(texts)), [len(ids) for ids in texts])
    pairs, owner = hashed_pairs(np.fromiter((token for ids in texts for token in ids), np.int64), owner)
    once = np.unique(owner << PAIR_BITS | pairs) & ((1 << PAIR_BITS) - 1)
    return np.packbits(np.bincount(once, minlength=1 << PAIR_BITS) >= FEWEST_PAIR_TEXTS, bitorder="little")


def _components(first: npt.NDArray[np.floating[Any]] | None) -> tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]:
    """Mean and leading principal components; empty without vectors."""
    if first is None:
        return np.zeros(0, dtype=np.float16), np.zeros((0, 1), dtype=np.float16)
    vectors = first.astype(np.float64)
    center = vectors.mean(axis=0)
    _, directions = np.linalg.eigh(np.cov(vectors - center, rowvar=False))
    return center.astype(np.float16), directions[:, ::-1][:, :COMPONENTS].T.astype(np.float16)


def logistic(rows: Array, hits: Array, penalty: float = 1.0) -> Array:
    """Weights of a logistic regression with a ridge penalty (not on the first column), by Newton's method."""
    weights, ridge = np.zeros(rows.shape[1]), penalty * np.eye(rows.shape[1])
    ridge[0, 0] = 1e-9
    for _ in range(50):
        chances = 1 / (1 + np.exp(-np.clip(rows @ weights, -30, 30)))
        slope = rows.T @ (hits - chances) - ridge @ weights
        curve = (rows * (chances * (1 - chances))[:, None]).T @ rows + ridge
        step = np.linalg.solve(curve, slope)
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    return weights
