"""What recent passes say of the next: arithmetic, so exact numbers and seeded noise."""

import random
from collections.abc import Callable
from statistics import median

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from batching import pace as pace_module
from batching.pace import FEWEST, SPREAD, WINDOW, Line, Pace, resistant_line


def on_line(costs: list[int], start: float, slope: float) -> list[tuple[float, float]]:
    return [(cost, start + slope * cost) for cost in costs]


def observed(passes: list[tuple[float, float]]) -> Pace:
    pace = Pace()
    for cost, seconds in passes:
        pace.observe(cost, seconds)
    return pace


def spread_costs(number: int, seed: int = 0) -> list[int]:
    """From 16 to 4,096, as many cheap as dear."""
    return [int(2 ** random.Random(f"{seed}/{index}").uniform(4, 12)) for index in range(number)]


# --- the line


@given(
    costs=st.lists(st.integers(1, 5000), min_size=FEWEST, max_size=WINDOW),
    start=st.floats(0.0, 0.1),
    slope=st.floats(1e-6, 1e-2),
    seed=st.integers(0, 99),
)
@example(costs=[1, 2] * 12, start=0.003, slope=0.001, seed=0)
def test_passes_on_a_line_give_that_line_in_any_order(costs: list[int], start: float, slope: float, seed: int) -> None:
    ordered, third = sorted(costs), len(costs) // 3
    assume(median(ordered[-third:]) >= SPREAD * median(ordered[:third]))
    random.Random(seed).shuffle(costs)
    line = resistant_line(on_line(costs, start, slope))
    assert line is not None
    assert line.slope == pytest.approx(slope, rel=1e-6)
    assert line.start == pytest.approx(start, rel=1e-6, abs=1e-9)


def worst_error(costs: Callable[[random.Random], float], disturb: Callable[[float], float]) -> float:
    """The largest relative error of the seconds of a middling pass, over seeds, when a fifth of the noisy passes is wild."""
    errors = []
    for seed in range(20):
        draw = random.Random(seed)
        passes: list[tuple[float, float]] = [
            (cost := int(costs(draw)), (0.010 + 0.0001 * cost) * draw.gauss(1.0, 0.05)) for _ in range(WINDOW)
        ]
        passes[::5] = [(cost, disturb(seconds)) for cost, seconds in passes[::5]]
        line = resistant_line(passes)
        assert line is not None
        errors.append(abs(line.seconds(1000) / 0.110 - 1))
    return max(errors)


WILD: dict[str, Callable[[float], float]] = {
    "twice": lambda seconds: 2 * seconds,
    "fifty times": lambda seconds: 50 * seconds,
    "seconds more": lambda seconds: seconds + 3.0,
    "nothing": lambda _: 0.0,
}


@pytest.mark.parametrize("disturb", WILD.values(), ids=WILD.keys())
def test_a_fifth_of_wild_passes_barely_moves_the_line(disturb: Callable[[float], float]) -> None:
    assert worst_error(lambda draw: draw.uniform(16, 4096), disturb) < 0.15


@pytest.mark.parametrize("disturb", WILD.values(), ids=WILD.keys())
def test_a_fifth_of_wild_passes_barely_moves_the_line_of_costs_of_all_sizes(disturb: Callable[[float], float]) -> None:
    assert worst_error(lambda draw: 2 ** draw.uniform(4, 12), disturb) < 0.25


def test_too_few_passes_give_no_line() -> None:
    passes = on_line(spread_costs(FEWEST), 0.01, 0.001)
    assert resistant_line([]) is None
    assert resistant_line(passes[1:]) is None
    assert resistant_line(passes) is not None


@pytest.mark.parametrize("cost", [1, 128, 4096])
def test_passes_of_one_cost_give_no_line(cost: int) -> None:
    # As after low traffic, when each pass was over one item: start cannot be told from slope.
    assert resistant_line([(cost, 0.01 + 0.001 * (index % 5)) for index in range(WINDOW)]) is None


@pytest.mark.parametrize(("dear", "is_line"), [(19, False), (20, True)])
def test_the_dear_must_cost_twice_the_cheap(dear: int, *, is_line: bool) -> None:
    line = resistant_line(on_line([10] * 12 + [dear] * 12, 0.01, 0.001))
    assert (line is not None) is is_line


@pytest.mark.parametrize(("dear", "is_line"), [(3, False), (4, True)])
def test_a_few_dear_passes_do_not_make_up_for_many_alike(dear: int, *, is_line: bool) -> None:
    # The dear third of 24 is 8, of which at least half must be dear.
    line = resistant_line(on_line([10] * (24 - dear) + [1000] * dear, 0.01, 0.001))
    assert (line is not None) is is_line


@pytest.mark.parametrize("slope", [0.0, -0.000001])
def test_seconds_that_do_not_rise_with_the_cost_give_no_line(slope: float) -> None:
    assert resistant_line(on_line(spread_costs(WINDOW), 1.0, slope)) is None


def test_noise_among_passes_of_equal_cost_is_no_rise() -> None:
    noise = [index * 17 % 48 for index in range(48)]
    line = resistant_line([(cost, 100.0 + 10.0 * cost + extra) for extra in noise for cost in (1, 2)])
    assert line is not None
    assert line.slope == pytest.approx(10.0, abs=3.0)


