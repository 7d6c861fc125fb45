"""The commands of `supportbot drift`."""

from __future__ import annotations

import typer

from commands.drift.report import report

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", help="Look for drift in logs and servers, and keep baselines.")
for command in (report,):
    app.command()(command)
