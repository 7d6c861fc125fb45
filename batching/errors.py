"""What a caller of the batcher can meet besides an answer."""

from __future__ import annotations


class BatchingError(Exception):
    """The base of all errors that the batcher raises on purpose."""


class QueueFull(BatchingError):
    """Raised when no place is left; `retry_after` is the expected seconds until there is room again."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the queue is full; room is expected in {retry_after:.1f} s")
        self.retry_after = retry_after


class BatcherClosed(BatchingError):
    """Raised when the batcher takes no more items, or was closed before an item's pass was done."""

    def __init__(self) -> None:
        super().__init__("the batcher is closed")


class PassFailed(BatchingError):
    """Raised when the pass that held an item failed; `__cause__` is what the processing function raised."""

    def __init__(self) -> None:
        super().__init__("the pass over the batch failed")


class WrongResultCount(PassFailed):
    """Raised when the processing function returned more or fewer results than it was given items."""

    def __init__(self, items: int, results: int) -> None:
        super().__init__()
        self.args = (f"the pass returned {results} results for {items} items",)
