"""The profile of a model: what its training texts looked like, in numbers, and how a text is measured against it.

Scores of a text, each one look-up or one small product:

    novelty    mean rarity of its word pieces, in bits: -log2 of their share in the training texts
    rare       share of its pieces that are rarer than nearly all pieces of the training texts
    pairs      share of its adjacent pairs of pieces that the training texts hardly had
    residual   what the leading components of the training texts leave of its first-token vector, as a length
    combined   -2 log of the tail ranks of rare, pairs and residual among held-out texts, summed (Fisher)
    error      estimated probability that the answer is wrong: logistic in the confidence's logit and the scores above

Fine-tuning gathers nearly all variance of that vector in a few directions, those of the classes. A text of another kind differs
outside of them, hence the residual. Without vectors there is no residual, and `combined` has two parts.

Pairs are known by a set of bits, one for each value of a hash of the two ids: a pair that the training texts had counts as known,
and so does any other of the same hash, one in ten or so. It costs 32 kB and is the strongest single score there is (docs/drift.md).

Rarities and components are learned from training texts; ranks, bins, confusions and errors from texts held out from these, since
a model knows its own training texts too well. There is no text in a profile. A piece seen in fewer than 5 places counts as unseen,
and a pair in fewer than 3 texts.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from drift.channels import Channel, Counts, Layout
from drift.outcome import ESTIMATE_EDGES, outcome_channels

FORMAT: Final = 1
RARITY_STEPS: Final = 12.0  # to a bit
PAIR_BITS: Final = 18  # of a pair's hash
FEATURES: Final = 7
# Of held-out texts: the edges of bins, and from which on a text is unusual.
QUANTILES: Final = (0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995)
USUAL: Final = 0.95
BEYOND: Final = 3  # edges beyond the highest quantile
JOINED: Final = 2  # quantiles that may be one, those of the most usual texts
# OpenBLAS takes several threads for a product of more multiplications than this, and they spin while they wait for each other:
# twice the CPU for no gain, on cores that have other work.
ONE_THREAD: Final = 1 << 18
RANKED: Final = ("rare", "pairs", "residual")
INPUT_SCORES: Final = ("novelty", *RANKED, "combined", "length")

Array = npt.NDArray[np.float64]


class ProfileError(ValueError):
    """Raised when a profile cannot be read, or texts cannot be measured by it."""


@dataclass(frozen=True, eq=False)
class Observations:
    """What is known of some answered texts, an entry each: token ids, predicted label as an index, confidence, and maybe more.

    `first` are first-token vectors, shape [texts, dimensions]; `foreign` is the share of letters outside the usual scripts.
    """

    ids: Sequence[Sequence[int]]
    labels: npt.NDArray[np.int64]
    confidence: Array
    first: npt.NDArray[np.floating[Any]] | None = None
    foreign: Array | None = None

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Profile:
    """See above; made by `drift.fitting.learn_profile`.

    `rarity`: [vocabulary], in steps of 1/12 bit. `specials`: ids that are no part of a text. `known`: [2**18 / 8], a bit for each
    hash of a pair. `center` and `components`: [dimensions] and [components, dimensions], or empty. `ranks`: for each score that is
    combined, its rising quantiles at `levels` among held-out texts.
    `confusion`: [predicted, true] counts of held-out texts. `weights` are those of the error estimate, the constant first.
    """

    labels: tuple[str, ...]
    rarity: npt.NDArray[np.uint8]
    specials: tuple[int, ...]
    rare_from: float
    known: npt.NDArray[np.uint8]
    center: npt.NDArray[np.float16]
    components: npt.NDArray[np.float16]
    levels: Array
    ranks: Mapping[str, Array]
    confusion: npt.NDArray[np.int64]
    weights: Array
    layout: Layout

    def scores(self, texts: Observations) -> dict[str, Array]:
        """The scores above, and `length`: an array of one value a text for each. Raises `ProfileError` for ids out of range."""
        lengths = np.array([len(ids) for ids in texts.ids], dtype=np.int64)
        flat = np.fromiter(chain.from_iterable(texts.ids), np.int64, int(lengths.sum()))
        if len(flat) and not (flat.min() >= 0 and flat.max() < len(self.rarity)):
            raise ProfileError(f"a token id is not below {len(self.rarity)}, the size of the vocabulary")
        owner = np.repeat(np.arange(len(lengths)), lengths)
        pairs, pair_owner = hashed_pairs(flat, owner)
        unknown = ~(self.known[pairs >> 3] >> (pairs & 7).astype(np.uint8) & 1).astype(bool)
        own = self._is_own[flat]
        flat, owner = flat[own], owner[own]
        bits = self.rarity[flat] / RARITY_STEPS
        pieces = np.bincount(owner, minlength=len(lengths)).astype(np.float64)
        shares = np.maximum(pieces, 1)
        found: dict[str, Array] = {
            "novelty": np.bincount(owner, bits, len(lengths)) / shares,
            "rare": np.bincount(owner, bits >= self.rare_from, len(lengths)) / shares,
            "pairs": np.bincount(pair_owner, unknown, len(lengths)) / np.maximum(lengths - 1, 1),
            "length": lengths.astype(np.float64),
        }
        if texts.first is not None and len(self.components):
            found["residual"] = self._residual(texts.first)
        found["combined"] = np.zeros(len(texts))
        for name in RANKED:
            if name in found:
                found["combined"] -= 2 * np.log(self.tail_rank(name, found[name]))
        found["error"] = 1 / (1 + np.exp(-(features(found, texts.confidence) @ self.weights)))
        return found

    def _residual(self, first: npt.NDArray[np.floating[Any]]) -> Array:
        if first.ndim != 2 or first.shape[1] != len(self.center):
            raise ProfileError(f"first-token vectors of shape {first.shape} do not fit to {len(self.center)} dimensions")
        # In double precision, so that a text's bin does not depend on its batch-mates.
        center, components = self._basis
        centered = first.astype(np.float64) - center
        rows = max(1, ONE_THREAD // components.size)
        inside = [(part @ components.T) for part in np.split(centered, range(rows, len(centered), rows))]
        squares = [np.einsum("ij,ij->i", values, values) for values in (centered, np.concatenate(inside))]
        return np.asarray(np.sqrt(np.maximum(squares[0] - squares[1], 0)))

    @cached_property
    def _is_own(self) -> npt.NDArray[np.bool_]:
        """Of each id, whether it is part of a text."""
        return ~np.isin(np.arange(len(self.rarity)), self.specials)

    @cached_property
    def _basis(self) -> tuple[Array, Array]:
        return self.center.astype(np.float64), self.components.astype(np.float64)

    def tail_rank(self, name: str, values: Array) -> Array:
        """The share of held-out texts whose score is at least as high, never 0."""
        return np.asarray(np.append(1.0, 1 - self.levels)[np.searchsorted(self.ranks[name], values, side="left")])

    def channels(self, texts: Observations) -> dict[str, Array]:
        """The value of each text in each channel of the layout: what `layout.count` takes."""
        found = self.scores(texts)
        values: dict[str, Array] = {name: found[name] for name in INPUT_SCORES if name in found}
        if texts.foreign is not None:
            values["foreign"] = texts.foreign
        values["label"] = texts.labels.astype(np.float64)
        values["confidence"] = texts.confidence
        values["predicted error"] = values["error estimate"] = found["error"]
        for number, label in enumerate(self.labels):
            mine = texts.labels == number
            values[f"confidence of {label}"] = np.where(mine, texts.confidence, np.nan)
            values[f"combined of {label}"] = np.where(mine, found["combined"], np.nan)
        return values

    def unusual_share(self, counts: Counts) -> float | None:
        """Of the texts that these counts, shape [width], are of: the share that is more unusual than 95 % of held-out texts, by the
        combined score. In texts like those that the model was checked on, it is 5 %. None without texts, and where so many held-out
        texts had the same score that bins were joined.
        """
        edges = next(channel.edges for channel in self.layout.channels if channel.name == "combined")
        found = counts[self.layout.place("combined")]
        if not found.sum() or len(edges) < len(QUANTILES) + BEYOND - JOINED:
            return None
        # Counted from the end: usual texts may have the same low score, and their quantiles are then one edge.
        above = len(QUANTILES) - QUANTILES.index(USUAL) + BEYOND
        return float(found[-above:].sum() / found.sum())

    def to_bytes(self) -> bytes:
        """A JSON file of some 100 kB, without any text."""
        content = {
            "format": FORMAT,
            "labels": self.labels,
            "rarity": _packed(self.rarity),
            "specials": self.specials,
            "rare_from": self.rare_from,
            "known": _packed(self.known),
            "center": _packed(self.center.astype("<f2")),
            "components": _packed(self.components.astype("<f2")),
            "levels": self.levels.tolist(),
            "ranks": {name: values.tolist() for name, values in self.ranks.items()},
            "confusion": self.confusion.tolist(),
            "weights": self.weights.tolist(),
            "channels": self.layout.to_json(),
        }
        return json.dumps(content).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Profile:
        """As `to_bytes` gave it. Raises `ProfileError`."""
        try:
            found: dict[str, Any] = json.loads(content)
            form = found["format"]
            center = np.frombuffer(base64.b64decode(found["center"]), "<f2")
            profile = cls(
                labels=tuple(map(str, found["labels"])),
                rarity=np.frombuffer(base64.b64decode(found["rarity"]), np.uint8),
                specials=tuple(map(int, found["specials"])),
                rare_from=float(found["rare_from"]),
                known=np.frombuffer(base64.b64decode(found["known"]), np.uint8),
                center=center,
                components=np.frombuffer(base64.b64decode(found["components"]), "<f2").reshape(-1, max(len(center), 1)),
                levels=np.array(found["levels"], dtype=np.float64),
                ranks={str(name): np.array(values, dtype=np.float64) for name, values in found["ranks"].items()},
                confusion=np.array(found["confusion"], dtype=np.int64),
                weights=np.array(found["weights"], dtype=np.float64),
                layout=Layout.from_json(found["channels"]),
            )
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
            raise ProfileError(f"not a profile: {error!r}") from error
        if form != FORMAT or len(profile.known) != 1 << (PAIR_BITS - 3) or profile.weights.shape != (FEATURES,):
            raise ProfileError("not a profile of this version; make it again")
        profile._check()
        return profile

    def _check(self) -> None:
        """Raise `ProfileError` if the parts do not fit together: texts would get no values, or wrong ones."""
        number = len(self.labels)
        if not number or len(set(self.labels)) < number or self.confusion.shape != (number, number) or self.confusion.min() < 0:
            raise ProfileError("not a profile: labels and confusion do not fit")
        if not len(self.rarity) or any(not 0 <= token < len(self.rarity) for token in self.specials):
            raise ProfileError("not a profile: rarity and specials do not fit")
        if self.levels.ndim != 1 or not len(self.levels) or not (np.diff([0, *self.levels, 1]) >= 0).all():
            raise ProfileError("not a profile: levels do not rise from 0 to 1")
        if set(self.ranks) != set(RANKED) or any(ranks.shape != self.levels.shape for ranks in self.ranks.values()):
            raise ProfileError("not a profile: ranks and levels do not fit")
        if not all((np.diff(ranks) >= 0).all() for ranks in self.ranks.values()):
            raise ProfileError("not a profile: ranks do not rise")
        numbers = [self.weights, np.array(self.rare_from), self.center, self.components, *self.ranks.values()]
        if not all(np.isfinite(array).all() for array in numbers):
            raise ProfileError("not a profile: a number is not finite")

    def check_channels(self) -> None:
        """Raise `ProfileError` unless the layout has the very channels that `channels` and `outcome_values` give values for.

        Reading does not ask for it: a log can be counted by any layout.
        """
        first = np.zeros((1, len(self.center)), dtype=np.float32) if len(self.center) else None
        sample = Observations([()], np.zeros(1, dtype=np.int64), np.full(1, 0.5), first, np.zeros(1))
        names = {*self.channels(sample), *(channel.name for channel in outcome_channels(self.labels))}
        if {channel.name for channel in self.layout.channels} != names:
            raise ProfileError("not a profile: its channels are others")
        if any(channel.categories != self.labels for channel in self.layout.channels if channel.name == "label"):
            raise ProfileError("not a profile: the channel of labels has others")


def hashed_pairs(flat: npt.NDArray[np.int64], owner: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Of ids laid end to end and the texts they belong to: the hashes of adjacent pairs within a text, and their texts."""
    inside = owner[1:] == owner[:-1]
    left, right = flat[:-1][inside].astype(np.uint64), flat[1:][inside].astype(np.uint64)
    mixed = (left * np.uint64(40503) + right) * np.uint64(0x9E3779B97F4A7C15)  # wraps around; the upper bits are well mixed
    return (mixed >> np.uint64(64 - PAIR_BITS)).astype(np.int64), owner[1:][inside]


