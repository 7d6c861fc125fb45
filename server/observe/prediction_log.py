"""The prediction log: one JSON line a text that was answered, in a rotated file, off the way of answers.

Theory of operation. `record` appends a tuple to a list on the event loop. At most every 200 ms the list is handed to a thread,
which hashes, serializes and appends to the file, a few lines at a time, so that it never holds the interpreter for long. Without
traffic there is no timer and the thread sleeps.

1. Nothing on the event loop waits for the disk. What is pending is bounded in texts and in characters; beyond that, lines are lost.
2. Every text that was recorded is counted once, as written, lost (for one of `REASONS`) or pending. Each counter has one thread
   that writes it.
3. A chunk of lines is written wholly or not at all. A part of one, when the disk is full, is cut off again; if that fails too, or
   a crash left a part of a line, the next line begins on a line of its own. A line never spans files.
4. The file may be moved, removed or cut by others at any time (logrotate): the path is looked at before each chunk.
5. After an error lines are lost until the next try, 1 second later, then 2, 4 and up to 30. Loss is said in the operator's log once
   when it begins, and once after 30 seconds without any. Nothing is synced: what the kernel has is written.

Texts are hashed with a key, since a plain hash of a short text is found by trying likely texts. Without a secret from the operator
the key is random and kept nowhere: equal texts of one run have equal hashes, and nobody can try any. With one, hashes are equal
across restarts and servers, and whoever has the secret can look a text up:

    key = hashlib.blake2b(secret.encode()).digest()
    hashlib.blake2b(text.encode(), key=key, digest_size=16).hexdigest()
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import queue
import secrets
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import orjson
import structlog

from models.problem import SingleLabel
from models.types import Prediction
from server.observe.drift import Seen

log = structlog.stdlib.get_logger("supportbot.prediction_log")

REASONS: Final = ("full_queue", "write_error", "closed")

MAX_PENDING_TEXTS: Final = 10_000
MAX_PENDING_CHARACTERS: Final = 8_000_000  # up to 4 bytes each in memory
HAND_OVER_SECONDS: Final = 0.2

# 32 short lines take about 0.2 ms; the system calls between chunks let the event loop have the interpreter.
CHUNK_TEXTS: Final = 32
CHUNK_BYTES: Final = 64 * 1024

FIRST_RETRY_SECONDS: Final = 1.0
LAST_RETRY_SECONDS: Final = 30.0
CALM_SECONDS: Final = 30.0


class PredictionLogError(Exception):
    """Raised at start when the prediction log cannot work; the message names the path and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class LogCounts:
    """Texts since the start; `lost` has a count for each of `REASONS`. Together they are all that were recorded."""

    written: int
    lost: Mapping[str, int]
    pending: int


class _Record(NamedTuple):
    """An answered text; `time` is in seconds since 1970."""

    time: float
    request_id: str
    text: str
    prediction: Prediction
    tokens: int | None
    truncated: bool
    seen: Seen | None


class _Format:
    """Makes a record's line."""

    def __init__(self, *, include_text: bool, secret: str) -> None:
        self._include_text = include_text
        self._key = hashlib.blake2b(secret.encode()).digest() if secret else secrets.token_bytes(64)
        # By field, what was answered; the model says so, which is not there yet.
        self.answer_of: Callable[[Prediction], Mapping[str, object]] = SingleLabel(()).record

    def line(self, record: _Record, drift: str | None) -> bytes:
        """The line with its end. Raises `ValueError` or `TypeError` for a text that is not Unicode."""
        when = datetime.fromtimestamp(record.time, UTC).isoformat(timespec="milliseconds")
        content: dict[str, object] = {
            "time": when.removesuffix("+00:00") + "Z",
            "request_id": record.request_id,
            **self.answer_of(record.prediction),
            "tokens": record.tokens,
            "truncated": record.truncated,
            "text_hash": hashlib.blake2b(record.text.encode(), key=self._key, digest_size=16).hexdigest(),
        }
        if drift is not None:
            content["drift"] = drift
        if self._include_text:
            content["text"] = record.text
        return orjson.dumps(content, option=orjson.OPT_APPEND_NEWLINE)


