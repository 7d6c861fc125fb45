"""Where `supportbot drift` gets its monitor: from the settings that a server here would have, and a baseline."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from commands.console import fail
from commands.inputs import bundle_folder
from commands.output import Output
from drift import Baseline, BaselineError, Layout, Monitor, Profile, ProfileError
from models.bundle import PROFILE
from server.observe.drift import monitor_of
from server.settings import SettingsError, load_settings

BaselineOption = Annotated[
    Path | None,
    typer.Option("--baseline", help="The baseline to compare with.", show_default="DRIFT_PROFILE of the settings, else learned"),
]


OutOption = Annotated[Path, typer.Option(help="The baseline to write, for DRIFT_PROFILE.")]


def chosen_baseline(given: Path | None) -> Path | None:
    """The file of the baseline: the given one, else that of a server here. Ends the command if a setting is wrong."""
    if given is not None:
        return given
    try:
        return load_settings().drift_profile
    except SettingsError as error:
        fail(str(error))


def read_baseline(path: Path) -> Baseline:
    """Ends the command if the file is no baseline."""
    try:
        return Baseline.from_bytes(path.read_bytes())
    except OSError as error:
        fail(f"{path}: {error.strerror or error}")
    except BaselineError as error:
        fail(f"{path}: {error}")


def read_baseline_or_state(path: Path) -> Baseline:
    """A baseline; or that of a server's state, or what it has counted towards one. Ends the command if the file is neither."""
    try:
        found = json.loads(path.read_bytes())
        found = found.get("timeline", found)
        state = found.get("monitor")
        return Baseline.from_json(found if state is None else state["baseline"] or state["present"])
    except OSError as error:
        fail(f"{path}: {error.strerror or error}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:  # BaselineError is a ValueError
        fail(f"{path}: neither a baseline nor a server's state: {error}")


def write_baseline(baseline: Baseline, path: Path) -> None:
    """Write a baseline, whole or not at all. Ends the command if it cannot be."""
    try:
        with Output(path) as stream:
            stream.write(baseline.to_bytes().decode())
    except OSError as error:
        fail(f"{path}: {error.strerror or error}", 1)


def model_layout(bundle: Path | None) -> Layout:
    """The channels of a bundle's profile. Ends the command if it has none."""
    path = bundle_folder(bundle) / PROFILE
    try:
        return Profile.from_bytes(path.read_bytes()).layout
    except FileNotFoundError:
        fail(f"{path}: No such file; the bundle has no profile, so only a baseline (--baseline) can say what its channels are")
    except OSError as error:
        fail(f"{path}: {error.strerror or error}")
    except ProfileError as error:
        fail(f"{path}: {error}")


def layout_and_baseline(path: Path | None, bundle: Path | None = None) -> tuple[Layout, Baseline | None]:
    """The channels to read, and the baseline to compare with: without one, the channels are those of the bundle's profile."""
    path = chosen_baseline(path)
    if path is None:
        return model_layout(bundle), None
    baseline = read_baseline(path)
    return baseline.layout, baseline


def new_monitor(layout: Layout, baseline: Baseline | None) -> Monitor:
    """A monitor as a server here would have it, by its settings. Ends the command if one of them is wrong."""
    try:
        options = load_settings().drift_options()
    except SettingsError as error:
        fail(str(error))
    return monitor_of(layout, replace(options, baseline=baseline))
