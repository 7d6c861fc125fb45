"""`supportbot serve`"""

from __future__ import annotations

import signal
import sys

import typer

from commands.console import fail
from server.settings import SettingsError, load_settings


def serve() -> None:
    """Serve a bundle over HTTP until SIGTERM or Ctrl-C.

    All settings come from environment variables and an .env file in the current folder: HOST, PORT, BUNDLE, WORKERS and more;
    the README lists them. A wrong value stops the start.
    """
    # Until the server handles signals itself, a stop is a plain end; nothing has been accepted yet.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        settings = load_settings()
        from server.serving import serve as run

        status = run(settings)
    except SettingsError as error:
        fail(str(error))
    raise typer.Exit(status)
