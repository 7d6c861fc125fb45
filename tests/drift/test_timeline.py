from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift import BaselineError, Channel, Counts, Layout, Monitor, Promise, State, Timeline, block_of, learn

LAYOUT = Layout([Channel("length", "input", edges=(2.0, 5.0))])
MIDNIGHT = 1_767_225_600  # 2026-01-01
DAY = 1440
FIRST = MIDNIGHT // 60


def monitor(strata: int = 1, seconds: float = 60.0) -> Monitor:
    normal = learn(LAYOUT, [(stratum, np.array([100, 800, 100]) * 20) for stratum in range(strata)], strata)
    return Monitor(LAYOUT, normal, promise=Promise(block_seconds=seconds))


def texts(*lengths: float) -> Counts:
    return LAYOUT.count({"length": lengths})


class Recorded(Monitor):
    """Keeps what it is given."""

    def __init__(self, strata: int = 1) -> None:
        super().__init__(LAYOUT, strata=strata, learn_texts=10**9)
        self.given: list[tuple[int, list[int]]] = []

    def advance(self, counts: Counts, stratum: int = 0) -> None:
        self.given.append((stratum, counts.tolist()))
        super().advance(counts, stratum)


def test_a_block_is_a_minute_of_all_clocks_and_its_stratum_the_hour() -> None:
    assert block_of(MIDNIGHT + 59.999, 60) == FIRST
    assert block_of(MIDNIGHT + 60, 60) == FIRST + 1
    assert block_of(MIDNIGHT + 60, 5) == MIDNIGHT // 5 + 12
    hours = Timeline(monitor(24))
    assert [hours.stratum(FIRST + minute) for minute in (0, 59, 60, DAY - 1, DAY)] == [0, 0, 1, 23, 0]


def test_the_monitor_gets_each_block_once_in_order_also_the_empty_ones_and_none_before_the_first_text() -> None:
    recorded, closed = Recorded(24), list[tuple[int, int]]()
    timeline = Timeline(recorded, lambda number, counts: closed.append((number - FIRST, int(counts.sum()))))
    timeline.close(FIRST)
    timeline.add(FIRST + 58, texts(1))
    timeline.add(FIRST + 58, texts(3, 9))
    timeline.add(FIRST + 61, texts(3))
    timeline.close(FIRST + 61)
    assert recorded.given == [(0, [1, 1, 1]), (0, [0, 0, 0]), (1, [0, 0, 0])]
    timeline.close(FIRST + 62)
    assert recorded.given[3:] == [(1, [0, 1, 0])]
    assert closed == [(58, 3), (59, 0), (60, 0), (61, 1)]
    assert [timeline.time(block) for block in (0, 3)] == [MIDNIGHT + 58 * 60, MIDNIGHT + 61 * 60]


minutes = st.lists(st.tuples(st.integers(0, 30), st.lists(st.floats(0, 9), min_size=1, max_size=4)), min_size=1, max_size=12)


@given(minutes, st.integers(1, 5), st.randoms(use_true_random=False))
def test_the_same_texts_make_the_same_blocks_however_they_come_in_their_minute(
    given: list[tuple[int, list[float]]], replicas: int, rng: random.Random
) -> None:
    whole, parts = Recorded(), Recorded()
    one, many = Timeline(whole), Timeline(parts)
    for minute, lengths in sorted(given, key=lambda item: item[0]):
        one.add(minute, texts(*lengths))
        shares: list[list[float]] = [[] for _ in range(replicas)]
        for length in lengths:
            rng.choice(shares).append(length)
        for share in shares:
            many.add(minute, texts(*share))
    for timeline in (one, many):
        timeline.close(31)
    assert whole.given == parts.given
    assert len(whole.given) == 31 - min(minute for minute, _ in given)


def test_what_is_late_counts_in_the_open_block_and_a_clock_set_back_by_days_begins_there() -> None:
    recorded = Recorded()
    timeline = Timeline(recorded)
    timeline.add(FIRST + 5, texts(1))
    timeline.add(FIRST + 3, texts(3))
    timeline.close(FIRST + 6)
    assert recorded.given == [(0, [1, 1, 0])]
    timeline.add(FIRST + 6, texts(9))
    timeline.add(FIRST - 10 * DAY, texts(3))
    timeline.close(FIRST - 10 * DAY + 1)
    assert recorded.given[1:] == [(0, [0, 0, 1]), (0, [0, 1, 0])]
    assert [timeline.time(block) / 60 for block in (0, 1, 2, 3)] == [FIRST + 5, FIRST + 6, FIRST - 10 * DAY, FIRST - 10 * DAY + 1]


def test_more_than_a_day_without_texts_counts_as_a_day() -> None:
    recorded = Recorded()
    timeline = Timeline(recorded)
    timeline.add(1, texts(1))
    timeline.add(FIRST, texts(3))
    timeline.close(FIRST + 1)
    assert len(recorded.given) == DAY + 1
    assert [timeline.time(block) / 60 for block in (0, DAY - 1, DAY)] == [1, DAY, FIRST]


def test_it_goes_on_after_a_restart_as_if_there_had_been_none() -> None:
    def drifting(timeline: Timeline, minutes: range) -> None:
        for minute in minutes:
            timeline.add(FIRST + minute, texts(1, 9, *(9 if minute > 100 else 3,) * 3, *(3,) * 5))

    whole, before = Timeline(monitor(24)), Timeline(monitor(24))
    drifting(whole, range(400))
    drifting(before, range(150))
    after = Timeline(monitor(24))
    after.restore(json.loads(json.dumps(before.save())))
    drifting(after, range(150, 400))
    assert after.save() == whole.save()
    verdict = after.monitor.verdicts()["input"]
    assert (verdict.state, verdict.since) == (State.DRIFT, 101)
    assert after.time(101) == MIDNIGHT + 101 * 60


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"block_seconds": 5.0}, "blocks of 5 seconds, not of 60"),
        ({"counts": [0, 0]}, "over these channels"),
        ({"open": None}, "over these channels"),
        ({"starts": [[1]]}, "not the state of a timeline"),
        ({"monitor": {}}, "not a monitor's state"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change: dict[str, object], reason: str) -> None:
    timeline = Timeline(monitor())
    timeline.add(FIRST, texts(1))
    saved = timeline.save()
    with pytest.raises(BaselineError, match=reason):
        timeline.restore({**saved, **change})
    assert timeline.save() == saved


def test_there_is_no_time_before_the_first_block() -> None:
    with pytest.raises(ValueError, match="no block yet"):
        Timeline(monitor()).time(0)
