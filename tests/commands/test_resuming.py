"""`supportbot classify`, killed in the middle and started again: the output is that of an uninterrupted run. And by a server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from commands.cli import app
from commands.remote import RemoteClassifier, RemoteError
from loadtest.corpus import tickets
from models.bulk import CHUNK
from models.tables import BadRow, Row
from tests.server.conftest import SUPPORTBOT, Process, clean_environment, real_server, wait_until_ready

ROWS = 3 * CHUNK + 17


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["classify", *map(str, arguments)])


def written(folder: Path, count: int = ROWS) -> Path:
    """Tickets, now and then one with a line end and quotes, or none at all."""
    odd = {3: 'a "quoted"\nline', 40: " ", CHUNK + 5: "\u200b", 2 * CHUNK: 'x",\n"y'}
    rows = [{"text": odd.get(number, text)} for number, text in enumerate(islice(tickets(3), count))]
    path = folder / "tickets.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with real_server(tmp_path_factory.mktemp("server")) as process:
        wait_until_ready(process.url)
        yield process


def interrupted(output: Path, whole: bytes, at: int) -> None:
    """As a run that was killed would have left it."""
    output.with_name(output.name + ".partial").write_bytes(whole[:at])


@pytest.mark.parametrize("output_format", ["jsonl", "csv"])
def test_a_run_that_was_cut_off_anywhere_ends_as_one_that_was_not(tmp_path: Path, output_format: str) -> None:
    source, output, fresh = written(tmp_path), tmp_path / "labels", tmp_path / "fresh"
    options = ("--file", source, "--format", output_format, "--scores")
    first = run(*options, "--output", fresh)
    assert first.exit_code == 1  # two rows cannot be classified
    whole = fresh.read_bytes()
    partial = output.with_name("labels.partial")
    process = subprocess.Popen(
        [SUPPORTBOT, "classify", *map(str, options), "--output", str(output)], env=clean_environment(), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while not partial.exists() or partial.stat().st_size < 0.5 * len(whole):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not output.exists()
    assert whole.startswith(partial.read_bytes())
    last = run(*options, "--output", output)
    assert last.exit_code == 1
    assert re.search(rf"going on after ({CHUNK}|{2 * CHUNK}) rows", last.stderr)
    assert "2 rows could not be classified" in last.stderr
    assert output.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_only_whole_chunks_are_kept_and_other_runs_are_refused(tmp_path: Path) -> None:
    source, output = written(tmp_path), tmp_path / "labels.csv"
    options = ["--file", source, "--format", "csv", "--output", output]
    run(*options)
    whole = output.read_bytes()
    output.unlink()
    interrupted(output, whole, len(whole) // 2)
    refused = run(*options)
    assert (refused.exit_code, "remove it to start afresh" in refused.stderr) == (2, True)
    assert output.with_name("labels.csv.partial").read_bytes() == whole[: len(whole) // 2]


def test_an_interrupted_run_is_not_gone_on_with_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = written(tmp_path), tmp_path / "labels.jsonl"
    import commands.classify as module

    def broken(*_: object, **__: object) -> tuple[int, int]:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "_write_all", broken)
        failed = run("--file", source, "--output", output)
    assert (failed.exit_code, "the same command goes on" in failed.stderr) == (1, True)
    for other in (("--scores",), ("--no-text",), ("--strip", "html"), ("--format", "csv")):
        assert run("--file", source, "--output", output, *other).exit_code == 2
    os.utime(source, ns=(1, 1))
    assert run("--file", source, "--output", output).exit_code == 2


# --- by a server


def test_a_server_elsewhere_gives_the_same_rows(tmp_path: Path, server: Process) -> None:
    source = written(tmp_path, CHUNK + 40)
    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    assert run("--file", source, "--output", here, "--scores").exit_code == 1
    result = run("--file", source, "--output", there, "--scores", "--url", server.url)
    assert (result.exit_code, "could not be classified" in result.stderr) == (1, True)
    expected, found = ([json.loads(line) for line in path.read_text().splitlines()] for path in (here, there))
    for ours, theirs in zip(expected, found, strict=True):
        assert ("error" in ours) == ("error" in theirs)
        assert {**ours, "error": None} == {**theirs, "error": None}
    html = run("<html><body>the app crashes</body></html>", "--strip", "html", "--url", server.url)
    assert json.loads(html.stdout)["stripped"] is True


@pytest.mark.parametrize(
    ("url", "message"),
    [("ftp://x", "must be like"), ("http://", "must be like"), ("http://localhost:8000/?a", "must be like")],
)
def test_a_url_that_is_none_is_refused(url: str, message: str) -> None:
    result = run("a", "--url", url)
    assert (result.exit_code, message in result.stderr) == (1, True)
    assert run("a", "--url", "http://localhost:1", "--bundle", ".").exit_code == 2


def test_a_server_that_is_busy_or_restarts_is_asked_again_and_one_that_is_gone_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import commands.remote as module

    pauses: list[float] = []
    with real_server(tmp_path, QUEUE_MAX_TEXTS="40") as server:
        wait_until_ready(server.url)
        remote = RemoteClassifier(server.url, scores=False, strip=False, sleep=pauses.append)
        once, answers = RemoteClassifier._once, iter(["refused", "busy"])

        def failing(self: RemoteClassifier, method: str, path: str, content: bytes | None) -> object:
            kind = next(answers, None)
            if kind == "refused":
                raise ConnectionResetError("reset")
            status, headers, raw = once(self, method, path, content)
            if kind == "busy":
                headers["Retry-After"] = "7"
                return 429, headers, b'{"error": {"code": "queue_full", "message": "full"}}'
            return status, headers, raw

        monkeypatch.setattr(RemoteClassifier, "_once", failing)
        results = remote.classify([Row("f", 1, "payment failed"), BadRow("f", 2, "bad"), Row("f", 3, "\u200b")])
        assert [isinstance(result, BadRow) for result in results] == [False, True, True]
        assert 0.3 < pauses[0] < 0.7
        assert 7 <= pauses[1] < 9
    monkeypatch.setattr(RemoteClassifier, "_once", once)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.01)
    with pytest.raises(RemoteError, match=re.escape(server.url)):
        remote.classify([Row("f", 1, "a")])
    remote.close()
    gone = run("a", "--url", server.url)
    assert (gone.exit_code, "connection refused" in gone.stderr) == (1, True)


def test_a_server_with_smaller_bounds_gets_smaller_requests(tmp_path: Path) -> None:
    with real_server(tmp_path, MAX_TEXTS_PER_REQUEST="5", MAX_BODY_BYTES="2000") as server:
        wait_until_ready(server.url)
        remote = RemoteClassifier(server.url, scores=False, strip=False)
        rows: list[Row | BadRow] = [
            Row("f", number, text) for number, text in enumerate(["hello", "x " * 2000, *["hi there " * 30] * 30])
        ]
        results = remote.classify(rows)
        remote.close()
    assert len(results) == len(rows)
    assert [number for number, result in enumerate(results) if isinstance(result, BadRow)] == [1]
