"""`supportbot drift simulate`, and what it draws from a log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from commands.drift import simulation
from commands.drift.simulation import TooShortError, Traffic, simulate
from drift import Promise
from tests.commands.drift.logs import (
    DAY,
    LAYOUT,
    example,
    minutes,
    normal_baseline,
    run,
    without_blanks,
    write_baseline,
    write_log,
)

TEN_MINUTES = Promise(block_seconds=600)


def traffic(count: int, changed_from: int = 10**9, seconds: float = 600.0, seed: int = 0) -> Traffic:
    given = list(minutes(count, changed_from, texts=3, seed=seed))
    times = np.repeat([minute.number * 60.0 for minute in given], 3) + np.tile([1.0, 2.0, 3.0], len(given))
    return Traffic(LAYOUT, times, np.concatenate([minute.bins for minute in given]), seconds)


def test_each_hour_has_its_texts_and_halves_are_of_different_hours_but_of_the_same_hours_of_the_day() -> None:
    found = traffic(3 * DAY)
    assert (len(found.hours), found.blocks, found.strata) == (72, 6, 24)
    assert found.of_block(1, 0) == slice(180, 210)
    one, other = found.divide(np.random.default_rng(0))
    assert sorted(one + other) == list(range(72))
    assert {int(hour) % 24 for hour in found.hours[one]} == {int(hour) % 24 for hour in found.hours[other]} == set(range(24))
    both = found.baseline(one) + found.baseline(other)
    assert both.counts.sum(axis=0).tolist() == LAYOUT.count_bins(found.bins).tolist()
    assert found.baseline([5]).counts.sum(axis=1).nonzero()[0].tolist() == [5]
    assert traffic(DAY).strata == 1


def test_normal_traffic_raises_no_alarm_and_what_is_mixed_in_is_found_the_sooner_the_more_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(simulation, "DIVISIONS", 2)
    found, mix = traffic(3 * DAY), traffic(600, 0).bins
    mix = mix[mix[:, 0] == 3]
    alone = simulate(found, None, TEN_MINUTES, days=1, streams=8)
    assert list(alone) == ["input", "output"], "nobody has labelled anything"
    assert all(delays.alarms == 0 and len(delays.minutes) == 8 for delays in alone.values())
    some, more = (simulate(found, None, TEN_MINUTES, days=1, streams=8, mix=mix, share=share)["input"] for share in (0.04, 0.5))
    assert some.alarms == more.alarms == 8
    assert 30 <= more.minutes.mean() < some.minutes.mean()
    # Three texts a minute.
    assert np.allclose(more.texts, 3 * more.minutes)
    again = simulate(found, None, TEN_MINUTES, days=1, streams=8, mix=mix, share=0.04)["input"]
    assert again.minutes.tolist() == some.minutes.tolist()


def test_a_log_that_has_changed_since_its_baseline_alarms_with_nothing_mixed_in() -> None:
    changed = simulate(traffic(600, 0), normal_baseline(), TEN_MINUTES, days=1, streams=8)
    assert changed["input"].alarms == 8


def test_a_log_of_a_few_hours_cannot_be_divided() -> None:
    with pytest.raises(TooShortError, match="texts in 2 hours"):
        simulate(traffic(120), None, TEN_MINUTES, days=1, streams=8)


def test_the_example_of_the_page_is_what_the_command_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, shown = example("## Simulate")
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "predictions.jsonl", minutes(300, texts=3))
    write_log(tmp_path / "other-product.jsonl", minutes(300, 0, seed=5))
    write_baseline(tmp_path / "baseline.json")
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert without_blanks(result.stdout) == shown


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    log, baseline = write_log(tmp_path / "log", minutes(5)), write_baseline(tmp_path / "baseline.json")
    plain = tmp_path / "plain"
    plain.write_text('{"time":"2026-01-01T01:00:00.000Z","label":"billing","text_hash":"00"}\n', encoding="utf-8")
    for arguments, reason in (
        ((plain, "--baseline", baseline), "of 1 lines, none has bins"),
        ((log, "--baseline", baseline, "--mix", plain), "of 1 lines, none has bins"),
        ((log, "--baseline", baseline, "--mix", tmp_path / "none"), "none: No such file"),
    ):
        result = run("simulate", *arguments)
        assert result.exit_code == 2
        assert reason in result.stderr
