from __future__ import annotations

import json

import numpy as np
import pytest

from drift.baseline import Baseline, BaselineError, learn, strata_differ
from drift.bounds import upper_share
from drift.channels import Channel, Layout

LENGTH = Channel("length", "input", edges=(2.0, 5.0))
LABEL = Channel("label", "output", categories=("x", "y"))
LAYOUT = Layout([LENGTH, LABEL])


def test_a_baseline_is_the_sum_of_its_blocks_by_stratum() -> None:
    blocks = [(0, np.array([1, 2, 3, 4, 2])), (1, np.array([5, 0, 0, 5, 0])), (0, np.array([1, 1, 1, 3, 0]))]
    found = learn(LAYOUT, blocks, strata=2, note="two days in May")
    assert found.counts.tolist() == [[2, 3, 4, 7, 2], [5, 0, 0, 5, 0]]
    assert (found.texts, found.blocks, found.notes) == (14, 3, ("two days in May",))
    halves = learn(LAYOUT, blocks[:1], strata=2) + learn(LAYOUT, blocks[1:], strata=2)
    assert halves.counts.tolist() == found.counts.tolist()
    assert halves.blocks == 3


def test_bounds_are_those_of_the_counts_with_the_risk_divided_among_the_levels_tails() -> None:
    found = learn(LAYOUT, [(0, np.array([300, 500, 200, 600, 400]))])
    bounds = found.bounds(LENGTH, "input")
    for tail, bound in zip(LENGTH.tails(), bounds[0], strict=True):
        hits = int(np.array([300, 500, 200])[tail].sum())
        assert bound == pytest.approx(float(upper_share(hits, 1000, 0.01 / 4)))
    assert found.bounds(LENGTH, "input", tolerance=0.02)[0] == pytest.approx(bounds[0] + 0.02)
    assert learn(LAYOUT, []).bounds(LENGTH, "input").tolist() == [[1.0] * 4]


def test_strata_share_their_texts_where_they_differ_by_chance_only() -> None:
    rng = np.random.default_rng(0)
    same = rng.multinomial(1000, (0.3, 0.5, 0.2), size=4)
    other = np.concatenate([same[:3], rng.multinomial(1000, (0.1, 0.5, 0.4), size=1)])
    assert not strata_differ(same)
    assert strata_differ(other)
    assert not strata_differ(same[:1])
    label = np.full((4, 2), 500)
    pooled = Baseline(LAYOUT, np.concatenate([same, label], axis=1)).bounds(LENGTH, "input")
    apart = Baseline(LAYOUT, np.concatenate([other, label], axis=1)).bounds(LENGTH, "input")
    assert (pooled == pooled[0]).all()
    assert (apart[3] != apart[0]).any()
    # 4,000 texts bound closer than 1,000 do.
    assert pooled[0].sum() < apart[0].sum()


def test_a_baseline_comes_back_from_its_file_which_is_small() -> None:
    found = learn(LAYOUT, [(3, np.array([1, 2, 3, 4, 2]))], strata=24, note="a note")
    again = Baseline.from_bytes(found.to_bytes())
    assert again.counts.tolist() == found.counts.tolist()
    assert (again.layout.channels, again.notes, again.blocks) == (found.layout.channels, found.notes, found.blocks)
    assert len(found.to_bytes()) < 2000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 7}, "format 7 is not 1"),
        ({"counts": [[1, 2]]}, "do not fit"),
        ({"counts": [[1, 2, 3, 4, -1]]}, "0 or more"),
        ({"counts": [[1, 2, 3, 4, 0.5]]}, "whole numbers"),
        ({"counts": []}, "do not fit"),
        ({"counts": [[1], [2, 3]]}, "not a baseline"),
        ({"channels": [{"name": "x"}]}, "not a baseline"),
        ({"channels": 3}, "not a baseline"),
        ({"notes": None}, "not a baseline"),
    ],
)
def test_files_that_are_no_baseline_are_refused(change: dict[str, object], message: str) -> None:
    content = json.loads(learn(LAYOUT, [(0, np.array([1, 2, 3, 4, 2]))]).to_bytes())
    with pytest.raises(BaselineError, match=message):
        Baseline.from_bytes(json.dumps(content | change).encode())


def test_bytes_that_are_no_json_and_baselines_of_other_channels_are_refused() -> None:
    with pytest.raises(BaselineError, match="not a baseline"):
        Baseline.from_bytes(b"\x80")
    with pytest.raises(BaselineError, match="not a baseline"):
        Baseline.from_bytes(b"[]")
    with pytest.raises(BaselineError, match="other channels"):
        _ = learn(LAYOUT, []) + learn(Layout([LABEL]), [])
    with pytest.raises(BaselineError, match="stratum 2 is not one of 2"):
        learn(LAYOUT, [(2, np.zeros(5, dtype=np.int64))], strata=2)