class _RotatedFile:
    """Appends whole lines to a file, which becomes `path.1` when it is full, as that becomes `path.2`, and so on up to `files`."""

    def __init__(self, path: Path, max_bytes: int, files: int, write: Callable[[int, memoryview], int]) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._files = files
        self._write = write
        self._descriptor: int | None = None

    def append(self, lines: bytes) -> None:
        """Append lines, all or none. Raises `OSError`; the next call begins by opening the file anew."""
        try:
            size = self._size_if_current()
            if size is None:
                size = self.open()
            if size and size + len(lines) > self._max_bytes:
                self._rotate()
                size = self.open()
            self._append_at(size, lines)
        except OSError:
            self.close()
            raise

    def open(self) -> int:
        """Open or make the file, end a line that was left open, and return the size. Raises `OSError`."""
        self.close()
        with suppress(FileNotFoundError):
            # Opening a FIFO would wait for a reader, and what a device does with lines is its own affair.
            if not stat.S_ISREG(self._path.stat().st_mode):
                raise OSError(errno.EINVAL, "not a regular file", str(self._path))
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = descriptor = os.open(self._path, flags, 0o600)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            size += self._write(descriptor, memoryview(b"\n"))
        return size

    def close(self) -> None:
        """Close the file. Nothing is lost by an error here, so there is none."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)

    def _size_if_current(self) -> int | None:
        """The size of the open file; None when there is none, or when the path leads elsewhere by now."""
        if self._descriptor is None:
            return None
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return None
        return there.st_size if os.path.samestat(there, os.fstat(self._descriptor)) else None

    def names(self) -> list[Path]:
        """The file and the full ones that are kept, newest first; they need not all be there."""
        return [self._path, *(Path(f"{self._path}.{number}") for number in range(1, self._files + 1))]

    def _rotate(self) -> None:
        for older, newer in pairwise(reversed(self.names())):
            with suppress(FileNotFoundError):
                newer.replace(older)

    def _append_at(self, size: int, lines: bytes) -> None:
        assert self._descriptor is not None
        view, done = memoryview(lines), 0
        try:
            while done < len(view):
                done += self._write(self._descriptor, view[done:])
        except OSError:
            with suppress(OSError):
                # Another process may have the file too, the next server at a restart: its lines are not ours to cut.
                if done and os.fstat(self._descriptor).st_size == size + done:
                    os.ftruncate(self._descriptor, size)
            raise


class _Episode:
    """Says when lines begin to get lost, and when none has been lost for `CALM_SECONDS`. Used by one thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lost = 0
        self._latest = 0.0

    def add(self, lost: int, reason: str) -> None:
        """Lines were lost."""
        if not self._lost:
            log.error("prediction log cannot be written", reason=reason, lost=lost)
        self._lost += lost
        self._latest = self._clock()

    def end_if_calm(self) -> None:
        """All is well at the moment."""
        if self._lost and self._clock() - self._latest >= CALM_SECONDS:
            log.warning("prediction log works again", lost=self._lost)
            self._lost = 0


class _Writer(threading.Thread):
    """The thread with the file. All its counters are written here and may be read anywhere."""

    def __init__(self, file: _RotatedFile, format_: _Format, chunk_bytes: int, clock: Callable[[], float]) -> None:
        super().__init__(name="prediction-log", daemon=True)
        self.handed: queue.SimpleQueue[list[_Record] | None] = queue.SimpleQueue()
        self.ended: Future[None] = Future()
        self.written = 0
        self.failed = 0
        self.done_characters = 0
        self._file = file
        self._format = format_
        self._chunk_bytes = chunk_bytes
        self._clock = clock
        self._episode = _Episode(clock)
        self._retry_at = 0.0
        self._patience = FIRST_RETRY_SECONDS
        self.codes: Callable[[Sequence[Seen]], Sequence[str]] = lambda _: ()

    def run(self) -> None:
        """Write what is handed over, until None is."""
        try:
            while (records := self.handed.get()) is not None:
                for first in range(0, len(records), CHUNK_TEXTS):
                    for lines, texts in self._chunks(records[first : first + CHUNK_TEXTS]):
                        self._append(lines, texts)
                self.done_characters += sum(len(record.text) for record in records)
        finally:
            self._file.close()
            self.ended.set_result(None)

    def _chunks(self, records: Sequence[_Record]) -> Iterator[tuple[bytes, int]]:
        """The records' lines in pieces of at most `chunk_bytes`, unless one line has more; each with its number of lines."""
        chunk, texts = b"", 0
        codes = iter(self._codes_of([record.seen for record in records if record.seen is not None]))
        for record in records:
            try:
                line = self._format.line(record, None if record.seen is None else next(codes, None))
            except Exception as error:  # noqa: BLE001 - whatever is wrong with one line, the others are written
                self._lose(1, type(error).__name__)  # the message may hold the text
                continue
            if chunk and len(chunk) + len(line) > self._chunk_bytes:
                yield chunk, texts
                chunk, texts = b"", 0
            chunk, texts = chunk + line, texts + 1
        if chunk:
            yield chunk, texts

    def _codes_of(self, seen: Sequence[Seen]) -> Sequence[str]:
        """The bins of these texts as drift detection counts them; none where that fails, which it says itself."""
        try:
            return self.codes(seen) if seen else ()
        except Exception:  # noqa: BLE001 - lines without bins are better than none
            return ()

    def _append(self, lines: bytes, texts: int) -> None:
        if self._clock() < self._retry_at:
            self._lose(texts, "waiting to try again")
            return
        try:
            self._file.append(lines)
        except OSError as error:
            self._retry_at = self._clock() + self._patience
            self._patience = min(2 * self._patience, LAST_RETRY_SECONDS)
            self._lose(texts, str(error))
        else:
            self._patience = FIRST_RETRY_SECONDS
            self.written += texts
            self._episode.end_if_calm()

    def _lose(self, texts: int, reason: str) -> None:
        self.failed += texts
        self._episode.add(texts, reason)


