"""Long texts in windows: where they are cut, and how their answers are joined."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest

from models.bulk import Classified, classify_rows
from models.bundle import embedded_bundle
from models.classifier import Classifier
from models.fake import FakeClassifier
from models.tables import Row
from models.tokenizer import Tokenizer
from models.types import BlankTextError
from models.windows import Windows, join_logits

WORDS = ["payment", "invoice", "crash", "window", "order", "house", "login", "refund", "street", "paper"]
LIMIT, OVERLAP = 16, 4


def read(limit: int) -> Tokenizer:
    return Tokenizer((embedded_bundle() / "tokenizer.json").read_bytes(), limit)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return read(LIMIT)


@pytest.mark.parametrize("count", [1, 13, 14, 15, 24, 25, 60])
def test_windows_overlap_and_miss_nothing(tokenizer: Tokenizer, count: int) -> None:
    text = " ".join(WORDS[index * 7 % 10] for index in range(count))
    first, *inner, last = read(10_000).encode(text).ids
    windows = tokenizer.windows(text, OVERLAP, 100)
    found = list(windows[0].ids[1:-1])
    for before, window in pairwise(windows):
        assert before.ids[-1 - OVERLAP : -1] == window.ids[1 : 1 + OVERLAP]
        found += window.ids[1 + OVERLAP : -1]
    assert found == inner
    assert all((window.ids[0], window.ids[-1]) == (first, last) and len(window) <= LIMIT for window in windows)
    assert not any(window.truncated for window in windows)
    assert len(windows) == max(1, -(-(len(inner) - OVERLAP) // (LIMIT - 2 - OVERLAP)))


def test_a_text_that_fits_is_one_window_and_the_same_as_without(tokenizer: Tokenizer) -> None:
    assert tokenizer.windows("payment failed", OVERLAP, 3) == [tokenizer.encode("payment failed")]


def test_of_too_many_windows_the_first_are_read_and_the_text_is_truncated(tokenizer: Tokenizer) -> None:
    text = " ".join(WORDS * 10)
    every = tokenizer.windows(text, OVERLAP, 100)
    some = tokenizer.windows(text, OVERLAP, 3)
    assert [window.ids for window in some] == [window.ids for window in every[:3]]
    assert [window.truncated for window in some] == [False, False, True]
    assert len(every) > 3


def test_a_text_that_begins_with_much_white_space_is_still_read(tokenizer: Tokenizer) -> None:
    text = " ".join(WORDS * 2)
    assert tokenizer.windows(" " * 3 * 40 * LIMIT + text, OVERLAP, 3) == tokenizer.windows(text, OVERLAP, 3)


@pytest.mark.parametrize("text", ["", " ", "\u200b"])
def test_a_text_without_tokens_is_blank(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(BlankTextError):
        tokenizer.windows(text, OVERLAP, 3)


def test_an_overlap_is_at_most_half_of_a_window(tokenizer: Tokenizer) -> None:
    windows = tokenizer.windows(" ".join(WORDS * 3), 1000, 100)
    assert len(windows) > 2
    assert all(len(window) == LIMIT for window in windows[:-1])


def test_a_tokenizer_that_keeps_the_end_gives_the_last_windows(tokenizer: Tokenizer) -> None:
    raw = json.loads((embedded_bundle() / "tokenizer.json").read_text())
    raw["truncation"] = {"direction": "Left", "max_length": LIMIT, "strategy": "LongestFirst", "stride": 0}
    left = Tokenizer(json.dumps(raw).encode(), LIMIT)
    text = " ".join([*["paper"] * 60, "refund"])
    assert left.windows(text, OVERLAP, 2)[0].ids == left.encode(text).ids
    assert left.windows(text, OVERLAP, 2)[-1].truncated
    assert tokenizer.windows(text, OVERLAP, 2)[0].ids == tokenizer.encode(text).ids


def test_logits_are_joined_label_by_label() -> None:
    logits = np.array([[1.0, 5.0], [3.0, -1.0]])
    assert join_logits(logits, "mean").tolist() == [2.0, 2.0]
    assert join_logits(logits, "max").tolist() == [3.0, 5.0]


def test_a_real_models_windows_are_joined_before_temperature() -> None:
    classifier = Classifier.open(embedded_bundle())
    windows = classifier.windows("my payment failed " * 400, 64, 8)
    assert len(windows) == 3
    parts = classifier.predict(windows)
    joined = classifier.joined(parts, "mean")
    logits = np.mean([part.logits for part in parts], axis=0)
    assert joined.logits == pytest.approx(logits.tolist())
    assert joined.scores == pytest.approx(classifier.problem.scores(logits[None] / classifier.manifest.temperature)[0].tolist())
    assert joined.label == "billing"


def test_rows_are_classified_in_windows_where_that_is_asked_for() -> None:
    classifier = FakeClassifier(max_length=4)
    texts = ["hello", "so it was a refund that i", "a b c d e f g h i j k l m n o p refund"]

    def classified(windows: Windows | None) -> list[tuple[object, int, bool]]:
        rows = [Row("x", number, text) for number, text in enumerate(texts, start=1)]
        found = [one for one in classify_rows(classifier, rows, 1, windows=windows) if isinstance(one, Classified)]
        return [(one.answer["label"], one.windows, one.truncated) for one in found]

    several = classified(Windows(overlap=1, most=3, join="max"))
    assert several == [("general", 1, False), ("billing", 2, False), ("general", 3, True)]
    assert classified(None) == [("general", 1, False), ("general", 1, True), ("general", 1, True)]


def test_joining_one_prediction_changes_nothing() -> None:
    classifier = FakeClassifier()
    (one,) = classifier.predict([classifier.encode("payment failed")])
    assert classifier.joined([one], "mean").scores == pytest.approx(one.scores)
