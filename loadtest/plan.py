"""What a generator is told to do, in a file: generators are programs of their own, so that their CPU can be told from all else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from loadtest.answers import Reference
from loadtest.arrivals import Pace, poisson
from loadtest.scenarios import Request, find_scenario

PLAN_VARIABLE = "LOADTEST_PLAN"


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. With `clients`, it is a closed loop of so many, for the seconds of its paces; their rates mean nothing then."""

    scenario: str
    url: str
    seed: int
    paces: list[Pace]
    reference: Reference
    samples: Path
    clients: int = 0

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return sum(pace.seconds for pace in self.paces)

    @property
    def change(self) -> float:
        """When the last pace begins, in seconds."""
        return sum(pace.seconds for pace in self.paces[:-1])

    def requests(self) -> Iterator[Request]:
        """The requests, without end."""
        return find_scenario(self.scenario).requests(self.seed, self.reference)

    def calls(self) -> Iterator[tuple[float, Request]]:
        """Each request with the moment at which it is to start, in seconds from the beginning."""
        moments, later = poisson(self.paces, self.seed), find_scenario(self.scenario).later
        if later is None:
            return zip(moments, self.requests(), strict=False)
        earlier, others, change = self.requests(), later(self.seed, self.reference), self.change
        return ((moment, next(earlier if moment < change else others)) for moment in moments)


_PLAN = TypeAdapter(Plan)


def write_plan(plan: Plan, path: Path) -> None:
    """Write a plan. Raises `OSError`."""
    path.write_bytes(_PLAN.dump_json(plan))


def read_plan(path: Path) -> Plan:
    """Read a plan. Raises `OSError`."""
    return _PLAN.validate_json(path.read_bytes())
