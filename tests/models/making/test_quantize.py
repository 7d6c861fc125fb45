"""INT8 recipes on made-up products; what they do to a model's logits is tried in test_encoder. Needs no onnx."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.making import quantize
from models.making.architecture import Activation, Dense
from models.making.quantize import (
    CLIPS,
    LEAST,
    LEVELS,
    LOW_LEVELS,
    LOW_ZERO_POINT,
    WEIGHT_LEVELS,
    ZERO_POINT,
    ByRow,
    Fixed,
    Recipe,
    by_row,
    fixed,
    round_weights,
)

Floats = npt.NDArray[np.float32]


def normal(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def correlated(seed: int, rows: int, inputs: int) -> Floats:
    """Rows that vary along a few directions and a little along all others, as hidden states do."""
    few = max(1, inputs // 8)
    return normal(seed, rows, few) @ normal(seed + 1, few, inputs) + np.float32(0.1) * normal(seed + 2, rows, inputs)


def squared_error(recipe: Recipe, dense: Dense, rows: Floats) -> float:
    """Of the product as the INT8 graph computes it, with the input quantized too."""
    assert isinstance(recipe.scaling, Fixed)
    product = quantize._through(rows, recipe.scaling) @ (recipe.weight * recipe.scale)
    return float(np.square(product - rows @ dense.weight).sum())


def weight_error(weight: Floats, stand_in: npt.NDArray[Any], rows: Floats) -> float:
    return float(np.square(rows @ weight - rows @ stand_in).sum())


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 9), st.sampled_from([63, 127]))
def test_rounded_weights_stay_within_their_levels(seed: int, inputs: int, outputs: int, levels: int) -> None:
    weight, sample = normal(seed, inputs, outputs), correlated(seed, 64, inputs)
    rounded, scale = round_weights(weight, sample, levels)
    assert rounded.dtype == np.int8
    assert rounded.shape == weight.shape
    assert scale.dtype == np.float32
    assert scale.shape == (outputs,)
    assert np.abs(rounded.astype(int)).max() <= levels
    assert (scale > 0).all()


@pytest.mark.parametrize("inputs", [32, 96, 300])  # the last is more than two blocks
@pytest.mark.parametrize("levels", WEIGHT_LEVELS.values())
def test_passing_errors_on_beats_plain_rounding_on_correlated_inputs(inputs: int, levels: int) -> None:
    weight, sample = normal(1, inputs, 24), correlated(2, 1024, inputs)
    rounded, scale = round_weights(weight, sample, levels)
    plain = np.rint(weight / scale) * scale
    assert weight_error(weight, rounded * scale, sample) < 0.5 * weight_error(weight, plain, sample)


def test_it_holds_on_rows_that_were_not_seen() -> None:
    weight, rows = normal(1, 64, 24), correlated(2, 2048, 64)
    rounded, scale = round_weights(weight, rows[:1024], 127)
    plain = np.rint(weight / scale) * scale
    assert weight_error(weight, rounded * scale, rows[1024:]) < 0.5 * weight_error(weight, plain, rows[1024:])


def test_with_nothing_to_correlate_weights_are_rounded_to_the_nearest() -> None:
    weight = normal(1, 20, 5)
    sample = np.diag(np.arange(1, 21)).astype(np.float32)
    rounded, scale = round_weights(weight, sample, 127)
    assert np.array_equal(rounded, np.rint(weight / scale))


@pytest.mark.parametrize("sample", [np.zeros((8, 20), np.float32), normal(3, 8, 20) * (np.arange(20) < 10)])
def test_inputs_that_are_always_zero_do_no_harm(sample: Floats) -> None:
    weight = normal(1, 20, 5)
    weight[:, 2] = 0
    rounded, scale = round_weights(weight, sample.astype(np.float32), 127)
    assert np.isfinite(scale).all()
    assert not rounded[:, 2].any()
    assert np.abs(rounded * scale - weight).max() < 0.5


def test_rounding_does_not_change_what_it_is_given() -> None:
    weight, sample = normal(1, 20, 5), correlated(2, 64, 20)
    before = weight.copy(), sample.copy()
    fixed(Dense(weight, np.zeros(5, np.float32)), sample)
    assert np.array_equal(weight, before[0])
    assert np.array_equal(sample, before[1])


@pytest.mark.parametrize("reduce_range", [False, True])
def test_a_reduced_range_keeps_weights_to_seven_bits(reduce_range: bool) -> None:
    dense, sample = Dense(normal(1, 48, 16), normal(2, 16)), correlated(3, 256, 48)
    for recipe in (
        fixed(dense, sample, reduce_range=reduce_range),
        by_row(dense, sample, None, reduce_range=reduce_range),
    ):
        largest = np.abs(recipe.weight.astype(int)).max()
        assert largest <= 63 if reduce_range else 63 < largest <= 127
        # 255 times such a weight twice is what x86 without VNNI adds up in 16 bits.
        assert not reduce_range or 2 * 255 * largest <= 2**15 - 1


def test_a_channel_of_outliers_is_smoothed_and_that_beats_no_smoothing() -> None:
    dense, sample = Dense(normal(1, 48, 16), normal(2, 16)), normal(3, 600, 48)
    sample[:, 7] *= 60
    recipe = fixed(dense, sample)
    assert isinstance(recipe.scaling, Fixed)
    assert recipe.scaling.smoothing is not None
    assert recipe.scaling.smoothing.shape == (48,)
    assert recipe.scaling.smoothing.argmin() == 7
    rough = min(
        squared_error(Recipe(*round_weights(weight, sample, 127), scaling), dense, sample)
        for scaling, weight in (quantize._scaling(dense.weight, sample, 0.0, clip) for clip in CLIPS)
    )
    assert squared_error(recipe, dense, sample) < 0.25 * rough


def test_channels_that_are_alike_lose_little() -> None:
    dense, sample = Dense(normal(1, 48, 16), normal(2, 16)), normal(3, 600, 48)
    assert squared_error(fixed(dense, sample), dense, sample) < 1e-3 * float(np.square(sample @ dense.weight).sum())


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.floats(-20, 20))
def test_a_fixed_scale_has_a_zero_point_of_8_bits_where_zero_is_exact(seed: int, shift: float) -> None:
    dense, sample = Dense(normal(seed, 12, 4), normal(seed, 4)), normal(seed + 1, 64, 12) + np.float32(shift)
    scaling = fixed(dense, sample).scaling
    assert isinstance(scaling, Fixed)
    assert 0 <= scaling.zero_point <= 255
    assert scaling.scale > 0
    assert not quantize._through(np.zeros_like(sample), scaling).any()


@pytest.mark.parametrize(("least", "inputs"), [(None, 12), (LEAST["relu"], 12), (LEAST["gelu"], 200)])
def test_a_recipe_by_row_has_its_least_value_and_no_smoothing(least: float | None, inputs: int) -> None:
    dense, sample = Dense(normal(1, inputs, 8), normal(2, 8)), np.abs(correlated(3, 256, inputs))
    recipe = by_row(dense, sample, least)
    assert recipe.scaling == ByRow(least)
    assert weight_error(dense.weight, recipe.weight * recipe.scale, sample) < 1e-3 * float(np.square(sample @ dense.weight).sum())


def gelu(value: float) -> float:
    return value * (1 + math.erf(value / math.sqrt(2))) / 2


def gelu_tanh(value: float) -> float:
    return value * (1 + math.tanh(math.sqrt(2 / math.pi) * (value + 0.044715 * value**3))) / 2


@pytest.mark.parametrize(("name", "function"), [("gelu", gelu), ("gelu_tanh", gelu_tanh), ("relu", lambda value: max(0.0, value))])
def test_the_recorded_least_value_of_an_activation_is_its_least(name: Activation, function: Callable[[float], float]) -> None:
    least = -min(function(value) for value in np.linspace(-6, 6, 120_001).tolist())
    assert least <= LEAST[name] <= least + 1e-3


def test_both_ways_of_scaling_rows_use_8_bits_and_no_more() -> None:
    assert ZERO_POINT + LEVELS == LOW_ZERO_POINT + LOW_LEVELS == 255
    assert ZERO_POINT - LEVELS >= 0
