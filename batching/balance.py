"""How the requests of one machine are spread over its groups of workers: which group gets the next one.

A group is a process with an event loop, a queue and workers of its own.

- By request, as a load balancer does that reads requests: in turn (round robin), or to the group with the fewest in hand.
- By connection, as the kernel does with SO_REUSEPORT: a hash assigns each connection to a group when it is opened, and all of its
  requests stay there. The fewer the connections, the more uneven the load.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import count

# The group of the next item, given what each group has in hand: the items that were sent to it and have not left it.
Balance = Callable[[Sequence[int]], int]


def least_loaded(in_hand: Sequence[int]) -> int:
    """The group with the fewest items in hand; of several the first."""
    return in_hand.index(min(in_hand))


def in_turn() -> Balance:
    """Each group after the other."""
    numbers = count()
    return lambda in_hand: next(numbers) % len(in_hand)


def by_connection(connections: int, seed: int) -> Balance:
    """Each item comes on one of so many connections, all equally busy, and each connection has a group at random."""
    generator = random.Random(seed)
    hashes = [generator.random() for _ in range(connections)]
    return lambda in_hand: int(generator.choice(hashes) * len(in_hand))
