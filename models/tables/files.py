"""Files of text, opened: paths and standard input, gzip, byte order marks and other encodings. All are read once, front to back."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import sys
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Protocol, TextIO, cast

from models.tables.types import TableError

# By either name it is what was inherited, and not whatever was opened since in the place of a closed one.
STANDARD_INPUT: Final = (Path("-"), Path("/dev/stdin"))
GZIP_SUFFIXES: Final = frozenset({".gz", ".gzip"})
# In characters. A pasted log file in a ticket may be long, but a file of one endless line is not a file of texts.
LONGEST_LINE: Final = 16 * 1024 * 1024
NAME_ENCODING: Final = "--encoding names another one, such as windows-1252"

_GZIP: Final = b"\x1f\x8b"
# The longer marks first: the one of UTF-32 begins like the one of UTF-16.
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NOT_TEXT: Final = (
    (b"PK\x03\x04", "a zip archive, or an Excel workbook; unpack it, or save the sheet as CSV"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook; save the sheet as CSV"),
    (b"PAR1\x15", 'Parquet; convert it: python -c "import pandas; pandas.read_parquet(FILE).to_csv(CSV_FILE, index=False)"'),
    (b"BZh91AY&SY", "compressed by bzip2; decompress it first (bunzip2), or use gzip"),
    (b"\xfd7zXZ\x00", "compressed by xz; decompress it first (unxz), or use gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd; decompress it first (unzstd), or use gzip"),
    (_GZIP, "compressed by gzip twice; decompress it first (gunzip)"),
)
_HEAD: Final = 16


_REPLACE_LONE: Final = "supportbot.replace_lone"


def _replace_lone(error: UnicodeError) -> tuple[str, int]:
    """An error handler: U+FFFD for what is no character, such as a lone surrogate; an error for a file that ends within one."""
    if not isinstance(error, UnicodeDecodeError) or error.reason == "truncated data":
        raise error
    return "\ufffd", error.end


codecs.register_error(_REPLACE_LONE, _replace_lone)


class _Bytes(Protocol):
    """What is needed of a binary stream; gzip's is no `BinaryIO`."""

    def read(self, size: int, /) -> bytes: ...
    def read1(self, size: int, /) -> bytes: ...


class TextFile(Iterator[str | None]):
    """Iterates over the lines, their ends included; None stands for one of over `LONGEST_LINE` characters.

    Bytes that cannot be decoded become surrogates, or U+FFFD in UTF-16 and UTF-32. All methods raise `TableError`.
    """

    def __init__(self, name: str, encoding: str, stream: TextIO) -> None:
        self.name = name
        self.encoding = encoding
        self._stream = stream
        self._peeked: deque[str | None] = deque()

    def __next__(self) -> str | None:
        line = self._peeked.popleft() if self._peeked else self._read_line()
        if line == "":
            raise StopIteration
        return line

    def peek(self, count: int) -> list[str | None]:
        """Up to `count` lines that come next; they are still to be iterated over."""
        while len(self._peeked) < count and (not self._peeked or self._peeked[-1] != ""):
            self._peeked.append(self._read_line())
        return [line for line in self._peeked if line != ""][:count]

    def read(self) -> str:
        """The whole content; not after other methods."""
        with _faults_of(self.name):
            return self._stream.read().removeprefix("\ufeff")

    def _read_line(self) -> str | None:
        with _faults_of(self.name):
            line = part = self._stream.readline(LONGEST_LINE)
            while len(part) == LONGEST_LINE and not part.endswith("\n"):
                part = self._stream.readline(LONGEST_LINE)
        if len(line) == LONGEST_LINE:
            return None
        # Files that were put together have a mark at the beginning of each.
        return line.removeprefix("\ufeff")


@contextmanager
def open_text(path: Path, encoding: str | None = None) -> Iterator[TextFile]:
    """Open a file, `-` being standard input, decompressing gzip. `encoding`: where no byte order mark says another; UTF-8 if None.

    Raises `TableError` if it cannot be opened, or is not text.
    """
    name = source_name(path)
    with ExitStack() as stack:
        with _faults_of(name):
            source: _Bytes = _standard_input() if path in STANDARD_INPUT else stack.enter_context(path.open("rb"))
            head = source.read(_HEAD)
            if head.startswith(_GZIP):
                source = stack.enter_context(gzip.GzipFile(fileobj=_replayed(head, source)))
                head = source.read(_HEAD)
            elif path.suffix.lower() in GZIP_SUFFIXES:
                raise TableError(f"{name}: is not gzip, in spite of its name")
        for magic, meaning in _NOT_TEXT:
            if head.startswith(magic):
                raise TableError(f"{name}: is {meaning}")
        encoding = next((marked for mark, marked in _MARKS if head.startswith(mark)), None) or _usable(encoding or "utf-8")
        # Escaped, what cannot be decoded spoils its own row only. Encodings of wide units cannot escape bytes.
        errors = _REPLACE_LONE if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
        stream = io.TextIOWrapper(_replayed(head, source), encoding, errors, newline="")
        yield TextFile(name, encoding.upper(), stack.enter_context(stream))


def source_name(path: Path) -> str:
    """What a path is called in output and messages."""
    return "standard input" if path in STANDARD_INPUT else os.fsencode(path).decode(errors="replace")


def _standard_input() -> _Bytes:
    if sys.stdin is None:
        raise TableError("standard input is closed")
    return cast("_Bytes", sys.stdin.buffer)


def _usable(encoding: str) -> str:
    """The encoding's usual name; without a mark, UTF-16 and UTF-32 are little-endian."""
    try:
        "a".encode(encoding)  # other codecs, such as base64, have names as well
        name = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        raise TableError(
            f"--encoding {encoding}: no such encoding; there are utf-8, utf-16, windows-1252, latin-1 and more"
        ) from None
    return f"{name}-le" if name in {"utf-16", "utf-32"} else name


@contextmanager
def _faults_of(name: str) -> Iterator[None]:
    """Faults of reading as `TableError`."""
    try:
        yield
    except EOFError as error:
        raise TableError(f"{name}: the gzip file is cut off or damaged") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise TableError(f"{name}: the gzip file is damaged: {error}") from error
    except OSError as error:
        raise TableError(f"{name}: {error.strerror or error}") from error
    except UnicodeError as error:
        raise TableError(f"{name}: {error}; {NAME_ENCODING}") from error


def _replayed(head: bytes, rest: _Bytes) -> io.BufferedReader:
    return io.BufferedReader(_Replayed(head, rest))


class _Replayed(io.RawIOBase):
    """A stream whose first `_HEAD` bytes were read already. Once it has ended, it is not asked again: a terminal would go on."""

    def __init__(self, head: bytes, rest: _Bytes) -> None:
        self._head = head
        self._rest = rest
        self._ended = len(head) < _HEAD

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Fill some of the buffer; 0 at the end."""
        data, self._head = self._head[: len(buffer)], self._head[len(buffer) :]
        if not data and not self._ended:
            data = self._rest.read1(len(buffer))
            self._ended = not data
        buffer[: len(data)] = data
        return len(data)
