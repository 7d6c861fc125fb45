"""A server of our own as a process, and what a process that loads one needs. The standard library is all that this needs."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO

START_SECONDS = 60.0
STOP_SECONDS = 20.0
OPEN_FILES = 65_536
SHOWN_LOG_LINES = 5


class ServerFailed(Exception):
    """Raised when a server does not start, ends by itself, or answers wrongly; the message says what is known."""


class ServerProcess:
    """A server on a free port of this machine: `command` with these settings above the present ones.

    What it logs goes to `log`, a file, of which a message shows the end; by default to where ours goes. `ready_path` is answered
    with 200 when it is ready.
    """

    def __init__(
        self, command: Sequence[str], settings: Mapping[str, str], log: IO[bytes] | None = None, ready_path: str = "/ready"
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._log = log
        self._ready_path = ready_path
        environment = {**os.environ, "HOST": "127.0.0.1", "PORT": str(port), **settings}
        # Its standard output is for people who start it; ours is for results.
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=log)  # noqa: S603 - our own command
        self.url = f"http://127.0.0.1:{port}"
        self.pid = self._process.pid

    def check(self) -> None:
        """Raise `ServerFailed` if it has ended."""
        self._check("the server has ended")

    def wait_until_ready(self) -> None:
        """Raises `ServerFailed` when it ends instead, or takes over `START_SECONDS`."""
        deadline = time.monotonic() + START_SECONDS
        reason = "no answer"
        while time.monotonic() < deadline:
            self._check("the server has ended, and did not become ready")
            try:
                with urllib.request.urlopen(f"{self.url}{self._ready_path}", timeout=5):  # noqa: S310 - http only
                    return
            except urllib.error.HTTPError as error:
                reason = error.read().decode(errors="replace")
            except OSError as error:
                reason = str(error)
            time.sleep(0.05)
        raise ServerFailed(f"the server did not become ready: {reason}")

    def stop(self) -> int:
        """Let it end in order, or, when it takes too long, at once; its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return self._killed()
        except BaseException:  # an impatient Ctrl-C
            self._killed()
            raise

    def _check(self, said: str) -> None:
        if (status := self._process.poll()) is not None:
            raise ServerFailed(f"{said}; its status is {status}{self._last_lines()}")

    def _killed(self) -> int:
        self._process.kill()
        return self._process.wait()

    def _last_lines(self) -> str:
        if self._log is None:
            return ""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").splitlines()[-SHOWN_LOG_LINES:]
        return ":\n" + "\n".join(lines) if lines else ""


@contextmanager
def running_server(
    command: Sequence[str], settings: Mapping[str, str], log: IO[bytes] | None = None, ready_path: str = "/ready"
) -> Iterator[ServerProcess]:
    """A server, ready; it is stopped whatever happens.

    Raises `ServerFailed` when it does not start, or does not end with 0 after all went well.
    """
    server = ServerProcess(command, settings, log, ready_path)
    try:
        server.wait_until_ready()
        yield server
    except BaseException:
        server.stop()
        raise
    if status := server.stop():
        raise ServerFailed(f"the server exited with {status}")


def allow_many_files() -> None:
    """A request in flight is an open file, here and in a server that is started here; shells often allow no more than 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
