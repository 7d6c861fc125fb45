from dataclasses import FrozenInstanceError, replace

import pytest

from batching import BatchPolicy, Priority


def test_defaults_are_those_of_the_design() -> None:
    policy = BatchPolicy()
    assert policy.window == 0.040
    assert policy.max_items == 32
    assert policy.idle_flush
    assert policy.interactive_weight == 4.0
    assert policy.look_ahead >= policy.max_items


@pytest.mark.parametrize("field", ["max_items", "max_cost", "max_queued", "max_queued_cost", "workers"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_limit_below_one_is_refused_by_name(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be 1 or more, not {value}$"):
        replace(BatchPolicy(), **{field: value})  # type: ignore[arg-type]
    assert getattr(replace(BatchPolicy(), **{field: 1}), field) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["look_ahead", "max_passed_over", "max_extra_passes"])
def test_a_number_below_zero_is_refused_by_name(field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field} must be 0 or more, not -1$"):
        replace(BatchPolicy(), **{field: -1})  # type: ignore[arg-type]
    assert getattr(replace(BatchPolicy(), **{field: 0}), field) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("window", [-0.001, float("nan"), float("inf")])
def test_a_window_that_is_no_duration_is_refused(window: float) -> None:
    with pytest.raises(ValueError, match=r"^window must be 0 or more seconds, not "):
        BatchPolicy(window=window)


def test_a_window_may_be_nothing() -> None:
    assert BatchPolicy(window=0.0).window == 0.0


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_would_starve_a_class_is_refused(weight: float) -> None:
    with pytest.raises(ValueError, match=r"^interactive_weight must be over 0, not "):
        BatchPolicy(interactive_weight=weight)


def test_a_weight_may_favour_either_class() -> None:
    assert BatchPolicy(interactive_weight=0.5).interactive_weight == 0.5


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan")])
def test_a_timeout_that_no_pass_could_meet_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match=r"^pass_timeout must be over 0 seconds, not "):
        BatchPolicy(pass_timeout=timeout)


def test_a_pass_may_be_waited_for_without_end() -> None:
    assert BatchPolicy(pass_timeout=float("inf")).pass_timeout == float("inf")


def test_it_is_frozen() -> None:
    policy = BatchPolicy()
    with pytest.raises(FrozenInstanceError):
        policy.max_items = 1  # type: ignore[misc]


def test_the_classes_are_written_as_words() -> None:
    assert [str(priority) for priority in Priority] == ["interactive", "bulk"]
    assert Priority("bulk") is Priority.BULK
