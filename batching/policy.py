"""The limits of batching, checked once and frozen."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """When a batch leaves and how much it may hold.

    `max_items`: a batch never holds more.
    `max_cost`: the sum of its items' costs stays within this, unless a single item alone is over it. For texts, cost is tokens.
    `window`: seconds that the oldest item may wait for company while a worker is free.
    `idle_flush`: an item that finds a free worker leaves at once; if false, it waits the window for company (or a full batch).
    `max_queued`: places for items that are reserved or queued; beyond it `QueueFull` is raised. Items in a pass hold no place.
    `workers`: passes that may run at the same time.

    Raises `ValueError` naming the field and the bound it breaks.
    """

    max_items: int = 32
    max_cost: int = 4096
    window: float = 0.040
    idle_flush: bool = True
    max_queued: int = 1024
    workers: int = 1

    def __post_init__(self) -> None:
        for name in ("max_items", "max_cost", "max_queued", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if not (math.isfinite(self.window) and self.window >= 0):
            raise ValueError(f"window must be 0 or more seconds, not {self.window}")
