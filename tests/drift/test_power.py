from __future__ import annotations

import numpy as np
import pytest

from drift import Baseline, Channel, Layout, detectable
from drift.detector import Detector

YEAR = 525_600.0
LENGTH = Channel("length", "input", edges=(2.0, 5.0))
LAYOUT = Layout([LENGTH, Channel("label", "output", categories=("x", "y"))])
NORMAL = (0.2, 0.75, 0.05)


def baseline(texts: int, strata: int = 1) -> Baseline:
    counts = np.array([round(share * texts) for share in (*NORMAL, 0.5, 0.5)])
    return Baseline(LAYOUT, np.tile(counts, (strata, 1)))


@pytest.mark.parametrize("share", [0.3, 0.1])
def test_it_takes_as_many_texts_as_it_says(share: float) -> None:
    said = detectable(baseline(20_000), "input", blocks=YEAR, block_texts=8, shares=(share,))[share]
    rng, taken = np.random.default_rng(0), []
    moved = np.array([*((1 - share) * np.array(NORMAL) + share * np.array((0, 0, 1))), 0, 0])
    for _ in range(30):
        detector, texts = Detector(baseline(20_000), "input", blocks=YEAR), 0
        while detector.evidence < detector.threshold:
            detector.advance(rng.multinomial(8, moved))
            texts += 8
        taken.append(texts)
    assert said is not None
    assert 0.75 < np.mean(taken) / said < 1.25


def test_more_is_noticed_sooner_a_larger_baseline_notices_less_and_what_lies_within_its_bounds_is_never_noticed() -> None:
    small, large = (detectable(baseline(texts), "input", blocks=YEAR, block_texts=1) for texts in (1000, 100_000))
    delays = [delay for delay in large.values() if delay is not None]
    assert len(delays) == 5
    assert delays == sorted(delays)
    assert small[0.02] is None
    assert large[0.1] is not None
    assert small[0.1] is not None
    assert large[0.1] < small[0.1]


def test_an_alarm_takes_three_blocks_and_the_hours_of_one_traffic_make_no_difference() -> None:
    assert detectable(baseline(20_000), "input", blocks=YEAR, block_texts=500)[0.5] == 1500
    whole, parts = (
        detectable(baseline(texts, strata), "input", blocks=YEAR, block_texts=1) for texts, strata in ((24_000, 1), (1000, 24))
    )
    assert parts == pytest.approx(whole)
