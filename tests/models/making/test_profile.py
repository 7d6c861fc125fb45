"""Which texts a bundle's profile is learned from, and that it tells usual texts from others."""

from __future__ import annotations

from pathlib import Path

import pytest

import models.making
from drift import Observations, Profile
from models.classifier import Classifier
from models.making.dataset import Example, read_examples
from models.making.profile import FEWEST_TEXTS, ProfileTexts, harder, make_profile, observe, texts_of

TICKETS = Path(models.making.__file__).parent / "tickets" / "train.jsonl"


def examples(count: int) -> list[Example]:
    return [Example(f"text {number}", "general") for number in range(count)]


def test_without_training_texts_half_of_the_dev_texts_stands_for_them() -> None:
    texts = texts_of([], examples(2 * FEWEST_TEXTS + 1))
    assert isinstance(texts, ProfileTexts)
    held_out = {example.text for example in texts.held_out}
    assert (len(texts.training), len(held_out)) == (FEWEST_TEXTS, FEWEST_TEXTS + 1)
    assert not held_out & set(texts.training)
    assert held_out | set(texts.training) == {example.text for example in examples(2 * FEWEST_TEXTS + 1)}


def test_with_training_texts_all_dev_texts_are_held_out() -> None:
    training = [f"training {number}" for number in range(FEWEST_TEXTS)]
    texts = texts_of(training, examples(FEWEST_TEXTS))
    assert isinstance(texts, ProfileTexts)
    assert (list(texts.training), list(texts.held_out)) == (training, examples(FEWEST_TEXTS))


@pytest.mark.parametrize(
    ("training", "dev", "reason"),
    [
        (0, 2 * FEWEST_TEXTS - 1, "299 dev texts; it takes 300, or 150 and the training texts"),
        (0, 0, "0 dev texts"),
        (500, FEWEST_TEXTS - 1, "149 dev texts; it takes 150"),
        (FEWEST_TEXTS - 1, 500, "149 training texts; it takes 150"),
    ],
)
def test_too_few_texts_are_said(training: int, dev: int, reason: str) -> None:
    found = texts_of(["text"] * training, examples(dev))
    assert isinstance(found, str)
    assert reason in found


def test_harder_texts_keep_their_labels() -> None:
    found = harder([Example("Where is my invoice, please?", "billing")])
    assert [example.label for example in found] == ["billing", "billing"]
    assert found[1].text == "where is my invoice please"


def test_a_profile_knows_its_own_kind_of_texts(classifier: Classifier) -> None:
    written = read_examples([(TICKETS, 1.0)])[:320]
    own = [example.text for example in written]
    labels = [prediction.label for prediction in classifier.predict([classifier.encode(text) for text in own[160:]])]
    held_out = [Example(text, label) for text, label in zip(own[160:], labels, strict=True)]
    profile = make_profile(classifier, ProfileTexts(own[:160], held_out))
    assert Profile.from_bytes(profile.to_bytes()).layout.fingerprint == profile.layout.fingerprint
    assert profile.confusion.sum() == profile.confusion.trace() == 160
    others = ["zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich", "", "0x7fff8a2b 0x7fff8a2c segv at pc"]
    usual, odd = profile.scores(observe(classifier, own[160:])), profile.scores(observe(classifier, others))
    assert set(usual) == {"novelty", "rare", "pairs", "residual", "combined", "length", "error"}
    assert odd["novelty"][[0, 2]].min() > usual["novelty"].mean()
    assert odd["combined"][[0, 2]].min() > usual["combined"].mean()


@pytest.mark.build
def test_a_profile_that_cannot_be_learned_is_left_out_with_its_reason(classifier: Classifier) -> None:
    from models.making.builder import BuildOptions, _profile  # needs onnx

    said: list[str] = []
    options = BuildOptions("any", profile=ProfileTexts(["refund"] * 99, examples(1)))
    content, record = _profile(classifier, options, [], said.append)
    assert content is None
    assert record == {"missing": "a profile needs 100 training texts and as many held-out ones at least"}
    assert said[-1] == "no profile for drift detection: a profile needs 100 training texts and as many held-out ones at least"


def test_observations_are_in_the_order_of_the_texts(classifier: Classifier) -> None:
    texts = ["a much longer text about an invoice that was never sent to us", "refund", "   ", "the app crashes"] * 20
    seen = observe(classifier, texts)
    alone = observe(classifier, texts[1:2])
    assert isinstance(seen, Observations)
    assert seen.ids[1] == alone.ids[0] == classifier.encode("refund").ids
    assert seen.ids[2] == classifier.special_ids
    assert (seen.labels[1], seen.confidence[1]) == (alone.labels[0], alone.confidence[0])
    assert seen.first is not None
    assert alone.first is not None
    assert seen.first[1].tobytes() == alone.first[0].tobytes()
