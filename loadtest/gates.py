"""Gates: what a run must keep to, by scenario, in a file; each bound that is broken is named with its figures.

[NAME] in `gates.toml` may have
- max_error_rate: errors over requests; 0 where it is not given, so that no error passes unseen;
- min_achieved: good answers a second over requests a second;
- max_p99_passes: by group of requests, or "all", p99 latency over the time of one pass on the idle server (`pass_ms`): a bound for
  all machines. The p99 is the median of those of the run's ten stretches (`typical_p99`): what disturbs a shared machine for some
  seconds leaves it alone, a server that has become slower does not;
- max_slowest_passes: the slowest good answer of the whole run, over the same: wide, but a server that stops for seconds breaks it;
- max_noticed_seconds: how long drift detection takes to notice that requests have changed; before that, it must not;
- max_memory_growth: what the server's memory has grown by at the end, as a share of what it was after 5 minutes, when all is warm;
  a run that is shorter says nothing about it.

Where the server does not tell what a pass takes, or a group has no good answers at all, a bound cannot be measured, and is broken.
A machine that is busy with other things breaks gates, too: the result says how many cores others used (`other_cpu`).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from loadtest.measure import ALL
from loadtest.results import Gate, Result
from loadtest.scenarios import CLOSED, SCENARIOS, find_scenario

GATES_FILE = Path(__file__).with_name("gates.toml")

WARM_SECONDS = 300

Share = Annotated[float, Field(ge=0, le=1)]


class GatesError(Exception):
    """Raised when a file of gates is wrong; the message names it and what is wrong."""


class Bounds(BaseModel):
    """Of one scenario; None where there is no bound."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    max_error_rate: Share = 0.0
    min_achieved: Share | None = None
    max_p99_passes: dict[str, Annotated[float, Field(gt=0)]] = {}
    max_slowest_passes: Annotated[float, Field(gt=0)] | None = None
    max_memory_growth: Annotated[float, Field(gt=0)] | None = None
    max_noticed_seconds: Annotated[float, Field(gt=0)] | None = None


_BOUNDS = TypeAdapter(dict[str, Bounds])


def read_gates(path: Path = GATES_FILE) -> dict[str, Bounds]:
    """The bounds by scenario. Raises `GatesError`."""
    try:
        gates = _BOUNDS.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise GatesError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise GatesError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if unknown := sorted(set(gates) - {*SCENARIOS, CLOSED.name}):
        raise GatesError(f"{path}: {', '.join(unknown)}: no such scenario")
    for name, bounds in gates.items():
        scenario = find_scenario(name)
        if strange := set(bounds.max_p99_passes) - {ALL, "200", *scenario.groups, *scenario.expected}:
            raise GatesError(f"{path}: {name}.max_p99_passes: no such group: {', '.join(sorted(strange))}")
    return gates


def check(result: Result, bounds: Bounds) -> list[Gate]:
    """The gates of a result. What cannot be measured is broken, but nothing is asked of the memory of a short run, nor of refusals
    that did not come.
    """
    errors = sum(result.errors.values())
    gates = [_at_most("error rate", bounds.max_error_rate, errors / result.requests if result.requests else 1.0)]
    if bounds.min_achieved is not None:
        achieved = result.achieved_rate / result.offered_rate if result.offered_rate else 0.0
        gates.append(
            Gate(name="achieved over offered", bound=bounds.min_achieved, measured=achieved, passed=achieved >= bounds.min_achieved)
        )
    expected = find_scenario(result.scenario).expected
    for group, bound in bounds.max_p99_passes.items():
        # Where all went well, there is no group of those that did.
        p99 = result.typical_p99.get(group, result.typical_p99.get(ALL) if group == "200" else None)
        if p99 is not None or group not in expected:
            name = "p99 in passes" if group == ALL else f"p99 of {group} in passes"
            gates.append(_at_most(name, bound, _in_passes(result, p99)))
    if bounds.max_slowest_passes is not None:
        slowest = result.latency.max if result.latency else None
        gates.append(_at_most("slowest answer in passes", bounds.max_slowest_passes, _in_passes(result, slowest)))
    if bounds.max_memory_growth is not None and (growth := _memory_growth(result)) is not None:
        gates.append(_at_most("memory growth", bounds.max_memory_growth, growth))
    if bounds.max_noticed_seconds is not None:
        gate = _at_most("seconds until the change was noticed", bounds.max_noticed_seconds, result.noticed_after)
        gates.append(gate.model_copy(update={"passed": gate.passed and (result.noticed_after or 0) >= 0}))
    return gates


def _in_passes(result: Result, milliseconds: float | None) -> float | None:
    return milliseconds / result.pass_ms if result.pass_ms and milliseconds is not None else None


def _memory_growth(result: Result) -> float | None:
    warm = [second.server_rss for second in result.series if second.at >= WARM_SECONDS and second.server_rss is not None]
    return warm[-1] / warm[0] - 1 if warm else None


def _at_most(name: str, bound: float, measured: float | None) -> Gate:
    return Gate(name=name, bound=bound, measured=measured, passed=measured is not None and measured <= bound)
