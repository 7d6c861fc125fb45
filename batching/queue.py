"""The decision: what leaves now, and until when may one sleep. Synchronous, clock-free (it is told the time), free of asyncio.

Invariants (the tests cite the numbers):

1. An entry is in the queue from `push` until `take`, `drop_lapsed` or `clear` hands it out or `discard` removes it, and never comes
   back.
2. A batch is of one class, oldest first, and holds the oldest entry of its class.
3. A batch holds 1 to `max_items` entries, and its costs add up to its budget at most unless it is a single entry. The budget is at
   most `max_cost`.
4. A batch leaves at once when it is full, or when a worker is free and the policy flushes idle workers, or on draining; otherwise
   when the oldest entry of its class has waited the window, counted from that entry's own `push` and from nothing else.
5. Without entries there is nothing to wait for: `window_end()` is None.
6. No entry is passed over more than `max_passed_over` times: so often at most may a batch with a younger entry of its class leave
   while it stays.
7. While both classes have a batch that may leave, the costs that leave are in the proportion of their weights, to within one batch
   of each.
8. After `drop_lapsed`, no entry whose deadline has come leaves in a batch.

17. While idle workers are flushed, a batch's budget is one worker's share of what its class has queued. Workers that are free at
    the same time share it evenly. One that is free while others are busy takes what it is over all workers, but at least the cost
    that is worth a pass.
18. What `divide` would pass apart does not leave together, unless the policy keeps to the order of age.

(9 to 16 are the batcher's.)

The share is guided self-scheduling (Polychronopoulos, Kuck 1987): of what is left, a worker that becomes free takes one part in
as many as there are workers. A long queue leaves in batches as full as they can be, which costs the fewest passes. The shorter the
queue, the smaller the batches: a text does not wait for the work of batch-mates that another worker could do meanwhile.

Weights are those of start-time fair queueing (Goyal, Vin, Cheng 1996): each class has a start tag, which a batch moves on by its
cost over the weight, and the lowest tag is served. The tag of a class with nothing to send moves along with the one that is served,
so that nobody saves up credit.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Generic, Protocol, TypeVar

from batching.policy import BatchPolicy, Priority


class FlushReason(StrEnum):
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
        """Its share of `max_cost`, 1 or more."""

    @property
    def priority(self) -> Priority:
        """Its class."""

    @property
    def queued_at(self) -> float:
        """When it was pushed, in seconds on the clock that `take` is told."""

    @property
    def deadline(self) -> float:
        """When it is no longer worth a pass, on the same clock; infinity if never."""


E = TypeVar("E", bound=Queueable)


# Divides items of these costs into passes, as indices: an engine may do better with unlike items apart.
Divide = Callable[[Sequence[int]], Sequence[Sequence[int]]]


def undivided(costs: Sequence[int]) -> Sequence[Sequence[int]]:
    """All in one pass."""
    return [range(len(costs))]


@dataclass(slots=True)
class Batch(Generic[E]):
    """What one pass will work on, oldest first, and why it left."""

    entries: tuple[E, ...]
    reason: FlushReason


class _Lane(Generic[E]):
    """The entries of one class by age, each with how often it was passed over; their cost; the class's weight and start tag."""

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.start = 0.0
        self.cost = 0
        # The mapping makes discarding an abandoned entry O(1) without leaving a gap behind.
        self.entries: OrderedDict[E, int] = OrderedDict()

    def remove(self, entry: E) -> None:
        del self.entries[entry]
        self.cost -= entry.cost


