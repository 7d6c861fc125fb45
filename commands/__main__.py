"""The `supportbot` command; `python -m commands` is the same."""

from __future__ import annotations

import sys

from commands.stopping import stop_quietly


def main() -> None:
    """Run the command of the command line."""
    if sys.argv[1:2] == ["serve"]:
        stop_quietly()  # before the imports, which take a good part of the start
    from commands.cli import app

    app()


if __name__ == "__main__":
    main()
