"""Files of texts at the command line: how they are named, recognised and refused, in every command that reads them."""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from commands.cli import app
from models.bundle import embedded_bundle
from tests.server.conftest import SUPPORTBOT

TEXTS = "payment failed\napp crashed\n"
LABELLED = "ID;Text;Label\n1;payment failed;billing\n2;app café crashed;technical\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(app, list(arguments), input=stdin)


def labels(output: str) -> list[tuple[str, int, str]]:
    return [(row["source"], row["line"], row.get("label", row.get("error"))) for row in map(json.loads, output.splitlines())]


def shell(command: str) -> subprocess.CompletedProcess[str]:
    command = command.replace("supportbot", str(SUPPORTBOT))
    return subprocess.run(["/bin/bash", "-c", command], capture_output=True, check=False, timeout=60, text=True)


# --- what can be read once


def test_what_can_be_read_once_loses_no_row() -> None:
    Path("a.txt").write_text(TEXTS)
    os.mkfifo("p")
    done = shell("cat a.txt > p & cat a.txt | supportbot classify --file <(cat a.txt) --file /dev/stdin --file p")
    assert (done.returncode, done.stderr) == (0, "")
    found = labels(done.stdout)
    sources = [found[0][0], "standard input", "p"]
    assert found == [(source, *row) for source in sources for row in ((1, "billing"), (2, "technical"))]
    for arguments in ([], ["--file", "-"], ["--file", "/dev/stdin"]):
        assert labels(run("classify", *arguments, stdin=TEXTS.encode()).stdout) == found[2:4]


def test_a_pipe_cannot_be_read_twice() -> None:
    for command in (["classify", "--file", "-", "--file"], ["verify", str(embedded_bundle()), "--data", "-", "--data"]):
        for name in ("-", "/dev/stdin"):
            result = run(*command, name, stdin=b"a")
            assert (result.exit_code, "standard input: can be read only once" in result.stderr) == (2, True)
    os.mkfifo("p")
    result = run("classify", "--file", "p", "--file", "p")
    assert (result.exit_code, "p: can be read only once" in result.stderr) == (2, True)


def test_a_file_may_be_named_twice_and_in_any_bytes() -> None:
    name = os.fsdecode(b"with space \xff.txt")
    Path(name).write_text(TEXTS)
    result = run("classify", "--file", name, "--file", name)
    assert [row[:2] for row in labels(result.stdout)] == [("with space \ufffd.txt", line) for line in (1, 2, 1, 2)]


def test_json_lines_and_csv_on_standard_input() -> None:
    rows = b'{"body": "payment failed"}\n{"body": "cut \\ud83d"}\n'
    refused = run("classify", stdin=rows)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "standard input: looks like JSON; --input-format jsonl or json reads it so" in refused.stderr
    refused = run("classify", "--text-column", "body", stdin=rows)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "no columns for --text-column" in refused.stderr
    read = run("classify", "--text-column", "body", "--input-format", "jsonl", stdin=rows)
    assert [json.loads(line)["text"] for line in read.stdout.splitlines()] == ["payment failed", "cut \ufffd"]
    table = b"id\tbody\n1\tpayment failed\n"
    for options in (["--input-format", "tsv"], ["--delimiter", "tab"], ["--delimiter", "\\t"], ["--input-format", "csv"]):
        read = run("classify", "--text-column", "body", *options, stdin=table)
        assert labels(read.stdout) == [("standard input", 2, "billing")]
    read = run("classify", stdin=gzip.compress(TEXTS.encode()))
    assert [row[2] for row in labels(read.stdout)] == ["billing", "technical"]


def test_rows_before_a_fault_of_the_file_are_written() -> None:
    whole = gzip.compress("".join(f"{number * 7919 % 10007} payment\n" for number in range(700)).encode())
    Path("t.txt.gz").write_bytes(whole[:-30])
    result = run("classify", "--file", "t.txt.gz")
    assert result.exit_code == 2
    assert "t.txt.gz: the gzip file is cut off or damaged" in result.stderr
    lines = [row[1] for row in labels(result.stdout)]
    assert lines == list(range(1, len(lines) + 1))
    assert len(lines) > 500
    complete = run("classify", "--file", "t.txt.gz", "--output", "out.jsonl")
    assert complete.exit_code == 2
    assert sorted(path.name for path in Path().iterdir()) == ["t.txt.gz"]


def test_no_texts_are_no_error_and_not_silent() -> None:
    Path("head.csv").write_text("text,label\n")
    for result in (run("classify", "--file", "head.csv"), run("classify", stdin=b"")):
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", "there were no texts\n")


