"""What the comparison of one process with several makes of a run; the simulation itself is tested in tests/batching."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from batching.balance import in_turn
from benchmarks import processes
from benchmarks.processes import LOOP_PASS, LOOPS, TODAY, WORKLOADS, Host, Outcome, largest_share, one_or_several

SHORT = WORKLOADS["MiniLM, short"]


@pytest.fixture(autouse=True)
def _few_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "TEXTS", 1_500)
    monkeypatch.setattr(processes, "SECONDS", 0.1)


def test_a_slower_model_takes_so_many_times_as_long_for_a_token_and_no_longer_to_start() -> None:
    one, five = (replace(SHORT, factor=factor).pass_seconds for factor in (1.0, 5.0))
    assert five([64]) - five([32]) == pytest.approx(5 * (one([64]) - one([32])))
    assert five([]) == one([])


def test_loops_take_part_of_what_the_cores_can_do() -> None:
    today, goal = (Host(SHORT, 4, 1, loop_item).full_rate for loop_item in LOOPS.values())
    assert 1 / today - 1 / goal == pytest.approx((LOOPS["today"] - LOOPS["goal"]) / 4)


def test_one_process_carries_what_its_loop_can_do_and_two_carry_twice_as_much() -> None:
    one, two = (Host(SHORT, cores, number).highest_rate() for cores, number in ((8, 1), (16, 2)))
    assert 0.85 / TODAY < one < 1 / TODAY
    assert two == pytest.approx(2 * one, rel=0.1)


def test_a_machine_that_is_too_large_for_one_process_serves_less_with_it_than_a_smaller_one() -> None:
    assert Host(SHORT, 64, 1).highest_rate() < 0.95 * Host(SHORT, 8, 1).highest_rate()


def test_without_a_process_all_cores_are_used() -> None:
    pooled = Host(SHORT, 16, 0)
    assert pooled.run(0.8 * pooled.full_rate, in_turn()).p99 < Host(SHORT, 16, 4).run(0.8 * pooled.full_rate, in_turn()).p99


def test_the_busy_share_is_that_of_the_busiest_loop() -> None:
    run = Host(SHORT, 8, 2).run(100.0, in_turn())
    # As good as every text has a pass of its own.
    assert run.loop == pytest.approx(100 / 2 * (TODAY + LOOP_PASS), rel=0.05)
    assert Host(SHORT, 8, 2).run(100.0, lambda _: 1).loop == pytest.approx(2 * run.loop, rel=0.05)


def test_a_rate_is_carried_while_p99_is_within_the_bound_and_does_not_grow() -> None:
    assert Outcome([0.01] * 300, 1.0, 0.5).is_carried
    assert not Outcome([0.3] * 300, 1.0, 0.5).is_carried
    assert not Outcome([0.01] * 200 + [0.04] * 100, 1.0, 0.5).is_carried
    assert Outcome([0.01] * 200 + [0.04] * 100, 5.0, 0.5).is_carried
    assert not Outcome([math.inf if number % 50 == 0 else 0.01 for number in range(300)], 1.0, 0.5).is_carried


def test_the_fewer_the_connections_the_more_the_busiest_process_gets() -> None:
    assert largest_share(16, 1) == 1
    assert 1 < largest_share(512, 4) < largest_share(64, 4) < largest_share(16, 4) < 4


def test_the_table_has_a_row_for_each_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "CORES", (2, 16))
    header, _, *rows = [line.strip("| ").split(" | ") for line in one_or_several(SHORT, TODAY)]
    assert [row[0] for row in rows] == ["2", "16"]
    assert {len(row) for row in rows} == {len(header)}
    few, many = (int(row[header.index("enough")]) for row in rows)
    assert few == 1
    assert many > 4
