"""The commands of `supportbot drift`."""

from __future__ import annotations

import typer

from commands.drift.accept import accept
from commands.drift.learn import learn
from commands.drift.merge import merge
from commands.drift.report import report
from commands.drift.simulate import simulate
from commands.drift.watch import watch

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Look for drift in logs and servers, and keep baselines.")
for command in (report, watch, learn, accept, merge, simulate):
    app.command()(command)
