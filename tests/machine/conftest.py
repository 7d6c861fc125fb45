"""A file system with the control groups of a process, made of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

# Of a machine with systemd: v2 only, or hybrid.
V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot"
HYBRID = (
    "31 23 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:8 - tmpfs tmpfs ro,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
    "33 31 0:30 / /sys/fs/cgroup/cpuset rw,nosuid shared:10 - cgroup cgroup rw,cpuset\n"
    "34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:11 shared:12 - cgroup cgroup rw,cpu,cpuacct"
)

Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Makes the root of a file system, given the two files of `/proc/self` and the contents of others by their path."""

    def make(cgroup: str | bytes, mountinfo: str | bytes, **files: str | bytes) -> Path:
        everything = {"proc/self/cgroup": cgroup, "proc/self/mountinfo": mountinfo, **files}
        for name, content in everything.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())
        return tmp_path

    return make


def v2(group: str, limit: str | bytes) -> dict[str, str | bytes]:
    """The file with the limit of a group of v2, mounted at the usual place."""
    return {f"sys/fs/cgroup{group}/cpu.max": limit}


def v1(group: str, quota: str, period: str = "100000", mounted: str = "cpu,cpuacct") -> dict[str, str | bytes]:
    """The files with the limit of a group of v1."""
    folder = f"sys/fs/cgroup/{mounted}{group}"
    return {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": period}
