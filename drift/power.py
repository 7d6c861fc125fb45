"""What a baseline lets a level notice, and how soon: before anything has changed.

A change is taken to move a share of all texts into a tail that a twentieth of the normal texts has, or as near to that as the
channel's bins come. The share s makes of the tail's usual share p

    p' = (1 - s) p + s        gain a text = p' log(inside) + (1 - p') log(outside)

for an expert; it alarms alone after log(A / weight) / gain texts. What does not raise p' above the tail's bound by enough for any
expert is never noticed: the baseline is too small for it. Of a level's channels, the median is told: some show a change well,
others do not at all, and which ones do is not known beforehand. A text that the change brings need not lie in the tail. If half of
them do, a share of 10 % takes as long as one of 5 % here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from drift.baseline import Baseline
from drift.channels import LevelName
from drift.detector import FEWEST_BLOCKS, MOVED, Experts

SHARES: Final = (0.5, 0.25, 0.1, 0.05, 0.02)
TAIL: Final = 0.05


def detectable(
    baseline: Baseline,
    level: LevelName,
    *,
    blocks: float,
    block_texts: float,
    tolerance: float = 0.0,
    shares: Sequence[float] = SHARES,
) -> dict[float, float | None]:
    """For each share of texts that moves, how many texts it takes until the alarm, on average; None for what is never noticed.

    `blocks` is the promise, as for a `Detector`; `block_texts` is how many texts a block has: three blocks are the least. Raises
    `BaselineError` if the level has no channel to test.
    """
    experts = Experts.of(baseline, level, tolerance)
    channels = baseline.layout.at(level)
    # Of each tail, [strata, tails]: the share of the normal texts.
    counts = np.concatenate([baseline.of(channel) @ channel.tails().T for channel in channels], axis=1)
    totals = np.concatenate([np.tile(baseline.of(each).sum(axis=1, keepdims=True), len(each.tails())) for each in channels], axis=1)
    usual = counts / np.maximum(totals, 1)
    counted = baseline.counts.sum(axis=1)
    strata = counted / max(counted.sum(), 1)
    pooled, need = strata @ usual, math.log(blocks) - experts.log_weights
    found: dict[float, float | None] = {}
    for share in shares:
        now = np.tile((1 - share) * usual + share, len(MOVED))
        gain = strata @ (now * experts.inside + (1 - now) * experts.outside)
        texts = np.where(gain > 0, need / np.where(gain > 0, gain, 1), np.inf).reshape(len(MOVED), -1).min(axis=0)
        of_channels = []
        for channel in channels:
            tails = np.flatnonzero([owner == channel for owner in experts.channels])
            of_channels.append(texts[tails[np.abs(pooled[tails] - TAIL).argmin()]])
        median = float(np.quantile(of_channels, 0.5, method="higher"))
        found[share] = max(median, FEWEST_BLOCKS * block_texts) if math.isfinite(median) else None
    return found
