"""The same with the kernel's control groups, and the server's start in one, where this machine lets us make a group."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from machine.cores import Cores, usable_cores
from machine.quota import control_groups
from tests.server.conftest import SUPPORTBOT, real_server, wait_until_ready

PERIOD = 100_000  # microseconds
COUNT = "from machine.cores import bounded_cores; cores = bounded_cores(); print(cores.number, cores.bound)"


class NotPermitted(Exception):
    """Raised with the reason why this machine lets us make no group."""


def limit(group: Path, cpus: float) -> None:
    """Set a group's quota. Raises `NotPermitted`."""
    quota = round(cpus * PERIOD)
    for name, content in (("cpu.max", f"{quota} {PERIOD}"), ("cpu.cfs_quota_us", str(quota))):
        if (group / name).exists():
            (group / name).write_text(content, encoding="ascii")
            return
    raise NotPermitted(f"{group.parent} does not give its groups the cpu controller")


def within(group: Path, command: Sequence[str]) -> list[str]:
    """A command line that moves its process into a group before it runs the command."""
    return ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs"), *command]


@contextmanager
def made(group: Path) -> Iterator[Path]:
    group.mkdir()
    try:
        yield group
    finally:
        group.rmdir()


@contextmanager
def tried(group: Path) -> Iterator[Path]:
    """A new group that takes a quota and a process. Raises `NotPermitted` or `OSError`."""
    with made(group):
        limit(group, 1)
        entered = subprocess.run(within(group, ["true"]), capture_output=True, text=True, check=False, timeout=60)
        if entered.returncode:
            raise NotPermitted(entered.stderr.strip())
        yield group


@pytest.fixture
def group() -> Iterator[Path]:
    """A new group below this process's own or one of its parents."""
    reasons = []
    with ExitStack() as stack:
        for parent in control_groups():
            try:
                found = stack.enter_context(tried(parent / f"supportbot-test-{os.getpid()}"))
            except (NotPermitted, OSError) as error:
                reasons.append(str(error))
            else:
                yield found
                return
    pytest.skip("; ".join(reasons) or "no control groups with the cpu controller are mounted")


def counted(group: Path) -> Cores:
    """What a process in the group counts."""
    done = subprocess.run(within(group, [sys.executable, "-c", COUNT]), capture_output=True, text=True, check=True, timeout=60)
    number, bound = done.stdout.split()
    return Cores(int(number), bound)  # type: ignore[arg-type]


def test_the_quota_of_a_real_group_is_found(group: Path) -> None:
    here = usable_cores()
    for cpus, expected in ((0.5, Cores(1, "quota")), (here - 0.5, Cores(max(1, here - 1), "quota"))):
        limit(group, cpus)
        assert counted(group) == expected


def test_that_of_a_real_parent_is_found(group: Path) -> None:
    limit(group, 0.5)
    with made(group / "inner") as inner:
        assert counted(inner) == Cores(1, "quota")


def test_the_server_starts_one_worker_in_half_a_cpu_and_says_why(group: Path, tmp_path: Path) -> None:
    limit(group, 0.5)
    with real_server(tmp_path, within(group, [SUPPORTBOT, "serve"])) as server:
        wait_until_ready(server.url)
        assert server.stop() == 0
    (ready,) = [line for line in map(json.loads, server.log) if line["event"] == "ready"]
    assert (ready["workers"], ready["cores"], ready["cores_from"]) == (1, 1, "quota")
