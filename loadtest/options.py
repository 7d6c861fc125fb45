"""The options of a load test, from the environment."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from loadtest.gates import GATES_FILE
from loadtest.light import Server
from loadtest.scenarios import CLOSED, SCENARIOS, Generator, Scenario, find_scenario

ALL = "all"
SOAK_SECONDS = 60.0
USERS = 32
GENERATORS: Mapping[str, Generator] = {"locust": "locust", "light": "light"}

Choice = TypeVar("Choice")


class OptionError(Exception):
    """Raised when a variable of the environment has a bad value; the message names it."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the environment asks for; None where it does not."""

    scenarios: tuple[Scenario, ...]
    host: str | None
    command: tuple[str, ...]
    duration: float | None
    soak: float
    capacity: float | None
    generator: Generator | None
    seed: int
    users: int
    out: Path
    gates: Path
    exact: bool
    ui_port: int

    def seconds(self, scenario: Scenario) -> float:
        """How long a scenario is to run."""
        default = self.soak if scenario.name == "soak" and len(self.scenarios) > 1 else scenario.seconds
        return self.duration or default


def read_options(environment: Mapping[str, str]) -> Options:
    """Read the options. Raises `OptionError`."""
    given = {name: value for name, value in environment.items() if value}
    host = given.get("HOST")
    if host is not None:
        try:
            Server.at(host)
        except ValueError as error:
            raise OptionError(f"HOST={host}: must be the URL of a running server, or unset to start one") from error
    name = given.get("SCENARIO", CLOSED.name if "USERS" in given else "steady")
    if name not in {ALL, CLOSED.name, *SCENARIOS}:
        raise OptionError(f"SCENARIO={name}: must be one of {', '.join(SCENARIOS)}, {ALL}, {CLOSED.name}")
    if "USERS" in given and name != CLOSED.name:
        raise OptionError(f"USERS={given['USERS']}: is for SCENARIO={CLOSED.name}; the others have a rate, see CAPACITY")
    return Options(
        scenarios=tuple(SCENARIOS.values()) if name == ALL else (find_scenario(name),),
        host=host and host.rstrip("/"),
        command=_command(given),
        duration=_number(given, "DURATION", 1, 86_400),
        soak=_number(given, "SOAK", 1, 86_400) or SOAK_SECONDS,
        capacity=_number(given, "CAPACITY", 0.1, 1e6),
        generator=_choice(given, "GENERATOR", GENERATORS) if "GENERATOR" in given else None,
        seed=_whole(given, "SEED", 1, 0, 10**8),
        users=_whole(given, "USERS", USERS, 1, 10_000),
        out=Path(given.get("OUT", "dist/loadtest")),
        gates=Path(given["GATES"]) if "GATES" in given else GATES_FILE,
        exact=_choice(given, "ANSWERS", {"exact": True, "label": False}) if "ANSWERS" in given else True,
        ui_port=_whole(given, "UI_PORT", 8089, 1, 65_535),
    )


def _command(given: Mapping[str, str]) -> tuple[str, ...]:
    if "SERVER" not in given:
        return (sys.executable, "-m", "commands", "serve")
    try:
        return tuple(shlex.split(given["SERVER"]))
    except ValueError as error:
        raise OptionError(f"SERVER={given['SERVER']}: must be a command: {error}") from error


def _number(given: Mapping[str, str], name: str, least: float, most: float) -> float | None:
    if name not in given:
        return None
    try:
        value = float(given[name])
    except ValueError:
        value = math.nan
    if not least <= value <= most:
        raise OptionError(f"{name}={given[name]}: must be a number from {least:g} to {most:g}")
    return value


def _whole(given: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    value = _number(given, name, least, most)
    if value is not None and not value.is_integer():
        raise OptionError(f"{name}={given[name]}: must be a whole number")
    return default if value is None else int(value)


def _choice(given: Mapping[str, str], name: str, choices: Mapping[str, Choice]) -> Choice:
    if given[name] not in choices:
        raise OptionError(f"{name}={given[name]}: must be {' or '.join(choices)}")
    return choices[given[name]]
