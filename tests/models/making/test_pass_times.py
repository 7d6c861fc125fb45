"""Pass times: the terms that are fitted to them."""

from __future__ import annotations

import random

import pytest

from models.making.pass_times import SERVED_TERMS, draw_batch, fit, formula

LENGTHS = [random.Random(1).randint(5, 60) for _ in range(500)]


def test_a_fit_finds_the_coefficients_despite_disturbed_passes() -> None:
    generator, terms = random.Random(1), SERVED_TERMS["packed"]
    batches = [[LENGTHS[index] for index in draw_batch(generator, LENGTHS, 32, 512)] for _ in range(200)]
    true = formula(terms, (0.001, 0.00006))
    seconds = [true(batch) * (3.0 if index % 10 == 0 else 1.0) for index, batch in enumerate(batches)]
    coefficients, errors = fit([terms(batch) for batch in batches], seconds)
    assert coefficients == pytest.approx([0.001, 0.00006], rel=0.02)
    assert sorted(errors)[100] < 0.02


def test_drawn_batches_keep_to_the_limits_and_are_of_all_sizes() -> None:
    generator = random.Random(1)
    batches = [[LENGTHS[index] for index in draw_batch(generator, LENGTHS, 8, 100)] for _ in range(300)]
    assert {len(batch) for batch in batches} >= {1, 2, 4}
    assert all(len(batch) == 1 or sum(batch) <= 100 for batch in batches)
    assert max(map(len, batches)) <= 8
