"""What the report says of what was found."""

from __future__ import annotations

import math

import pytest

from capacity.load import Step
from capacity.planning import Measured, Point, Size, Sizing
from capacity.report import Report, trust
from capacity.search import Found
from tests.capacity.machine import MODEL, step_of


def point(error: float, others: float = 0.0) -> Point:
    return Point(100.0, 0.010, 0.050, 0.010, 0.050 * (1 + error), others)


def test_it_says_how_far_to_trust_the_simulation() -> None:
    def said(*points: Point, here: float | None = 500.0) -> str:
        return trust(Sizing(2, MODEL, points, here, []), 510.0)

    assert "within 12%" in said(point(0.02), point(-0.12))
    assert "500 (-2%)" in said(point(0.0))
    assert "off by up to 40%" in said(point(-0.4))
    assert "quiet machine" not in said(point(0.0, others=0.01))
    assert "0.30 cores" in said(point(0.0, others=0.30))
    assert "highest" not in said(point(0.0), here=None)


def test_what_was_found_can_be_written_down() -> None:
    failed = Step(900.0, [0.1], [0], [math.inf], given_up=True, costs=None)
    measured = Measured(600.0, [step_of(300.0, 1.0), failed], Found(300.0, 900.0))
    sizing = Sizing(2, MODEL, [point(0.1)], 500.0, [Size(1, 150.0, 0.1), Size(2, None, 0.0)])
    written = Report("fake@1", 0.25, 1000.0, measured, sizing).as_json()
    assert (written["highest"], written["rejected"], written["machines"]) == (300.0, 900.0, 4)
    assert [found["met"] for found in written["tries"]] == [True, False]
    assert written["simulation"]["points"][0]["simulated_p99_ms"] == pytest.approx(55.0)
    assert [size["machines"] for size in written["simulation"]["sizes"]] == [7, None]
    without = Report("fake@1", 0.25, None, measured, None).as_json()
    assert (without["machines"], without["simulation"]) == (None, None)
