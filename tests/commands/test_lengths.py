"""`supportbot lengths` on files, with the embedded model."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from commands.lengths import lengths
from loadtest.corpus import tickets


def run(*arguments: str | Path) -> Result:
    app = typer.Typer()
    app.command()(lengths)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "100"})


def record(tokens: int, truncated: bool = False) -> str:
    return json.dumps({"time": "2026-11-25T10:00:00Z", "label": "billing", "tokens": tokens, "truncated": truncated}) + "\n"


def test_the_command_measures_with_the_settings_of_the_server_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "predictions.jsonl"
    log.write_text(record(20) * 9, encoding="utf-8")
    assert "up to 32 texts or 512" in " ".join(run(log, "--seconds", "0").stdout.split())
    (tmp_path / ".env").write_text("BATCH_MAX_TEXTS=4\n", encoding="utf-8")
    assert "up to 4 texts or 512" in " ".join(run(log, "--seconds", "0").stdout.split())
    monkeypatch.setenv("BUNDLE", str(tmp_path))
    assert "manifest.json" in run(log, "--seconds", "0").stderr
    monkeypatch.setenv("WORKERS", "many")
    wrong = run(log, "--seconds", "0")
    assert (wrong.exit_code, "WORKERS=many" in wrong.stderr) == (2, True)


def test_the_command_shows_lengths_costs_and_one_recommendation(tmp_path: Path) -> None:
    source, target = tmp_path / "tickets.jsonl", tmp_path / "figures.json"
    rows = [{"text": text} for text in islice(tickets(1), 40)] + [{"text": "why " * 600}, {"text": " "}, {"txt": ""}]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = run(source, "--seconds", "1", "--json", target)
    assert result.exit_code == 0, result.stderr
    assert "41 texts, tokens: mean" in result.stdout
    assert "reads 512: 2.4 % of the texts are cut" in result.stdout
    assert "513 - 1024" in result.stdout
    assert f"{source}:43: no 'text'" in result.stderr
    assert "blank texts, left out: 1" in result.stderr
    figures = json.loads(target.read_bytes())
    assert figures["recommendation"].startswith("keep 512")
    assert figures["recommendation"] in result.stdout
    assert (figures["limit"], figures["left_out"], figures["bad_rows"], figures["lengths"]["longest"]) == (512, 1, 1, 602)
    assert [limit["limit"] for limit in figures["limits"]] == [32, 64, 128, 256, 512]
    assert all(limit["cost"]["served"] > 0 for limit in figures["limits"])


def test_the_command_reads_a_prediction_log_and_says_what_it_cannot_know(tmp_path: Path) -> None:
    log = tmp_path / "predictions.jsonl"
    cached = '{"tokens": null, "truncated": false}\n'
    log.write_text(cached * 30 + record(20) * 9 + record(512, truncated=True), encoding="utf-8")
    result = run(log, "--seconds", "0")
    assert result.exit_code == 0, result.stderr
    assert "lengths from a prediction log: longer texts count as its limit" in result.stderr
    assert "answers from the cache, left out: 30" in result.stderr
    assert "10.0 % of the texts were cut at 512 tokens" in result.stdout
    assert "keep 512" in run(log, "--seconds", "0", "--max-truncated", "10").stdout


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text("id,body\n", encoding="utf-8")
    for arguments, status, reason in (
        ((tmp_path / "none.csv",), 2, "none.csv: No such file"),
        ((empty,), 2, "no column 'text'"),
        ((empty, "--text-column", "body"), 2, "empty.csv: no texts"),
        ((empty, "--bundle", tmp_path), 1, "manifest.json"),
        ((empty, "--json", tmp_path / "none" / "a.json"), 2, "none: no such folder"),
    ):
        result = run(*arguments, "--seconds", "0")
        assert (result.exit_code, reason in result.stderr) == (status, True), result.stderr
