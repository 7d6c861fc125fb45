"""The queue in virtual time: what a policy does on a machine, without the machine and without its noise.

Items arrive at given moments, and the real `BatchQueue` decides what leaves; only work is replaced, by seconds of a core. A minute
of a busy server takes about a second, and the same input gives the same output. In the order of an item's way:

1. The client, one thread, spends half of its seconds on sending it.
2. The event loop, one thread, spends half of its seconds on reading it, and queues it; without a place it is refused.
3. When a worker is free, the loop takes a batch, spends the seconds of a pass on handing it over, and the pass begins in a thread
   of its own.
4. When the pass has ended, and its worker has waited besides, the loop first starts the next one, then spends the other
   half of its seconds on each answer.
5. The client spends the other half of its seconds on reading the answer.

There may be several groups of workers on the same cores, as with several processes. Each has a loop and a queue of its own, and
`balance` decides which one gets an item. In Python, one thread of a process at a time holds the interpreter. What a pass needs
of it therefore belongs into `loop_pass`: there it is done in turn with the work of the loop.

The client and each loop do one thing after the other. Threads with something to do share the cores evenly (processor sharing): each
has one as long as there are enough. Busy cores slow each other down, since they share caches and memory: by `slowdown` while all
are busy, not at all while one of several is, in proportion between.

So one speed holds for all that is running, and one clock, of the work that each piece has been given since the start, tells when
each is done; it goes at that speed.

Left out are the slices of time in which an operating system really hands out cores, the network, and whatever else is running.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from batching.balance import Balance, least_loaded
from batching.pace import Pace
from batching.policy import BatchPolicy, Priority
from batching.queue import BatchQueue, Divide, undivided

# The seconds of a pass over items of these costs, on a core of its own while no other is busy.
PassSeconds = Callable[[Sequence[int]], float]


@dataclass(eq=False, slots=True)
class Item:
    """An entry of the queue, to be sent at `arrives_at`. What follows its deadline is filled in; moments are in virtual seconds.

    `place` counts those that were queued, `passed_over` the batches of its class that left with a younger item before it. An item
    that was refused is never queued and never answered.
    """

    cost: int
    arrives_at: float
    priority: Priority = Priority.INTERACTIVE
    deadline: float = math.inf
    queued_at: float = math.inf
    answered_at: float = math.inf
    place: int = 0
    passed_over: int = 0

    @property
    def latency(self) -> float:
        """Seconds from the intended start to the answer; infinite without one."""
        return self.answered_at - self.arrives_at


@dataclass(eq=False, slots=True)
class Pass:
    """One pass over items of a group, oldest first, from when they left the queue to the end of the work."""

    started: float
    items: tuple[Item, ...]
    ended: float = math.inf
    group: int = 0

    @property
    def costs(self) -> list[int]:
        """Of each item."""
        return [item.cost for item in self.items]


@dataclass(frozen=True, slots=True)
class Machine:
    """The cores, and what they do besides passes; by default a core for everything, and nothing besides.

    `slowdown`: how many times as long as by itself work takes while all cores are busy.
    `loop_item`, `loop_pass`: seconds of an event loop for each item, and for each pass.
    `client_item`: seconds of the client for each item; 0 when it is on another machine.
    `pass_wait`: seconds of waiting, without a core, by which a pass holds its worker for longer than it works.
    """

    cores: float = math.inf
    slowdown: float = 1.0
    loop_item: float = 0.0
    loop_pass: float = 0.0
    client_item: float = 0.0
    pass_wait: float = 0.0

    def speed(self, busy: int) -> float:
        """Seconds of work that each of so many busy threads gets done in a second."""
        used = min(busy, self.cores)
        share = (used - 1) / (self.cores - 1) if self.cores > 1 else 1.0
        return used / busy / (1 + (self.slowdown - 1) * share)


def simulate(
    items: Sequence[Item],
    policy: BatchPolicy,
    seconds: PassSeconds,
    machine: Machine | None = None,
    divide: Divide = undivided,
    groups: int = 1,
    balance: Balance = least_loaded,
) -> list[Pass]:
    """Let items arrive at their moments, which are in order, and answer all that find a place; returns the passes by their start.

    A pass over items of some costs takes `seconds(costs)` of a core. Each of the `groups` has the policy's workers and places for
    itself.
    """
    return _Run(policy, seconds, machine or Machine(), divide, groups, balance).passes(items)


class _Cores:
    """The pieces of work that are running, each with the clock's reading at which it is done, and what is to follow."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._running: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._given = 0.0
        self.now = 0.0

    def start(self, work: float, then: Callable[[], None]) -> None:
        heapq.heappush(self._running, (self._given + work, next(self._numbers), then))

    def next_end(self) -> float:
        """When the next piece is done if nothing else begins; infinity when there is none."""
        if not self._running:
            return math.inf
        return self.now + (self._running[0][0] - self._given) / self._machine.speed(len(self._running))

    def advance(self, now: float) -> None:
        """Let time go by, not beyond `next_end`, and let follow what is to follow what is done."""
        if now == self.next_end():
            self._given = self._running[0][0]  # to the bit
        elif self._running:
            self._given += (now - self.now) * self._machine.speed(len(self._running))
        self.now = now
        while self._running and self._running[0][0] <= self._given:
            heapq.heappop(self._running)[2]()


