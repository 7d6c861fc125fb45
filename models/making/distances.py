"""Which distances between two tokens disentangled attention tells apart (DeBERTa-v2 and v3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Distances:
    """Near distances have a row each; of those from half of `buckets` on, ever more share one, up to `farthest`.

    Without buckets (0), all distances have a row of their own up to `farthest`. Half of the buckets must be 1 or more, and
    less than `farthest` - 1.
    """

    farthest: int
    buckets: int = 0

    @property
    def span(self) -> int:
        """Half the number of rows."""
        return self.buckets or self.farthest

    def rows(self, distances: Integers) -> Integers:
        """The row of each distance, a query's position less a key's: 0 to 2 x `span` - 1.

        In float32 as transformers computes it, so that no distance at the border of two buckets falls on the other side.
        """
        near = distances.astype(np.int64)
        if self.buckets:
            middle = self.buckets // 2
            size = np.maximum(np.abs(near), middle)
            ratio = (size.astype(np.float32) / np.float32(middle)).astype(np.float32)
            whole = np.log(np.float32((self.farthest - 1) / middle))
            logarithmic = np.ceil(np.log(ratio) / whole * np.float32(middle - 1)) + middle
            near = np.where(size == middle, near, logarithmic.astype(np.int64) * np.sign(near))
        return np.clip(near + self.span, 0, 2 * self.span - 1)
