"""`supportbot drift merge`"""

from __future__ import annotations

from functools import reduce
from operator import add
from pathlib import Path
from typing import Annotated

import typer

from commands.console import fail, say
from commands.drift.monitoring import OutOption, read_baseline_or_state, write_baseline
from commands.inputs import check_files
from drift import BaselineError


def merge(
    files: Annotated[list[Path], typer.Argument(help="Baselines, or the states of servers (DRIFT_STATE).")],
    out: OutOption,
) -> None:
    """Make one baseline of several: those of replicas, or of several times.

    Counts add up exactly. Of a state, its baseline is taken, or what it has counted so far if it is still learning one. All must be
    of the same model, with the same strata.

    Example:

        supportbot drift merge one.json two.json --out baseline.json
    """
    check_files(files, out)
    found = [read_baseline_or_state(path) for path in files]
    try:
        whole = reduce(add, found)
    except BaselineError as error:
        fail(f"{', '.join(map(str, files))}: {error}")
    write_baseline(whole, out)
    say(f"{out}: {whole.texts:,} texts of {len(found)} files")
