"""The baseline: what is normal, as counts of texts by stratum, and the bounds that follow from it.

A *stratum* is a number that the caller gives each block: the hour of the day, say, or of the week. Texts differ between night and
day, so each stratum has counts of its own; what is normal at noon is no alarm at noon.

The null region, "nothing has changed", is a set of distributions: all under which no tail's share is above its bound,

    bound(tail, stratum) = upper_share(hits, texts, risk / bounds of the level) + tolerance

With probability 1 - `risk` over the drawing of the baseline's texts, the truth of the time lies in that region, all tails of a
level and all strata together. The smaller the baseline, the larger the region: what a small one cannot exclude is no alarm.

Strata cost: each has fewer texts, hence looser bounds. So a channel has bounds by stratum only where the strata differ by more than
chance (a chi-square test at 2 standard errors), and one bound from all its texts otherwise.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from drift.bounds import unlikely_chi_square, upper_share
from drift.channels import Channel, Counts, Layout, LevelName

FORMAT: Final = 1
RISK: Final = 0.01

Bounds = npt.NDArray[np.float64]


class BaselineError(ValueError):
    """Raised when a baseline cannot be read, or does not fit to what it is used with."""


@dataclass(frozen=True, eq=False)
class Baseline:
    """Counts of normal texts, shape [strata, width], over a layout; `notes` say how it came about."""

    layout: Layout
    counts: Counts
    notes: tuple[str, ...] = ()
    blocks: int = 0
    _known: dict[tuple[str, float, float], Bounds] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.counts.ndim != 2 or self.counts.shape[1] != self.layout.width or not len(self.counts):
            raise BaselineError(f"counts of shape {self.counts.shape} do not fit to a layout of {self.layout.width} bins")
        if not np.issubdtype(self.counts.dtype, np.integer) or self.counts.min() < 0:
            raise BaselineError("counts must be whole numbers, 0 or more")

    @property
    def strata(self) -> int:
        """How many there are."""
        return len(self.counts)

    @property
    def texts(self) -> int:
        """How many texts were counted, by the channel that counted most."""
        return self.layout.texts(self.counts.sum(axis=0))

    def __add__(self, other: Baseline) -> Baseline:
        """Both together. Raises `BaselineError` if they count other things."""
        if other.layout.fingerprint != self.layout.fingerprint or other.strata != self.strata:
            raise BaselineError("the two baselines have other channels, bins or strata")
        return Baseline(self.layout, self.counts + other.counts, self.notes + other.notes, self.blocks + other.blocks)

    def of(self, channel: Channel) -> Counts:
        """A channel's counts, shape [strata, bins]; all strata have the sum of all where they differ by chance only."""
        counts = self.counts[:, self.layout.place(channel.name)]
        return counts if strata_differ(counts) else np.broadcast_to(counts.sum(axis=0), counts.shape)

    def bounds(self, channel: Channel, level: LevelName, tolerance: float = 0.0) -> Bounds:
        """The upper bound of each of a channel's tails, shape [strata, tails]; 1 where the baseline has no text."""
        key = (channel.name, tolerance, RISK)
        if key not in self._known:
            counts, tails = self.of(channel), channel.tails()
            bounded = sum(len(other.tails()) * self._distinct(other) for other in self.layout.at(level))
            hits, totals = counts @ tails.T, counts.sum(axis=1, keepdims=True)
            self._known[key] = np.minimum(upper_share(hits, totals, RISK / bounded) + tolerance, 1.0)
        return self._known[key]

    def _distinct(self, channel: Channel) -> int:
        return self.strata if strata_differ(self.counts[:, self.layout.place(channel.name)]) else 1

    def to_json(self) -> dict[str, Any]:
        """Plain values, without any text."""
        return {
            "format": FORMAT,
            "channels": self.layout.to_json(),
            "counts": self.counts.tolist(),
            "blocks": self.blocks,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Baseline:
        """As `to_json` gave it. Raises `BaselineError`."""
        try:
            form, layout = found["format"], Layout.from_json(found["channels"])
            counts, notes, blocks = np.array(found["counts"]), tuple(map(str, found["notes"])), int(found["blocks"])
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BaselineError(f"not a baseline: {error!r}") from error
        if form != FORMAT:
            raise BaselineError(f"format {form!r} is not {FORMAT}; learn the baseline again")
        return cls(layout, counts, notes, blocks)

    def to_bytes(self) -> bytes:
        """A small JSON file."""
        return json.dumps(self.to_json()).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Baseline:
        """As `to_bytes` gave it. Raises `BaselineError`."""
        try:
            found = json.loads(content)
        except ValueError as error:
            raise BaselineError(f"not a baseline: {error}") from error
        return cls.from_json(found)


def learn(layout: Layout, blocks: Iterable[tuple[int, Counts]], strata: int = 1, note: str = "") -> Baseline:
    """The baseline of some blocks, each a stratum and its counts. Raises `BaselineError` for a stratum that there is not."""
    counts, seen = np.zeros((strata, layout.width), dtype=np.int64), 0
    for stratum, block in blocks:
        if not 0 <= stratum < strata:
            raise BaselineError(f"stratum {stratum} is not one of {strata}")
        counts[stratum] += block
        seen += 1
    return Baseline(layout, counts, (note,) if note else (), seen)


def strata_differ(counts: Counts) -> bool:
    """Whether histograms, shape [strata, bins], differ by more than chance."""
    counts = counts[counts.sum(axis=1) > 0][:, counts.sum(axis=0) > 0].astype(np.float64)
    if len(counts) < 2:
        return False
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / counts.sum()
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return unlikely_chi_square(statistic, (len(counts) - 1) * (counts.shape[1] - 1), z=2.0)
