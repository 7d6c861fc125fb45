"""Where results are written."""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path
from typing import TextIO

from commands.console import fail

STANDARD_OUTPUT = (Path("-"), Path("/dev/stdout"))


class Output:
    """Standard output, or a file that only takes its name once it is complete; devices and pipes are written to as they are."""

    def __init__(self, path: Path | None) -> None:
        self._path = None if path in STANDARD_OUTPUT else path
        self._temporary: Path | None = None

    def __enter__(self) -> TextIO:
        if self._path is None:
            if sys.stdout is None:
                fail("standard output is closed")
            if isinstance(sys.stdout, io.TextIOWrapper):
                # A carriage return stays one, on every system.
                sys.stdout.reconfigure(encoding="utf-8", newline="")
            self._stream: TextIO = sys.stdout
            return self._stream
        try:
            if self._path.exists() and not self._path.is_file():
                self._stream = self._path.open("w", encoding="utf-8", newline="")
                return self._stream
            self._final = self._path.resolve()
            if not self._final.parent.is_dir():
                fail(f"{self._final.parent}: no such folder")
            self._temporary = self._final.with_name(f".{os.getpid()}.part")
            self._stream = self._temporary.open("w", encoding="utf-8", newline="")
        except OSError as error:
            fail(f"{self._path}: {error.strerror or error}", 1)
        return self._stream

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self._path is None:
            return
        is_complete = False
        try:
            self._stream.close()  # writes what is left, and may fail
            is_complete = kind is None
        finally:
            if self._temporary is not None:
                if is_complete:
                    if self._final.exists():
                        shutil.copymode(self._final, self._temporary)
                    self._temporary.replace(self._final)
                else:
                    self._temporary.unlink()
