"""The server under test, and the CPU time that it, its event loop and everybody else use. Linux only: it reads `/proc`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Self

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 20.0
SHOWN_LOG_LINES: Final = 5
# Fields of /proc/PID/stat after the command's name: CPU time in user and in kernel mode.
USER, SYSTEM = 11, 12
# Columns of a core's line in /proc/stat after its name; `guest` times are in the first two already.
IDLE, IOWAIT, COLUMNS = 3, 4, 8
TICKS: Final = os.sysconf("SC_CLK_TCK")


class ServerFailed(Exception):
    """Raised when the server under test does not start, ends by itself, or answers wrongly; the message says what is known."""


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds of CPU time used so far: by the server's event loop and its other threads, this process, and all usable cores."""

    loop: float
    workers: float
    client: float
    all: float

    @classmethod
    def now(cls, server: int) -> Self:
        """The times, given the server's process id. Raises `ServerFailed` when it is gone."""
        try:
            loop, whole = (_cpu_time(Path(f"/proc/{server}/{name}")) for name in (f"task/{server}/stat", "stat"))
        except OSError as error:
            raise ServerFailed("the server has ended") from error
        return cls(loop, whole - loop, time.process_time(), _all_cores())

    def __sub__(self, earlier: CpuTimes) -> CpuTimes:
        """What was used in between."""
        return CpuTimes(
            self.loop - earlier.loop, self.workers - earlier.workers, self.client - earlier.client, self.all - earlier.all
        )

    @property
    def others(self) -> float:
        """What nobody here has used."""
        return max(0.0, self.all - self.loop - self.workers - self.client)


def _cpu_time(stat: Path) -> float:
    # The name, in parentheses, may hold anything.
    fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return (int(fields[USER]) + int(fields[SYSTEM])) / TICKS


def _all_cores() -> float:
    usable = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    lines = (line.split() for line in Path("/proc/stat").read_text(encoding="ascii").splitlines())
    times = [list(map(int, columns[1 : 1 + COLUMNS])) for columns in lines if columns[0] in usable]
    return sum(sum(one) - one[IDLE] - one[IOWAIT] for one in times) / TICKS


class ServerProcess:
    """A server of our own, on a free port of this machine."""

    def __init__(self, environment: Mapping[str, str], log: IO[bytes]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", "server", "serve"],
            env={**os.environ, **environment, "HOST": "127.0.0.1", "PORT": str(port)},
            stderr=log,
        )
        self.url = f"http://127.0.0.1:{port}"
        self.pid = self._process.pid

    def check(self) -> None:
        """Raise `ServerFailed` with the last lines of its log if it has ended."""
        if (status := self._process.poll()) is not None:
            raise ServerFailed(f"the server has ended with status {status}:\n{self._last_lines()}")

    def wait_until_ready(self) -> None:
        """Raises `ServerFailed`."""
        deadline = time.monotonic() + START_SECONDS
        reason = "no answer"
        while time.monotonic() < deadline:
            self.check()
            try:
                with urllib.request.urlopen(f"{self.url}/ready", timeout=5):  # noqa: S310 - http only
                    return
            except urllib.error.HTTPError as error:
                reason = error.read().decode(errors="replace")
            except OSError as error:
                reason = str(error)
            time.sleep(0.05)
        raise ServerFailed(f"the server did not become ready in {START_SECONDS:.0f} s: {reason}")

    def stop(self) -> None:
        """Let it end in order, or, when it takes too long, at once."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()

    def _last_lines(self) -> str:
        self._log.seek(0)
        return "\n".join(self._log.read().decode(errors="replace").splitlines()[-SHOWN_LOG_LINES:])


@contextmanager
def running_server(environment: Mapping[str, str]) -> Iterator[ServerProcess]:
    """A server with these settings above the present ones, ready; it is stopped whatever happens. Raises `ServerFailed`."""
    with tempfile.TemporaryFile() as log:
        server = ServerProcess(environment, log)
        try:
            server.wait_until_ready()
            yield server
        finally:
            server.stop()
