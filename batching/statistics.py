"""What the batcher has done so far, as one immutable snapshot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from batching.queue import FlushReason


@dataclass(frozen=True, slots=True)
class BatcherStatistics:
    """Counts of items since the start unless said otherwise; times in seconds, summed.

    After every event, accepted = answered + failed + abandoned + queued + in_flight.
    `abandoned` are items whose caller left before the answer, `refused` are places that were asked for in vain.
    `reserved` places wait for their item; `peak_queued` is the highest number of places taken at once.
    `wait_time` is time in the queue of the items that left it, `pass_time` the duration of the passes.
    """

    reserved: int
    queued: int
    in_flight: int
    running_passes: int
    accepted: int
    answered: int
    failed: int
    abandoned: int
    refused: int
    passes: int
    items_passed: int
    flushes: Mapping[FlushReason, int]
    wait_time: float
    pass_time: float
    peak_queued: int
