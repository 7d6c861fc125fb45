"""An output that an interrupted command goes on with, as if it had not been interrupted.

Beside the output stands `OUT.partial`, with the rows so far, and `OUT.partial.json`, with what they depend on. When the command is
started again with the same inputs, options and model, it keeps the rows that are whole and goes on with the next one. The output
takes its name when it is complete.
"""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from commands.console import fail, say
from commands.output import STANDARD_OUTPUT
from models.bulk import CHUNK
from models.tables import STANDARD_INPUT, TableError


def identity(inputs: Sequence[Path], facts: Mapping[str, object]) -> str:
    """What a run depends on, as one word: its inputs by path, size and time of change, and all other facts."""
    files = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in inputs]
    return hashlib.sha256(json.dumps([files, sorted(facts.items())], default=str).encode()).hexdigest()


def can_resume(inputs: Sequence[Path], output: Path | None) -> bool:
    """Only files can be read again from the beginning, and only a file can be gone on with."""
    if output is None or output in STANDARD_OUTPUT or (output.exists() and not output.is_file()) or not inputs:
        return False
    return all(path not in STANDARD_INPUT and path.is_file() for path in inputs)


class ResumableOutput:
    """A file of results, as CSV or else as JSON Lines; `done` is how many rows an earlier run has left in it, and `bad` how many of
    these have an error.
    """

    def __init__(self, path: Path, identity: str, *, is_csv: bool) -> None:
        self._final = path.resolve()
        self._partial = self._final.with_name(self._final.name + ".partial")
        self._record = self._final.with_name(self._final.name + ".partial.json")
        self._identity = identity
        self._is_csv = is_csv
        self.done = self.bad = 0

    def __enter__(self) -> TextIO:
        if not self._final.parent.is_dir():
            fail(f"{self._final.parent}: no such folder")
        try:
            if self._partial.exists():
                self._take_up()
            if not self.done:
                self._record.write_text(json.dumps({"identity": self._identity}), encoding="utf-8")
                self._partial.write_bytes(b"")
            self._stream = self._partial.open("a", encoding="utf-8", newline="")
        except OSError as error:
            fail(f"{self._final}: {error.strerror or error}", 1)
        if self.done:
            say(f"going on after {self.done:,} rows that an earlier run has left in {self._partial}")
        return self._stream

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._stream.close()
        if isinstance(error, TableError):  # the input is at fault, and would be again
            self._partial.unlink()
            self._record.unlink()
            return
        if kind is not None:
            say(f"the rows so far are in {self._partial}; the same command goes on with them")
            return
        if self._final.exists():
            shutil.copymode(self._final, self._partial)
        self._partial.replace(self._final)
        self._record.unlink()

    def _take_up(self) -> None:
        """Keep the whole records of an earlier run, as many chunks of rows as there are: so batches are those of one run."""
        try:
            found = json.loads(self._record.read_bytes())["identity"]
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            found = None
        if found != self._identity:
            fail(
                f"{self._partial} is of an earlier run with other inputs, options or another model;"
                " remove it to start afresh, or give the same ones to go on"
            )
        ends = self._ends()
        header = 1 if self._is_csv else 0
        self.done = max(0, len(ends) - header) // CHUNK * CHUNK
        with self._partial.open("r+b") as stream:
            stream.truncate(ends[self.done + header - 1] if self.done else 0)
        self.bad = self._count_bad()

    def _count_bad(self) -> int:
        with self._partial.open(encoding="utf-8", newline="") as stream:
            if self._is_csv:
                return sum(bool(row["error"]) for row in csv.DictReader(stream))
            return sum('"error"' in line and "error" in json.loads(line) for line in stream)

    def _ends(self) -> list[int]:
        """Where each whole record ends, in bytes."""
        ends: list[int] = []
        place, quotes = 0, 0
        with self._partial.open("rb") as stream:
            for line in stream:
                place += len(line)
                quotes += line.count(b'"') if self._is_csv else 0  # a line end within quotes belongs to the record
                if line.endswith(b"\n") and quotes % 2 == 0:
                    ends.append(place)
        return ends
