"""Which distances have a row of their own; that it is transformers' row is tried in test_encoder. Needs no onnx."""

from __future__ import annotations

import numpy as np
import pytest

from models.making.distances import Distances


@pytest.mark.parametrize("farthest", [1, 5, 40])
def test_without_buckets_each_distance_has_its_row_up_to_the_farthest(farthest: int) -> None:
    rows = Distances(farthest).rows(np.arange(-50, 51))
    assert np.array_equal(rows, [min(max(0, distance + farthest), 2 * farthest - 1) for distance in range(-50, 51)])


def test_near_distances_have_a_row_each_and_far_ones_share_more_and_more() -> None:
    rows = Distances(farthest=64, buckets=16).rows(np.arange(0, 200))
    assert rows[:9].tolist() == list(range(16, 25))
    shared = np.unique(rows[8:64], return_counts=True)[1]
    assert len(shared) == 8  # the other half of the buckets on this side
    assert shared[-1] > shared[1]
    assert (np.diff(rows) >= 0).all()
    assert rows.max() == rows[64] == 31


def test_distances_before_and_after_are_told_apart_alike() -> None:
    distances = Distances(farthest=512, buckets=256)
    far = np.arange(1, 512)
    assert np.array_equal(distances.rows(far) - distances.span, distances.span - distances.rows(-far))
    assert distances.rows(np.array([-10_000])).tolist() == [0]
