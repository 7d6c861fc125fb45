"""Who waits for what: items on their way, the callers of each, and the one outcome that each caller gets.

Equal items share an entry, so an entry may have several callers. An entry without callers is worth nothing: whoever holds it drops
it. A caller is told its outcome by a function of its own, here and now: a future for each text, and a turn of the event loop to
wake who waits for it, cost as much as all the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from batching.errors import BatchingError, DeadlineExceeded
from batching.policy import Priority

T = TypeVar("T")
R = TypeVar("R")


class Outcome(NamedTuple, Generic[R]):
    """One item's result; `wait` in the queue and `duration` of the pass in seconds, `batch_size` in items.

    A caller whose item was already on its way has waited only for the rest of it.
    """

    result: R
    wait: float
    duration: float
    batch_size: int


# Is told a caller's one outcome, in the midst of others' outcomes: it should be quick.
OnOutcome = Callable[[Outcome[R] | BatchingError], None]


@dataclass(eq=False, slots=True)
class Caller(Generic[T, R]):
    """One submitted item: what it waits for, since when, and who is told of its outcome.

    Once it `is_done`, it has its `outcome`, or it has left and will have none.
    """

    entry: Entry[T, R]
    joined_at: float
    on_outcome: OnOutcome[R] | None
    outcome: Outcome[R] | BatchingError | None = None
    is_done: bool = False

    def tell(self, outcome: Outcome[R] | BatchingError) -> None:
        """This is the caller's one outcome."""
        on_outcome = self.on_outcome
        assert on_outcome is not None
        self.leave()
        self.outcome = outcome
        try:
            on_outcome(outcome)
        except Exception as failure:  # noqa: BLE001 - one caller's fault is not the others'
            context = {"message": "a caller of the batcher failed when it was told its outcome", "exception": failure}
            asyncio.get_running_loop().call_exception_handler(context)

    def leave(self) -> None:
        """There is nobody to tell any more. Who is told may hold the caller, so it is not held here: that would be a cycle."""
        self.is_done = True
        self.on_outcome = None


@dataclass(eq=False, slots=True)
class Entry(Generic[T, R]):
    """One item on its way, and who waits for it. Compared and hashed by identity; `key` is None if it is not to be shared.

    `callers` are all who joined; `waiting` of them have no outcome yet. With none, it is worth no pass.
    """

    item: T
    key: Hashable
    cost: int
    priority: Priority
    queued_at: float
    deadline: float
    callers: list[Caller[T, R]] = field(default_factory=list)
    waiting: int = 0


class Register(Generic[T, R]):
    """All callers without an outcome, by their entries.

    It counts callers: accepted = answered + failed + abandoned + expired + those without an outcome. All mutable state is in the
    entries, the counts and `_by_key`, which holds the entries that equal items may join.
    """

    def __init__(self) -> None:
        self.accepted = 0
        self.answered = 0
        self.failed = 0
        self.abandoned = 0
        self.expired = 0
        self._by_key: dict[Hashable, Entry[T, R]] = {}

    def find(self, key: Hashable) -> Entry[T, R] | None:
        """The entry on its way that an item of this key may join."""
        return None if key is None else self._by_key.get(key)

    def add(self, entry: Entry[T, R]) -> None:
        """A new entry is on its way."""
        if entry.key is not None:
            self._by_key[entry.key] = entry

    def join(self, entry: Entry[T, R], now: float, deadline: float, on_outcome: OnOutcome[R]) -> Caller[T, R]:
        """One more caller waits for an entry, until its own deadline."""
        caller = Caller(entry, now, on_outcome)
        self.accepted += 1
        entry.deadline = max(entry.deadline, deadline)
        entry.callers.append(caller)
        entry.waiting += 1
        return caller

    def leave(self, caller: Caller[T, R]) -> None:
        """The caller waits no longer. If it has no outcome yet, this is it: it is counted as abandoned, and told nothing."""
        if not caller.is_done:
            caller.leave()
            self.abandoned += 1
            caller.entry.waiting -= 1

    def expire(self, callers: Iterable[Caller[T, R]]) -> None:
        """The deadline of these callers has come."""
        for caller in callers:
            if not caller.is_done:
                self.expired += 1
                caller.entry.waiting -= 1
                caller.tell(DeadlineExceeded())

    def settle(self, entry: Entry[T, R]) -> list[Caller[T, R]]:
        """The entry is done; returns who still waits for it."""
        waiting = [caller for caller in entry.callers if not caller.is_done]
        entry.waiting = 0
        entry.callers.clear()  # else entry and callers would hold each other, and be left to the garbage collector
        if self.find(entry.key) is entry:
            del self._by_key[entry.key]
        for caller in waiting:
            caller.is_done = True  # whatever one of them does when it is told, the others cannot leave any more
        return waiting

    def answer(self, entries: Sequence[Entry[T, R]], results: Sequence[R], started: float, ended: float) -> None:
        """The pass over these entries gave these results."""
        for entry, result in zip(entries, results, strict=True):
            for caller in self.settle(entry):
                wait = max(0.0, started - caller.joined_at)
                duration = ended - max(started, caller.joined_at)
                self.answered += 1
                caller.tell(Outcome(result, wait, duration, len(entries)))

    def fail(self, entries: Iterable[Entry[T, R]], make: Callable[[], BatchingError], cause: BaseException | None = None) -> None:
        """These entries get no result; each of their callers gets an error."""
        for entry in entries:
            for caller in self.settle(entry):
                error = make()  # one exception for each caller: raising a shared one would pile up their tracebacks
                error.__cause__ = cause
                self.failed += 1
                caller.tell(error)
