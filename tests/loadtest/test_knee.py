"""The knee on curves whose bend is known."""

from __future__ import annotations

import pytest

from loadtest.knee import find_knee


def mm1(highest: float, points: int = 19) -> list[tuple[float, float]]:
    """The response time of the simplest queue, M/M/1, whose server needs 1 ms and saturates at 1000 a second."""
    return [(rate, 1 / (1 - rate / 1000)) for rate in (highest * (step + 1) / points for step in range(points))]


def test_a_hockey_stick_has_its_knee_at_the_last_rate_before_the_rise() -> None:
    knee = find_knee([(100, 10), (200, 10), (300, 11), (400, 12), (500, 15), (600, 400), (700, 2000)])
    assert (knee.rate, knee.latency, knee.reason) == (500, 15, "")


def test_a_server_that_refuses_beyond_its_limit_has_its_knee_before_the_step() -> None:
    knee = find_knee([(100, 10), (200, 11), (300, 12), (400, 900), (500, 905), (600, 910)])
    assert knee.rate == 300


def test_a_queue_has_its_knee_where_its_slope_is_that_of_the_whole_curve() -> None:
    knee = find_knee(mm1(950))
    assert knee.rate == 800  # the slope 1 / (1 - x)^2 is that of the diagonal, 21, at 782


@pytest.mark.parametrize("noise", [0.9, 1.1])
def test_noise_does_not_move_the_knee_far(noise: float) -> None:
    noisy = [(rate, latency * (noise if number % 2 else 1)) for number, (rate, latency) in enumerate(mm1(950))]
    knee = find_knee(noisy)
    assert knee.rate is not None
    assert 650 <= knee.rate <= 850


def test_the_order_of_the_points_does_not_matter_and_of_equal_rates_the_slowest_counts() -> None:
    points = [(500.0, 15.0), (100.0, 10.0), (700.0, 2000.0), (500.0, 14.0), (300.0, 11.0), (600.0, 400.0)]
    knee = find_knee(points)
    assert (knee.rate, knee.latency) == (500, 15)
    assert find_knee(list(reversed(points))) == knee


@pytest.mark.parametrize(
    ("points", "reason"),
    [
        ([], "has 0"),
        ([(100, 10), (200, 20), (300, 900)], "at least 4 different rates"),
        ([(100, 10), (100, 11), (200, 20), (300, 900)], "this run has 3"),
        ([(100, 10), (200, 12), (300, 11), (400, 13), (500, 19)], "twice its lowest"),
        ([(100, 10), (200, 20), (300, 31), (400, 39), (500, 50), (600, 60)], "without a bend"),
        ([(100, 10), (200, 100), (300, 130), (400, 140), (500, 145)], "before the lowest rate"),
        ([(100, 10), (200, 900), (300, 950), (400, 1000)], "before the lowest rate"),
    ],
)
def test_where_there_is_no_knee_it_says_why(points: list[tuple[float, float]], reason: str) -> None:
    knee = find_knee(points)
    assert (knee.rate, knee.latency) == (None, None)
    assert reason in knee.reason
