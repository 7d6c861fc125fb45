"""Long texts in windows: what a model cannot read at once is read in overlapping pieces, whose answers are joined.

Each window is as long as the model reads, with special tokens of its own. It begins between two tokens and repeats the last
`overlap` tokens of the one before it, so that what is said across a border is whole in one of them. The windows' logits are joined
before temperature and softmax or sigmoid: their mean asks what the text as a whole is about, their maximum whether it is said
anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating[Any]]
Join = Literal["mean", "max"]
DEFAULT_OVERLAP: Final = 64
DEFAULT_MOST: Final = 8


@dataclass(frozen=True, slots=True)
class Windows:
    """How long texts are cut and joined: `overlap` in tokens, at most half of what the model reads; `most` windows a text.

    Of a text with more windows, those at the end that the bundle keeps are classified, and it counts as truncated.
    """

    overlap: int = DEFAULT_OVERLAP
    most: int = DEFAULT_MOST
    join: Join = "mean"


def join_logits(logits: Floats, join: Join) -> Floats:
    """The logits of one text, shape [labels], from those of its windows, shape [windows, labels]; label by label."""
    return np.asarray(logits.mean(axis=0) if join == "mean" else logits.max(axis=0))
