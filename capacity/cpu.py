"""The CPU time that a server, its event loop, this process and everybody else use. Linux only: it reads `/proc`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from loadtest.processes import ServerFailed

# Fields of /proc/PID/stat after the command's name: CPU time in user and in kernel mode.
USER, SYSTEM = 11, 12
# Columns of a core's line in /proc/stat after its name; `guest` times are in the first two already.
IDLE, IOWAIT, COLUMNS = 3, 4, 8
TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """Seconds of CPU time used so far: by the server's event loop, its other threads, this process, and all on its cores."""

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
    # Which cores, not how many: under a quota, too, others disturb on any core that a thread here may run on.
    usable = {f"cpu{core}" for core in os.sched_getaffinity(0)}  # noqa: TID251
    lines = (line.split() for line in Path("/proc/stat").read_text(encoding="ascii").splitlines())
    times = [list(map(int, columns[1 : 1 + COLUMNS])) for columns in lines if columns[0] in usable]
    return sum(sum(one) - one[IDLE] - one[IOWAIT] for one in times) / TICKS
