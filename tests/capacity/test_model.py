"""The model of a machine, on costs that are known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from batching import BatchPolicy
from capacity.load import Costs, Step
from capacity.model import calibrated
from capacity.planning import machines_for, sizes
from tests.capacity.machine import FULL, LENGTHS, MACHINE, MODEL, POLICY, by_tokens, step_of


def light_and_full(rest: float = 0.002) -> tuple[list[Step], list[Step]]:
    return [step_of(30.0, 10.0, rest, seed) for seed in (1, 2, 3)], [step_of(FULL, 5.0, rest, seed) for seed in (4, 5, 6)]


def test_the_model_finds_the_costs_that_steps_were_made_of() -> None:
    model = calibrated(by_tokens, POLICY, LENGTHS, 2, *light_and_full())
    found = model.machine
    assert found.cores == 2
    assert found.slowdown == pytest.approx(MACHINE.slowdown, rel=0.02)
    assert found.loop_item == pytest.approx(MACHINE.loop_item, rel=0.05)
    assert found.loop_pass == pytest.approx(MACHINE.loop_pass, rel=0.05)
    assert found.client_item == pytest.approx(MACHINE.client_item, rel=0.05)
    assert found.pass_wait == pytest.approx(MACHINE.pass_wait, rel=0.1)
    assert (model.p50_rest, model.p99_rest) == pytest.approx((0.002, 0.002), rel=0.15)


def test_it_predicts_steps_that_it_has_not_seen() -> None:
    model = calibrated(by_tokens, POLICY, LENGTHS, 2, *light_and_full())
    for rate in (100.0, 250.0, 400.0):
        step = step_of(rate, 10.0, rest=0.002, seed=7)
        found = model.replay(step)
        assert found.p50 == pytest.approx(step.p50, rel=0.05)
        assert found.p99 == pytest.approx(step.p99, rel=0.05)


def test_a_round_that_was_disturbed_counts_for_nothing() -> None:
    light, full = light_and_full()
    light[1], full[1] = step_of(30.0, 10.0, rest=0.5), step_of(FULL, 5.0, rest=0.5)
    model = calibrated(by_tokens, POLICY, LENGTHS, 2, light, full)
    assert model.p50_rest == pytest.approx(0.002, rel=0.15)
    assert model.machine.slowdown == pytest.approx(MACHINE.slowdown, rel=0.02)


def test_of_passes_that_are_all_alike_the_loop_has_one_cost() -> None:
    one_by_one = BatchPolicy(max_items=1, max_cost=200, workers=2)
    light, full = light_and_full()
    alike = [[replace(step, costs=Costs(0.0012, 0.0, 0.0001, 1.0, 0.02, 0.0)) for step in steps] for steps in (light, full)]
    machine = calibrated(by_tokens, one_by_one, LENGTHS, 2, *alike).machine
    assert 0.0006 <= machine.loop_item <= 0.0012
    assert machine.loop_pass == 0.0


def test_more_cores_bring_more_until_the_event_loop_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("capacity.planning.CORES", (1, 4, 32))
    one, two, four, most = sizes(MODEL, 0.25, 900.0, cores=2)
    assert [one.cores, two.cores, four.cores, most.cores] == [1, 2, 4, 32]
    assert None not in (one.rate, two.rate, four.rate, most.rate)
    assert (two.rate or 0) > 1.5 * (one.rate or 0)
    assert one.loop < two.loop < four.loop
    assert (most.rate or 0) < 1 / MACHINE.loop_item
    assert most.loop > 0.9


def test_the_client_counts_here_and_not_on_machines_to_buy() -> None:
    here, bought = MODEL.highest_rate(0.25, 300.0), MODEL.with_cores(2).highest_rate(0.25, 300.0)
    assert here is not None
    assert bought is not None
    assert bought > here


def test_a_bound_below_a_single_pass_has_no_rate() -> None:
    assert MODEL.highest_rate(0.0005, 300.0) is None


def test_machines_are_counted_in_whole_ones_and_the_last_is_not_forgotten() -> None:
    assert [machines_for(load, 500.0) for load in (1, 500, 501, 3000)] == [1, 1, 2, 6]
