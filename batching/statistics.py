"""What the batcher has done so far, as one immutable snapshot; and what became of a pass, as one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from batching.policy import Priority
from batching.queue import FlushReason


class PassEnd(StrEnum):
    """What became of a pass."""

    DONE = "done"
    HALVED = "halved"  # it failed, and its halves are passed
    FAILED = "failed"  # it failed, and so have its items
    HUNG = "hung"
    RECOVERED = "recovered"  # it had been given up as hanging, and ended after all
    DIED = "died"


class DropReason(StrEnum):
    """Why a queued item was left without a caller."""

    ABANDONED = "abandoned"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class PassReport:
    """One pass: how many items it held, their cost together, why their batch left, what became of it after so many seconds."""

    end: PassEnd
    items: int
    cost: int
    reason: FlushReason
    seconds: float
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class BatcherStatistics:
    """Counts since the start unless said otherwise; times in seconds, summed.

    Of the items that callers submitted, after every event: accepted = answered + failed + abandoned + expired + waiting.
    `accepted_bulk` are those of the accepted that were submitted as bulk.
    `failed` got an error of their pass or of the closing, `abandoned` are those whose caller left before the answer, `expired` met
    their deadline, `waiting` have no outcome yet. `coalesced` is how many of the accepted joined an equal item on its way.

    `reserved`, `queued` and `in_flight` are now, by distinct items: places that wait for their item, items in the queue (of them
    `queued_bulk` in the bulk class; `queued_cost` for both), and items in passes that somebody waits for. `peak_queued` is the
    highest number of places taken at once in one class.

    Refused at the door, and not among the accepted: `refused` (no place), `late` (the deadline had come), `unmeetable` (it could
    not be met). `drops` are distinct items that were left without a caller while they were queued, and cost no pass.

    `passes` ended well or failed, extra ones included; `items_passed` were in them. `extra_passes` went into finding the items at
    fault in `bisected` batches. `running_passes` and `hung_passes` are now; `hangs` and `deaths` count passes that were given up
    or ended in an unforeseen way. `wait_time` is time in the queue of the items that left it, `pass_time` the duration of passes.

    `cells` is the sum over all items in passes of their cost squared, `padded_cells` what it would be if each were as dear as the
    dearest of its pass: with tokens as the cost, attention cells, and those of passes padded to their longest text.
    """

    reserved: int
    queued: int
    queued_bulk: int
    queued_cost: int
    in_flight: int
    waiting: int
    running_passes: int
    hung_passes: int
    accepted: int
    accepted_bulk: int
    answered: int
    failed: int
    abandoned: int
    expired: int
    coalesced: int
    drops: Mapping[DropReason, int]
    refused: Mapping[Priority, int]
    late: int
    unmeetable: int
    passes: int
    failed_passes: int
    items_passed: int
    bisected: int
    extra_passes: int
    hangs: int
    deaths: int
    flushes: Mapping[FlushReason, int]
    wait_time: float
    pass_time: float
    peak_queued: int
    cells: int
    padded_cells: int

    @property
    def dropped(self) -> int:
        """Drops for all reasons."""
        return sum(self.drops.values())

    @property
    def padding_ratio(self) -> float:
        """Padded cells over real ones: 1 is no padding; 1 before any pass."""
        return self.padded_cells / self.cells if self.cells else 1.0
