"""The prediction log on real files: full, slow, hanging and vanished disks; what is lost is counted, and nobody waits."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import itertools
import os
import random
import resource
import secrets
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog

from models.types import Prediction
from server.observe import prediction_log
from server.observe.prediction_log import (
    CALM_SECONDS,
    LAST_RETRY_SECONDS,
    MAX_PENDING_CHARACTERS,
    MAX_PENDING_TEXTS,
    REASONS,
    LogCounts,
    PredictionLog,
    PredictionLogError,
)
from tests.batching.virtual_time import run_virtual, turns
from tests.server.conftest import until

LogMaker = Callable[..., PredictionLog]
SECRET = secrets.token_hex()
BILLING = Prediction("billing", 0.9618854999, (0.9618854999, 0.03, 0.0081145001), (3.0, 0.0, -1.0))


class Disk:
    """Writes as `os.write` does, but can hang before it, or fail after some bytes."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.opened.set()
        self.entered = threading.Event()
        self.fault: Callable[[], int | None] = lambda: None  # how many bytes are written before the disk is full
        self.writes = 0

    def __call__(self, descriptor: int, data: memoryview) -> int:
        self.writes += 1
        self.entered.set()
        assert self.opened.wait(20)
        written = self.fault()
        if written == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(descriptor, data[:written])


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "predictions.jsonl"


@pytest.fixture
async def open_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LogMaker]:
    """Opens logs that hand over in the loop's next turn, and closes them."""
    monkeypatch.setattr(prediction_log, "HAND_OVER_SECONDS", 0)
    path.parent.mkdir()
    logs: list[PredictionLog] = []

    def make(**changes: Any) -> PredictionLog:  # noqa: ANN401 - the constructor's arguments
        log = PredictionLog(**{"path": path, "max_bytes": 1 << 20, "files": 3, **changes})
        logs.append(log)
        return log

    yield make
    for log in logs:
        await log.close(20)


def record(log: PredictionLog, *names: str, text: str = "payment failed") -> None:
    for name in names:
        log.record(name, text, BILLING, 4, truncated=False)


async def settled(log: PredictionLog) -> LogCounts:
    await until(lambda: log.counts().pending == 0)
    return log.counts()


def counted(written: int, pending: int = 0, **lost: int) -> LogCounts:
    return LogCounts(written, dict.fromkeys(REASONS, 0) | lost, pending)


def raw_lines(path: Path) -> list[bytes]:
    """The lines of a file that ends with a whole one."""
    content = path.read_bytes()
    assert content.endswith(b"\n") or not content
    return content.splitlines()


def lines_in(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in raw_lines(path)]


def names_in(path: Path) -> list[str]:
    return [line["request_id"] for line in lines_in(path)]


def full_files(path: Path) -> list[Path]:
    """The files put aside, oldest first."""
    return sorted(path.parent.glob(f"{path.name}.*"), key=lambda file: -int(file.suffix[1:]))


def events(logs: list[Any], *names: str) -> list[tuple[Any, ...]]:
    return [(line["log_level"], line["event"], *(line[name] for name in names)) for line in logs]


# --- a line


async def test_a_line_has_all_but_the_text(open_log: LogMaker, path: Path) -> None:
    log = open_log(secret=SECRET)
    before = datetime.now(UTC).replace(microsecond=0)
    log.record("r-1", "Zahlung schlägt fehl", BILLING, 7, truncated=False)
    log.record("r-2", "long", Prediction("general", 1.0, (1.0,), (0.0,)), None, truncated=True)
    assert await settled(log) == counted(2)
    first, second = lines_in(path)
    when = first.pop("time")
    assert len(when) == len("2026-11-25T12:00:00.000Z")
    assert before <= datetime.fromisoformat(when) <= datetime.now(UTC)
    key = hashlib.blake2b(SECRET.encode()).digest()
    assert first == {
        "request_id": "r-1",
        "label": "billing",
        "confidence": 0.961885,
        "tokens": 7,
        "truncated": False,
        "text_hash": hashlib.blake2b("Zahlung schlägt fehl".encode(), key=key, digest_size=16).hexdigest(),
    }
    assert (second["label"], second["tokens"], second["truncated"]) == ("general", None, True)


async def test_the_text_is_there_when_it_is_asked_for(open_log: LogMaker, path: Path) -> None:
    log = open_log(include_text=True)
    record(log, "r", text='schlägt "fehl"\nin two lines')
    await settled(log)
    assert lines_in(path)[0]["text"] == 'schlägt "fehl"\nin two lines'


async def test_without_a_secret_equal_texts_are_known_within_a_run_only(open_log: LogMaker, path: Path) -> None:
    for _ in range(2):
        log = open_log()
        record(log, "a", "b")
        record(log, "c", text="another")
        await settled(log)
        await log.close(20)
    hashes = [line["text_hash"] for line in lines_in(path)]
    assert hashes[0] == hashes[1]
    assert hashes[3] == hashes[4]
    assert len(set(hashes)) == 4
    assert hashlib.blake2b(b"payment failed", digest_size=16).hexdigest() not in hashes


