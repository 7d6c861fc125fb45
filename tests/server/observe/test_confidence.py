"""Confidence over windows, against a list that forgets nothing; the clock is ours."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from models.problem import SingleLabel
from models.types import Prediction
from server.observe.confidence import BOUNDS, Confidence, Window
from server.observe.windows import BUCKETS, WINDOWS

LABELS = ("billing", "technical", "general")
LOW = 0.6
DAY = 86_400.0


def said(label: str, confidence: float) -> Prediction:
    return Prediction(label, confidence, (confidence,), (0.0,))


class Clock:
    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Seen:
    """Every text ever, and the windows' definition taken at its word."""

    def __init__(self) -> None:
        self.texts: list[tuple[float, str, Fraction]] = []

    def observe(self, time: float, label: str, confidence: float) -> None:
        self.texts.append((time, label, Fraction(round(confidence * 1_000_000), 1_000_000)))

    def window(self, now: float, width: int) -> Window:
        first = max(0, int(now) // width - BUCKETS + 1) * width
        inside = [(label, confidence) for time, label, confidence in self.texts if time >= first]
        number = len(inside)

        def share(part: Fraction | int) -> float | None:
            return round(float(Fraction(part) / number), 6) if number else None

        def mean_of(values: list[Fraction]) -> float | None:
            return round(float(sum(values, Fraction()) / len(values)), 6) if values else None

        return Window(
            seconds=now - first,
            texts=number,
            mean=share(sum((confidence for _, confidence in inside), Fraction())),
            low_share=share(sum(confidence < Fraction(6, 10) for _, confidence in inside)),
            label_shares={label: share(sum(label == other for other, _ in inside)) for label in LABELS},
            label_means={label: mean_of([confidence for other, confidence in inside if other == label]) for label in LABELS},
        )


def around(values: Sequence[float]) -> st.SearchStrategy[float]:
    return st.sampled_from(values).flatmap(lambda value: st.floats(max(0.0, value - 2), value + 2))


gaps = st.one_of(st.just(0.0), st.floats(0, 3), around([59, 60, 1_440, 3_540, 3_600, 84_960, DAY]), st.floats(0, 5 * DAY))
# In millionths, so that rounding is the same whoever does it.
confidences = st.one_of(st.integers(0, 1_000_000), st.sampled_from([599_999, 600_000, 600_001])).map(
    lambda value: value / 1_000_000
)
steps = st.lists(st.tuples(gaps, st.sampled_from(LABELS), confidences, st.booleans()), max_size=40)


@given(steps=steps, last_gap=gaps)
def test_windows_are_what_their_definition_says_of_all_that_was_seen(
    steps: list[tuple[float, str, float, bool]], last_gap: float
) -> None:
    clock, seen = Clock(), Seen()
    confidence = Confidence(SingleLabel(LABELS), LOW, clock)

    def check() -> None:
        snapshot = confidence.snapshot()
        for name, width in WINDOWS.items():
            assert snapshot.windows[name] == seen.window(clock.now, width)
            ages = [clock.now - time for time, _, _ in seen.texts]
            at_least, at_most = sum(age <= 59 * width for age in ages), sum(age <= 60 * width for age in ages)
            assert at_least <= snapshot.windows[name].texts <= at_most
        assert snapshot.totals.texts == len(seen.texts)
        assert snapshot.totals.confidence_sum == float(sum(value for _, _, value in seen.texts))
        assert snapshot.totals.low == sum(value < Fraction(6, 10) for _, _, value in seen.texts)

    for gap, label, value, is_looked_at in steps:
        clock.now += gap
        confidence.observe(said(label, value))
        seen.observe(clock.now, label, value)
        if is_looked_at:
            check()
    clock.now += last_gap
    check()


@given(st.lists(confidences, max_size=60))
def test_the_histogram_has_the_buckets_of_prometheus(values: list[float]) -> None:
    confidence = Confidence(SingleLabel(LABELS), LOW, Clock())
    theirs = Histogram("confidence", "", buckets=BOUNDS, registry=CollectorRegistry())
    for value in values:
        confidence.observe(said("general", value))
        theirs.observe(value)
    (family,) = theirs.collect()
    up_to = [sample.value for sample in family.samples if sample.name == "confidence_bucket"]
    ours = confidence.snapshot().totals.histogram
    assert [sum(ours[: bin_ + 1]) for bin_ in range(20)] == up_to[:-1]  # the last of theirs is for all that is over 1
    assert sum(ours) == up_to[-1]


def test_bounds_are_inclusive_and_zero_and_one_are_inside() -> None:
    confidence = Confidence(SingleLabel(LABELS), LOW, Clock())
    for value in (0.0, 0.05, 0.0500004, 0.050001, 0.95, 0.950001, 1.0, 1.0000001):
        confidence.observe(said("billing", value))
    histogram = confidence.snapshot().totals.histogram
    assert (histogram[0], histogram[1], histogram[18], histogram[19]) == (3, 1, 1, 3)
    assert sum(histogram) == 8


def test_a_confidence_is_low_by_the_number_that_the_client_saw() -> None:
    confidence = Confidence(SingleLabel(LABELS), 0.55, Clock())
    for value in (0.549999, 0.5499994, 0.5499996, 0.55, 0.9):
        confidence.observe(said("billing", value))
    assert confidence.snapshot().totals.low == 2
    assert confidence.snapshot().windows["1m"].low_share == 0.4


def test_sums_do_not_drift() -> None:
    clock = Clock()
    confidence = Confidence(SingleLabel(LABELS), LOW, clock)
    for _ in range(30_000):
        clock.now += 0.01
        confidence.observe(said("billing", 0.1))
    snapshot = confidence.snapshot()
    assert snapshot.totals.confidence_sum == 3000.0
    assert {window.mean for window in snapshot.windows.values()} == {0.1}


def test_where_nothing_was_seen_there_is_no_mean_and_no_share() -> None:
    clock = Clock(1_000.0)
    confidence = Confidence(SingleLabel(LABELS), LOW, clock)
    nothing = Window(0.0, 0, None, None, dict.fromkeys(LABELS), dict.fromkeys(LABELS))
    assert set(confidence.snapshot().windows) == {"1m", "1h", "24h"}
    assert all(window == nothing for window in confidence.snapshot().windows.values())
    confidence.observe(said("billing", 0.9))
    clock.now += 61
    windows = confidence.snapshot().windows
    assert windows["1m"] == Window(59.0, 0, None, None, dict.fromkeys(LABELS), dict.fromkeys(LABELS))
    shares, means = {"billing": 1.0, "technical": 0.0, "general": 0.0}, {"billing": 0.9, "technical": None, "general": None}
    assert windows["1h"] == Window(61.0, 1, 0.9, 0.0, shares, means)


def test_a_clock_that_jumps_days_leaves_no_old_text_in_a_window() -> None:
    clock = Clock()
    confidence = Confidence(SingleLabel(LABELS), LOW, clock)
    for day in range(1, 400):
        # The same bucket of every ring, again and again.
        clock.now = day * DAY
        confidence.observe(said("technical", 0.5))
        assert {name: window.texts for name, window in confidence.snapshot().windows.items()} == {"1m": 1, "1h": 1, "24h": 1}
    assert confidence.snapshot().totals.labels == {"billing": 0, "technical": 399, "general": 0}


def test_a_label_that_the_model_does_not_have_is_a_bug() -> None:
    with pytest.raises(KeyError):
        Confidence(SingleLabel(LABELS), LOW, Clock()).observe(said("spam", 0.5))


def test_the_report_says_all_of_it_as_json() -> None:
    clock = Clock(5.0)
    confidence = Confidence(SingleLabel(("a", "b")), LOW, clock)
    for label, value in (("a", 0.961885), ("a", 0.500001), ("b", 0.970295)):
        clock.now += 30.01
        confidence.observe(said(label, value))
    report = orjson.loads(orjson.dumps(confidence.report("model@1")))
    histogram = report["since_start"].pop("histogram")
    assert histogram["up_to"] == list(BOUNDS)
    assert {bound: count for bound, count in zip(histogram["up_to"], histogram["texts"], strict=True) if count} == {0.55: 1, 1.0: 2}
    assert report == {
        "model": "model@1",
        "low_confidence_below": 0.6,
        "since_start": {"seconds": 90.0, "texts": 3, "mean": 0.810727, "low_share": 0.333333, "labels": {"a": 2, "b": 1}},
        "windows": {
            "1m": {
                "seconds": 59.0,
                "texts": 2,
                "mean": 0.735148,
                "low_share": 0.5,
                "label_shares": {"a": 0.5, "b": 0.5},
                "label_means": {"a": 0.500001, "b": 0.970295},
            },
            "1h": {
                "seconds": 90.0,
                "texts": 3,
                "mean": 0.810727,
                "low_share": 0.333333,
                "label_shares": {"a": 0.666667, "b": 0.333333},
                "label_means": {"a": 0.730943, "b": 0.970295},
            },
            "24h": {
                "seconds": 90.0,
                "texts": 3,
                "mean": 0.810727,
                "low_share": 0.333333,
                "label_shares": {"a": 0.666667, "b": 0.333333},
                "label_means": {"a": 0.730943, "b": 0.970295},
            },
        },
    }
