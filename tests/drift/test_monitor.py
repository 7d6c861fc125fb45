from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drift import Baseline, BaselineError, Channel, Counts, Layout, Monitor, Promise, State, learn

LENGTH = Channel("length", "input", edges=(2.0, 5.0))
LABEL = Channel("label", "output", categories=("x", "y"))
ERROR = Channel("error", "outcome", categories=("right", "wrong"), rising=True)
LAYOUT = Layout([LENGTH, LABEL, ERROR])
NORMAL, LONG = (0.1, 0.8, 0.1), (0.1, 0.5, 0.4)


def block(
    rng: np.random.Generator,
    lengths: tuple[float, ...],
    labels: tuple[float, ...] = (0.5, 0.5),
    wrong: float = 0.0,
    texts: int = 16,
) -> Counts:
    errors = rng.multinomial(texts // 8, (1 - wrong, wrong))
    return np.concatenate([rng.multinomial(texts, lengths), rng.multinomial(texts, labels), errors]).astype(np.int64)


def baseline(texts: int = 20_000) -> Baseline:
    shares = [*NORMAL, 0.5, 0.5, 0.95, 0.05]
    return learn(LAYOUT, [(0, np.array([round(texts * share) for share in shares]))])


def feed(monitor: Monitor, blocks: int, lengths: tuple[float, ...], seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(blocks):
        monitor.advance(block(rng, lengths, wrong=0.05))


def states(monitor: Monitor) -> list[State]:
    return [verdict.state for verdict in monitor.verdicts().values()]


def test_normal_texts_are_ok_and_a_shift_is_drift_of_its_level_alone() -> None:
    monitor = Monitor(LAYOUT, baseline())
    feed(monitor, 300, NORMAL)
    assert states(monitor) == [State.OK] * 3
    assert monitor.verdicts()["input"].shift is None
    feed(monitor, 20, LONG)
    assert monitor.standing() == {level: (verdict.state, verdict.evidence) for level, verdict in monitor.verdicts().items()}
    verdict = monitor.verdicts()["input"]
    assert states(monitor) == [State.DRIFT, State.OK, State.OK]
    assert (verdict.channel, verdict.where) == ("length", "length at least 5")
    assert verdict.since is not None
    assert abs(verdict.since - 300) <= 5
    # A third of the normal texts have moved: .1 to .4 of all. The last hour has but a third of it.
    assert verdict.shift is not None
    assert 0 < verdict.shift.low <= verdict.shift.share <= verdict.shift.high < 1 / 3
    feed(monitor, 60, LONG)
    shift = monitor.verdicts()["input"].shift
    assert shift is not None
    assert shift.low < 1 / 3 < shift.high + 0.03
    feed(monitor, 600, LONG, seed=3)
    assert monitor.verdicts()["input"].since == verdict.since, "however long it lasts"


def test_more_errors_among_labelled_texts_are_drift_of_the_outcome_and_two_points_are_nobodys_business() -> None:
    rng = np.random.default_rng(0)
    tolerated, worse = Monitor(LAYOUT, baseline()), Monitor(LAYOUT, baseline())
    for _ in range(1500):
        tolerated.advance(block(rng, NORMAL, wrong=0.065))
        worse.advance(block(rng, NORMAL, wrong=0.2))
    assert tolerated.verdicts()["outcome"].state is State.OK
    assert worse.verdicts()["outcome"].state is State.DRIFT
    assert worse.verdicts()["outcome"].where == "error wrong"


def test_watch_comes_before_drift_and_goes_by_itself() -> None:
    monitor = Monitor(LAYOUT, baseline())
    rng = np.random.default_rng(1)
    seen: list[State] = []
    while not seen or seen[-1] is not State.DRIFT:
        monitor.advance(block(rng, (0.1, 0.75, 0.15)))
        seen.append(monitor.verdicts()["input"].state)
    assert State.WATCH in seen
    assert seen.index(State.WATCH) < seen.index(State.DRIFT)

    monitor = Monitor(LAYOUT, baseline())
    while monitor.verdicts()["input"].state is not State.WATCH:
        monitor.advance(block(rng, (0.1, 0.75, 0.15)))
    seen = []
    for _ in range(300):
        feed(monitor, 1, NORMAL, seed=len(seen))
        seen.append(monitor.verdicts()["input"].state)
    assert seen[-1] is State.OK
    gone = seen.index(State.OK)
    assert gone >= 59, "not before an hour"
    assert set(seen[gone:]) == {State.OK}, "once"


def test_drift_stays_for_a_day_after_its_evidence_has_gone() -> None:
    monitor = Monitor(LAYOUT, baseline(), promise=Promise(block_seconds=3600))
    feed(monitor, 20, LONG)
    assert monitor.verdicts()["input"].state is State.DRIFT
    hours, gone = 0, 0
    while monitor.verdicts()["input"].state is State.DRIFT:
        feed(monitor, 1, NORMAL, seed=hours)
        hours += 1
        gone += monitor.verdicts()["input"].evidence < 0.8
    assert gone >= 23
    assert hours < 200


def test_a_shorter_promise_is_quicker_and_blocks_of_any_length_keep_it() -> None:
    year, day = Promise(), Promise(false_alarm_days=1, watch_days=1)
    assert year.blocks(365) == 525_600
    assert Promise(block_seconds=10, replicas=4).blocks(365) == 525_600 * 6 * 4
    delays = []
    for promise in (day, year):
        monitor = Monitor(LAYOUT, baseline(), promise=promise)
        rng, delay = np.random.default_rng(0), 0
        while monitor.verdicts()["input"].state is not State.DRIFT:
            monitor.advance(block(rng, (0.1, 0.75, 0.15)))
            delay += 1
        delays.append(delay)
    assert delays[0] < delays[1]
    with pytest.raises(ValueError, match="watch_days"):
        Promise(false_alarm_days=10)


def test_without_a_baseline_the_first_blocks_become_one() -> None:
    monitor = Monitor(LAYOUT, learn_texts=3000, learn_blocks=100)
    feed(monitor, 187, NORMAL)
    assert states(monitor) == [State.LEARNING] * 3
    feed(monitor, 1, NORMAL)
    assert states(monitor) == [State.OK] * 3
    assert monitor.baseline is not None
    assert (monitor.baseline.texts, monitor.baseline.notes) == (3008, ("learned from the first 188 blocks",))
    feed(monitor, 60, LONG)
    verdict = monitor.verdicts()["input"]
    assert verdict.state is State.DRIFT
    assert verdict.since is not None
    assert verdict.since >= 186, "blocks are counted from the monitor's first"


def test_a_level_with_too_few_texts_in_the_baseline_goes_on_learning() -> None:
    few = learn(LAYOUT, [(0, np.array([100, 800, 100, 500, 500, 150, 10]))])
    assert states(Monitor(LAYOUT, few)) == [State.OK, State.OK, State.LEARNING]


def test_the_present_can_be_accepted_as_normal() -> None:
    monitor = Monitor(LAYOUT, baseline())
    feed(monitor, 100, NORMAL)
    feed(monitor, 20, LONG)
    with pytest.raises(BaselineError, match="a baseline needs 200"):
        Monitor(LAYOUT, baseline()).accept("nothing yet")
    feed(monitor, 300, LONG)
    accepted = monitor.accept("the new shop is open")
    assert accepted.notes == ("the new shop is open",)
    assert states(monitor)[0] is State.OK
    assert accepted.counts[0, 2] / accepted.counts[0, :3].sum() == pytest.approx(0.4, abs=0.03), "only what came since the alarm"
    feed(monitor, 300, LONG, seed=5)
    assert states(monitor)[0] is State.OK


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.integers(0, 30), min_size=7, max_size=7), min_size=1, max_size=20), st.integers(0, 20))
def test_four_replicas_merged_decide_as_one_and_a_restart_changes_nothing(rows: list[list[int]], restart: int) -> None:
    one, merged = Monitor(LAYOUT, baseline()), Monitor(LAYOUT, baseline())
    rng = np.random.default_rng(0)
    for number, row in enumerate(rows):
        counts = np.array(row)
        one.advance(counts)
        parts = [rng.binomial(counts, 0.25)]
        parts.append(rng.binomial(counts - parts[0], 0.5))
        parts.append(counts - parts[0] - parts[1])
        merged.advance(sum(parts, np.zeros(7, dtype=np.int64)))
        if number == restart:
            saved = json.dumps(merged.save())
            merged = Monitor(LAYOUT, baseline())
            merged.restore(json.loads(saved))
    assert merged.verdicts() == one.verdicts()
    assert merged.save() == one.save()


