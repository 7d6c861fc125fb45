"""`supportbot drift merge` of baselines and states."""

from __future__ import annotations

import json
from pathlib import Path

from drift import Baseline, Channel, Layout, Monitor, Timeline, learn
from tests.commands.drift.logs import LAYOUT, minutes, normal_baseline, run, write_baseline


def test_counts_of_baselines_and_of_states_add_up(tmp_path: Path) -> None:
    learning = Timeline(Monitor(LAYOUT))
    for minute in minutes(50):
        learning.add(minute.number, minute.counts)
    learning.close(2**31)
    watching = Timeline(Monitor(LAYOUT, normal_baseline(100)))
    files = [tmp_path / name for name in ("baseline.json", "learning.json", "watching.json")]
    write_baseline(files[0], normal_baseline(300))
    for path, timeline in zip(files[1:], (learning, watching), strict=True):
        path.write_text(json.dumps(timeline.save()), encoding="utf-8")
    result = run("merge", *files, "--out", tmp_path / "all.json")
    assert result.exit_code == 0, result.output
    assert "5,400 texts of 3 files" in result.stderr
    found = Baseline.from_bytes((tmp_path / "all.json").read_bytes())
    assert found.texts == (300 + 50 + 100) * 12
    assert (
        found.counts.tolist()
        == (normal_baseline(300).counts + learning.monitor.present.counts + normal_baseline(100).counts).tolist()
    )


def test_what_does_not_belong_together_is_refused_and_nothing_written(tmp_path: Path) -> None:
    one, out = write_baseline(tmp_path / "one.json"), tmp_path / "out.json"
    other = tmp_path / "other.json"
    other.write_bytes(learn(Layout([Channel("length", "input", edges=(1.0,))]), []).to_bytes())
    no = tmp_path / "no.json"
    no.write_text('{"monitor": {"present": 1, "baseline": null}}', encoding="utf-8")
    for files, reason in (
        ((one, other), "other channels, bins or strata"),
        ((one, no), "no.json: neither a baseline nor a server's state"),
        ((one, tmp_path / "none"), "none: No such file"),
        ((one, out), "is read and would be written"),
    ):
        if files[1] == out:
            write_baseline(out)
        result = run("merge", *files, "--out", out)
        assert result.exit_code == 2, (files, result.output)
        assert reason in result.stderr
        assert not out.exists() or files[1] == out
