"""The `supportbot` command."""

from __future__ import annotations

import typer

from commands.build import build
from commands.capacity import capacity
from commands.classify import classify
from commands.compare import compare
from commands.ladder import ladder
from commands.lengths import lengths
from commands.serve import serve
from commands.train import train
from commands.tune import tune
from commands.verify import verify

app = typer.Typer(
    name="supportbot",
    help="Serve, use and make transformer text classifiers on plain CPUs.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
for command in (serve, classify, train, build, verify, tune, lengths, compare, capacity, ladder):
    app.command()(command)
