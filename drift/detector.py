"""The detector of one level: blocks of counts in, evidence out, and a promise about false alarms.

An *expert* bets that a share f of the texts has moved into one tail T of one channel. While nothing has changed, the tail's share
is at most its bound u (`drift.baseline`); had the bet come true, it would be at least q = (1 - f) u + f. The expert's gain on a
text is Wald's likelihood ratio of the two,

    q / u           if the text lies in the tail
    1 - f           if it does not, since (1 - q) / (1 - u) = 1 - f
    1               if it has no bin in the channel, or u = 1

which averages at most 1 as long as the share is at most u. A block's evidence is the product over its texts, capped; past evidence
is carried on (Shiryaev and Roberts):

    log E = min(sum over the bins of counts * log gain, cap)          log M <- log E + log(1 + M), where E is not 1

The level's evidence is the mean of M over its experts, channels having equal weight. It alarms when that reaches A, the number of
blocks in the time promised.

1. E averages at most 1 given the past, for every stream in the null region: it is a product of gains that average at most 1 given
   the texts before, and a cap only takes away. How many texts a block has may depend on anything but the texts to come.
2. Hence M minus the number of blocks is a supermartingale, and so is the mean over experts; the mean time to a false alarm is A
   blocks at least (Shin, Ramdas and Rinaldo, 2024), at any traffic, however often one looks. Texts need not be independent. This
   holds all the more as M stays as it is where E is 1, so that time alone, without a text, is no evidence: over the other blocks
   E averages at most 1 - P(E = 1), hence M rises by 1 - P(E = 1) at most.
3. The evidence of a block depends on its counts alone: neither the order of its texts nor how they were spread over replicas
   matters.
4. The cap is a third of what one expert needs for an alarm alone, so that an alarm takes three blocks at least, whatever one sender
   does in one of them.
5. What carries over from block to block is each expert's M, and Page's sum with the block at which it began to rise: all state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from drift.baseline import Baseline, BaselineError
from drift.channels import Channel, Counts, LevelName

MOVED: Final = (0.03, 0.12, 0.4)  # the shares f
FEWEST_BLOCKS: Final = 3  # to an alarm

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Experts:
    """A level's experts on a baseline: for each of `MOVED` in turn, one for each tail.

    `tails` and `wholes` (the bins of a tail's channel) have shape [tails, width], `bounds` [strata, tails]; `inside` and `outside`
    are the logarithms of the gains, shape [strata, experts]. `channels` has each tail's channel.
    """

    channels: tuple[Channel, ...]
    tails: Array
    wholes: Array
    bounds: Array
    inside: Array
    outside: Array
    log_weights: Array

    @classmethod
    def of(cls, baseline: Baseline, level: LevelName, tolerance: float = 0.0) -> Experts:
        """Raises `BaselineError` if the level has no channel to test."""
        channels = baseline.layout.at(level)
        if not channels:
            raise BaselineError(f"the baseline has no channel of level {level} to test")
        owners = [channel for channel in channels for _ in channel.tails()]
        tails, wholes = (np.zeros((len(owners), baseline.layout.width)) for _ in range(2))
        first = 0
        for channel in channels:
            own, place = channel.tails(), baseline.layout.place(channel.name)
            tails[first : first + len(own), place] = own
            wholes[first : first + len(own), place] = 1
            first += len(own)
        bounds = np.concatenate([baseline.bounds(channel, level, tolerance) for channel in channels], axis=1)
        inside = [np.log(((1 - moved) * bounds + moved) / bounds) for moved in MOVED]
        outside = [np.where(bounds < 1, math.log1p(-moved), 0.0) for moved in MOVED]
        weights = [len(channels) * len(MOVED) * owners.count(owner) for owner in owners] * len(MOVED)
        return cls(
            tuple(owners), tails, wholes, bounds, np.concatenate(inside, axis=1), np.concatenate(outside, axis=1), -np.log(weights)
        )

    def evidence(self, counts: Counts, stratum: int, cap: float) -> Array:
        """log E of each expert, shape [..., experts], for counts of shape [..., width]."""
        hits = counts @ self.tails.T
        misses = counts @ self.wholes.T - hits
        again = (*(1,) * (hits.ndim - 1), len(MOVED))
        gains = np.tile(hits, again) * self.inside[stratum] + np.tile(misses, again) * self.outside[stratum]
        return np.asarray(np.minimum(gains, cap))

    def mean(self, log_m: Array) -> Array:
        """The logarithm of the weighted mean of M over the experts, the last axis."""
        return np.asarray(np.logaddexp.reduce(log_m + self.log_weights, axis=-1))


def advance(log_m: Array, log_e: Array) -> Array:
    """One block further: log M from the last log M and the block's log E."""
    return np.where(log_e == 0, log_m, log_e + np.logaddexp(0.0, log_m))


class Detector:
    """The e-detector of one level, with a promise of `blocks`: A above, times the replicas if several decide alone.

    Raises `BaselineError` if the level has no channel to test, `ValueError` if the promise is no more than one block.
    """

    def __init__(self, baseline: Baseline, level: LevelName, *, blocks: float, tolerance: float = 0.0) -> None:
        if not blocks > 1:
            raise ValueError("the promised time must be more than one block")
        self.experts = Experts.of(baseline, level, tolerance)
        self.threshold = math.log(blocks)
        # An expert at its ceiling alarms alone. Above it, M would but take longer to come down again.
        self.ceilings = self.threshold - self.experts.log_weights
        self.cap = float(self.ceilings.max()) / FEWEST_BLOCKS
        # All mutable state: see 5.
        self.block = 0
        self.log_m = np.full(len(self.ceilings), -math.inf)
        self.rise = np.zeros(len(self.ceilings))
        self.began = np.zeros(len(self.ceilings), dtype=np.int64)

    def advance(self, counts: Counts, stratum: int = 0) -> float:
        """Take in a block's counts, shape [width]; returns the level's evidence, the logarithm of the mean M."""
        log_e = self.experts.evidence(counts, stratum, self.cap)
        self.log_m = np.minimum(advance(self.log_m, log_e), self.ceilings)
        # A change began, most likely, where the sum of log E since then is highest (Page).
        self.began[self.rise <= 0] = self.block
        self.rise = np.minimum(np.maximum(self.rise, 0.0) + log_e, self.ceilings)
        self.block += 1
        return self.evidence

    @property
    def evidence(self) -> float:
        """The logarithm of the mean M; minus infinity before the first block."""
        return float(self.experts.mean(self.log_m)) if self.block else -math.inf

    def leader(self) -> tuple[int, int]:
        """The tail that the expert with the most evidence watches, and the block at which that evidence began to rise."""
        expert = int((self.log_m + self.experts.log_weights).argmax())
        return expert % len(self.experts.channels), int(self.began[expert])