class BatchQueue(Generic[E]):
    """Entries that wait for a pass. All mutable state is in the lanes and `draining`."""

    def __init__(self, policy: BatchPolicy, divide: Divide = undivided) -> None:
        self._policy = policy
        self._divide = divide
        self._horizon = max(policy.look_ahead, policy.max_items)
        # In the order in which equal start tags are served.
        self._lanes: dict[Priority, _Lane[E]] = {
            Priority.INTERACTIVE: _Lane(policy.interactive_weight),
            Priority.BULK: _Lane(1.0),
        }
        self.draining = False

    def __len__(self) -> int:
        total = 0
        for lane in self._lanes.values():  # no generator: this is asked several times for each request
            total += len(lane.entries)
        return total

    def __iter__(self) -> Iterator[E]:
        for lane in self._lanes.values():
            yield from lane.entries

    def count(self, priority: Priority) -> int:
        """Entries of a class."""
        return len(self._lanes[priority].entries)

    def cost(self, priority: Priority) -> int:
        """What the entries of a class cost together."""
        return self._lanes[priority].cost

    def cost_ahead(self, priority: Priority) -> float:
        """The cost that leaves before or with what a class has queued now, if nothing more comes."""
        own = self._lanes[priority]
        others = (lane for lane in self._lanes.values() if lane is not own)
        return own.cost + sum(min(lane.cost, own.cost * lane.weight / own.weight) for lane in others)

    def __contains__(self, entry: E) -> bool:
        return entry in self._lanes[entry.priority].entries

    def push(self, entry: E) -> None:
        """Append the youngest entry of its class. One that was discarded from another class is new in this one."""
        lane = self._lanes[entry.priority]
        lane.entries[entry] = 0
        lane.cost += entry.cost

    def discard(self, entry: E) -> bool:
        """Remove an entry whose callers left; False when it is not queued (any more)."""
        if entry not in self:
            return False
        self._lanes[entry.priority].remove(entry)
        return True

    def drop_lapsed(self, now: float) -> list[E]:
        """Remove and return the entries near enough to the front to leave with the next batch whose deadline has come."""
        dropped: list[E] = []
        for lane in self._lanes.values():
            # Again, because others move up.
            while lane.entries and (lapsed := [entry for entry in islice(lane.entries, self._horizon) if entry.deadline <= now]):
                for entry in lapsed:
                    lane.remove(entry)
                dropped += lapsed
        return dropped

    def take(self, now: float, sharing: int | None = None, worthwhile_cost: float = 0.0) -> Batch[E] | None:
        """The batch that leaves now on a free worker, or None when there is nothing to do before `window_end()`.

        `sharing` is how many workers are free, this one included, if several were; None if the others are busy. Then
        `worthwhile_cost` is what a pass should cost at least, as far as so much waits, because it costs something by itself.
        """
        ready = {lane: reason for lane in self._lanes.values() if (reason := self._reason_to_leave(lane, now)) is not None}
        if not ready:
            return None
        lane = min(ready, key=lambda lane: lane.start)
        chosen, bound = self._choose(lane, self._budget(lane, sharing, worthwhile_cost))
        for other in self._lanes.values():
            if other not in ready:  # empty, or within its window: it saves up no credit
                other.start = max(other.start, lane.start)
        lane.start += sum(entry.cost for entry in chosen) / lane.weight
        for entry in chosen:
            lane.remove(entry)
        return Batch(tuple(chosen), bound or ready[lane])

    def window_end(self) -> float | None:
        """When the next window ends, on the clock that `queued_at` was read from; None when nothing waits."""
        oldest = [next(iter(lane.entries)).queued_at for lane in self._lanes.values() if lane.entries]
        return min(oldest) + self._policy.window if oldest else None

    def clear(self) -> list[E]:
        """Remove and return everything."""
        entries = list(self)
        for entry in entries:
            self._lanes[entry.priority].remove(entry)
        return entries

    def _reason_to_leave(self, lane: _Lane[E], now: float) -> FlushReason | None:
        if not lane.entries:
            return None
        if len(lane.entries) >= self._policy.max_items:
            return FlushReason.FULL
        if lane.cost >= self._policy.max_cost:
            return FlushReason.COST
        if self.draining:
            return FlushReason.DRAIN
        if self._policy.idle_flush:
            return FlushReason.IDLE
        return FlushReason.WINDOW if now >= next(iter(lane.entries)).queued_at + self._policy.window else None

    def _budget(self, lane: _Lane[E], sharing: int | None, worthwhile_cost: float) -> float:
        policy = self._policy
        if not policy.idle_flush:
            return policy.max_cost  # whoever waits for company is to have it
        share = max(lane.cost / policy.workers, worthwhile_cost) if sharing is None else lane.cost / sharing
        return min(policy.max_cost, share)

    def _choose(self, lane: _Lane[E], budget: float) -> tuple[list[E], FlushReason | None]:
        """The batch of a class, oldest first, and the bound that it met; those that it passes over are noted."""
        if len(lane.entries) == 1:  # nothing to choose, as nearly always at low load
            return list(lane.entries), None
        seen = list(islice(lane.entries.items(), self._horizon))
        bound = None
        if len(seen) <= self._policy.max_items and lane.cost <= budget:
            indices = list(range(len(seen)))
        else:
            indices = self._fitting(seen, budget)
            if len(indices) == self._policy.max_items:
                bound = FlushReason.FULL
            elif budget == self._policy.max_cost:
                bound = FlushReason.COST
        if len(indices) > 1 and self._policy.max_passed_over:
            indices = self._one_pass(seen, indices)
        for index in set(range(indices[-1])).difference(indices):
            lane.entries[seen[index][0]] += 1
        return [seen[index][0] for index in indices], bound

    def _fitting(self, seen: Sequence[tuple[E, int]], budget: float) -> list[int]:
        """Of more than fits in a batch: the oldest, then those whose turn it is, then those nearest to the oldest in cost.

        `seen` has the oldest entries with how often each was passed over; returns indices, in order.
        """
        oldest = seen[0][0]
        chosen = {0}
        count, cost = 1, oldest.cost
        # An older one has been passed over at least as often as a younger one, so those whose turn it is stand at the front.
        for index, (entry, passed_over) in enumerate(seen[1:], start=1):
            if passed_over < self._policy.max_passed_over:
                break
            if count == self._policy.max_items or cost + entry.cost > budget:
                return list(range(index))
            chosen.add(index)
            count, cost = count + 1, cost + entry.cost
        others = [index for index in range(1, len(seen)) if index not in chosen]
        for index in sorted(others, key=lambda index: abs(seen[index][0].cost - oldest.cost)):
            entry = seen[index][0]
            # The first that does not fit ends it: a smaller one from farther away would fill the batch, but not match it.
            if count == self._policy.max_items or cost + entry.cost > budget:
                break
            chosen.add(index)
            count, cost = count + 1, cost + entry.cost
        return sorted(chosen)

    def _one_pass(self, seen: Sequence[tuple[E, int]], indices: Sequence[int]) -> list[int]:
        """Of those chosen, the ones that are passed together with the oldest, unless one whose turn it is would be passed over."""
        groups = self._divide([seen[index][0].cost for index in indices])
        chosen = sorted(indices[place] for place in next(group for group in groups if 0 in group))
        left_out = (index for index in range(chosen[-1]) if index not in chosen and seen[index][1] >= self._policy.max_passed_over)
        first = next(left_out, math.inf)
        return [index for index in chosen if index < first]
