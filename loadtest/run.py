"""`python -m loadtest.run`: start a server, load it with Locust, print the percentiles, stop the server; fail on any error.

HOST (a URL) loads a running server instead. USERS and DURATION (seconds) set the load; SERVER is the command that starts a server.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

START_SECONDS = 60
STOP_SECONDS = 20


@contextmanager
def started_server(command: list[str], log: IO[bytes] | None = None, **environment: str) -> Generator[str, None, None]:
    """A server on a free port of this machine, ready; on leaving it is told to stop and must exit with 0.

    Its log goes to `log`, a file; by default to where ours goes. `environment` are settings of the server.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet = {"HOST": "127.0.0.1", "PORT": str(port), "ACCESS_LOG": "false", "LOG_LEVEL": "warning"}
    process = subprocess.Popen(command, env=os.environ | quiet | environment, stderr=log)  # noqa: S603 - our own command
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_until_ready(url, process)
        yield url
        process.send_signal(signal.SIGTERM)
        status = process.wait(STOP_SECONDS)
        if status != 0:
            sys.exit(f"the server exited with {status}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    reason = "no answer"
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/ready", timeout=5):  # noqa: S310 - http only
                return
        except urllib.error.HTTPError as error:
            reason = error.read().decode()
        except OSError as error:
            reason = str(error)
        time.sleep(0.05)
    sys.exit(f"the server did not become ready: {reason}")


def run_locust(url: str, users: int, seconds: int) -> int:
    """Load `url`; returns Locust's exit status, which is not 0 after any failed request. The locustfile prints the percentiles."""
    return subprocess.run(  # noqa: S603 - our own command
        [
            *(sys.executable, "-m", "locust", "--locustfile", str(Path(__file__).with_name("locustfile.py"))),
            *("--headless", "--host", url, "--users", str(users), "--spawn-rate", str(users)),
            *("--run-time", f"{seconds}s", "--only-summary", "--loglevel", "WARNING"),
        ],
        check=False,
    ).returncode


def main() -> int:
    """Run as the environment says."""
    users, seconds = int(os.environ.get("USERS", "32")), int(os.environ.get("DURATION", "20"))
    if host := os.environ.get("HOST", ""):
        if not host.startswith(("http://", "https://")):
            sys.exit(f"HOST={host}: must be the URL of a running server, or unset to start one")
        return run_locust(host, users, seconds)
    command = shlex.split(os.environ.get("SERVER", f"{shlex.quote(sys.executable)} -m server serve"))
    with started_server(command) as url:
        return run_locust(url, users, seconds)


if __name__ == "__main__":
    sys.exit(main())