async def test_a_text_that_cannot_be_written_costs_its_own_line_only_and_is_not_told(open_log: LogMaker, path: Path) -> None:
    log = open_log(include_text=True)
    with structlog.testing.capture_logs() as logs:
        record(log, "a")
        record(log, "b", text="secret \ud800")
        record(log, "c")
        assert await settled(log) == counted(2, write_error=1)
    assert names_in(path) == ["a", "c"]
    assert events(logs, "reason") == [("error", "prediction log cannot be written", "UnicodeEncodeError")]


# --- the file


async def test_only_the_owner_may_read_any_of_the_files(open_log: LogMaker, path: Path) -> None:
    mask = os.umask(0)
    try:
        log = open_log(max_bytes=400)
        for name in "abcdef":
            record(log, name)
            await settled(log)
    finally:
        os.umask(mask)
    files = list(path.parent.iterdir())
    assert len(files) > 1
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


@pytest.fixture
def crashed(open_log: LogMaker, path: Path) -> LogMaker:
    """Opens logs in a folder where a crash left a part of a line."""
    path.write_bytes(b'{"request_id":"whole"}\n{"request')
    return open_log


async def test_a_start_appends_to_what_is_there_and_ends_a_line_that_a_crash_left_open(crashed: LogMaker, path: Path) -> None:
    log = crashed()
    record(log, "a")
    await settled(log)
    whole, broken, ours = raw_lines(path)
    assert (whole, broken) == (b'{"request_id":"whole"}', b'{"request')
    assert orjson.loads(ours)["request_id"] == "a"


@pytest.mark.parametrize("seed", range(5))
async def test_rotation_loses_no_line_and_cuts_none(open_log: LogMaker, path: Path, seed: int) -> None:
    draw = random.Random(seed)
    log = open_log(max_bytes=2_000, files=100, include_text=True)
    names = [str(number) for number in range(150)]
    for number, name in enumerate(names):
        record(log, name, text="x" * draw.randint(1, 900))
        if draw.random() < 0.2:
            await settled(log)
        if number == 75:
            await log.close(20)
            log = open_log(max_bytes=2_000, files=100, include_text=True)
    await settled(log)
    files = [*full_files(path), path]
    assert len(files) > 20
    assert [name for file in files for name in names_in(file)] == names
    assert max(file.stat().st_size for file in files) <= 2_000


async def test_only_so_many_full_files_are_kept_the_latest(open_log: LogMaker, path: Path) -> None:
    log = open_log(max_bytes=1, files=2)
    for name in "abcde":
        record(log, name)
        await settled(log)
    assert [names_in(file) for file in (*full_files(path), path)] == [["c"], ["d"], ["e"]]
    assert log.paths() == [path, *reversed(full_files(path))]


async def test_a_line_longer_than_a_file_has_one_of_its_own(open_log: LogMaker, path: Path) -> None:
    log = open_log(max_bytes=1_000, include_text=True)
    for name, text in {"a": "short", "b": "long " * 1_000, "c": "short"}.items():
        record(log, name, text=text)
    await settled(log)
    assert [names_in(file) for file in (*full_files(path), path)] == [["a"], ["b"], ["c"]]


async def test_a_file_that_others_move_remove_or_cut_is_begun_anew_or_continued(open_log: LogMaker, path: Path) -> None:
    log = open_log()
    record(log, "a")
    await settled(log)
    moved = path.with_suffix(".old")
    os.replace(path, moved)  # noqa: PTH105 - no pathlib in async code
    record(log, "b")
    await settled(log)
    assert (names_in(moved), names_in(path)) == (["a"], ["b"])
    os.replace(path, moved)  # noqa: PTH105 - as above
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    record(log, "b2")
    await settled(log)
    assert (names_in(moved), names_in(path)) == (["b"], ["b2"])
    os.unlink(path)  # noqa: PTH108 - as above
    record(log, "c")
    await settled(log)
    assert names_in(path) == ["c"]
    os.truncate(path, 0)
    record(log, "d")
    assert await settled(log) == counted(5)
    assert names_in(path) == ["d"]


# --- at the start


