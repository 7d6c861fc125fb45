from hypothesis import given
from hypothesis import strategies as st

from models.packing import near_length_groups

lengths = st.lists(st.integers(2, 256), max_size=64)


@given(lengths)
def test_every_text_is_in_exactly_one_group(values: list[int]) -> None:
    groups = near_length_groups(values)
    assert sorted(index for group in groups for index in group) == list(range(len(values)))


@given(lengths, st.integers(0, 50))
def test_no_single_step_pads_more_than_a_pass_costs(values: list[int], overhead: int) -> None:
    for group in near_length_groups(values, overhead):
        ordered = sorted(values[index] for index in group)
        for position in range(1, len(ordered)):
            assert position * (ordered[position] - ordered[position - 1]) <= overhead


def test_texts_of_one_length_share_one_pass() -> None:
    assert near_length_groups([9] * 32) == [list(range(32))]


def test_a_long_text_does_not_pad_the_short_ones() -> None:
    assert near_length_groups([8, 128, 8]) == [[0, 2], [1]]


def test_nothing_needs_no_pass() -> None:
    assert near_length_groups([]) == []
