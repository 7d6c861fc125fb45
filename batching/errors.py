"""What a caller of the batcher can meet besides an answer."""

from __future__ import annotations


class BatchingError(Exception):
    """The base of all errors that the batcher raises on purpose.

    `index` is the place of the item at fault among the items that were submitted together; None where no single item is.
    """

    index: int | None = None


class QueueFull(BatchingError):
    """Raised when no place is left; `retry_after` is the expected seconds until what waits now has left, by the measured pace.

    A first place is free with the next batch; but all who were refused wait for it.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"the queue is full; it is expected to have drained in {retry_after:.1f} s")
        self.retry_after = retry_after


class BatcherClosed(BatchingError):
    """Raised when the batcher is not open, takes no more items, or was closed before an item's pass was done."""

    def __init__(self) -> None:
        super().__init__("the batcher is not open")


class BatcherStalled(BatchingError):
    """Raised when passes hang on all workers and on all that could replace them, so that nothing can be passed."""

    def __init__(self) -> None:
        super().__init__("passes hang on all workers")


class DeadlineExceeded(BatchingError):
    """Raised when an item's deadline came before its answer."""

    def __init__(self, message: str = "the deadline came before the answer") -> None:
        super().__init__(message)


class DeadlineUnmeetable(DeadlineExceeded):
    """Raised at the door: by the measured pace an answer takes `expected` seconds, which is more than the item has."""

    def __init__(self, expected: float) -> None:
        super().__init__(f"an answer is expected to take {expected:.3f} s, which is more than the deadline leaves")
        self.expected = expected


class PassFailed(BatchingError):
    """Raised when the pass that held an item failed; `__cause__` is what the processing function raised.

    `items` is how many items the failing pass held; when it is 1, the item failed alone and the error is its own.
    """

    def __init__(self, items: int) -> None:
        super().__init__("the pass over this item alone failed" if items == 1 else f"the pass over {items} items failed")
        self.items = items


class WrongResultCount(PassFailed):
    """Raised when the processing function returned more or fewer results than it was given items."""

    def __init__(self, items: int, results: int) -> None:
        super().__init__(items)
        self.args = (f"the pass returned {results} results for {items} items",)
        self.results = results


class PassTimedOut(PassFailed):
    """Raised when a pass did not end within the policy's `pass_timeout`."""

    def __init__(self, items: int, seconds: float) -> None:
        super().__init__(items)
        self.args = (f"the pass over {items} items did not end within {seconds:g} s",)


class WorkerDied(PassFailed):
    """Raised when a pass ended in a way that no processing function should: it was cancelled, or its thread or task was ended."""

    def __init__(self, items: int) -> None:
        super().__init__(items)
        self.args = (f"the worker died in its pass over {items} items",)
