"""Which quota is found, in control groups that are made of files."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import pytest

from machine.quota import control_groups, cpu_quota
from tests.machine.conftest import HYBRID, V2, Tree, v1, v2

HALF = Fraction(1, 2)
SERVICE = "/system.slice/supportbot.service"
HYBRID_LINES = f"9:cpuset:/\n4:{{}}:{SERVICE}\n1:name=systemd:{SERVICE}\n0::{SERVICE}"


def test_v2(tree: Tree) -> None:
    assert cpu_quota(tree(f"0::{SERVICE}", V2, **v2(SERVICE, "150000 100000"))) == Fraction(3, 2)


@pytest.mark.parametrize("controllers", ["cpu,cpuacct", "cpuacct,cpu", "cpu"])
def test_v1_and_hybrid(tree: Tree, controllers: str) -> None:
    mounts = HYBRID.replace("- cgroup cgroup rw,cpu,cpuacct", f"- cgroup cgroup rw,{controllers}")
    assert cpu_quota(tree(HYBRID_LINES.format(controllers), mounts, **v1(SERVICE, "25000", "50000"))) == HALF


def test_a_hybrid_with_the_controller_in_v2(tree: Tree) -> None:
    files = {f"sys/fs/cgroup/unified{SERVICE}/cpu.max": "50000 100000"}
    assert cpu_quota(tree(f"9:cpuset:/\n0::{SERVICE}", HYBRID, **files)) == HALF


@pytest.mark.parametrize("controllers", ["cpuset", "cpuacct", "name=cpu"])
def test_controllers_that_only_sound_alike_have_no_say(tree: Tree, controllers: str) -> None:
    mounts = HYBRID.replace("rw,cpu,cpuacct", f"rw,{controllers}")
    assert cpu_quota(tree(f"4:{controllers}:/", mounts, **v1("/", "50000"))) is None


@pytest.mark.parametrize(
    ("own", "slice_", "top"), [("max", "50000", "100000"), ("50000", "max", "max"), ("200000", "100000", "50000")]
)
def test_the_tightest_of_the_group_and_its_parents_counts(tree: Tree, own: str, slice_: str, top: str) -> None:
    limits = v2(SERVICE, f"{own} 100000") | v2("/system.slice", f"{slice_} 100000") | v2("", f"{top} 100000")
    assert cpu_quota(tree(f"0::{SERVICE}", V2, **limits)) == HALF


def test_parents_of_v1_count_too(tree: Tree) -> None:
    limits = v1(SERVICE, "-1") | v1("/system.slice", "50000") | v1("", "-1")
    assert cpu_quota(tree(HYBRID_LINES.format("cpu,cpuacct"), HYBRID, **limits)) == HALF


def test_other_groups_have_no_say(tree: Tree) -> None:
    limits = v2(SERVICE, "max 100000") | v2(f"{SERVICE}/below", "50000 100000") | v2("/user.slice", "50000 100000")
    assert cpu_quota(tree(f"0::{SERVICE}", V2, **limits)) is None


def test_a_container_with_a_namespace_of_its_own(tree: Tree) -> None:
    assert cpu_quota(tree("0::/", V2, **v2("", "50000 100000"))) == HALF


def test_a_container_without_one_whose_group_is_mounted_as_the_top(tree: Tree) -> None:
    mounts = HYBRID.replace("0:31 / /sys", "0:31 /docker/1a2b /sys")
    for line in ("4:cpu,cpuacct:/docker/1a2b/inner", "4:cpuacct,cpu:/docker/1a2b"):
        limits = v1("/inner", "-1") | v1("", "50000") | v1("/docker/1a2b", "10000")
        assert cpu_quota(tree(line, mounts, **limits)) == HALF


@pytest.mark.parametrize(
    ("own", "top", "names"),
    [
        # Somewhere else than what is mounted: moved there later, or from outside the namespace.
        ("/docker/1a2b", "/docker/3c4d", []),
        ("/dockers", "/docker", []),
        ("/../3c4d", "/", []),
        ("/../../x", "/..", []),
        # What `unshare --cgroup` leaves behind: the mount shows two groups more than the namespace.
        ("/", "/../..", []),
        ("/../3c4d", "/..", ["3c4d"]),
        ("/docker/1a2b", "/", ["docker", "1a2b"]),
    ],
)
def test_where_a_namespace_hides_the_way_what_is_mounted_is_taken(tree: Tree, own: str, top: str, names: list[str]) -> None:
    root = tree(f"0::{own}", V2.replace("0:26 / ", f"0:26 {top} "))
    mounted = root / "sys/fs/cgroup"
    assert list(control_groups(root)) == [mounted.joinpath(*names[:depth]) for depth in range(len(names), -1, -1)]


def test_a_mount_that_leads_to_the_group_wins_over_those_of_others(tree: Tree) -> None:
    other = V2.replace("0:26 / /sys/fs/cgroup ", "0:26 /other /mnt ")
    root = tree("0::/own", f"{other}\n{V2}", **v2("/own", "300000 100000"), **{"mnt/cpu.max": "50000 100000"})
    assert cpu_quota(root) == 3


def test_names_with_spaces_colons_and_bytes_that_are_no_text(tree: Tree, tmp_path: Path) -> None:
    name = b"a b:c\\\x85\xff"
    group = Path(os.fsdecode(os.fsencode(tmp_path / "the groups") + b"/" + name))
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("50000 100000\n")
    root = tree(b"0::/" + name + b"\n", V2.replace("/sys/fs/cgroup", r"/the\040groups"))
    assert cpu_quota(root) == HALF


@pytest.mark.parametrize(
    "limit",
    [
        "max 100000",
        "max",
        "",
        "50000",
        "50000 0",
        "0 100000",
        "-1 100000",
        "-50000 -100000",
        "50000 100000 1",
        "0.5 1",
        "a lot",
        "9" * 5000 + " 1",
        b"\xff\x00 \x85",
    ],
)
def test_no_limit_and_one_that_cannot_be_read_are_none(tree: Tree, limit: str | bytes) -> None:
    assert cpu_quota(tree(f"0::{SERVICE}", V2, **v2(SERVICE, limit))) is None


@pytest.mark.parametrize("limit", [("-1", "100000"), ("50000", "0"), ("50000", ""), ("", "100000"), ("fifty", "100000")])
def test_the_same_of_v1(tree: Tree, limit: tuple[str, str]) -> None:
    assert cpu_quota(tree(HYBRID_LINES.format("cpu,cpuacct"), HYBRID, **v1(SERVICE, *limit))) is None


@pytest.mark.parametrize("file", ["cpu.cfs_quota_us", "cpu.cfs_period_us"])
def test_v1_with_one_of_its_files_only(tree: Tree, file: str) -> None:
    root = tree(HYBRID_LINES.format("cpu,cpuacct"), HYBRID, **v1(SERVICE, "50000"))
    (root / f"sys/fs/cgroup/cpu,cpuacct{SERVICE}" / file).unlink()
    assert cpu_quota(root) is None


def test_one_unreadable_group_does_not_hide_its_parents(tree: Tree) -> None:
    root = tree(f"0::{SERVICE}", V2, **v2("/system.slice", "50000 100000"))
    (root / f"sys/fs/cgroup{SERVICE}/cpu.max").mkdir(parents=True)
    assert cpu_quota(root) == HALF


@pytest.mark.parametrize(
    ("cgroup", "mountinfo"),
    [
        ("", V2),
        ("0", V2),
        ("0:", V2),
        ("0::", V2),
        ("0::relative", V2),
        ("0::/\x00", V2),
        ("0::/" + "a" * 5000, V2),
        (b"\xff\xfe", V2),
        ("0::/own", ""),
        ("0::/own", "30 23 0:26 /"),
        ("0::/own", "30 23 0:26 / /sys/fs/cgroup rw"),
        ("0::/own", "30 23 0:26 / /sys/fs/cgroup rw - "),
        ("0::/own", "30 23 0:26 / /sys\\777\x00 rw - cgroup2 cgroup2 rw"),
        ("4:cpu:/own", "30 23 0:26 / /sys/fs/cgroup rw - cgroup cgroup"),
    ],
)
def test_malformed_files_are_no_quota(tree: Tree, cgroup: str | bytes, mountinfo: str | bytes) -> None:
    assert cpu_quota(tree(cgroup, mountinfo, **v2("/own", "50000 100000"))) is None


def test_a_system_without_these_files_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert list(control_groups(tmp_path)) == []
