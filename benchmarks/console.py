"""What the benchmarks share."""

from __future__ import annotations


def say(line: str) -> None:
    """A line of results, on standard output."""
    print(line, flush=True)  # noqa: T201 - the output of the benchmarks
