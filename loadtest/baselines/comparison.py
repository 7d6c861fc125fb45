"""What a comparison found, as it is kept in a JSON file, and the arithmetic on it: medians over repeats, with least and most.

Rates are texts a second, times milliseconds, CPU in cores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, Self

from pydantic import BaseModel, ConfigDict

from loadtest.results import Machine

OURS, OURS_WINDOW, MOSEC = "ours", "ours-window", "mosec"
# In the order of the tables.
SYSTEMS: Final = (OURS, OURS_WINDOW, MOSEC, "no-batching", "article", "usual-recipe")
TITLES: Final[Mapping[str, str]] = {
    OURS: "SupportBot",
    OURS_WINDOW: "SupportBot, fixed 40 ms window",
    MOSEC: "mosec, no batching, one process per core",
    "no-batching": "no batching, one thread per core",
    "article": "one padded batch per request",
    "usual-recipe": "a padded micro-batcher (40 ms, 32 texts)",
}
# The rates offered to all, as shares of what ours can do.
SHARES: Final[Mapping[str, float]] = {"light": 0.1, "half": 0.5, "80 %": 0.8, "overload": 1.5}
PROBE = "probe"
# The share of all requests that must be answered in time: p99.
IN_TIME = 0.99


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Point(_Record):
    """A system under one offered rate. `load` is a key of SHARES, or PROBE; `achieved` counts answers during the run only.

    Of those `sent`, `answered` got an answer, `in_time` within the bound, `refused` a status other than 200, and the rest none in
    time to be waited for. Latencies, from the intended start, are of the answered; None without any. `other_cpu` is what this
    machine did besides, and what its host took from it: noise.
    """

    system: str
    load: str
    repeat: int
    rate: float
    seconds: float
    sent: int
    answered: int
    in_time: int
    refused: int
    achieved: float
    p50: float | None
    p99: float | None
    server_cpu: float
    client_cpu: float
    other_cpu: float

    @property
    def holds(self) -> bool:
        """p99 of all requests is within the bound, where a request without an answer took for ever."""
        return self.in_time >= IN_TIME * self.sent

    @property
    def failed_share(self) -> float:
        """Of the requests, those that got no answer, whatever the reason."""
        return 1 - self.answered / self.sent if self.sent else 0.0


class Highest(_Record):
    """The highest rate found at which a system holds the bound, and the lowest found above it at which it does not."""

    system: str
    repeat: int
    rate: float
    too_high: float


class Alone(_Record):
    """Without other load: the median latency of a lone short text and of a lone ticket, from one client that sends one by one; and
    how many short texts a second are answered when many clients do."""

    system: str
    repeat: int
    short_ms: float
    ticket_ms: float
    short_rate: float


class Agreement(_Record):
    """Labels of written tickets: how many are those of ours, and how many are right."""

    system: str
    texts: int
    same: int
    right: int


class Comparison(_Record):
    """One run of all."""

    started: str  # ISO 8601, UTC
    machine: Machine
    packages: dict[str, str]
    repeats: int
    seconds: float
    probe_seconds: float
    patience: float
    bound_ms: float
    capacity: float
    points: list[Point]
    highest: list[Highest]
    alone: list[Alone]
    agreement: list[Agreement]

    def rate(self, load: str) -> float:
        """The rate offered under this name."""
        return self.capacity * SHARES[load]

    def at(self, system: str, load: str) -> list[Point]:
        """The repeats of one point."""
        return [point for point in self.points if (point.system, point.load) == (system, load)]

    def spread(self, system: str, load: str, value: Callable[[Point], float | None]) -> Spread | None:
        """A value of one point over the repeats; None where there is none."""
        values = [found for point in self.at(system, load) if (found := value(point)) is not None]
        return Spread.of(values) if values else None

    def highest_rate(self, system: str) -> Spread:
        """The highest rates of a system over the repeats."""
        return Spread.of([found.rate for found in self.highest if found.system == system])

    def alone_spread(self, system: str, value: Callable[[Alone], float]) -> Spread:
        """A value of a system without other load, over the repeats."""
        return Spread.of([value(found) for found in self.alone if found.system == system])


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, the least and the most."""

    middle: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Self:
        """Of at least one value."""
        known = list(values)
        return cls(median(known), min(known), max(known))


def rotated(systems: Sequence[str], repeat: int) -> list[str]:
    """The order of a round: each begins one place earlier, so that none always runs first, or always after the same noise."""
    start = -repeat % len(systems)
    return [*systems[start:], *systems[:start]]


def read_comparison(path: Path) -> Comparison:
    """Read a comparison. Raises `OSError`, or `ValidationError` when it is none."""
    return Comparison.model_validate_json(path.read_bytes())


def write_comparison(comparison: Comparison, path: Path) -> None:
    """Write a comparison as indented JSON. Raises `OSError`."""
    path.write_text(comparison.model_dump_json(indent=1) + "\n", encoding="utf-8")
