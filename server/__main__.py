"""`python -m server`: the same as the `supportbot` command."""

from server.cli import app

app()
