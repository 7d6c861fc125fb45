"""The cores that this process may use."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from machine.quota import ROOT, cpu_quota


@dataclass(frozen=True, slots=True)
class Cores:
    """How many cores this process may use, and the bound that says so.

    - `affinity`: the cores it may run on, which in a container is not what the machine has.
    - `quota`: the CPU time it may take.
    - `machine`: all there are, on systems that know neither.
    """

    number: int
    bound: Literal["affinity", "quota", "machine"]


def bounded_cores(root: Path = ROOT) -> Cores:
    """The smallest of affinity and quota, in whole cores and at least one; `root` is that of the file system with `proc`.

    A quota is rounded down: with a worker more than it pays for, all of them would be stopped in the middle of passes.
    """
    cores = (
        Cores(len(os.sched_getaffinity(0)), "affinity")
        if hasattr(os, "sched_getaffinity")
        else Cores(os.cpu_count() or 1, "machine")
    )
    quota = cpu_quota(root)
    return cores if quota is None or quota >= cores.number else Cores(max(1, math.floor(quota)), "quota")


def usable_cores(root: Path = ROOT) -> int:
    """The number of cores this process may use."""
    return bounded_cores(root).number
