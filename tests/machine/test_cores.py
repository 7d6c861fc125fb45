"""How many cores, and which bound says so."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from machine.cores import Cores, bounded_cores, usable_cores
from tests.machine.conftest import V2, Tree, v2


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 4, 5}, raising=False)


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("50000 100000", Cores(1, "quota")),
        ("150000 100000", Cores(1, "quota")),
        ("200000 100000", Cores(2, "quota")),
        ("299999 100000", Cores(2, "quota")),
        ("1000 1000000", Cores(1, "quota")),
        ("399999 100000", Cores(3, "quota")),
        # It takes nothing away.
        ("400000 100000", Cores(4, "affinity")),
        ("800000 100000", Cores(4, "affinity")),
        ("max 100000", Cores(4, "affinity")),
    ],
)
def test_the_smallest_of_affinity_and_quota_rounded_down(tree: Tree, limit: str, cores: Cores) -> None:
    root = tree("0::/", V2, **v2("", limit))
    assert bounded_cores(root) == cores
    assert usable_cores(root) == cores.number


def test_half_a_core_of_one_is_the_quota_s_doing(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    assert bounded_cores(tree("0::/", V2, **v2("", "50000 100000"))) == Cores(1, "quota")


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert bounded_cores(tmp_path) == Cores(4, "affinity")


def test_a_system_that_knows_no_affinity_has_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    for count, number in ((6, 6), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert bounded_cores(tmp_path) == Cores(number, "machine")