class _Thread:
    """A thread that does one thing after the other: seconds of work, and what is to follow."""

    def __init__(self, cores: _Cores) -> None:
        self._cores = cores
        self.is_busy = False
        self.waiting: deque[tuple[float, Callable[[], None]]] = deque()

    def turn(self) -> None:
        """Begin the next thing; what takes no time is done at once."""
        work, then = self.waiting.popleft()
        if work:
            self.is_busy = True
            self._cores.start(work, partial(self._end, then))
        else:
            then()

    def _end(self, then: Callable[[], None]) -> None:
        self.is_busy = False
        then()


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all groups have in common: how they work, the cores, the client, passes that wait without a core, and all passes."""

    policy: BatchPolicy
    seconds: PassSeconds
    machine: Machine
    divide: Divide
    cores: _Cores
    client: _Thread
    waiting: deque[tuple[float, Callable[[], None]]] = field(default_factory=deque)
    passes: list[Pass] = field(default_factory=list)


class _Group:
    """A loop with its queue and its workers; all their mutable state is here. The methods are what follows on what."""

    def __init__(self, number: int, shared: _Shared) -> None:
        self._number = number
        self._shared = shared
        self._policy = shared.policy
        self._machine = shared.machine
        self._cores = shared.cores
        self._queue = BatchQueue[Item](shared.policy, shared.divide)
        self._places = count()
        self._busy_workers = 0
        self._pace = Pace()
        self._dispatch_scheduled = False
        self.loop = _Thread(shared.cores)
        self.in_hand = 0

    def window_end(self) -> float:
        if self._busy_workers == self._policy.workers or self._dispatch_scheduled:
            return math.inf
        window_end = self._queue.window_end()
        return math.inf if window_end is None else window_end

    def receive(self, item: Item) -> None:
        self.in_hand += 1
        self.loop.waiting.append((self._machine.loop_item / 2, partial(self._read, item)))

    def schedule_dispatch(self) -> None:
        # What the loop has to read already is read before, as it is in the batcher, and can share the first batch.
        if not self._dispatch_scheduled:
            self._dispatch_scheduled = True
            self.loop.waiting.append((0.0, self._dispatch))

    def _read(self, item: Item) -> None:
        if self._queue.count(item.priority) < self._policy.max_queued and self._has_room(item):
            item.queued_at = self._cores.now
            item.place = next(self._places)
            self._queue.push(item)
            self.schedule_dispatch()
        else:
            self.in_hand -= 1

    def _has_room(self, item: Item) -> bool:
        queued = self._queue.cost(item.priority)
        return not queued or queued + item.cost <= self._policy.max_queued_cost

    def _dispatch(self) -> None:
        self._dispatch_scheduled = False
        are_several_free = self._policy.workers - self._busy_workers > 1
        while free := self._policy.workers - self._busy_workers:
            batch = self._queue.take(self._cores.now, free if are_several_free else None, self._pace.worthwhile_cost)
            if batch is None:
                break
            self._busy_workers += 1
            one = Pass(self._cores.now, batch.entries, group=self._number)
            self._shared.passes.append(one)
            self._note_passed_over(batch.entries[-1])
            # Handing it over comes before everything else, as it does in the batcher.
            self.loop.waiting.appendleft((self._machine.loop_pass, partial(self._begin, one)))

    def _begin(self, one: Pass) -> None:
        self._cores.start(self._shared.seconds(one.costs), partial(self._worked, one))

    def _worked(self, one: Pass) -> None:
        self._shared.waiting.append((self._cores.now + self._machine.pass_wait, partial(self._end, one)))

    def _end(self, one: Pass) -> None:
        one.ended = self._cores.now
        self._pace.observe(sum(one.costs), one.ended - one.started)
        self.loop.waiting.append((0.0, self._free_worker))
        self.loop.waiting.extend((self._machine.loop_item / 2, partial(self._answer, item)) for item in one.items)

    def _free_worker(self) -> None:
        self._busy_workers -= 1
        self._dispatch()

    def _answer(self, item: Item) -> None:
        self.in_hand -= 1
        self._shared.client.waiting.append((self._machine.client_item / 2, partial(self._answered, item)))

    def _answered(self, item: Item) -> None:
        item.answered_at = self._cores.now

    def _note_passed_over(self, youngest: Item) -> None:
        for item in self._queue:
            if item.priority is youngest.priority:
                if item.place > youngest.place:
                    break
                item.passed_over += 1


class _Run:
    """One simulation: what comes, and who gets it. All other mutable state is in the cores, the client and the groups."""

    def __init__(
        self, policy: BatchPolicy, seconds: PassSeconds, machine: Machine, divide: Divide, groups: int, balance: Balance
    ) -> None:
        self._machine = machine
        self._cores = _Cores(machine)
        self._client = _Thread(self._cores)
        self._shared = _Shared(policy, seconds, machine, divide, self._cores, self._client)
        self._groups = [_Group(number, self._shared) for number in range(groups)]
        # The client is first: what is sent at one moment is there before a loop does anything about it.
        self._threads = [self._client, *(group.loop for group in self._groups)]
        # If workers are not to be idle, nothing waits for company.
        self._waits_for_company = [] if policy.idle_flush else self._groups
        self._balance = balance

    def passes(self, items: Sequence[Item]) -> list[Pass]:
        coming, waiting = deque(items), self._shared.waiting
        while True:
            windows = [group.window_end() for group in self._waits_for_company]
            waited = waiting[0][0] if waiting else math.inf
            now = min(coming[0].arrives_at if coming else math.inf, self._cores.next_end(), waited, *windows)
            if now == math.inf:
                return self._shared.passes
            self._cores.advance(now)
            while coming and coming[0].arrives_at <= now:
                self._client.waiting.append((self._machine.client_item / 2, partial(self._sent, coming.popleft())))
            while waiting and waiting[0][0] <= now:
                waiting.popleft()[1]()
            for group, window_end in zip(self._waits_for_company, windows, strict=True):
                if window_end <= now:
                    group.schedule_dispatch()
            while self._turn():
                pass

    def _turn(self) -> bool:
        for thread in self._threads:
            if thread.waiting and not thread.is_busy:
                thread.turn()
                return True
        return False

    def _sent(self, item: Item) -> None:
        self._groups[self._balance([group.in_hand for group in self._groups])].receive(item)
