from __future__ import annotations

import numpy as np
import pytest

from drift.words import changed_words, count_words

PIECES = ["[CLS]", "refund", "card", "zen", "##trix", "42", "rare", "gone"]


def ids(share: dict[int, float], texts: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [[0, *(piece for piece, chance in share.items() if rng.random() < chance)] for _ in range(texts)]


BEFORE = ids({1: 0.2, 2: 0.3, 7: 0.1}, 5000, 0)
AFTER = ids({1: 0.2, 2: 0.3, 3: 0.1, 4: 0.1, 5: 0.2, 6: 0.01}, 1000, 1)


def found(now: list[list[int]], before: list[list[int]]) -> tuple[list[str], list[str]]:
    up, down = changed_words(count_words(now, 8), count_words(before, 8), len(now), len(before), PIECES)
    return [word.text for word in up], [word.text for word in down]


def test_a_text_counts_once_for_each_of_its_pieces_and_counts_add_up() -> None:
    assert count_words([[1, 1, 2], [2]], 4).tolist() == [0, 1, 2, 0]
    assert count_words([], 4).tolist() == [0, 0, 0, 0]
    assert (count_words(BEFORE[:100], 8) + count_words(BEFORE[100:], 8)).tolist() == count_words(BEFORE, 8).tolist()


def test_new_pieces_and_lost_ones_are_named_numbers_and_what_few_texts_have_are_not() -> None:
    up, down = found(AFTER, BEFORE)
    assert set(up) == {"zen", "##trix"}
    assert down == ["gone"]


def test_a_change_tells_the_shares_before_and_now() -> None:
    up, _ = changed_words(count_words(AFTER, 8), count_words(BEFORE, 8), 1000, 5000, PIECES)
    assert up[0].now == pytest.approx(0.1, abs=0.03)
    assert up[0].before == 0
    assert up[0].z > 3


def test_without_a_change_nothing_is_named() -> None:
    assert found(ids({1: 0.2, 2: 0.3, 7: 0.1}, 1000, 2), BEFORE) == ([], [])
    assert found([], BEFORE) == ([], [])


def test_what_stands_in_19_texts_is_kept_to_itself() -> None:
    assert found([[3]] * 19 + [[1]] * 20, BEFORE)[0] == ["refund"]
    assert "zen" in found([[3]] * 20 + [[1]] * 20, BEFORE)[0]


def test_counts_of_another_vocabulary_are_refused() -> None:
    with pytest.raises(ValueError, match="another vocabulary"):
        changed_words(np.zeros(7, np.int64), np.zeros(7, np.int64), 1, 1, PIECES)
