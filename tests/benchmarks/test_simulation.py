"""The simulation of the queue, on pass times that can be reckoned by hand."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from batching import Priority
from benchmarks.simulation import (
    FIFO,
    PADDED,
    PADDING_FREE,
    STRICT_WINDOW,
    TERMS,
    Pass,
    Text,
    arrivals,
    capacity,
    look_ahead,
    measured,
    simulate,
    summarize,
)
from models import passes

ONE_WORKER = replace(FIFO, workers=1)


def ten_a_second(_: Sequence[int]) -> float:
    return 0.1


def by_tokens(lengths: Sequence[int]) -> float:
    return 0.001 * sum(lengths)


def latencies(texts: Sequence[Text]) -> list[float]:
    return [text.answered_at - text.queued_at for text in texts]


def costs(done: Sequence[Pass]) -> list[list[int]]:
    return [one.lengths for one in done]


def test_a_text_that_comes_alone_takes_as_long_as_its_pass() -> None:
    texts = [Text(10, 0.0), Text(20, 1.0), Text(30, 2.0)]
    simulate(texts, FIFO, by_tokens)
    assert latencies(texts) == pytest.approx([0.010, 0.020, 0.030])


def test_with_a_strict_window_it_waits_the_window_before() -> None:
    texts = [Text(10, 0.0), Text(20, 1.0)]
    simulate(texts, STRICT_WINDOW, by_tokens)
    assert latencies(texts) == pytest.approx([0.050, 0.060])


def test_what_comes_during_a_pass_leaves_together_when_it_ends() -> None:
    texts = [Text(1, 0.0), Text(2, 0.04), Text(3, 0.05)]
    done = simulate(texts, ONE_WORKER, ten_a_second)
    assert [(one.started, one.ended) for one in done] == [(0.0, 0.1), (0.1, 0.2)]
    assert costs(done) == [[1], [2, 3]]
    assert latencies(texts) == pytest.approx([0.1, 0.16, 0.15])


def test_as_many_passes_run_at_once_as_there_are_workers() -> None:
    done = simulate(arrivals(500, 400.0, seed=1), FIFO, ten_a_second)
    running = [sum(other.started <= one.started < other.ended for other in done) for one in done]
    assert max(running) == FIFO.workers


@pytest.mark.parametrize("load", [0.5, 1.5])
def test_every_text_is_answered_once_or_found_no_place(load: float) -> None:
    policy = replace(look_ahead(64, 4), max_queued=50)
    texts = arrivals(2000, load * capacity(by_tokens, policy), seed=1)
    passed = [text for one in simulate(texts, policy, by_tokens) for text in one.texts]
    assert len(passed) == len(set(passed))
    assert set(passed) == {text for text in texts if text.answered_at < math.inf}
    assert (len(passed) < len(texts)) == (load > 1)


def test_places_are_of_each_class() -> None:
    texts = [Text(1, 0.0)]
    texts += [Text(1, 0.01, priority) for priority in Priority for _ in range(3)]
    simulate(texts, replace(ONE_WORKER, max_queued=2), ten_a_second)
    assert [text.answered_at < math.inf for text in texts] == [True, True, True, False, True, True, False]


def test_the_same_seed_gives_the_same_run_and_another_one_other_moments() -> None:
    def run(seed: int) -> list[tuple[float, list[int]]]:
        return [(one.started, one.lengths) for one in simulate(arrivals(500, 200.0, seed), look_ahead(64, 4), by_tokens)]

    assert run(1) == run(1)
    moments = [[text.queued_at for text in arrivals(5, 200.0, seed)] for seed in (1, 2)]
    assert moments[0] != moments[1]


def test_without_passing_over_texts_leave_in_the_order_in_which_they_came() -> None:
    done = simulate(arrivals(2000, 1.2 * capacity(by_tokens), seed=1), FIFO, by_tokens)
    places = [text.place for one in done for text in one.texts]
    assert places == sorted(places)
    assert {text.passed_over for one in done for text in one.texts} == {0}


def test_texts_are_passed_over_as_often_as_the_policy_allows_and_no_more() -> None:
    texts = arrivals(5000, 1.5 * capacity(by_tokens), seed=1)
    simulate(texts, look_ahead(64, 3), by_tokens)
    assert max(text.passed_over for text in texts) == 3


def test_a_text_is_passed_over_when_a_younger_one_of_its_class_leaves_before_it() -> None:
    first, *others = [Text(50, 0.0), Text(1, 0.01), Text(50, 0.02), Text(1, 0.03), Text(7, 0.04, Priority.BULK)]
    policy = replace(look_ahead(64, 4), workers=1, max_items=2)
    done = simulate([first, *others], policy, ten_a_second)
    assert costs(done) == [[50], [7], [1, 1], [50]]
    assert [text.passed_over for text in others] == [0, 1, 0, 0]


def test_the_figures_of_the_second_half_are_these() -> None:
    # The second half comes from 1.0 to 1.6: that of 3 tokens, that of 4, which finds no place, and that of 5.
    texts = [Text(1, 0.0), Text(2, 0.1), Text(6, 1.0), Text(3, 1.0), Text(4, 1.0), Text(5, 1.6)]
    done = simulate(texts, replace(ONE_WORKER, max_queued=2), lambda _: 0.5)
    assert costs(done) == [[1], [2], [6, 3], [5]]
    summary = summarize([(texts, done)])
    assert summary.texts_per_second == pytest.approx(2 / 0.6)
    assert summary.refused == pytest.approx(1 / 3)
    assert summary.p50 == pytest.approx(0.5)
    assert summary.padded == (2 * 36 + 25) / (36 + 9 + 25)
    assert summary.computed == (32 * 32 + 32 * 32) / (36 + 9 + 25)  # a row of the least width each
    assert summary.batch == 1.5


def test_the_padding_free_passes_cost_what_the_engine_plans_with() -> None:
    lengths = [5, 9, 30, 33, 70, 128, 128]
    planned = [[lengths[index] for index in group] for group in passes.plan(lengths)]
    assert TERMS[PADDING_FREE](lengths) == pytest.approx([1.0, sum(map(passes._cost, planned))])


def test_the_measured_pass_times_grow_with_the_texts_and_padding_costs_the_padded_engine_alone() -> None:
    curves = measured()
    for seconds in curves.values():
        assert 0 < seconds([8]) < seconds([64]) < seconds([64, 64])
    mixed, alike = [8, 8, 8, 104], [32, 32, 32, 32]
    assert curves[PADDED](mixed) > 2 * curves[PADDED](alike)
    assert curves[PADDING_FREE](mixed) < 1.3 * curves[PADDING_FREE](alike)


def test_no_two_texts_come_at_the_same_moment_and_all_come_in_order() -> None:
    texts = arrivals(1000, 100.0, seed=1)
    assert all(before.queued_at < after.queued_at for before, after in pairwise(texts))
