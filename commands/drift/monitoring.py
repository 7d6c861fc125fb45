"""Where `supportbot drift` gets its monitor: from the settings that a server here would have, and a baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from commands.console import fail
from drift import Baseline, BaselineError, Layout, Monitor, Promise

STRATA: Final = 24

BaselineOption = Annotated[
    Path | None, typer.Option("--baseline", help="The baseline to compare with.", show_default="learned from the log's beginning")
]


def read_baseline(path: Path) -> Baseline:
    """Ends the command if the file is no baseline."""
    try:
        return Baseline.from_bytes(path.read_bytes())
    except OSError as error:
        fail(f"{path}: {error.strerror or error}")
    except BaselineError as error:
        fail(f"{path}: {error}")


def layout_and_baseline(path: Path | None) -> tuple[Layout, Baseline | None]:
    """The channels to read, and the baseline to compare with, if there is one."""
    if path is None:
        fail("give --baseline")
    baseline = read_baseline(path)
    return baseline.layout, baseline


def new_monitor(layout: Layout, baseline: Baseline | None) -> Monitor:
    """A monitor as a server with these settings would have it."""
    return Monitor(layout, baseline, promise=Promise(), strata=STRATA)
