from __future__ import annotations

import contextlib
import json
import math
import random
import re

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


WIDE = Layout([LENGTH, *(Channel(f"of {number}", "input", edges=(1.0,)) for number in range(70)), LABEL, Channel(
    "many", "output", categories=tuple(map(str, range(5000)))), ERROR])  # fmt: skip


def row_of_wide(some: dict[int, int]) -> list[int]:
    row = [-1] * len(WIDE.channels)
    for number, drawn in some.items():
        row[number] = drawn % WIDE.channels[number].bins
    return row


rows_of_wide = st.lists(st.dictionaries(st.integers(0, 73), st.integers(0, 4999)).map(row_of_wide), max_size=4)


@given(rows_of_wide)
def test_bins_come_back_from_their_code_which_is_short_plain_and_one_to_one(rows: list[list[int]]) -> None:
    codes = WIDE.encode(np.array(rows, dtype=np.int64).reshape(-1, len(WIDE.channels)))
    assert WIDE.decode(codes).tolist() == rows
    assert all(re.fullmatch(r"[A-Za-z0-9_.~-]*", code) for code in codes)
    assert len(set(codes)) == len({tuple(row) for row in rows})


@given(texts)
def test_counting_bins_is_counting_values(found: list[tuple[float, int]]) -> None:
    values = {"length": np.array([length for length, _ in found]), "label": np.array([label for _, label in found])}
    bins = LAYOUT.bins(values)
    assert bins.shape == (len(found), 4)
    assert (bins[:, 2:] == -1).all()
    assert LAYOUT.count_bins(bins).tolist() == LAYOUT.count(values).tolist()
    assert LAYOUT.texts(LAYOUT.count_bins(bins)) == max(
        sum(not math.isnan(length) for length, _ in found), sum(k >= 0 for _, k in found)
    )
    assert LAYOUT.count_bins(LAYOUT.decode(LAYOUT.encode(bins))).tolist() == LAYOUT.count(values).tolist()


def test_a_code_is_one_letter_a_channel_and_short_where_there_are_no_bins() -> None:
    assert LAYOUT.encode([[0, 1, -1, -1], [-1, -1, 1, 0], [-1, -1, -1, 1]]) == [
        LAYOUT.fingerprint[:4] + rest for rest in ("AB", "..BA", "~DB")
    ]  # fmt: skip
    nothing = [-1] * len(WIDE.channels)
    assert WIDE.encode([[3, *nothing[1:-1], 0]]) == [WIDE.fingerprint[:4] + "D~_~L" + "A"]
    assert Layout([]).decode(Layout([]).encode(np.zeros((2, 0)))).shape == (2, 0)


@given(st.text(max_size=12) | st.text("ABCD~._", max_size=8))
def test_what_is_no_code_of_the_layout_is_refused_and_what_is_accepted_has_possible_bins(rest: str) -> None:
    with contextlib.suppress(ValueError):
        bins = LAYOUT.decode([LAYOUT.fingerprint[:4] + rest])
        assert LAYOUT.decode(LAYOUT.encode(bins)).tolist() == bins.tolist()


@pytest.mark.parametrize("rest", ["E", "AAC", "AAAAA", "A A", "ä", "~", "~A", "~F", "AA~D", "A\nAA"])
def test_codes_that_do_not_fit_are_refused(rest: str) -> None:
    with pytest.raises(ValueError, match="layout"):
        LAYOUT.decode([LAYOUT.encode([[0, 0, 0, 0]])[0], LAYOUT.fingerprint[:4] + rest])


def test_half_a_bin_is_refused() -> None:
    code = WIDE.encode([[-1] * 72 + [4999, -1]])[0]
    assert WIDE.decode([code])[0, -2] == 4999
    with pytest.raises(ValueError, match="bins that the layout has not"):
        WIDE.decode([code[:-1] + "."])


def test_codes_and_bins_of_another_layout_are_refused() -> None:
    code = LAYOUT.encode([[0, 0, 0, 0]])[0]
    with pytest.raises(ValueError, match="not of this layout"):
        Layout([LENGTH, LABEL, ERROR]).decode([code])
    with pytest.raises(ValueError, match="do not fit to 4 channels"):
        LAYOUT.count_bins([[0, 0, 0]])
    with pytest.raises(ValueError, match="not so many bins"):
        LAYOUT.encode([[4, 0, 0, 0]])
    with pytest.raises(ValueError, match="different numbers of texts"):
        LAYOUT.bins({"length": [1.0], "label": [1, 2]})
