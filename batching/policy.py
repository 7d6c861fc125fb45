"""The limits of batching, checked once and frozen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum


class Priority(StrEnum):
    """The class of an item. Each class has places of its own, and neither can starve the other."""

    INTERACTIVE = "interactive"
    BULK = "bulk"


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """When a batch leaves, what it holds, and how much may wait.

    `max_items`: a batch never holds more.
    `max_cost`: the sum of its items' costs stays within this, unless a single item alone is over it. For texts, cost is tokens.
    `window`: seconds that the oldest item may wait for company while a worker is free.
    `idle_flush`: an item that finds a free worker leaves at once; if false, it waits the window for company (or a full batch).
    `look_ahead`: how many of the oldest items of a class are considered for a batch (never fewer than `max_items`): beside the
    oldest, those whose cost is nearest to its own.
    `max_passed_over`: how many batches may leave with a younger item of its class while an item stays; 0 keeps to the order of age.
    `interactive_weight`: while both classes wait, the cost that leaves of interactive items for each 1 of bulk.
    `max_queued`: places of each class for items that are reserved or queued; beyond it `QueueFull` is raised. Items in a pass hold
    no place.
    `max_queued_cost`: the cost of each class that may be queued, unless a single call alone is over it.
    `workers`: passes that may run at the same time.
    `max_extra_passes`: passes that may be spent to find the items at fault in a batch whose pass failed; 0 fails them all together.
    `pass_timeout`: seconds after which a pass counts as hanging; infinity waits for ever. It is not cancelled: most that hangs, a
    thread, cannot be; a `process` that can be is welcome to cancel itself sooner.

    Raises `ValueError` naming the field and the bound it breaks.
    """

    max_items: int = 32
    max_cost: int = 4096
    window: float = 0.040
    idle_flush: bool = True
    look_ahead: int = 64
    max_passed_over: int = 8
    interactive_weight: float = 4.0
    max_queued: int = 1024
    max_queued_cost: int = 1 << 20
    workers: int = 1
    max_extra_passes: int = 16
    pass_timeout: float = 30.0

    def __post_init__(self) -> None:
        for name in ("max_items", "max_cost", "max_queued", "max_queued_cost", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for name in ("look_ahead", "max_passed_over", "max_extra_passes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        if not (math.isfinite(self.window) and self.window >= 0):
            raise ValueError(f"window must be 0 or more seconds, not {self.window}")
        if not (math.isfinite(self.interactive_weight) and self.interactive_weight > 0):
            raise ValueError(f"interactive_weight must be over 0, not {self.interactive_weight}")
        if not self.pass_timeout > 0:
            raise ValueError(f"pass_timeout must be over 0 seconds, not {self.pass_timeout}")