def test_a_restart_in_drift_remembers_the_alarm_and_the_hour() -> None:
    monitor = Monitor(LAYOUT, baseline())
    feed(monitor, 200, NORMAL)
    feed(monitor, 30, LONG)
    again = Monitor(LAYOUT)
    again.restore(json.loads(json.dumps(monitor.save())))
    assert again.verdicts() == monitor.verdicts()
    assert again.verdicts()["input"].state is State.DRIFT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"present": None}, "not a baseline"),
        ({"present": learn(Layout([LABEL]), []).to_json()}, "other channels"),
        ({"levels": {}}, "not a monitor's state"),
        ({"block": "x"}, "not a monitor's state"),
    ],
)
def test_a_state_that_is_none_is_refused_and_changes_nothing(change: dict[str, object], message: str) -> None:
    monitor = Monitor(LAYOUT, baseline())
    feed(monitor, 20, LONG)
    before = monitor.save()
    with pytest.raises(BaselineError, match=message):
        monitor.restore(before | change)
    assert monitor.save() == before
    feed(monitor, 1, LONG)


def test_a_levels_state_of_other_experts_is_refused() -> None:
    monitor = Monitor(LAYOUT, baseline())
    saved = monitor.save()
    for wrong in ({"log_m": [0.0]}, {"rise": [0.0]}, {"log_m": [None] * 12}, {"recent": [[0, [1]]]}, {"state": "fine"}):
        broken = saved | {"levels": saved["levels"] | {"input": saved["levels"]["input"] | wrong}}
        with pytest.raises(BaselineError, match="not a monitor's state"):
            monitor.restore(broken)