# --- what is refused before the work begins


@pytest.mark.parametrize("delimiter", ["", "ab", '"', "\n", " ", "commas"])
def test_a_delimiter_is_one_character_or_a_name(delimiter: str) -> None:
    result = run("classify", "--file", "x.csv", "--delimiter", delimiter)
    assert (result.exit_code, "must be one character, or comma, semicolon, tab or pipe" in result.stderr) == (2, True)


def test_options_about_files_without_a_file_are_not_ignored() -> None:
    for command in (["classify", "hello"], ["tune"], ["capacity"], ["verify", str(embedded_bundle())]):
        result = run(*command, "--encoding", "utf-16")
        assert (result.exit_code, "are about files, and there is no --" in result.stderr) == (2, True), command


def test_an_encoding_that_is_none_is_refused() -> None:
    Path("a.txt").write_text(TEXTS)
    result = run("classify", "--file", "a.txt", "--encoding", "nonsense")
    assert (result.exit_code, "--encoding nonsense: no such encoding" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    "command",
    [
        "classify --file {}",
        "train --out out --data {}",
        "build checkpoint out --dev {}",
        "build checkpoint out --test x={}",
        "build checkpoint out --calibration {}",
        "build checkpoint out --goldens {}",
        "verify BUNDLE --data {}",
        "tune --data {}",
        "lengths {}",
        "capacity --data {}",
    ],
)
def test_every_command_names_what_cannot_be_read(command: str) -> None:
    if command.startswith("build"):
        pytest.importorskip("safetensors")
    Path("folder").mkdir()
    for name, fault in (("none.csv", "No such file or directory"), ("folder", "Is a directory")):
        result = run(*command.format(name).replace("BUNDLE", str(embedded_bundle())).split())
        assert (result.exit_code, f"{name}: {fault}" in result.stderr) == (2, True), result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named() -> None:
    Path("secret.csv").touch(0)
    result = run("classify", "--file", "secret.csv")
    assert (result.exit_code, "secret.csv: Permission denied" in result.stderr) == (2, True)


def test_nothing_is_written_over_what_is_read() -> None:
    Path("a.txt").write_text(TEXTS)
    Path("hard.txt").hardlink_to("a.txt")
    Path("soft.txt").symlink_to("a.txt")
    for output in ("a.txt", "hard.txt", "soft.txt"):
        result = run("classify", "--file", "a.txt", "--output", output)
        assert (result.exit_code, f"{output}: is read and would be written" in result.stderr) == (2, True)
    done = shell("supportbot classify < a.txt >> hard.txt")
    assert (done.returncode, "standard output: is read and would be written" in done.stderr) == (2, True)
    for arguments in (
        ["lengths", "a.txt", "--json"],
        ["capacity", "--data", "a.txt", "--json"],
        ["tune", "--data", "a.txt", "--write"],
    ):
        result = run(*arguments, "soft.txt")
        assert (result.exit_code, "soft.txt: is read and would be written" in result.stderr) == (2, True)
    assert Path("a.txt").read_text() == TEXTS


# --- the same options everywhere


@pytest.mark.parametrize("command", ["classify", "train", "build", "verify", "tune", "lengths", "capacity"])
def test_every_command_that_reads_texts_has_the_same_options(command: str) -> None:
    group = typer.main.get_command(app)
    parameters = {parameter.name: parameter for parameter in group.commands[command].params}  # type: ignore[attr-defined]
    options = [parameters[name] for name in ("text_column", "input_format", "delimiter", "encoding")]
    reference = {parameter.name: parameter for parameter in group.commands["classify"].params}  # type: ignore[attr-defined]
    assert [option.help for option in options] == [reference[option.name].help for option in options]
    assert ("label_column" in parameters) == (command in {"train", "build", "verify"})


def test_verify_reads_what_excel_writes() -> None:
    Path("data.csv").write_bytes(LABELLED.encode("windows-1252"))
    bundle = str(embedded_bundle())
    refused = run("verify", bundle, "--data", "data.csv", "--compositions", "0")
    assert refused.exit_code == 2
    assert "data.csv:3: 'text' is not valid UTF-8; --encoding names another one" in refused.stderr
    read = run("verify", bundle, "--data", "data.csv", "--compositions", "0", "--json", "--encoding", "windows-1252")
    assert read.exit_code == 0, read.stderr
    assert json.loads(read.stdout)["sets"]["data.csv"]["quality"]["texts"] == 2
    assert read.stderr.splitlines() == [
        "data.csv: fields are separated by semicolons",
        "data.csv: column 'Text' is taken for 'text'",
        "data.csv: column 'Label' is taken for 'label'",
    ]
    piped = run("verify", bundle, "--data", "-", "--compositions", "0", "--json", "--input-format", "csv", stdin=LABELLED.encode())
    assert json.loads(piped.stdout)["sets"]["standard input"]["quality"]["accuracy"] == 1


