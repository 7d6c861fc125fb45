"""The cores that this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """The number of cores this process may run on, which in a container is not what the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
