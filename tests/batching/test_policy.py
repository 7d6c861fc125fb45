from dataclasses import replace

import pytest

from batching import BatchPolicy


def test_defaults_are_those_of_the_design() -> None:
    assert BatchPolicy().window == 0.040
    assert BatchPolicy().max_items == 32
    assert BatchPolicy().idle_flush


@pytest.mark.parametrize("field", ["max_items", "max_cost", "max_queued", "workers"])
def test_a_limit_below_one_is_refused_by_name(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be 1 or more, not 0"):
        replace(BatchPolicy(), **{field: 0})  # type: ignore[arg-type]


@pytest.mark.parametrize("window", [-0.001, float("nan"), float("inf")])
def test_a_window_that_is_no_duration_is_refused(window: float) -> None:
    with pytest.raises(ValueError, match="window must be 0 or more seconds"):
        BatchPolicy(window=window)
