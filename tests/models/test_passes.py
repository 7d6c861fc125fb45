"""What a pass's index arrays must hold for every batch; the graph's logits are tried in test_goldens and build/test_encoder."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.passes import ALIGNMENT, HIDDEN, INPUTS, MOST_TOKENS, NARROWEST_ROW, WIDEST_SHARED_ROW, aligned, feeds, place, plan
from models.types import Encoding

lengths = st.lists(st.one_of(st.integers(1, 40), st.integers(1, 600)), min_size=1, max_size=40)
# One pass has a mask of rows x width x width numbers, so a test's passes are kept smaller than its plans.
short_lengths = st.lists(st.one_of(st.integers(1, 40), st.integers(1, 140)), min_size=1, max_size=12)


def encodings(values: list[int]) -> list[Encoding]:
    """Texts of these lengths whose ids tell which token of which text they are."""
    return [Encoding(tuple(1000 * text + token for token in range(length)), False) for text, length in enumerate(values)]


@given(st.integers(1, 10_000))
def test_an_aligned_length_is_the_next_multiple(length: int) -> None:
    assert aligned(length) % ALIGNMENT == 0
    assert 0 <= aligned(length) - length < ALIGNMENT


@given(lengths)
def test_every_text_is_in_exactly_one_pass(values: list[int]) -> None:
    assert sorted(index for group in plan(values) for index in group) == list(range(len(values)))


@given(lengths)
def test_a_pass_has_its_longest_text_first_and_passes_follow_each_other_down(values: list[int]) -> None:
    ordered = [values[index] for group in plan(values) for index in group]
    assert ordered == sorted(values, reverse=True)


@given(lengths)
@example([600, 600, 3])
def test_no_pass_has_too_many_tokens_unless_it_is_one_text(values: list[int]) -> None:
    for group in plan(values):
        assert len(group) == 1 or sum(values[index] for index in group) <= MOST_TOKENS


def test_nothing_needs_no_pass() -> None:
    assert plan([]) == []


def test_short_texts_share_a_pass_and_a_long_one_has_its_own() -> None:
    assert plan([8, 9, 10, 8]) == [[2, 1, 0, 3]]
    assert plan([8, 256, 8]) == [[1], [0, 2]]


@given(lengths)
def test_texts_in_rows_are_aligned_do_not_overlap_and_fit(values: list[int]) -> None:
    count, width, places = place(values)
    assert len(places) == len(values)
    assert width % ALIGNMENT == 0
    assert width >= max(NARROWEST_ROW, *values)
    assert {row for row, _ in places} == set(range(count))
    taken: dict[int, list[tuple[int, int]]] = {}
    for (row, offset), length in zip(places, values, strict=True):
        assert offset % ALIGNMENT == 0
        assert offset + length <= width
        taken.setdefault(row, []).append((offset, offset + length))
    for spans in taken.values():
        assert all(end <= start for (_, end), (start, _) in pairwise(sorted(spans)))


@given(lengths)
@example([WIDEST_SHARED_ROW, 3, 3])
@example([WIDEST_SHARED_ROW + 1, 3, 3])
def test_only_rows_up_to_the_widest_are_shared(values: list[int]) -> None:
    count, width, places = place(values)
    if width > WIDEST_SHARED_ROW:
        assert count == len(values)
        assert places == [(row, 0) for row in range(count)]


def test_short_texts_fill_a_row_before_the_next_is_begun() -> None:
    assert place([32, 16, 16, 5]) == (3, 32, [(0, 0), (1, 0), (1, 16), (2, 0)])


@given(short_lengths)
def test_feeds_have_the_types_and_the_axes_that_the_graph_declares(values: list[int]) -> None:
    arrays = feeds(encodings(values))
    assert tuple(arrays) == tuple(INPUTS)
    sizes: dict[str, int] = {}
    for name, (kind, shape) in INPUTS.items():
        assert arrays[name].dtype == kind
        assert arrays[name].ndim == len(shape)
        for axis, size in zip(shape, arrays[name].shape, strict=True):
            assert size == (axis if isinstance(axis, int) else sizes.setdefault(axis, size)), (name, axis)
    assert sizes["tokens"] == sum(values)


@given(short_lengths)
def test_tokens_lie_end_to_end_and_positions_restart_at_each_text(values: list[int]) -> None:
    texts = encodings(values)
    arrays = feeds(texts)
    assert arrays["input_ids"].tolist() == [token for text in texts for token in text.ids]
    assert arrays["positions"].tolist() == [position for value in values for position in range(value)]


@given(short_lengths)
def test_rows_and_slots_are_each_other_s_inverse(values: list[int]) -> None:
    arrays = feeds(encodings(values))
    slots = arrays["slots"]
    assert np.array_equal(arrays["rows"].ravel()[slots], np.arange(sum(values)))
    assert len(np.unique(slots)) == len(slots)
    # What an empty slot shows is masked, but it must be a token that there is.
    assert arrays["rows"].min() >= 0
    assert arrays["rows"].max() < sum(values)


@given(short_lengths)
def test_each_text_starts_at_an_aligned_place_and_is_in_one_piece(values: list[int]) -> None:
    arrays = feeds(encodings(values))
    width = arrays["rows"].shape[1]
    for slots in np.split(arrays["slots"], np.cumsum(values)[:-1]):
        assert slots[0] % width % ALIGNMENT == 0
        assert np.array_equal(slots, slots[0] + np.arange(len(slots)))
        assert slots[0] // width == slots[-1] // width


@given(short_lengths)
def test_the_mask_opens_to_a_token_its_own_text_and_nothing_else(values: list[int]) -> None:
    arrays = feeds(encodings(values))
    mask, width = arrays["mask"][:, 0], arrays["rows"].shape[1]
    assert set(np.unique(mask).tolist()) <= {0.0, float(HIDDEN)}
    for slots in np.split(arrays["slots"], np.cumsum(values)[:-1]):
        own = np.zeros(width, dtype=bool)
        own[slots % width] = True
        assert ((mask[slots // width, slots % width] == 0) == own).all()


@given(short_lengths)
def test_no_row_of_the_mask_is_closed_entirely(values: list[int]) -> None:
    arrays = feeds(encodings(values))
    assert (arrays["mask"] == 0).any(axis=-1).all()
    assert (arrays["text_mask"] == 0).any(axis=-1).all()


@given(short_lengths)
def test_texts_point_at_their_own_tokens_and_their_mask_hides_the_rest(values: list[int]) -> None:
    arrays = feeds(encodings(values))
    starts = np.cumsum([0, *values])
    assert arrays["texts"].shape == (max(2, len(values)), aligned(max(values)))
    for text, length in enumerate(values):
        own = np.arange(starts[text], starts[text + 1])
        assert np.array_equal(arrays["texts"][text, :length], own)
        assert np.isin(arrays["texts"][text], own).all()
        assert (arrays["text_mask"][text, 0, :length] == 0).all()
        assert (arrays["text_mask"][text, 0, length:] == HIDDEN).all()


@pytest.mark.parametrize("length", [1, 7, 16, 130])
def test_a_lone_text_is_there_twice(length: int) -> None:
    arrays = feeds(encodings([length]))
    assert len(arrays["texts"]) == 2
    assert np.array_equal(*arrays["texts"])
    assert np.array_equal(*arrays["text_mask"])


def test_what_passes_may_share_cannot_be_written_to() -> None:
    first, second = feeds(encodings([20])), feeds([Encoding(tuple(range(500, 520)), False)])
    assert first["mask"] is second["mask"]
    assert first["input_ids"].tolist() != second["input_ids"].tolist()
    for values in ([20], [20, 7], [300]):
        shared = {name: array for name, array in feeds(encodings(values)).items() if name != "input_ids"}
        assert not any(array.flags.writeable for array in shared.values())
