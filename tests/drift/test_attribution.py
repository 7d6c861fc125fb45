from __future__ import annotations

import numpy as np
import pytest

from drift import Baseline, Channel, Counts, Layout, attribute

EDGES = tuple(np.linspace(0.1, 0.9, 9).tolist())
LAYOUT = Layout(
    [
        Channel("combined", "input", edges=EDGES),
        *(Channel(f"combined of {label}", "input", edges=EDGES, tested=False) for label in "ab"),
        Channel("label", "output", categories=("a", "b")),
    ]
)
RNG = np.random.default_rng(0)


def counts(share_of_b: float, *, b: float = 3.0, texts: int = 20_000) -> Counts:
    """Scores of label a are low, those of b are even, or high with a greater `b`."""
    labels = (RNG.random(texts) < share_of_b).astype(int)
    scores = np.where(labels == 0, RNG.beta(2, 6, texts), RNG.beta(b, 3, texts))
    own = {f"combined of {name}": np.where(labels == number, scores, np.nan) for number, name in enumerate("ab")}
    return LAYOUT.count({"combined": scores, "label": labels, **own})


BASELINE = Baseline(LAYOUT, counts(0.3)[None])


def test_a_change_within_one_label_is_of_that_label_and_no_matter_of_the_mix() -> None:
    found = attribute(BASELINE, counts(0.3, b=8.0, texts=4000))
    assert found is not None
    assert found.labels["b"] > 0.97
    assert sum(found.labels.values()) == pytest.approx(1)
    assert found.mix < 0.1


def test_another_mix_of_labels_explains_what_it_makes() -> None:
    found = attribute(BASELINE, counts(0.7, texts=4000))
    assert found is not None
    assert found.mix > 0.9


def test_both_together_are_told_apart() -> None:
    found = attribute(BASELINE, counts(0.6, b=8.0, texts=4000))
    assert found is not None
    assert 0.2 < found.mix < 0.8
    assert found.labels["b"] > 0.97


def test_a_label_that_never_was_has_the_change() -> None:
    found = attribute(Baseline(LAYOUT, counts(0.0)[None]), counts(0.1, texts=4000))
    assert found is not None
    assert found.labels["b"] > 0.8


def test_too_few_texts_or_no_such_channels_say_nothing() -> None:
    assert attribute(BASELINE, counts(0.3, texts=199)) is None
    assert attribute(Baseline(LAYOUT, counts(0.3, texts=199)[None]), counts(0.3)) is None
    assert attribute(BASELINE, counts(0.3), score="novelty") is None
    bare = Layout([Channel("combined", "input", edges=EDGES)])
    assert attribute(Baseline(bare, np.full((1, 10), 100)), np.full(10, 100)) is None
    same = attribute(BASELINE, BASELINE.counts[0])
    assert same is not None
    assert (same.labels, same.mix) == ({}, 0.0)