def test_a_path_that_cannot_work_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "device").symlink_to("/dev/full")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    faults = {
        "missing/log": "there is no folder",
        "file/log": "there is no folder",
        "folder": "not a regular file",
        "fifo": "not a regular file",
        "device": "not a regular file",
        "loop": "symbolic links",
    }
    for name, fault in faults.items():
        with pytest.raises(PredictionLogError, match=fault) as refused:
            PredictionLog(tmp_path / name, max_bytes=1 << 20, files=3)
        assert str(refused.value).startswith(f"{tmp_path / name}: ")


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may do anything; be somebody else for a while."""
    if os.geteuid():
        yield
        return
    os.setresuid(65_534, 65_534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def test_a_folder_or_a_file_without_permission_is_refused_at_the_start() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # the tests' own folder is closed to others
        folder = Path(name)
        (folder / "closed.jsonl").touch(0o400)
        folder.chmod(0o777)
        with unprivileged(), pytest.raises(PredictionLogError, match="Permission denied"):
            PredictionLog(folder / "closed.jsonl", max_bytes=1 << 20, files=3)
        folder.chmod(0o555)
        with unprivileged(), pytest.raises(PredictionLogError, match="cannot be written"):
            PredictionLog(folder / "new.jsonl", max_bytes=1 << 20, files=3)
        folder.chmod(0o700)


# --- the queue


def test_records_are_handed_over_together_and_idle_time_wakes_nobody(path: Path) -> None:
    path.parent.mkdir()

    async def main() -> PredictionLog:
        log = PredictionLog(path, max_bytes=1 << 20, files=3)
        for name in "abc":
            record(log, name)
            await asyncio.sleep(0.05)
        before = turns()
        await asyncio.sleep(1_000)
        assert turns() - before <= 3  # one timer, and the sleep's own two
        record(log, *"de")
        await log.close(20)
        return log

    log = run_virtual(main())
    log._writer.join(20)
    assert log.counts() == counted(5)
    assert names_in(path) == list("abcde")


async def test_while_the_disk_hangs_records_are_taken_up_to_the_bound_and_every_lost_one_is_counted(
    open_log: LogMaker, path: Path
) -> None:
    disk, clock = Disk(), Clock()
    disk.opened.clear()
    log = open_log(write=disk, clock=clock, max_bytes=1 << 30)
    with structlog.testing.capture_logs() as logs:
        record(log, "first")
        await until(disk.entered.is_set)
        for number in range(MAX_PENDING_TEXTS + 500):
            record(log, str(number))
            if number % 100 == 0:
                await asyncio.sleep(0)
        assert log.counts() == counted(0, pending=MAX_PENDING_TEXTS, full_queue=501)
        await until(lambda: bool(logs))
        disk.opened.set()
        assert await settled(log) == counted(MAX_PENDING_TEXTS, full_queue=501)
        record(log, "again")
        await settled(log)
        clock.now = CALM_SECONDS
        record(log, "later")
        await settled(log)
        await until(lambda: len(logs) == 2)
    assert names_in(path) == ["first", *map(str, range(MAX_PENDING_TEXTS - 1)), "again", "later"]
    lost_at_first = logs[0]["lost"]
    assert 1 <= lost_at_first <= 501
    assert events(logs, "lost") == [
        ("error", "prediction log cannot be written", lost_at_first),
        ("warning", "prediction log works again", 501),
    ]


async def test_what_is_pending_is_bounded_in_characters_too(open_log: LogMaker) -> None:
    disk = Disk()
    disk.opened.clear()
    log = open_log(write=disk)
    record(log, *"abcdefgh", text="x" * (MAX_PENDING_CHARACTERS // 8))
    record(log, "more", text="x")
    assert log.counts() == counted(0, pending=8, full_queue=1)
    disk.opened.set()
    await until(lambda: log._writer.done_characters == MAX_PENDING_CHARACTERS)
    record(log, "again", text="x")
    assert await settled(log) == counted(9, full_queue=1)


# --- errors


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Beyond this the kernel writes no byte more, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_lines_that_a_full_disk_takes_in_part_are_cut_off_again(open_log: LogMaker, path: Path) -> None:
    clock = Clock()
    log = open_log(clock=clock)
    record(log, *"abc")
    await settled(log)
    before = raw_lines(path)
    with files_of_at_most(4 * len(before[0])):
        record(log, *map(str, range(20)))
        assert await settled(log) == counted(3, write_error=20)
    assert raw_lines(path) == before
    clock.now += 1
    record(log, "d")
    assert await settled(log) == counted(4, write_error=20)
    assert names_in(path) == list("abcd")


async def test_what_another_process_wrote_meanwhile_is_not_cut_off(open_log: LogMaker, path: Path) -> None:
    disk, clock = Disk(), Clock()
    log = open_log(write=disk, clock=clock)
    record(log, "a")
    await settled(log)

    def ten_bytes_then_another_process_then_none() -> int:
        if disk.writes == 2:
            return 10
        with path.open("ab") as other:
            other.write(b'\n{"request_id":"other"}')
        return 0

    disk.fault = ten_bytes_then_another_process_then_none
    record(log, "b")
    assert await settled(log) == counted(1, write_error=1)
    disk.fault = lambda: None
    clock.now += 1
    record(log, "c")
    await settled(log)
    first, broken, other, last = raw_lines(path)
    assert len(broken) == 10
    assert [orjson.loads(line)["request_id"] for line in (first, other, last)] == ["a", "other", "c"]


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_fails_the_files_have_the_lines_that_were_counted_as_written(
    open_log: LogMaker, path: Path, seed: int
) -> None:
    draw, fate = random.Random(seed), random.Random(seed)
    disk, ticks = Disk(), itertools.count(0.0, LAST_RETRY_SECONDS)  # there is always a new try
    disk.fault = lambda: fate.choice([0, fate.randint(1, 300), None, None])
    log = open_log(write=disk, clock=lambda: next(ticks), max_bytes=5_000, files=200)
    for number in range(1_000):
        record(log, str(number))
        if draw.random() < 0.2:
            counts = log.counts()
            assert counts.written + counts.pending + sum(counts.lost.values()) == number + 1
            await asyncio.sleep(0)
    counts = await settled(log)
    names = [int(name) for file in (*full_files(path), path) for name in names_in(file)]
    assert names == sorted(set(names))
    assert len(names) == counts.written
    assert 0 < counts.lost["write_error"] == 1_000 - counts.written < 1_000


async def test_a_folder_that_vanishes_costs_lines_until_it_is_back_and_is_said_once(open_log: LogMaker, path: Path) -> None:
    clock = Clock()
    log = open_log(clock=clock)
    record(log, "a")
    await settled(log)
    with structlog.testing.capture_logs() as logs:
        gone = path.parent.rename(path.parent.with_name("gone"))
        for name in "bc":
            record(log, name)
            await settled(log)
        path.parent.mkdir()
        record(log, "d")  # too early for a new try
        assert await settled(log) == counted(1, write_error=3)
        clock.now = 1
        record(log, "e")
        await settled(log)
        clock.now = CALM_SECONDS
        record(log, "f")
        assert await settled(log) == counted(3, write_error=3)
    assert (names_in(gone / path.name), names_in(path)) == (["a"], ["e", "f"])
    assert events(logs, "lost") == [
        ("error", "prediction log cannot be written", 1),
        ("warning", "prediction log works again", 3),
    ]
    assert "No such file" in logs[0]["reason"]


async def test_a_disk_that_comes_and_goes_is_one_episode(open_log: LogMaker) -> None:
    disk, clock = Disk(), Clock()
    log = open_log(write=disk, clock=clock)
    with structlog.testing.capture_logs() as logs:
        for _ in range(10):
            disk.fault = lambda: 0
            record(log, "lost")
            await settled(log)
            disk.fault = lambda: None
            clock.now += 1
            record(log, "written")
            await settled(log)
    assert log.counts() == counted(10, write_error=10)
    assert events(logs) == [("error", "prediction log cannot be written")]


async def test_a_disk_that_stays_full_is_tried_less_and_less_often(open_log: LogMaker) -> None:
    disk, clock = Disk(), Clock()
    disk.fault = lambda: 0
    log = open_log(write=disk, clock=clock)
    tries = []
    for second in range(100):
        clock.now = second
        before = disk.writes
        record(log, str(second))
        await settled(log)
        if disk.writes > before:
            tries.append(second)
    assert tries == [0, 1, 3, 7, 15, 31, 61, 91]
    assert log.counts() == counted(0, write_error=100)


# --- at the end


async def test_closing_writes_what_is_pending_and_later_records_are_counted_as_lost(open_log: LogMaker, path: Path) -> None:
    log = open_log()
    record(log, *"abc")
    await log.close(20)
    assert log.counts() == counted(3)
    assert names_in(path) == list("abc")
    record(log, "d")
    await log.close(20)
    assert log.counts() == counted(3, closed=1)


async def test_closing_does_not_wait_for_a_disk_that_hangs(open_log: LogMaker, path: Path) -> None:
    disk = Disk()
    disk.opened.clear()
    log = open_log(write=disk)
    record(log, "a")
    await until(disk.entered.is_set)
    record(log, *"bc")
    with structlog.testing.capture_logs() as logs:
        await log.close(0.01)
    assert events(logs, "pending") == [("error", "prediction log closed before all lines were written", 3)]
    assert log.counts() == counted(0, pending=3)
    disk.opened.set()
    await log.close(20)
    assert names_in(path) == list("abc")


def test_a_disk_that_hangs_longer_than_the_event_loop_lives_harms_nobody(path: Path) -> None:
    path.parent.mkdir()
    disk = Disk()
    disk.opened.clear()

    async def main() -> PredictionLog:
        log = PredictionLog(path, max_bytes=1 << 20, files=3, write=disk)
        record(log, "a")
        await log.close(0.01)
        return log

    log = asyncio.run(main())
    disk.opened.set()
    log._writer.join(20)
    assert names_in(path) == ["a"]
