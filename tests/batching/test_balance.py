"""Which group gets the next item."""

from __future__ import annotations

from collections import Counter

from batching.balance import by_connection, in_turn, least_loaded


def test_in_turn_each_group_gets_as_many() -> None:
    balance = in_turn()
    assert [balance([9, 0, 0]) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_the_least_loaded_group_is_the_first_with_the_fewest_in_hand() -> None:
    assert [least_loaded(in_hand) for in_hand in ([0, 0, 0], [1, 0, 0], [3, 2, 1], [7])] == [0, 1, 2, 0]


def test_a_connection_stays_with_its_group_whatever_the_groups_have_in_hand() -> None:
    balance = by_connection(1, seed=1)
    assert len({balance([number, 5, 0, 0]) for number in range(100)}) == 1


def test_few_connections_are_spread_unevenly_and_many_evenly() -> None:
    shares = {}
    for connections in (4, 10_000):
        balance = by_connection(connections, seed=1)
        counts = Counter(balance([0] * 4) for _ in range(10_000))
        shares[connections] = max(counts.values()) / 10_000
    assert shares[4] > 0.45
    assert shares[10_000] < 0.28


def test_the_same_seed_assigns_the_same_and_another_one_otherwise() -> None:
    first, again, other = ([balance([0] * 8) for _ in range(20)] for balance in (by_connection(50, seed) for seed in (1, 1, 2)))
    assert first == again
    assert first != other
