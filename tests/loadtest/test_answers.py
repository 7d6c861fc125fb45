from __future__ import annotations

import json

import pytest

from loadtest.answers import MALFORMED, OK, WRONG_CONFIDENCE, WRONG_LABEL, Answer, Reference, judge

REFERENCE = Reference("m@1", frozenset({"billing", "technical"}), {"refund": Answer(("billing",), (0.9,))})
UNKNOWN = (None,)


def single(label: object = "billing", confidence: object = 0.9) -> bytes:
    return json.dumps({"prediction": label, "confidence": confidence, "latency_ms": 1.0}).encode()


def several(*answers: tuple[str, float]) -> bytes:
    return json.dumps({"predictions": [label for label, _ in answers], "confidences": [share for _, share in answers]}).encode()


def test_a_right_answer_is_right_and_an_unknown_one_passes_if_it_is_well_formed() -> None:
    assert judge(200, single(), REFERENCE.expected(["refund"]), REFERENCE) == OK
    assert judge(200, single("technical", 1), UNKNOWN, REFERENCE) == OK
    assert judge(200, several(("technical", 0.4), ("billing", 0.900001)), REFERENCE.expected(["?", "refund"]), REFERENCE) == OK


def test_a_wrong_label_of_a_known_text_is_found_wherever_it_is_in_the_request() -> None:
    assert judge(200, single("technical"), REFERENCE.expected(["refund"]), REFERENCE) == WRONG_LABEL
    body = several(("technical", 0.4), ("technical", 0.9))
    assert judge(200, body, REFERENCE.expected(["?", "refund"]), REFERENCE) == WRONG_LABEL


def test_another_confidence_is_wrong_unless_only_labels_are_compared() -> None:
    expected = REFERENCE.expected(["refund"])
    assert judge(200, single(confidence=0.900003), expected, REFERENCE) == WRONG_CONFIDENCE
    tolerant = Reference(REFERENCE.model, REFERENCE.labels, REFERENCE.answers, exact=False)
    assert judge(200, single(confidence=0.8), expected, tolerant) == OK


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"null",
        b"{}",
        b'{"prediction": "billing"}',
        b'{"predictions": ["billing"], "confidences": []}',
        b'{"predictions": "billing", "confidences": 0.9}',
        single(label=""),
        single(label=None),
        single(label="weather"),
        single(confidence=0),
        single(confidence=1.000001),
        single(confidence="0.9"),
        single(confidence=None),
        several(("billing", 0.9), ("billing", 0.9)),
    ],
)
def test_what_is_no_answer_to_one_text_is_malformed(body: bytes) -> None:
    assert judge(200, body, UNKNOWN, REFERENCE) == MALFORMED


def test_another_status_is_its_own_outcome_whatever_the_body() -> None:
    assert judge(429, single(), UNKNOWN, REFERENCE) == "429"
    assert judge(504, b"", UNKNOWN, REFERENCE) == "504"


def test_labels_are_not_checked_if_the_server_does_not_tell_them() -> None:
    assert judge(200, single(label="weather"), UNKNOWN, Reference()) == OK


MULTI = Reference("m@1", frozenset({"billing", "technical"}), {"refund": Answer(("billing", "technical"), (0.9, 0.7))})


@pytest.mark.parametrize(
    ("prediction", "confidence", "outcome"),
    [
        (["billing", "technical"], [0.9, 0.7], OK),
        (["billing"], [0.9], WRONG_LABEL),
        ([], [], WRONG_LABEL),
        (["billing", "technical"], [0.9, 0.8], WRONG_CONFIDENCE),
        (["billing", "spam"], [0.9, 0.7], MALFORMED),
        (["billing", "technical"], [0.9], MALFORMED),
        (["billing", None], [0.9, 0.7], MALFORMED),
    ],
)
def test_several_labels_are_compared_with_all_their_confidences(prediction: object, confidence: object, outcome: str) -> None:
    assert judge(200, single(prediction, confidence), MULTI.expected(["refund"]), MULTI) == outcome


@pytest.mark.parametrize(
    ("number", "outcome"), [(1234.5, OK), (1234.6, WRONG_CONFIDENCE), ("1234.5", MALFORMED), (None, MALFORMED)]
)
def test_numbers_are_compared_too(number: object, outcome: str) -> None:
    reference = Reference("m@1", frozenset({"stars"}), {"refund": Answer((), (1234.5,))})
    assert judge(200, json.dumps({"prediction": number}).encode(), reference.expected(["refund"]), reference) == outcome
    assert judge(200, json.dumps({"predictions": [number]}).encode(), reference.expected(["refund"]), reference) == outcome
