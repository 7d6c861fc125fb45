from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from models.bundle import Bundle, BundleError, FileRecord, embedded_bundle
from models.classifier import Classifier, SelfCheckFailed
from models.engines import PackedEngine
from models.problem import softmax
from models.types import Encoding

ARTICLE = {
    "My payment failed twice": "billing",
    "Where's my invoice?": "billing",
    "App keeps crashing on iOS": "technical",
    "Can't log in": "technical",
    "Question about my plan": "general",
    "payment failed": "billing",
    "app crashed": "technical",
}
MIXED = [*ARTICLE, "hi", "The invoice page shows a white screen. " * 20, "refund please " * 12, "why " * 300]


def test_the_article_s_checks_hold(classifier: Classifier) -> None:
    predictions = classifier.predict([classifier.encode(text) for text in ARTICLE])
    assert {text: prediction.label for text, prediction in zip(ARTICLE, predictions, strict=True)} == ARTICLE


def test_scores_are_probabilities_in_label_order(classifier: Classifier) -> None:
    (prediction,) = classifier.predict([classifier.encode("payment failed")])
    assert sum(prediction.scores) == pytest.approx(1.0)
    assert prediction.confidence == max(prediction.scores)
    assert classifier.labels[prediction.scores.index(prediction.confidence)] == prediction.label


