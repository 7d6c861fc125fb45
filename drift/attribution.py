"""In which texts a change is: by predicted label, and whether another mix of labels would explain it.

Both are for people, after an alarm, from channels that are counted for each label apart (`drift.profile`): a score as a whole, and
the same score of the texts with each predicted label.

    labels    the texts beyond what is usual in the score's upper tail, by label, as shares of all such texts
    mix       how much of the score's change goes away if each label is taken as it always was, but in the numbers of now: 1 if the
              mix explains it all ("other matters are asked about, each as before"), 0 if it explains nothing
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from drift.baseline import Baseline
from drift.channels import Counts

TAIL: Final = 0.05
FEWEST_TEXTS: Final = 200

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Attribution:
    """See above; `labels` in the order of the labels, empty where no text is beyond what is usual."""

    labels: dict[str, float]
    mix: float


def attribute(baseline: Baseline, now: Counts, score: str = "combined") -> Attribution | None:
    """Where the texts of `now`, shape [width], differ from the baseline's, in an ordered channel and those of its labels.

    None without such channels, or with fewer than 200 texts on either side.
    """
    layout = baseline.layout
    names = {channel.name for channel in layout.channels}
    labels = next((channel.categories for channel in layout.channels if channel.name == "label"), ())
    if not labels or not {score, *(f"{score} of {label}" for label in labels)} <= names:
        return None
    usual = baseline.counts.sum(axis=0)
    whole = layout.place(score)
    if min(usual[whole].sum(), now[whole].sum()) < FEWEST_TEXTS:
        return None
    mine = [layout.place(f"{score} of {label}") for label in labels]
    excess = np.array([_excess(usual[place], now[place]) for place in mine])
    expected = sum((_shares(usual[place]) * now[place].sum() for place in mine), np.zeros(whole.stop - whole.start))
    change, rest = _distance(now[whole], usual[whole]), _distance(now[whole], expected)
    return Attribution(
        {label: float(part) for label, part in zip(labels, excess / excess.sum(), strict=True)} if excess.sum() else {},
        float(np.clip(1 - rest / change, 0, 1)) if change else 0.0,
    )


def _excess(usual: Counts, now: Counts) -> float:
    """The texts beyond what is usual in the upper tail that is nearest to a twentieth of the usual ones."""
    if not usual.sum():
        return float(now.sum())  # nothing of this label is usual
    tails = np.cumsum(_shares(usual)[::-1])[::-1]
    first = int(np.abs(tails[1:] - TAIL).argmin()) + 1
    return max(float(now[first:].sum() - tails[first] * now.sum()), 0.0)


def _shares(counts: Counts) -> Array:
    return np.asarray(counts / max(counts.sum(), 1), dtype=np.float64)


def _distance(one: npt.NDArray[np.generic], other: npt.NDArray[np.generic]) -> float:
    """Of two histograms: the share of texts that must move to make one of the other."""
    first, second = (np.asarray(each, dtype=np.float64) for each in (one, other))
    return float(np.abs(first / max(first.sum(), 1) - second / max(second.sum(), 1)).sum() / 2)
