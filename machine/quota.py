"""The CPU quota of this process: how much CPU time its control groups let it have, in CPUs.

Containers are limited in this way: `docker run --cpus`, Kubernetes' `limits.cpu`, systemd's `CPUQuota`. A process over its quota is
stopped until the next period begins. Sources:

- v2: Documentation/admin-guide/cgroup-v2.rst, "cpu.max": the quota and the period, or `max` and the period.
- v1: Documentation/scheduler/sched-bwc.rst, "CFS Bandwidth Control": `cpu.cfs_quota_us`, -1 for none, and `cpu.cfs_period_us`.
- Which groups, and where they are: cgroups(7), "/proc/[pid]/cgroup", and proc_pid_mountinfo(5).

Quotas and periods are microseconds of CPU time and of time. A group's quota holds for all groups below it, so the tightest counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final, Literal

ROOT: Final = Path("/")

# File system types, which name the two kinds of hierarchy. Both may be there at once (hybrid), with the cpu controller in one.
Kind = Literal["cgroup", "cgroup2"]
# Names of groups, from the top of a hierarchy down.
Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Mount:
    """A place in the file system where a hierarchy can be seen, from the group `top` down."""

    kind: Kind
    top: Names
    point: Path


def cpu_quota(root: Path = ROOT) -> Fraction | None:
    """The tightest quota of this process's groups, in CPUs; None if there is none, or none that can be read.

    `root` is the root of the file system that has `proc`.
    """
    return min((quota for group in control_groups(root) if (quota := _quota(group)) is not None), default=None)


def control_groups(root: Path = ROOT) -> Iterator[Path]:
    """The folders of the groups that may have a quota for this process: its own and their parents, as far as they are mounted."""
    mounts = list(_mounts(root))
    for kind, own in _own_groups(root):
        ways = [(mount.point, _way(mount.top, own)) for mount in mounts if mount.kind == kind]
        # Where namespaces hide the names, what is mounted is a parent or the own group under another name: better than nothing.
        found = [(point, way) for point, way in ways if way is not None] or [(point, ()) for point, _ in ways]
        for point, way in found:
            yield from (point.joinpath(*way[:depth]) for depth in range(len(way), -1, -1))


def _own_groups(root: Path) -> Iterator[tuple[Kind, Names]]:
    # A line is `hierarchy:controllers:path`; v2's is `0::path`.
    for line in _read(root / "proc/self/cgroup").split("\n"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not path.startswith("/"):
            continue
        if number == "0" and not controllers:
            yield "cgroup2", _names(path)
        elif "cpu" in controllers.split(","):
            yield "cgroup", _names(path)


def _mounts(root: Path) -> Iterator[_Mount]:
    # A line is `id parent device root point options ... - type source options`.
    for line in _read(root / "proc/self/mountinfo").split("\n"):
        before, _, after = line.partition(" - ")
        match before.split(" "), after.split(" "):
            case [_, _, _, top, point, *_], ["cgroup2", *_]:
                kind: Kind = "cgroup2"
            case [_, _, _, top, point, *_], ["cgroup", _, options, *_] if "cpu" in options.split(","):
                kind = "cgroup"
            case _:
                continue
        yield _Mount(kind, _names(_unescaped(top)), root.joinpath(*_names(_unescaped(point))))


def _way(top: Names, own: Names) -> Names | None:
    """The way down from a mount's top to a group; None if it does not lead there, or over names that a namespace hides (`..`)."""
    way = own[len(top) :]
    return way if own[: len(top)] == top and ".." not in way else None


def _quota(group: Path) -> Fraction | None:
    words = _read(group / "cpu.max").split() or [
        *_read(group / "cpu.cfs_quota_us").split(),
        *_read(group / "cpu.cfs_period_us").split(),
    ]
    try:
        quota, period = map(int, words)
    except ValueError:  # `max`, or not what the kernel writes
        return None
    return Fraction(quota, period) if quota > 0 and period > 0 else None


def _names(path: str) -> Names:
    return tuple(name for name in path.split("/") if name)


def _unescaped(field: str) -> str:
    """A field of mountinfo, where spaces, tabs, newlines and backslashes are octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _read(path: Path) -> str:
    """The file's text, empty when it cannot be read: a server must start on systems that hide these files, or have none."""
    try:
        return os.fsdecode(path.read_bytes())
    except (OSError, ValueError):  # ValueError: no system would take such a path
        return ""
