from __future__ import annotations

import numpy as np
import pytest

from drift.channels import Layout
from drift.outcome import (
    ESTIMATE_EDGES,
    class_mix,
    corrected_share,
    estimated_accuracy,
    mean_of_bins,
    outcome_channels,
    outcome_values,
    weighted_share,
)

LABELS = ("billing", "general")


def test_feedback_is_counted_as_a_whole_by_true_label_and_among_the_sure() -> None:
    layout = Layout(outcome_channels(LABELS))
    predicted, true = np.array([0, 1, 1, 0]), np.array([0, 0, 1, 1])
    counts = layout.count(outcome_values(LABELS, predicted, true, np.array([0.99, 0.95, 0.6, 0.5])))
    found = {channel.name: counts[layout.place(channel.name)].tolist() for channel in layout.channels}
    assert found == {"error": [2, 2], "error on billing": [1, 1], "error on general": [1, 1], "error of the sure": [1, 1]}


def test_answers_that_were_drawn_rarely_stand_for_many() -> None:
    # 1,000 sure answers without an error, drawn 1 in 10; 100 doubtful ones with half of them wrong, all drawn.
    hits, chances = [0] * 100 + [1] * 50 + [0] * 50, [0.1] * 100 + [1.0] * 100
    found = weighted_share(hits, chances)
    assert found.value == pytest.approx(50 / 1100)
    assert found.low < 50 / 1100 < found.high
    assert found.texts == 200
    even = weighted_share([1] * 20 + [0] * 180, [0.5] * 200)
    assert [even.low, even.high] == pytest.approx([0.0657, 0.1494], abs=1e-3)
    assert weighted_share([0] * 50, [1.0] * 50).high > 0.05, "no error among 50 does not mean none"


def test_the_interval_of_the_weighted_share_holds_the_truth_as_often_as_it_says() -> None:
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        doubtful = rng.random(4000) < 0.2
        hits, chances = rng.random(4000) < np.where(doubtful, 0.3, 0.02), np.where(doubtful, 0.2, 0.05)
        drawn = rng.random(4000) < chances
        found = weighted_share(hits[drawn], chances[drawn])
        held += found.low <= hits.mean() <= found.high
    assert held >= 0.93 * 400


def test_a_random_sample_puts_a_wrong_estimate_right() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(20_000) < 0.15
    estimate = np.where(truth, 0.3, 0.02)  # far too low
    sample = rng.choice(20_000, 500, replace=False)
    found = corrected_share(estimate, estimate[sample], truth[sample].astype(np.float64))
    assert estimate.mean() < found.low < truth.mean() < found.high
    assert found.high - found.low < 2 * 1.96 * np.sqrt(0.15 * 0.85 / 500), "closer than the sample alone"


def test_the_mix_of_classes_is_seen_through_the_confusion_of_the_model() -> None:
    confusion = np.array([[900, 200], [100, 800]])  # [predicted, true]
    found = class_mix((0.9 * 300 + 0.2 * 700, 0.1 * 300 + 0.8 * 700), confusion)
    assert [round(each.value, 2) for each in found] == [0.3, 0.7]
    for each, truth in zip(found, (0.3, 0.7), strict=True):
        assert each.low < truth < each.high
        assert each.high - each.low < 0.15
    assert [round(each.value, 2) for each in class_mix((1000, 0), confusion)] == [1.0, 0.0]


def test_the_estimated_accuracy_comes_from_a_histogram_alone() -> None:
    errors = np.random.default_rng(0).beta(1, 9, 5000)
    counts = np.histogram(errors, [0, *ESTIMATE_EDGES, 1])[0]
    assert estimated_accuracy({"error estimate": counts}) == pytest.approx(1 - errors.mean(), abs=0.01)


def test_nothing_is_estimated_from_nothing() -> None:
    with pytest.raises(ValueError, match="at least one text"):
        weighted_share([], [])
    with pytest.raises(ValueError, match="probability above 0"):
        weighted_share([1], [0.0])
    with pytest.raises(ValueError, match="two texts"):
        corrected_share(np.ones(1), np.ones(5), np.ones(5))
    with pytest.raises(ValueError, match="predictions"):
        class_mix((0, 0), np.eye(2, dtype=np.int64))
    with pytest.raises(ValueError, match="empty"):
        mean_of_bins([0, 0], [0.5])