def test_lengths_reads_them_too() -> None:
    Path("data.csv").write_bytes(LABELLED.encode("utf-16"))
    result = run("lengths", "data.csv", "--seconds", "0")
    assert result.exit_code == 0, result.stderr
    assert "2 texts, tokens" in result.stdout
    assert "read as UTF-16-LE, by its byte order mark" in result.stderr
    piped = run("lengths", "-", "--seconds", "0", "--input-format", "json", stdin=rb'["cut \ud83d", "whole"]')
    assert "2 texts, tokens" in piped.stdout
    log = b'{"tokens": 9, "truncated": false}\n' * 3
    assert "lengths from a prediction log" in run("lengths", "-", "--seconds", "0", stdin=gzip.compress(log)).stderr
    refused = run("lengths", "-", "--seconds", "0", stdin=b"text,label\n")
    assert (refused.exit_code, "looks like CSV" in refused.stderr) == (2, True)


def test_train_and_tune_and_capacity_hand_the_options_on() -> None:
    Path("data.csv").write_bytes(LABELLED.encode("windows-1252"))
    for command in (["train", "--out", "out", "--data"], ["tune", "--data"], ["capacity", "--data"]):
        result = run(*command, "data.csv", "--text-column", "nope", "--encoding", "windows-1252")
        assert result.exit_code == 2
        assert "data.csv: no column 'nope'; it has 'ID', 'Text', 'Label'; --text-column names the right one" in result.stderr
        result = run(*command, "data.csv")
        assert (result.exit_code, "data.csv:3: 'text' is not valid UTF-8; --encoding" in result.stderr) == (2, True)


# --- where results go


def test_output_may_be_standard_output_by_its_names() -> None:
    Path("a.txt").write_text(TEXTS)
    for output in (
        run("classify", "--file", "a.txt", "--output", "-").stdout,
        shell("supportbot classify --file a.txt --output /dev/stdout | cat").stdout,
    ):
        assert [row[2] for row in labels(output)] == ["billing", "technical"]
    assert [path.name for path in Path().iterdir()] == ["a.txt"]


def test_a_full_disk_leaves_the_old_output_and_what_to_go_on_with() -> None:
    Path("a.txt").write_text("payment failed\n" * 200)
    Path("out.jsonl").write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # What does not fit is found while writing, or only when the file is closed.
    for most, arguments in ((8192, ["--file", "a.txt"]), (0, ["payment"])):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            result = run("classify", *arguments, "--output", "out.jsonl")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert result.exit_code == 1
        assert result.stderr.endswith("error: out.jsonl: File too large\n")
        assert ("the same command goes on" in result.stderr) == ("--file" in arguments)
    assert Path("out.jsonl").read_text() == "old"
    left = ["a.txt", "out.jsonl", "out.jsonl.partial", "out.jsonl.partial.json"]
    assert sorted(path.name for path in Path().iterdir()) == left
    assert run("classify", "--file", "a.txt", "--output", "out.jsonl").exit_code == 0
    assert len(labels(Path("out.jsonl").read_text())) == 200
    assert sorted(path.name for path in Path().iterdir()) == ["a.txt", "out.jsonl"]


def test_an_output_that_is_replaced_keeps_its_permissions() -> None:
    Path("out.jsonl").touch(0o600)
    assert run("classify", "payment", "--output", "out.jsonl").exit_code == 0
    assert stat.S_IMODE(Path("out.jsonl").stat().st_mode) == 0o600
    assert labels(Path("out.jsonl").read_text())[0][2] == "billing"


def test_a_progress_bar_reads_a_pipe_once_as_well() -> None:
    if shutil.which("script") is None:
        pytest.skip("script makes a terminal")
    Path("a.txt").write_text(TEXTS)
    done = shell("script -qec 'cat a.txt | supportbot classify --file /dev/stdin --output out.jsonl' /dev/null")
    assert done.returncode == 0
    assert [row[2] for row in labels(Path("out.jsonl").read_text())] == ["billing", "technical"]
