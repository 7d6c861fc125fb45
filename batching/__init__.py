"""An asyncio micro-batcher, generic over item and result: it knows no HTTP, no tokens and no model."""

from batching.batcher import Batcher, Reservation
from batching.callers import Outcome
from batching.errors import (
    BatcherClosed,
    BatcherStalled,
    BatchingError,
    DeadlineExceeded,
    DeadlineUnmeetable,
    PassFailed,
    PassTimedOut,
    QueueFull,
    WorkerDied,
    WrongResultCount,
)
from batching.policy import BatchPolicy, Priority
from batching.queue import FlushReason
from batching.statistics import BatcherStatistics, DropReason, PassEnd, PassReport

__all__ = [
    "BatchPolicy",
    "Batcher",
    "BatcherClosed",
    "BatcherStalled",
    "BatcherStatistics",
    "BatchingError",
    "DeadlineExceeded",
    "DeadlineUnmeetable",
    "DropReason",
    "FlushReason",
    "Outcome",
    "PassEnd",
    "PassFailed",
    "PassReport",
    "PassTimedOut",
    "Priority",
    "QueueFull",
    "Reservation",
    "WorkerDied",
    "WrongResultCount",
]
