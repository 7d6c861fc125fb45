"""`supportbot tune`: the arithmetic without a clock, and one short run for real."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from commands.cli import app
from models.bundle import embedded_bundle
from models.classifier import Classifier
from models.making.tune import BUDGETS, COUNTS, Point, Rate, Workload, fewest_workers, knee, write_settings


def tune(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["tune", *map(str, arguments)])


@pytest.mark.build
def test_a_short_run_recommends_draws_and_writes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    data, env, plot = tmp_path / "data.txt", tmp_path / ".env", tmp_path / "cost.png"
    data.write_text("My payment failed twice\nApp keeps crashing on iOS since the last update\n", encoding="utf-8")
    env.write_text("# mine\nPORT=9000\n", encoding="utf-8")
    result = tune(embedded_bundle(), "--data", data, "--seconds", "1", "--write", env, "--plot", plot)
    assert result.exit_code == 0, result.stderr
    lines = env.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["# mine", "PORT=9000"]
    written = dict(line.split("=") for line in lines[2:])
    assert set(written) == {"BATCH_MAX_TOKENS", "WORKERS"}
    assert int(written["BATCH_MAX_TOKENS"]) in BUDGETS
    assert f"BATCH_MAX_TOKENS={written['BATCH_MAX_TOKENS']}\nWORKERS={written['WORKERS']}\n" in result.stdout
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_what_is_wrong_is_said_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments, reason in (
        (("--write", tmp_path / "none" / ".env"), "none: no such folder"),
        (("--write", tmp_path), "not a regular file"),
        (("--plot", tmp_path / "cost.txt"), "must end in .png"),
        (("--data", tmp_path / "none.csv"), "none.csv: No such file"),
    ):
        result = tune(*arguments)
        assert (result.exit_code, reason in result.stderr) == (2, True)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = tune("--plot", tmp_path / "cost.png")
    assert (result.exit_code, "needs matplotlib" in result.stderr) == (2, True)


def test_the_knee_is_the_smallest_budget_near_the_best() -> None:
    costs = {16: 90.0, 32: 75.0, 64: 62.0, 128: 63.0, 256: 60.0, 512: 70.0}  # microseconds a token
    assert knee([Point(budget, None, budget, 1, cost * budget / 1000, cost) for budget, cost in costs.items()]) == 64


def test_the_fewest_workers_near_the_best_and_never_more_threads() -> None:
    assert fewest_workers([Rate(1, 1, 100), Rate(2, 1, 190), Rate(4, 1, 195), Rate(1, 4, 300)]) == 2
    assert fewest_workers([Rate(1, 1, 100), Rate(2, 1, 104)]) == 1


def test_batches_have_the_tokens_and_texts_that_were_asked_for(classifier: Classifier) -> None:
    typical = [classifier.encode("My payment failed twice")]
    for workload in (Workload.of_tickets(typical, 256), Workload.of_tickets(typical, 16), Workload(typical, [3, 9])):
        for tokens in BUDGETS:
            lengths = [len(encoding) for encoding in workload.filled(tokens)]
            assert len(lengths) == 1 or tokens - workload.longest < sum(lengths) <= tokens
            for count in COUNTS:
                if batch := workload.of_count(tokens, count):
                    assert (len(batch), sum(map(len, batch))) == (count, tokens)
                    assert 1 <= min(map(len, batch)) <= max(map(len, batch)) <= workload.longest
    assert Workload(typical, [3, 9]).of_count(1024, 2) is None
    assert Workload(typical, [3, 9]).of_count(16, 2) is not None


def test_a_second_thread_in_a_pass_changes_no_answer(classifier: Classifier) -> None:
    threaded = Classifier.open(embedded_bundle(), threads=2)
    encodings = [classifier.encode(golden.text) for golden in classifier.manifest.goldens]
    np.testing.assert_allclose(threaded.logits(encodings), classifier.logits(encodings), atol=classifier.manifest.golden_tolerance)


def test_settings_are_replaced_where_they_are_and_the_rest_stays(tmp_path: Path) -> None:
    file, link = tmp_path / "real.env", tmp_path / ".env"
    file.write_bytes(b"A=1\r\n#WORKERS=7\nexport workers = 3\n\nB='x\xe2\x80\xa8y'\nWORKERS=4\nWORKERS_OF_OTHERS=5")
    file.chmod(0o640)
    link.symlink_to(file)
    write_settings(link, {"WORKERS": "2", "BATCH_MAX_TOKENS": "128"})
    expected = b"A=1\r\n#WORKERS=7\nWORKERS=2\n\nB='x\xe2\x80\xa8y'\nWORKERS_OF_OTHERS=5\nBATCH_MAX_TOKENS=128\n"
    assert file.read_bytes() == expected
    assert link.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o640
    assert {entry.name for entry in tmp_path.iterdir()} == {"real.env", ".env"}
    new = tmp_path / "new.env"
    write_settings(new, {"WORKERS": "2"})
    assert new.read_bytes() == b"WORKERS=2\n"
