"""The `supportbot` command."""

from __future__ import annotations

import typer

from server.commands.build import build
from server.commands.capacity import capacity
from server.commands.classify import classify
from server.commands.compare import compare
from server.commands.ladder import ladder
from server.commands.lengths import lengths
from server.commands.serve import serve
from server.commands.train import train
from server.commands.tune import tune
from server.commands.verify import verify

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
