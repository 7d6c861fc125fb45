"""What was found, for people and for files: times in milliseconds, rates in texts a second."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import Any, Final

from capacity.load import Step
from capacity.planning import Measured, Sizing, machines_for

# The errors up to which the simulation counts as good, and the cores that others may take before it is said.
GOOD_ERROR: Final = 0.15
QUIET_CORES: Final = 0.05


@dataclass(frozen=True, slots=True)
class Report:
    """A run: what was asked, and what was found; `bound` in seconds."""

    target: str
    bound: float
    load: float | None
    measured: Measured
    sizing: Sizing | None

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        found = self.measured.found
        return {
            "target": self.target,
            "slo_p99_ms": self.bound * 1e3,
            "load": self.load,
            "saturated": self.measured.saturated,
            "highest": found.confirmed,
            "rejected": found.rejected,
            "tries": [_step(step) | {"met": step.meets(self.bound)} for step in self.measured.tries],
            "machines": self.machines(found.confirmed),
            "simulation": None if self.sizing is None else self._simulation(self.sizing),
        }

    def machines(self, rate: float | None) -> int | None:
        """How many machines of that rate the load needs, if there is one and it can be."""
        return machines_for(self.load, rate) if self.load and rate else None

    def _simulation(self, sizing: Sizing) -> dict[str, Any]:
        return {
            "cores": sizing.cores,
            "workers": sizing.model.policy.workers,
            "costs": asdict(sizing.model.machine) | {"p50_rest": sizing.model.p50_rest, "p99_rest": sizing.model.p99_rest},
            "points": [
                {
                    "rate": point.rate,
                    "p50_ms": point.p50 * 1e3,
                    "p99_ms": point.p99 * 1e3,
                    "simulated_p50_ms": point.simulated_p50 * 1e3,
                    "simulated_p99_ms": point.simulated_p99 * 1e3,
                    "cores_taken_by_others": point.others,
                }
                for point in sizing.points
            ],
            "highest_here": sizing.here,
            "sizes": [asdict(size) | {"machines": self.machines(size.rate)} for size in sizing.sizes],
        }


def _step(step: Step) -> dict[str, Any]:
    found: dict[str, Any] = {"rate": step.rate, "requests": len(step.moments), "p50_ms": step.p50 * 1e3, "p99_ms": step.p99 * 1e3}
    return found | {"costs": asdict(step.costs) if step.costs else None}


def trust(sizing: Sizing, highest: float) -> str:
    """How far to trust the simulation, in plain sentences."""
    worst = max(abs(error) for point in sizing.points for error in point.errors)
    if worst <= GOOD_ERROR:
        said = f"The simulation is within {worst:.0%} of p50 and p99 at these rates: trust its rates for this machine."
    else:
        said = f"The simulation is off by up to {worst:.0%} at these rates: take its rates as a rough guide."
    if sizing.here is not None:
        said += f" Simulated with the client here, the highest rate is {sizing.here:.0f} ({sizing.here / highest - 1:+.0%})."
    others = statistics.fmean(point.others for point in sizing.points)
    if others > QUIET_CORES:
        said += f" Other processes took {others:.2f} cores meanwhile: measure again on a quiet machine."
    return said