def test_logits_are_those_that_the_scores_come_from(classifier: Classifier) -> None:
    encoding = classifier.encode("payment failed")
    (prediction,) = classifier.predict([encoding])
    assert prediction.logits == tuple(classifier.logits([encoding])[0].tolist())
    assert prediction.scores == pytest.approx(softmax(np.array(prediction.logits) / classifier.manifest.temperature).tolist())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_logit_that_is_not_finite_is_no_answer(classifier: Classifier, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    monkeypatch.setattr(classifier, "logits", lambda encodings: np.array([[0.0, 1.0, value]] * len(encodings)))
    with pytest.raises(ArithmeticError, match="not finite"):
        classifier.predict([classifier.encode("hello")])


def test_results_keep_the_order_of_a_mixed_batch(classifier: Classifier) -> None:
    encodings = [classifier.encode(text) for text in MIXED]
    together = classifier.logits(encodings)
    alone = np.concatenate([classifier.logits([encoding]) for encoding in encodings])
    assert np.array_equal(together, alone)
    assert np.abs(together - alone[::-1]).max() > 2.0


def test_observing_gives_the_same_predictions_and_the_vectors_that_the_head_reads(classifier: Classifier) -> None:
    encodings = [classifier.encode(text) for text in MIXED]
    together = classifier.observe(encodings)
    assert together == classifier.predict(encodings)
    vectors = {prediction.first.tobytes() for prediction in together if prediction.first is not None}
    assert len(vectors) == len(MIXED)
    for encoding, prediction in zip(encodings, together, strict=True):
        (alone,) = classifier.observe([encoding])
        assert alone.first is not None
        assert alone.first.shape == (classifier.first_width,) == (384,)
        assert prediction.first is not None
        assert np.array_equal(alone.first, prediction.first)
        assert classifier.predict([encoding])[0].first is None


def test_a_graph_of_format_2_gives_no_vectors(classifier: Classifier) -> None:
    graph = (Path(__file__).parent / "goldens" / "bert-format-2.onnx").read_bytes()
    engine = PackedEngine(graph, classifier.manifest.model_copy(update={"labels": ["one", "two", "three"]}))
    encodings = [Encoding((2, 5, 7, 3), truncated=False), Encoding((2, 9, 3), truncated=False)]
    outputs = engine.outputs(encodings)
    assert engine.first_width is None
    assert outputs.first is None
    assert np.array_equal(outputs.logits, engine.logits(encodings))


def test_no_texts_give_no_predictions(classifier: Classifier) -> None:
    assert classifier.predict([]) == []
    assert classifier.observe([]) == []


def test_threads_share_the_session_and_get_their_own_answers(classifier: Classifier) -> None:
    encodings = [classifier.encode(text) for text in MIXED]
    expected = [classifier.logits([encoding]) for encoding in encodings]
    start = threading.Barrier(4)

    def work(offset: int) -> bool:
        start.wait()
        rounds = [(offset + step) % len(encodings) for step in range(40)]
        return all(np.array_equal(classifier.logits([encodings[index]]), expected[index]) for index in rounds)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_the_self_check_holds_here(classifier: Classifier) -> None:
    classifier.self_check()


@pytest.mark.parametrize("wrong", [0.5, float("nan")])
def test_a_model_that_computes_otherwise_fails_the_self_check(wrong: float) -> None:
    bundle = Bundle.open(embedded_bundle())
    golden = bundle.manifest.goldens[0]
    changed = golden.model_copy(update={"logits": [value + wrong for value in golden.logits]})
    goldens = [*bundle.manifest.goldens[1:], changed]
    bundle.manifest = bundle.manifest.model_copy(update={"goldens": goldens})
    with pytest.raises(SelfCheckFailed, match="computes wrong logits on this machine"):
        Classifier(bundle).self_check()


def test_bytes_that_are_no_onnx_graph_are_refused() -> None:
    bundle = Bundle.open(embedded_bundle())
    bundle.model = b"not a graph"
    with pytest.raises(BundleError, match=r"model\.onnx: ONNX Runtime cannot load it"):
        Classifier(bundle)


def test_a_graph_with_another_number_of_labels_is_refused() -> None:
    bundle = Bundle.open(embedded_bundle())
    bundle.manifest = bundle.manifest.model_copy(update={"labels": ["a", "b"]})
    with pytest.raises(BundleError, match="outputs"):
        Classifier(bundle)


def test_softmax_is_shift_invariant_and_does_not_overflow() -> None:
    logits = np.array([[1.0, 2.0, 3.0]])
    assert softmax(logits) == pytest.approx(softmax(logits + 1e6))
    assert softmax(np.array([[1e30, 0.0]])).tolist() == [[1.0, 0.0]]


def test_file_records_are_strict() -> None:
    with pytest.raises(ValueError, match="sha256"):
        FileRecord(sha256="ABC", bytes=1)


@pytest.mark.parametrize("limit", [3, 16, 100])
def test_the_warm_up_passes_nothing_that_is_longer_than_the_limit(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(embedded_bundle())
    bundle.manifest = bundle.manifest.model_copy(update={"max_length": limit})
    classifier = Classifier(bundle)
    lengths: list[int] = []
    monkeypatch.setattr(classifier, "logits", lambda encodings: lengths.extend(map(len, encodings)))
    classifier.warm_up()
    assert max(lengths) == limit


def test_the_warm_up_runs_the_largest_passes_in_all_workers_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier(Bundle.open(embedded_bundle()))
    largest: set[tuple[int, int, int]] = set()

    def logits(encodings: Sequence[Encoding]) -> None:
        if threading.current_thread() is not threading.main_thread():
            assert sum(map(len, encodings)) == 512
            largest.add((len(encodings), len(encodings[0]), threading.get_ident()))

    monkeypatch.setattr(classifier, "logits", logits)
    monkeypatch.setattr("models.classifier.WARM_UP_SECONDS", 60)
    classifier.warm_up(3)
    # Each shape by three threads: these passes take no time, so they would be one thread's if it did not wait for the others.
    assert sorted(shape[:2] for shape in largest) == [(1, 512)] * 3 + [(4, 128)] * 3 + [(16, 32)] * 3


def test_a_length_that_the_model_does_not_have_is_found_by_the_warm_up() -> None:
    bundle = Bundle.open(embedded_bundle())
    bundle.manifest = bundle.manifest.model_copy(update={"max_length": 600})
    with pytest.raises(Exception, match="indices element out of data bounds"):
        Classifier(bundle).warm_up()


def test_a_model_whose_answers_depend_on_batch_mates_fails_the_self_check(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = Classifier(Bundle.open(embedded_bundle()))
    logits = classifier.logits
    monkeypatch.setattr(classifier, "logits", lambda encodings: logits(encodings) + np.float32(1e-4) * (len(encodings) > 1))
    with pytest.raises(SelfCheckFailed, match="depend on the texts in its batch"):
        classifier.self_check()
