"""What the commands share: messages on standard error, ends with a status, progress bars."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

# Results go to standard output, everything said about them to standard error.
stderr = Console(stderr=True, highlight=False, soft_wrap=True)


def fail(message: str, status: int = 2) -> NoReturn:
    """End the command with a message and a status: 2 for wrong usage or input, 1 for work that did not succeed."""
    stderr.print(f"[red]error:[/red] {escape(message)}")
    raise typer.Exit(status)


def say(message: str) -> None:
    """A line for the person who runs the command."""
    stderr.print(escape(message))


@contextmanager
def progress_bar(*, transient: bool = True) -> Generator[Progress, None, None]:
    """A progress bar on standard error; invisible where that is not a terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, transient=transient, disable=not stderr.is_terminal) as progress:
        yield progress
