"""Coverage and accuracy at a least confidence, and what the card says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle import Bundle, embedded_bundle
from models.making.card import render_card
from models.making.coverage import TABLE, THRESHOLDS, Point, coverage_at, curve, curves_of, draw

# Right, right, wrong, right; less and less sure.
TARGETS = np.array([0, 1, 0, 1])
PROBABILITIES = np.array([[0.95, 0.05], [0.15, 0.85], [0.25, 0.75], [0.35, 0.65]])


def test_a_point_counts_the_texts_at_least_as_sure_and_those_of_them_that_are_right() -> None:
    points = {point.threshold: point for point in curve(TARGETS, PROBABILITIES)}
    assert points[0.0] == Point(0.0, 1.0, 0.75)
    assert points[0.7] == Point(0.7, 0.75, 2 / 3)
    assert points[0.8] == Point(0.8, 0.5, 1.0)
    assert points[0.98] == Point(0.98, 0.0, 1.0)


def test_the_table_shows_points_of_the_curve() -> None:
    assert set(TABLE) <= set(THRESHOLDS)


@pytest.mark.parametrize(("accuracy", "share"), [(1.0, 0.5), (0.7, 1.0), (0.76, 0.5), (0.0, 1.0)])
def test_coverage_at_an_accuracy_is_the_largest_share_that_keeps_it(accuracy: float, share: float) -> None:
    assert coverage_at(TARGETS, PROBABILITIES, accuracy) == share


def test_no_share_keeps_an_accuracy_if_the_most_confident_answer_is_wrong() -> None:
    assert coverage_at(np.array([1, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]), 0.9) == 0.0


def test_the_card_has_a_table_of_wrapped_texts_and_one_of_coverage() -> None:
    manifest = Bundle.open(embedded_bundle()).manifest
    figures = {"accuracy": 0.5, "macro_f1": 0.5, "ece": 0.0625, "nll": 1.0, "texts": 4, "confusion": [], "confidence": 0.75}
    points = [{"threshold": point.threshold, "coverage": 0.5, "accuracy": 0.875} for point in curve(TARGETS, PROBABILITIES)]
    more: dict[str, Any] = {
        "wrapped": {"HTML": {"domain": "held out", "fp32": figures | {"accuracy": 0.25}, "bundle": figures}},
        "curves": {"plain": {"texts": 4, "ece": 0.125, "coverage_at_0.98": 0.5, "points": points}},
    }
    card = render_card(manifest.model_copy(update={"verification": dict(manifest.verification) | more}))
    assert "| HTML | 4 | 0.2500 | 0.5000 | 0.7500 | 0.0625 |" in card
    assert "| least confidence | plain: answered | right |" in card
    assert "| 0.8 | 0.500 | 0.8750 |" in card
    assert "Plain (4 texts): ECE 0.1250; of the most confident 50.0% of the answers, 98% are right." in card
    assert curves_of(more)["plain"][0] == Point(0.0, 0.5, 0.875)


def test_the_picture_is_the_same_for_the_same_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("a.svg", "b.svg"):
        draw({"plain": curve(TARGETS, PROBABILITIES), "wrapped": curve(TARGETS, PROBABILITIES)}, tmp_path / name)
    picture = (tmp_path / "a.svg").read_bytes()
    assert b"<svg" in picture
    assert (tmp_path / "b.svg").read_bytes() == picture
