"""`supportbot compare`"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from commands.console import fail, say

if TYPE_CHECKING:
    from loadtest.compare import Comparison, Figure
    from loadtest.results import Result

STYLES = {"regression": "bold red", "worse": "yellow", "better": "green", "unknown": "yellow"}
WORDS = {"same": "no change", "shown": "", "noise": "within noise", "regression": "REGRESSION"}


def compare(
    a: Annotated[Path, typer.Argument(metavar="A.json", help="The result of the run before.")],
    b: Annotated[Path, typer.Argument(metavar="B.json", help="The result of the run after.")],
    max_p50_rise: Annotated[float, typer.Option(min=0.0, help="Fail if p50 rose by more, in percent.")] = 10.0,
    max_p99_rise: Annotated[float, typer.Option(min=0.0, help="Fail if p99 rose by more, in percent.")] = 10.0,
    max_rate_drop: Annotated[
        float, typer.Option(min=0.0, max=100.0, help="Fail if the answers a second fell by more, in percent.")
    ] = 5.0,
    max_failed_rise: Annotated[
        float, typer.Option(min=0.0, max=100.0, help="Fail if the share of failed requests rose by more, in percentage points.")
    ] = 0.1,
    force: Annotated[bool, typer.Option("--force", help="Compare runs of different scenarios too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON to standard output instead of a table.")] = False,
) -> None:
    """Compare the results of two load tests, with bands of noise: is B worse than A?

    Exit status 0 when it is not, 1 when a figure is worse by more than its bound and by more than noise, 2 for files that cannot be
    compared. The noise band comes from what varies between ten stretches of the runs; by chance alone, one change in twenty is
    beyond it. What varies between one day or machine and another it does not know.

    Example:

        supportbot compare before/steady.json after/steady.json --max-p99-rise 5
    """
    from loadtest.compare import Bounds
    from loadtest.compare import compare as find_changes

    before, after = _read(a), _read(b)
    if before.scenario != after.scenario and not force:
        fail(f"different scenarios, {before.scenario} and {after.scenario}: --force compares them all the same")
    if before.latency is None:
        fail(f"{a}: no request was answered, so there is nothing to compare with")
    found = find_changes(before, after, Bounds(max_p50_rise, max_p99_rise, max_rate_drop, max_failed_rise))
    if as_json:
        typer.echo(json.dumps(_as_json(found), indent=2))
    else:
        _show(found, before.scenario)
    for warning in found.warnings:
        say(f"warning: {warning}")
    if found.regressions:
        fail("\n".join(map(_complain, found.regressions)), 1)


def _read(path: Path) -> Result:
    from loadtest.results import ResultError, read_result

    try:
        return read_result(path)
    except ResultError as error:
        fail(str(error))


def _complain(figure: Figure) -> str:
    if figure.change is None:
        return f"{figure.name}: B has none"
    return f"{figure.name}: {_change(figure)} is beyond the bound of {figure.bound:+g}{_unit_of_change(figure)} and beyond noise"


def _unit_of_change(figure: Figure) -> str:
    return " points" if figure.points else " %"


def _change(figure: Figure) -> str:
    if figure.change is None:
        return ""
    return f"{figure.change:+.3g}{_unit_of_change(figure)}" if figure.points else f"{figure.change:+.1f} %"


def _noise(figure: Figure) -> str:
    if figure.noise is None:
        return ""
    if figure.points:
        return f"±{figure.noise:.2g} points"
    return f"±{figure.noise:.1f} %" if figure.noise < 100 else f"±{figure.noise:,.0f} %"


def _value(value: float | None) -> str:
    from loadtest.words import milliseconds

    return "" if value is None else milliseconds(value)


def _label(figure: Figure) -> str:
    return f"{figure.name}{figure.unit}" if figure.unit == "/s" else f"{figure.name}, {figure.unit}"


def _show(found: Comparison, scenario: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title=escape(scenario), title_justify="left")
    table.add_column("")
    for heading in ("A", "B", "change", "noise"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for figure in found.figures:
        cells = (_label(figure), _value(figure.a), _value(figure.b), _change(figure), _noise(figure))
        outcome = WORDS.get(figure.outcome, figure.outcome)
        table.add_row(*map(escape, cells), outcome, style=STYLES.get(figure.outcome))
    console.print(table)
    if found.differences:
        table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title="what else differs", title_justify="left")
        for heading in ("", "A", "B"):
            table.add_column(heading)
        for row in found.differences:
            table.add_row(*map(escape, row))
        console.print(table)


def _as_json(found: Comparison) -> dict[str, object]:
    return {
        "figures": [asdict(figure) | {"outcome": figure.outcome} for figure in found.figures],
        "differences": [{"name": name, "a": before, "b": after} for name, before, after in found.differences],
        "warnings": found.warnings,
        "regressions": [figure.name for figure in found.regressions],
    }
