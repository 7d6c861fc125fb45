from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift import BaselineError, Channel, Counts, Layout, Monitor, Recent, Replicas, State, Timeline, learn

LAYOUT = Layout([Channel("length", "input", edges=(2.0, 5.0))])
MINUTES = 25


def texts(*lengths: float) -> Counts:
    return LAYOUT.count({"length": lengths})


class Recorded(Monitor):
    """Keeps the blocks that it is given."""

    def __init__(self) -> None:
        super().__init__(LAYOUT, learn_texts=10**9)
        self.given: list[list[int]] = []

    def advance(self, counts: Counts, stratum: int = 0) -> None:
        self.given.append(counts.tolist())
        super().advance(counts, stratum)


def told(recent: Recent, since: int | None = None) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(json.dumps(recent.tell(since)))
    return content


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, MINUTES - 1), st.integers(0, 3), st.floats(0, 9)), min_size=1, max_size=60),
    st.randoms(use_true_random=False),
)
def test_four_replicas_give_a_monitor_the_blocks_that_one_server_would(
    sent: list[tuple[int, int, float]], rng: random.Random
) -> None:
    alone, together = Recorded(), Recorded()
    one = Timeline(alone)
    names = ["a", "b", "c", "d"]
    replicas = Replicas(Timeline(together), names)
    recent = {name: Recent(LAYOUT, 60.0) for name in names}
    for minute in range(MINUTES + 1):
        mine = {
            name: texts(*(length for when, number, length in sent if (when, names[number]) == (minute, name))) for name in names
        }
        for counts in mine.values():
            if counts.any():
                one.add(minute, counts)
        one.close(minute + 1)
        for name, counts in mine.items():
            recent[name].add(minute, counts)
        # They are asked in any order, and not each of them each minute, but often enough to be waited for.
        for name in rng.sample(names, rng.randint(0, 4)) if minute % 3 else names:
            replicas.take(name, told(recent[name], replicas.next[name]))
        replicas.close()
    for name in names:
        replicas.take(name, told(recent[name], replicas.next[name]))
    replicas.close()
    assert together.given == alone.given
    assert replicas.timeline.open == one.open


def test_four_replicas_together_decide_in_the_minute_in_which_one_would() -> None:
    baseline = learn(LAYOUT, [(0, np.array([1000, 18_000, 1000]))])
    names, minutes = ["a", "b", "c", "d"], list[list[int]]()

    def watched() -> Timeline:
        minutes.append([])
        mine = minutes[-1]
        timeline = Timeline(
            Monitor(LAYOUT, baseline),
            lambda number, _: mine.append(number) if timeline.monitor.standing()["input"][0] is State.DRIFT else None,
        )
        return timeline

    one, many = watched(), watched()
    replicas = Replicas(many, names)
    recent = {name: Recent(LAYOUT, 60.0) for name in names}
    rng = np.random.default_rng(0)
    for minute in range(200):
        for name in names:
            counts = rng.multinomial(4, (0.05, 0.9, 0.05) if minute < 100 else (0.05, 0.6, 0.35))
            one.add(minute, counts)
            recent[name].add(minute, counts)
            replicas.take(name, told(recent[name], replicas.next[name]))
        replicas.close()
    one.close(200)
    assert minutes[0] == minutes[1]
    assert 100 < minutes[0][0] < 120
    assert many.monitor.verdicts() == one.monitor.verdicts()


def test_who_is_far_behind_is_not_waited_for_and_counts_later() -> None:
    recorded = Recorded()
    replicas = Replicas(Timeline(recorded), ["quick", "slow", "never"])
    quick, slow = Recent(LAYOUT, 60.0), Recent(LAYOUT, 60.0)
    for minute in range(10):
        quick.add(minute, texts(1))
    slow.add(2, texts(9))
    replicas.close()
    replicas.take("quick", told(quick))
    replicas.close()
    assert recorded.given == [[1, 0, 0]] * 8
    replicas.take("slow", told(slow))
    replicas.close()
    quick.add(10, texts(1))
    replicas.take("quick", told(quick, replicas.next["quick"]))
    replicas.close()
    assert recorded.given[8:] == [[1, 0, 1]]


def test_a_replica_tells_what_it_is_asked_for_of_the_last_blocks_with_texts() -> None:
    recent = Recent(LAYOUT, 5.0, kept=2)
    assert recent.tell(0) == {"layout": LAYOUT.fingerprint, "block_seconds": 5.0, "open": None, "blocks": []}
    for number, length in enumerate((1, 3, 9)):
        recent.add(number, texts(length))
    recent.add(3, texts())
    assert recent.tell()["channels"] == LAYOUT.to_json()
    assert recent.tell()["blocks"] == [[1, [0, 1, 0]], [2, [0, 0, 1]]]
    assert (recent.tell(2)["open"], recent.tell(2)["blocks"]) == (4, [[2, [0, 0, 1]]])


def test_what_was_taken_already_is_not_counted_again() -> None:
    recorded = Recorded()
    replicas, recent = Replicas(Timeline(recorded), ["a"]), Recent(LAYOUT, 60.0)
    recent.add(1, texts(1))
    for _ in range(3):
        replicas.take("a", told(recent))
        replicas.close()
    assert recorded.given == [[1, 0, 0]]


def test_it_goes_on_after_a_restart_and_what_is_no_state_changes_nothing() -> None:
    def told_by(recent: Recent, replicas: Replicas, minutes: range) -> None:
        for minute in minutes:
            recent.add(minute, texts(minute % 7))
            replicas.take("a", told(recent, replicas.next["a"]))
            replicas.close()

    first, second, whole, recents = Recorded(), Recorded(), Recorded(), [Recent(LAYOUT, 60.0) for _ in range(2)]
    before, after, through = (Replicas(Timeline(monitor), ["a", "b"]) for monitor in (first, second, whole))
    told_by(recents[0], through, range(10))
    told_by(recents[1], before, range(5))
    after.restore(json.loads(json.dumps(before.save())))
    told_by(recents[1], after, range(5, 10))
    assert first.given + second.given == whole.given
    assert after.save() == through.save()
    saved = after.save()
    for wrong in ({}, {**saved, "next": 1}, {**saved, "waiting": [[1, [1]]]}, {**saved, "timeline": {}}):
        with pytest.raises(BaselineError):
            after.restore(wrong)
        assert after.save() == saved


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layout": "another"}, "of another model"),
        ({"block_seconds": 5}, "of blocks of 5 s, not of 60 s"),
        ({"blocks": [[1, [1, 2]]]}, "other bins"),
        ({"blocks": [[1, [1, 2, -1]]]}, "fewer than none"),
        ({"blocks": [[1]]}, "not the counts of a replica"),
        ({"blocks": [[1, [2**70, 0, 0]]]}, "not the counts of a replica"),
        ({"open": "soon"}, "not the counts of a replica"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_of_it_taken(change: dict[str, object], reason: str) -> None:
    recorded = Recorded()
    replicas, recent = Replicas(Timeline(recorded), ["a"]), Recent(LAYOUT, 60.0)
    recent.add(1, texts(1))
    with pytest.raises(BaselineError, match=reason):
        replicas.take("a", {**told(recent), **change})
    replicas.close()
    assert recorded.given == []