class PredictionLog:
    """Logs predictions to `path`; the last `files` (1 or more) full files of `max_bytes` are kept beside it.

    Texts themselves are in it only with `include_text`; `secret` is what they are hashed with, a random one if it is empty.
    `write` is `os.write`, `clock` gives seconds for retries and reports; both for tests. One process to a path.

    Raises `PredictionLogError` when the path cannot be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        files: int,
        include_text: bool = False,
        secret: str = "",
        write: Callable[[int, memoryview], int] = os.write,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = file = _RotatedFile(path, max_bytes, files, write)
        _check(path, file)
        # All mutable state of the event loop's side.
        self._batch: list[_Record] = []
        self._timer: asyncio.TimerHandle | None = None
        self._accepted = 0
        self._accepted_characters = 0
        self._found_full = 0
        self._found_closed = 0
        self._is_closed = False
        self._said_full = 0
        self._episode = _Episode(clock)
        self._format = _Format(include_text=include_text, secret=secret)
        self._writer = _Writer(file, self._format, min(CHUNK_BYTES, max_bytes), clock)
        self._writer.start()

    def code_with(self, codes: Callable[[Sequence[Seen]], Sequence[str]]) -> None:
        """How the bins are found that drift detection counts of texts; `codes` is called in the log's own thread."""
        self._writer.codes = codes

    def answer_with(self, answer_of: Callable[[Prediction], Mapping[str, object]]) -> None:
        """What a line has of the answer, by field: a label and its confidence unless this says otherwise."""
        self._format.answer_of = answer_of

    def record(
        self,
        request_id: str,
        text: str,
        prediction: Prediction,
        tokens: int | None,
        *,
        truncated: bool,
        seen: Seen | None = None,
        now: float | None = None,
    ) -> None:
        """Log an answered text; to be called on the event loop. `tokens` is None where nobody counted them, and `seen` what drift
        detection counts of the text, if it does. `now` is in seconds since 1970, by default the present.
        """
        if self._is_closed:
            self._found_closed += 1
            return
        writer = self._writer
        characters = self._accepted_characters + len(text)
        if (
            self._accepted - writer.written - writer.failed >= MAX_PENDING_TEXTS
            or characters - writer.done_characters > MAX_PENDING_CHARACTERS
        ):
            self._found_full += 1
        else:
            self._accepted += 1
            self._accepted_characters = characters
            self._batch.append(_Record(time.time() if now is None else now, request_id, text, prediction, tokens, truncated, seen))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(HAND_OVER_SECONDS, self._hand_over)

    def paths(self) -> list[Path]:
        """Where the lines are, newest first."""
        return self._file.names()

    def counts(self) -> LogCounts:
        """What became of all texts so far."""
        written, failed = self._writer.written, self._writer.failed
        lost = {"full_queue": self._found_full, "write_error": failed, "closed": self._found_closed}
        return LogCounts(written, lost, self._accepted - written - failed)

    async def close(self, within: float) -> None:
        """Write what is pending, in at most so many seconds. What is recorded later is lost, and so may be what a disk hangs on."""
        if not self._is_closed:
            self._is_closed = True
            if self._timer is not None:
                self._timer.cancel()
                self._hand_over()
            self._writer.handed.put(None)
        await asyncio.wait((asyncio.wrap_future(self._writer.ended),), timeout=within)
        if pending := self.counts().pending:
            log.error("prediction log closed before all lines were written", pending=pending)

    def _hand_over(self) -> None:
        self._timer = None
        if self._batch:
            self._writer.handed.put(self._batch)
            self._batch = []
        if lost := self._found_full - self._said_full:
            self._said_full = self._found_full
            self._episode.add(lost, "the disk is too slow or hangs, and the queue is full")
        else:
            self._episode.end_if_calm()


def _check(path: Path, file: _RotatedFile) -> None:
    """Raise `PredictionLogError` unless the file can be opened and its folder written."""
    folder = path.absolute().parent
    if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises where a folder above cannot be looked into
        raise PredictionLogError(f"{path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PredictionLogError(f"{path}: the folder {folder} cannot be written")
    try:
        file.open()
    except OSError as error:
        file.close()
        raise PredictionLogError(f"{path}: {error.strerror}") from error