def features(scores: Mapping[str, Array], confidence: Array) -> Array:
    """What the error estimate rests on, shape [texts, features]: missing scores are 0."""
    sure = np.clip(confidence, 1e-6, 1 - 1e-6)
    nothing = np.zeros(len(sure))
    columns = [
        np.ones(len(sure)), np.log(sure / (1 - sure)), scores["novelty"], scores["rare"], scores["pairs"],
        scores.get("residual", nothing), np.log1p(scores["length"]),
    ]  # fmt: skip
    return np.stack(columns, axis=1)


def standard_channels(labels: Sequence[str], held_out: Mapping[str, Array], confidence: Array) -> Layout:
    """The channels of a text classifier; bins by quantiles of held-out texts, finest in the tails."""
    ordered = {name: held_out[name] for name in INPUT_SCORES if name in held_out}
    return Layout(
        [
            *(Channel(name, "input", edges=edges(values)) for name, values in ordered.items()),
            Channel("foreign", "input", edges=(1e-6, 0.2, 0.8)),
            *(Channel(f"combined of {label}", "input", edges=edges(held_out["combined"]), tested=False) for label in labels),
            Channel("label", "output", categories=tuple(labels)),
            Channel("confidence", "output", edges=edges(confidence)),
            *(Channel(f"confidence of {label}", "output", edges=edges(confidence)) for label in labels),
            Channel("predicted error", "output", edges=edges(held_out["error"])),
            Channel("error estimate", "output", edges=ESTIMATE_EDGES, tested=False),
            *outcome_channels(labels),
        ]
    )


def edges(values: Array) -> tuple[float, ...]:
    """Rising edges at tail-weighted quantiles, and a few beyond the highest: a baseline may lie higher than the profile."""
    inner = np.quantile(values, QUANTILES)
    beyond = inner[-1] + (inner[-1] - inner[4]) * np.array((0.25, 0.5, 1.0))
    found = sorted({float(f"{value:.6g}") for value in (*inner, *beyond)})
    # A value that most texts have is the lowest bin, not the lowest edge.
    return tuple(found[1:] if len(found) > 1 and found[0] <= values.min() else found)


def _packed(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode()
