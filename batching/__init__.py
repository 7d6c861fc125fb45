"""An asyncio micro-batcher, generic over item and result: it knows no HTTP, no tokens and no model."""

from batching.batcher import Batcher, Outcome, Reservation
from batching.errors import BatcherClosed, BatchingError, PassFailed, QueueFull, WrongResultCount
from batching.policy import BatchPolicy
from batching.queue import FlushReason
from batching.statistics import BatcherStatistics

__all__ = [
    "BatchPolicy",
    "Batcher",
    "BatcherClosed",
    "BatcherStatistics",
    "BatchingError",
    "FlushReason",
    "Outcome",
    "PassFailed",
    "QueueFull",
    "Reservation",
    "WrongResultCount",
]