def test_a_start_below_zero_is_zero() -> None:
    line = resistant_line(on_line([10, 100, 1000] * 8, -0.005, 0.001))
    assert line is not None
    assert line.start == 0.0
    assert line.slope == pytest.approx(0.001)


def test_a_line_tells_the_seconds_of_a_pass() -> None:
    assert Line(start=0.5, slope=0.25).seconds(10) == 3.0


# --- the pace


def test_before_any_pass_everything_takes_no_time_and_nothing_may_be_refused_on_it() -> None:
    pace = Pace()
    assert pace.line == Line(0.0, 0.0)
    assert pace.drain_time(1000, batch_cost=10, workers=1) == 0.0
    assert not pace.is_sound


def test_it_is_sound_as_soon_as_the_passes_determine_a_line() -> None:
    passes = on_line(spread_costs(FEWEST), 0.01, 0.001)
    pace = Pace()
    is_sound = []
    for cost, seconds in passes:
        pace.observe(cost, seconds)
        is_sound.append(pace.is_sound)
    assert is_sound == [False] * (FEWEST - 1) + [True]
    assert pace.line == resistant_line(passes)


def test_passes_that_determine_no_line_count_in_proportion_to_their_cost() -> None:
    pace = observed([(10, 0.010), (20, 0.060), (10, 0.020)])
    # By the median of 0.001, 0.003 and 0.002 a unit, with no start.
    assert pace.line == Line(0.0, median([0.010 / 10, 0.060 / 20, 0.020 / 10]))
    assert pace.drain_time(100, batch_cost=50, workers=1) == pytest.approx(0.2)
    assert not pace.is_sound


def test_passes_of_one_item_are_expected_to_go_on_as_they_were_and_refuse_nothing() -> None:
    pace = observed([(1, 0.004)] * WINDOW)
    assert pace.line.seconds(1) == pytest.approx(0.004)
    assert not pace.is_sound


def test_the_time_to_drain_is_a_start_for_each_batch_and_the_slope_for_the_cost_shared_by_the_workers() -> None:
    pace = observed(on_line([100, 200, 1000] * 10, 0.25, 0.001))
    assert pace.drain_time(1000, batch_cost=500, workers=1) == pytest.approx(2 * 0.25 + 1.0)
    assert pace.drain_time(1000, batch_cost=500, workers=2) == pytest.approx(0.75)
    assert pace.drain_time(0, batch_cost=500, workers=2) == 0.0


def test_a_change_of_pace_is_followed_within_the_window() -> None:
    costs = spread_costs(WINDOW)
    pace = observed(on_line(costs, 0.01, 0.001))
    assert pace.line.seconds(1000) == pytest.approx(1.01)
    for cost, seconds in on_line(costs, 0.02, 0.003):
        pace.observe(cost, seconds)
    assert pace.line.seconds(1000) == pytest.approx(3.02)


def test_a_line_is_forgotten_when_only_passes_of_one_cost_remain() -> None:
    pace = observed(on_line(spread_costs(WINDOW), 0.01, 0.001) + [(1, 0.004)] * WINDOW)
    assert not pace.is_sound
    assert pace.line.seconds(1) == pytest.approx(0.004)


def test_the_line_is_computed_when_it_is_asked_for_and_as_often_as_a_twelfth_of_the_passes_is_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fits: list[int] = []

    def counted(passes: list[tuple[float, float]]) -> Line | None:
        fits.append(len(passes))
        return resistant_line(passes)

    monkeypatch.setattr(pace_module, "resistant_line", counted)
    pace = observed(on_line(spread_costs(FEWEST), 0.01, 0.001))
    assert fits == []
    assert (pace.is_sound, pace.line, pace.is_sound) == (True, pace.line, True)
    assert fits == [FEWEST]
    for _ in range(2):
        pace.observe(1, 1.0)
        pace.drain_time(1, 1, 1)
    assert fits == [FEWEST]
    pace.observe(1, 1.0)
    pace.drain_time(1, 1, 1)
    assert fits == [FEWEST, FEWEST + 3]


# --- what is worth a pass


def test_a_pass_is_worth_while_when_its_start_is_a_fifth_of_it() -> None:
    assert Pace().worthwhile_cost == 0.0
    pace = observed(on_line(spread_costs(WINDOW), 0.002, 0.0001))
    assert pace.worthwhile_cost == pytest.approx(80.0)
    assert 0.002 / pace.line.seconds(pace.worthwhile_cost) == pytest.approx(0.2)


def test_what_is_worth_while_stays_known_when_passes_of_one_cost_no_longer_tell() -> None:
    pace = observed(on_line(spread_costs(WINDOW), 0.002, 0.0001))
    assert pace.worthwhile_cost == pytest.approx(80.0)
    for _ in range(2 * WINDOW):
        pace.observe(300, 0.032)
    assert not pace.is_sound
    assert pace.worthwhile_cost == pytest.approx(80.0)


def test_passes_that_cost_nothing_to_start_are_always_worth_while() -> None:
    assert observed(on_line(spread_costs(WINDOW), 0.0, 0.0001)).worthwhile_cost == pytest.approx(0.0, abs=1e-6)
