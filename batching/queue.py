"""The decision: what leaves now, and until when may one sleep. Synchronous, clock-free (it is told the time), free of asyncio.

Invariants (the tests cite the numbers):

1. An entry is in the queue from `push` until `take` hands it out or `discard` removes it, and never comes back.
2. Entries are taken oldest first.
3. A batch holds 1 to `max_items` entries, and its costs add up to `max_cost` at most unless it is a single entry.
4. A batch leaves at once when it is full, or when a worker is free and the policy flushes idle workers, or on draining; otherwise
   when its oldest entry has waited the window, counted from that entry's own `push` and from nothing else.
5. Without entries there is nothing to wait for: `deadline()` is None.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import Generic, Protocol, TypeVar

from batching.policy import BatchPolicy


class FlushReason(Enum):
    """Why a batch left."""

    FULL = "full"
    COST = "cost"
    IDLE = "idle"
    WINDOW = "window"
    DRAIN = "drain"


class Queueable(Protocol):
    """What the queue needs to know of an entry; it must be hashable by identity."""

    @property
    def cost(self) -> int:
        """Its share of `max_cost`."""

    @property
    def queued_at(self) -> float:
        """When it was pushed, in seconds on the clock that `take` is told."""


E = TypeVar("E", bound=Queueable)


@dataclass(frozen=True, slots=True)
class Batch(Generic[E]):
    """What one pass will work on, oldest first, and why it left."""

    entries: tuple[E, ...]
    reason: FlushReason


class BatchQueue(Generic[E]):
    """Entries that wait for a pass. All mutable state is `_entries` and `draining`."""

    def __init__(self, policy: BatchPolicy) -> None:
        self._policy = policy
        # Ordered by age; the mapping makes discarding an abandoned entry O(1) without leaving a gap behind.
        self._entries: OrderedDict[E, None] = OrderedDict()
        self.draining = False

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, entry: E) -> None:
        """Append the youngest entry."""
        self._entries[entry] = None

    def discard(self, entry: E) -> bool:
        """Remove an entry whose caller left; False when it is not queued (any more)."""
        return self._entries.pop(entry, self) is None

    def take(self, now: float) -> Batch[E] | None:
        """The batch that leaves now on a free worker, or None when there is nothing to do before `deadline()`."""
        if not self._entries:
            return None
        chosen, limit = self._oldest_that_fit()
        reason = limit or self._reason_to_leave_early(now)
        if reason is None:
            return None
        for entry in chosen:
            del self._entries[entry]
        return Batch(tuple(chosen), reason)

    def deadline(self) -> float | None:
        """When the oldest entry's window ends, on the clock that `queued_at` was read from; None when nothing waits."""
        if not self._entries:
            return None
        return next(iter(self._entries)).queued_at + self._policy.window

    def _oldest_that_fit(self) -> tuple[list[E], FlushReason | None]:
        chosen: list[E] = []
        cost = 0
        for entry in self._entries:
            if chosen and cost + entry.cost > self._policy.max_cost:
                return chosen, FlushReason.COST
            chosen.append(entry)
            cost += entry.cost
            if len(chosen) == self._policy.max_items:
                return chosen, FlushReason.FULL
        return chosen, FlushReason.COST if cost >= self._policy.max_cost else None

    def _reason_to_leave_early(self, now: float) -> FlushReason | None:
        if self.draining:
            return FlushReason.DRAIN
        if self._policy.idle_flush:
            return FlushReason.IDLE
        deadline = self.deadline()
        return FlushReason.WINDOW if deadline is not None and now >= deadline else None
