from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift.channels import Channel, Counts, Layout

LENGTH = Channel("length", "input", edges=(2.0, 5.0, 9.0))
LABEL = Channel("label", "output", categories=("billing", "general", "technical"))
ERROR = Channel("error", "outcome", categories=("right", "wrong"), rising=True)
SEEN = Channel("seen", "input", edges=(1.0,), tested=False)
LAYOUT = Layout([LENGTH, LABEL, ERROR, SEEN])


def test_a_value_lies_in_the_bin_whose_edges_are_around_it_and_the_edge_belongs_upwards() -> None:
    assert LENGTH.place([1.9, 2.0, 4.9, 5.0, 9.0, 1e9, -1e9]).tolist() == [0, 1, 1, 2, 3, 3, 0]


def test_what_has_no_value_has_no_bin_and_adds_nothing() -> None:
    assert LENGTH.place([np.nan, 3.0]).tolist() == [-1, 1]
    assert LABEL.place([np.nan, -1, 2]).tolist() == [-1, -1, 2]
    assert LAYOUT.count({"length": [np.nan], "label": [-1]}).sum() == 0


def test_a_category_that_there_is_not_is_refused() -> None:
    with pytest.raises(ValueError, match="label: there is no category 3"):
        LABEL.place([0, 3])


def test_tails_of_an_ordered_channel_are_all_its_ends_and_of_categories_each_alone_or_left_out() -> None:
    assert sorted(map(tuple, LENGTH.tails().astype(int).tolist())) == [
        (0, 0, 0, 1), (0, 0, 1, 1), (0, 1, 1, 1), (1, 0, 0, 0), (1, 1, 0, 0), (1, 1, 1, 0),
    ]  # fmt: skip
    assert len(LABEL.tails()) == 6
    assert ERROR.tails().tolist() == [[False, True]]
    assert len(SEEN.tails()) == 0
    two = Channel("two", "input", categories=("a", "b"))
    assert len(two.tails()) == 2, "either is the other left out"


def test_tails_have_words() -> None:
    words = {LENGTH.describe(tail) for tail in LENGTH.tails()}
    assert words == {f"length {rest}" for rest in (
        "at least 2", "at least 5", "at least 9", "below 2", "below 5", "below 9",
    )}  # fmt: skip
    assert LABEL.describe(np.array([True, False, True])) == "label billing or technical"


@pytest.mark.parametrize(
    "wrong",
    [{"edges": (2.0, 1.0)}, {"edges": (1.0, np.inf)}, {"categories": ("one",)}, {}, {"edges": (1.0,), "categories": ("a", "b")}],
)
def test_channels_that_sort_nothing_are_refused(wrong: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match="channel x"):
        Channel("x", "input", **wrong)  # type: ignore[arg-type]


def test_two_channels_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="same name"):
        Layout([LENGTH, LENGTH])


texts = st.lists(st.tuples(st.floats(0, 12) | st.just(float("nan")), st.integers(-1, 2)), max_size=30)


@given(texts, texts, st.randoms(use_true_random=False))
def test_counts_of_texts_together_are_the_sum_of_their_counts_in_any_order(
    one: list[tuple[float, int]], other: list[tuple[float, int]], rng: random.Random
) -> None:
    def count(found: list[tuple[float, int]]) -> Counts:
        return LAYOUT.count({"length": [length for length, _ in found], "label": [label for _, label in found]})

    together = one + other
    rng.shuffle(together)
    assert count(together).tolist() == (count(one) + count(other)).tolist()


def test_a_layout_comes_back_from_its_file_and_is_known_by_all_that_decides_its_bins() -> None:
    again = Layout.from_json(json.loads(json.dumps(LAYOUT.to_json())))
    assert again.channels == LAYOUT.channels
    assert again.fingerprint == LAYOUT.fingerprint
    assert Layout([LABEL, LENGTH]).fingerprint != Layout([LENGTH, LABEL]).fingerprint
    assert Layout([Channel("length", "input", edges=(2.0, 5.0, 9.5))]).fingerprint != Layout([LENGTH]).fingerprint
