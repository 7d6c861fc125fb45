"""One record a request, and the file in which a generator leaves them: a line of JSON each, after one that says when it began.

All moments are seconds of `time.perf_counter`, which is the same clock in all processes of a machine.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, Protocol

import orjson

_PARTS = re.compile(r"(\w+);dur=([\d.]+)")
_BUFFER_BYTES = 1 << 20


class Sample(NamedTuple):
    """What became of one request.

    `intended` is when it was to start, `sent` when it was written to a socket, `answered` when the end of the answer was read, or
    the client knew that none would come. `status` is 0 without an answer. The parts of Server-Timing are None where it is missing.
    `retry_after` is in seconds.
    """

    intended: float
    sent: float
    answered: float
    status: int
    outcome: str
    texts: int = 1
    group: str = ""
    tokenize_ms: float | None = None
    queue_ms: float | None = None
    inference_ms: float | None = None
    total_ms: float | None = None
    retry_after: float | None = None


class Timing(NamedTuple):
    """The parts of a Server-Timing header in milliseconds."""

    tokenize: float | None = None
    queue: float | None = None
    inference: float | None = None
    total: float | None = None


class Recorder(Protocol):
    """Takes samples as they come."""

    def __call__(self, sample: Sample, /) -> object:
        """Take one."""


def parse_timing(header: str) -> Timing:
    """Parse a Server-Timing header (W3C); parts that are not ours are left out."""
    return Timing(**{name: float(value) for name, value in _PARTS.findall(header) if name in Timing._fields})


class SampleFile:
    """A file that takes samples as they come. Raises `OSError`."""

    def __init__(self, path: Path, begin: float) -> None:
        self._file = path.open("wb", buffering=_BUFFER_BYTES)
        self._file.write(orjson.dumps(begin) + b"\n")

    def __call__(self, sample: Sample, /) -> None:
        """Take one."""
        self._file.write(orjson.dumps(tuple(sample)) + b"\n")

    def close(self) -> None:
        """Write out what is still in memory."""
        self._file.close()


def read_samples(path: Path) -> tuple[float, list[Sample]]:
    """When the run began, and its samples in the order of their ends. Raises `OSError`, and `ValueError` if a line is broken."""
    with path.open("rb") as file:
        begin = float(orjson.loads(file.readline()))
        return begin, [Sample(*orjson.loads(line)) for line in file]
