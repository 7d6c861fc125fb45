"""`supportbot drift accept` of a saved state."""

from __future__ import annotations

import json
from pathlib import Path

from drift import Baseline, Monitor, State, Timeline
from tests.commands.drift.logs import LAYOUT, minutes, normal_baseline, run


def test_what_came_since_the_alarm_is_the_new_baseline_with_all_notes(tmp_path: Path) -> None:
    timeline = Timeline(Monitor(LAYOUT, normal_baseline()))
    for minute in minutes(400, 200):
        timeline.add(minute.number, minute.counts)
    timeline.close(minute.number + 1)
    assert timeline.monitor.standing()["input"][0] is State.DRIFT
    state, out = tmp_path / "state.json", tmp_path / "baseline.json"
    state.write_text(json.dumps(timeline.save()), encoding="utf-8")
    result = run("accept", state, "--note", "the new product", "--out", out)
    assert result.exit_code == 0, result.output
    found = Baseline.from_bytes(out.read_bytes())
    assert found.counts.tolist() == timeline.monitor.present.counts.tolist()
    assert found.notes == ("two thousand minutes", "the new product")
    assert 12 * 190 < found.texts < 12 * 200
    state.write_text(json.dumps({"timeline": timeline.save(), "next": {}, "waiting": []}), encoding="utf-8")
    assert run("accept", state, "--note", "the new product", "--out", out).exit_code == 0


def test_too_few_texts_and_what_is_no_state_are_refused(tmp_path: Path) -> None:
    state, out = tmp_path / "state.json", tmp_path / "baseline.json"
    few = Timeline(Monitor(LAYOUT))
    for minute in minutes(5):
        few.add(minute.number, minute.counts)
    assert run("accept", state, "--note", "x").exit_code == 2
    for content, reason in (
        (json.dumps(few.save()), "48 texts since the last alarm or baseline; a baseline needs 200"),
        ("{}", "not the state of drift detection"),
        ("[]", "not the state of drift detection"),
        ('{"present": 1}', "not a baseline"),
        ("no", "not the state of drift detection"),
    ):
        state.write_text(content, encoding="utf-8")
        result = run("accept", state, "--note", "x", "--out", out)
        assert (result.exit_code, reason in result.stderr) == (2, True), (content, result.stderr)
        assert not out.exists()
