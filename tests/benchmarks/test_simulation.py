"""What the simulation of policies makes of a run; the simulation itself is tested in tests/batching."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest

from batching.simulation import Item, simulate
from benchmarks.simulation import (
    DEFAULT,
    FIFO,
    PADDED,
    PADDING_FREE,
    TERMS,
    TEXTS,
    arrivals,
    capacity,
    look_ahead,
    measured,
    summarize,
)
from models import passes
from models.making.tune import ticket_lengths

ONE_WORKER = replace(FIFO, workers=1)


def by_tokens(lengths: Sequence[int]) -> float:
    return 0.001 * sum(lengths)


def test_the_same_seed_gives_the_same_texts_and_another_one_other_moments() -> None:
    same, again, other = ([(text.cost, text.arrives_at) for text in arrivals(50, 200.0, seed)] for seed in (1, 1, 2))
    assert same == again
    assert same != other


def test_the_capacity_is_what_all_workers_do_together() -> None:
    mean = sum(ticket_lengths(TEXTS // 4)) / (TEXTS // 4)
    assert capacity(by_tokens) == pytest.approx(FIFO.workers / (0.001 * mean), rel=0.01)
    assert capacity(by_tokens, look_ahead(*DEFAULT)) == pytest.approx(capacity(by_tokens), rel=0.01)


def test_the_figures_of_the_second_half_are_these() -> None:
    # The second half comes from 1.0 to 1.6: that of 3 tokens, that of 4, which finds no place, and that of 5.
    texts = [Item(1, 0.0), Item(2, 0.1), Item(6, 1.0), Item(3, 1.0), Item(4, 1.0), Item(5, 1.6)]
    done = simulate(texts, replace(ONE_WORKER, max_queued=2), lambda _: 0.5)
    assert [one.costs for one in done] == [[1], [2], [6, 3], [5]]
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
    # But each in the same thread as the one before, without the way from the event loop and back.
    costs = [passes._cost(group) - passes.PASS_COST + passes.RUN_COST for group in planned]
    assert TERMS[PADDING_FREE](lengths) == pytest.approx([1.0, sum(costs)])


def test_the_measured_pass_times_grow_with_the_texts_and_padding_costs_the_padded_engine_alone() -> None:
    curves = measured()
    for seconds in curves.values():
        assert 0 < seconds([8]) < seconds([64]) < seconds([64, 64])
    mixed, alike = [8, 8, 8, 104], [32, 32, 32, 32]
    assert curves[PADDED](mixed) > 2 * curves[PADDED](alike)
    assert curves[PADDING_FREE](mixed) < 1.3 * curves[PADDING_FREE](alike)


def test_no_two_texts_come_at_the_same_moment_and_all_come_in_order() -> None:
    texts = arrivals(1000, 100.0, seed=1)
    assert all(before.arrives_at < after.arrives_at for before, after in pairwise(texts))
