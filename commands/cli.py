"""The `supportbot` command."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from commands.build import build
from commands.capacity import capacity
from commands.classify import classify
from commands.compare import compare
from commands.drift.cli import app as drift
from commands.ladder import ladder
from commands.lengths import lengths
from commands.serve import serve
from commands.train import train
from commands.tune import tune
from commands.verify import verify

app = typer.Typer(
    name="supportbot",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
for command in (serve, classify, train, build, verify, tune, lengths, compare, capacity, ladder):
    app.command()(command)
app.add_typer(drift, name="drift")


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"supportbot {metadata.version('supportbot')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Serve, use and make transformer text classifiers on plain CPUs."""
