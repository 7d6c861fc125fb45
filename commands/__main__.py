"""`python -m commands`: the same as the `supportbot` command."""

from commands.cli import app

app()
