"""The command line, run in this process; the real embedded model."""

from __future__ import annotations

import csv
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from commands.cli import app
from models.bundle import TOKENIZER, embedded_bundle
from tests.server.conftest import SUPPORTBOT

LABELLED = (
    '{"text": "My payment failed twice", "label": "billing"}\n'
    '{"text": "App keeps crashing on iOS", "label": "technical"}\n'
    '{"text": "Question about my plan", "label": "technical"}\n'
)


def run(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)


def records(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("command", ["serve", "classify", "train", "build", "verify", "tune", "lengths"])
def test_every_command_explains_itself(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert len(result.stdout) > 500


def test_texts_as_arguments() -> None:
    result = run("classify", "payment failed", "app crashed")
    assert result.exit_code == 0
    first, second = records(result.stdout)
    assert (first["line"], first["text"], first["label"]) == (1, "payment failed", "billing")
    assert second["label"] == "technical"
    assert 0 < second["confidence"] <= 1


def test_a_csv_file_to_a_csv_file_with_scores(tmp_path: Path) -> None:
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text('id,body\n1,"payment\nfailed"\n2,app crashed\n', encoding="utf-8")
    result = run(
        "classify", "--file", source, "--text-column", "body", "--format", "csv", "--scores", "--no-text", "--output", target
    )
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    rows = list(csv.DictReader(io.StringIO(target.read_text(encoding="utf-8"))))
    assert [row["label"] for row in rows] == ["billing", "technical"]
    assert "text" not in rows[0]
    assert sum(float(rows[0][f"score_{label}"]) for label in ("billing", "general", "technical")) == pytest.approx(1, abs=1e-4)
    assert {file.name for file in tmp_path.iterdir()} == {"in.csv", "out.csv"}


def test_a_jsonl_file_with_bad_rows_loses_none_and_says_so(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "payment failed"}\n{"text": " "}\n{\n{"text": "app crashed"}\n', encoding="utf-8")
    result = run("classify", "--file", source)
    assert result.exit_code == 1
    rows = records(result.stdout)
    assert [row["line"] for row in rows] == [1, 2, 3, 4]
    assert rows[1]["error"] == "'text' is blank"
    assert rows[2]["error"].startswith("not JSON")
    assert "2 rows could not be classified" in result.stderr


def test_a_text_over_the_limit_says_that_it_was_cut() -> None:
    (row,) = records(run("classify", "why " * 600).stdout)
    assert row["truncated"] is True


def test_html_is_stripped_when_asked_and_the_rows_say_so() -> None:
    html = "<html><body><p>the app crashes</p></body></html>"
    stripped, plain = records(run("classify", html, "hello", "--strip", "html").stdout)
    (alone,) = records(run("classify", "the app crashes").stdout)
    assert (stripped["stripped"], stripped["confidence"], stripped["text"]) == (True, alone["confidence"], html)
    assert "stripped" not in plain
    header, row = run("classify", html, "--strip", "html", "--format", "csv", "--no-text").stdout.splitlines()
    assert header == "source,line,label,confidence,truncated,stripped,error"
    assert row.endswith(",,True,")
    (as_it_comes,) = records(run("classify", html).stdout)
    assert "stripped" not in as_it_comes


def test_wrong_usage_is_status_2_with_a_reason(tmp_path: Path) -> None:
    missing = run("classify", "--file", tmp_path / "none.csv")
    assert (missing.exit_code, "none.csv: No such file" in missing.stderr) == (2, True)
    both = run("classify", "text", "--file", tmp_path / "none.csv")
    assert (both.exit_code, "not both" in both.stderr) == (2, True)


def test_a_damaged_bundle_is_refused(bundle_copy: Path) -> None:
    (bundle_copy / TOKENIZER).write_bytes(b"{}")
    for arguments in (("classify", "text", "--bundle", bundle_copy), ("verify", bundle_copy)):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "tokenizer.json" in result.stderr


def test_verify_measures_and_compares(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(LABELLED, encoding="utf-8")
    result = run("verify", embedded_bundle(), "--data", data, "--reference", embedded_bundle(), "--compositions", "9", "--json")
    assert result.exit_code == 0, result.stderr
    measured = json.loads(result.stdout)["sets"][str(data)]
    assert measured["quality"]["accuracy"] == pytest.approx(2 / 3)
    assert measured["quality"]["confusion"] == [[1, 0, 0], [0, 0, 0], [0, 1, 1]]
    assert measured["agreement"]["label_match"] == 1.0
    table = run("verify", embedded_bundle(), "--data", data, "--compositions", "9")
    assert "accuracy 0.6667" in table.stdout


def test_verify_fails_below_a_bound(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(LABELLED, encoding="utf-8")
    result = run("verify", embedded_bundle(), "--data", data, "--min-accuracy", "0.9", "--compositions", "9")
    assert result.exit_code == 1
    assert "is below 0.9" in result.stderr


def test_verify_names_labels_that_the_model_does_not_have(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "a", "label": "sales"}\n', encoding="utf-8")
    result = run("verify", embedded_bundle(), "--data", data)
    assert result.exit_code == 2
    assert "['sales']" in result.stderr


def test_train_names_bad_rows_before_it_needs_torch(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(LABELLED + "{\n", encoding="utf-8")
    result = run("train", "--data", data, "--out", tmp_path / "checkpoint")
    assert result.exit_code == 2
    assert f"{data}:4: not JSON" in result.stderr


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--augment", "emails"], "'emails' is no kind of augmentation; there are email, html"),
        (["--augment", "email@much"], "'email@much': 'much' is not a weight"),
        (["--augment", "email@0"], "email@0: the weight must be over 0"),
        (["--augment", "email", "--augment-pieces", "none.toml"], "none.toml: cannot be read as TOML"),
        (["--augment-pieces", "none.toml"], "--augment-pieces needs --augment"),
    ],
)
def test_train_refuses_augmentation_that_cannot_be(tmp_path: Path, options: list[str], reason: str) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text(LABELLED * 2, encoding="utf-8")
    result = run("train", "--data", data, "--dev", data, "--out", tmp_path / "checkpoint", *options)
    assert result.exit_code == 2
    assert reason in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == [data]


def test_no_command_prints_the_help() -> None:
    assert "classify" in run().output


def test_output_to_a_link_keeps_the_link_and_a_device_stays_a_device(tmp_path: Path) -> None:
    target, link = tmp_path / "target.jsonl", tmp_path / "link.jsonl"
    target.write_text("old")
    link.symlink_to(target)
    assert run("classify", "payment failed", "--output", link).exit_code == 0
    assert link.is_symlink()
    assert records(target.read_text())[0]["label"] == "billing"
    assert run("classify", "payment failed", "--output", "/dev/null").exit_code == 0
    assert Path("/dev/null").is_char_device()
    assert {file.name for file in tmp_path.iterdir()} == {"target.jsonl", "link.jsonl"}


def test_output_to_a_missing_folder_names_it(tmp_path: Path) -> None:
    result = run("classify", "a", "--output", tmp_path / "none" / "out.jsonl")
    assert result.exit_code == 2
    assert "none: no such folder" in result.stderr


def shell(command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["/bin/bash", "-c", command], capture_output=True, check=False, timeout=60)


def test_a_closed_pipe_a_full_disk_and_closed_streams_end_without_a_traceback(tmp_path: Path) -> None:
    source = tmp_path / "long.txt"
    source.write_text("payment failed\n" * 2000)
    for command, expected in (
        (f"{SUPPORTBOT} classify --file {source} | head -1 >/dev/null", b""),
        (f"{SUPPORTBOT} classify hello >/dev/full", b"No space left on device"),
        (f"{SUPPORTBOT} classify hello >&-", b"standard output is closed"),
        (f"{SUPPORTBOT} classify <&-", b"standard input is closed"),
    ):
        done = shell(command)
        assert b"Traceback" not in done.stderr, done.stderr
        assert expected in done.stderr


def test_standard_input_and_arguments_in_any_bytes() -> None:
    piped = shell(f"printf 'payment failed\\r\\n\\xff\\n' | {SUPPORTBOT} classify --format csv").stdout.decode().splitlines()
    assert piped[1].startswith("standard input,1,payment failed,billing,")
    assert piped[2].endswith("\"'text' is not valid UTF-8; --encoding names another one, such as windows-1252\"")
    first, second = records(shell(f"PYTHONIOENCODING=ascii {SUPPORTBOT} classify $'\\xff' h\u00e9llo").stdout.decode())
    assert first["error"] == "'text' is not valid UTF-8"
    assert second["text"] == "h\u00e9llo"


def test_verify_names_the_row_that_has_nothing_to_classify(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "\\u200b", "label": "billing"}\n', encoding="utf-8")
    result = run("verify", embedded_bundle(), "--data", data)
    assert result.exit_code == 2
    assert "row 1 has no token" in result.stderr