def test_baselines_of_other_channels_and_strata_that_there_are_not_are_refused() -> None:
    with pytest.raises(BaselineError, match="other channels"):
        Monitor(LAYOUT, learn(Layout([LABEL]), []))
    monitor = Monitor(LAYOUT, baseline())
    with pytest.raises(BaselineError, match="stratum 1"):
        monitor.advance(np.zeros(7, dtype=np.int64), stratum=1)
    assert monitor.block == 0


def test_a_rhythm_that_the_baseline_knows_is_no_drift() -> None:
    rng = np.random.default_rng(0)

    def day(hour: int) -> npt.NDArray[np.int64]:
        return block(rng, LONG if hour < 8 else NORMAL, wrong=0.05)

    hours = [hour for _ in range(60) for hour in range(24)]
    pooled, by_hour = (learn(LAYOUT, ((hour * strata // 24, day(hour)) for hour in hours), strata) for strata in (1, 24))
    monitors = [Monitor(LAYOUT, pooled), Monitor(LAYOUT, by_hour)]
    for _ in range(10):
        for hour in range(24):
            for _ in range(6):
                counts = day(hour)
                monitors[0].advance(counts)
                monitors[1].advance(counts, hour)
    assert [monitor.verdicts()["input"].state for monitor in monitors] == [State.DRIFT, State.OK]
