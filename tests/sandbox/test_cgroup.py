"""Limits of control groups, read from made trees of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox.isolation import cgroup


def tree(folder: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return str(folder)


def read(tmp_path: Path, membership: str, files: dict[str, str]) -> tuple[float | None, int | None]:
    (tmp_path / "membership").write_text(membership)
    root = tree(tmp_path / "cgroup", files)
    found = cgroup.allowance(str(tmp_path / "membership"), root)
    return found.cpus, found.memory_bytes


def test_version_two_takes_the_tightest_on_the_way_up(tmp_path: Path) -> None:
    files = {"cpu.max": "max 100000", "pod/cpu.max": "250000 100000", "pod/one/cpu.max": "max 100000"}
    files |= {"pod/memory.max": "4294967296", "pod/one/memory.max": "max"}
    assert read(tmp_path, "0::/pod/one\n", files) == (2.5, 4 << 30)


def test_version_one_has_a_tree_for_each_controller(tmp_path: Path) -> None:
    files = {"cpu,cpuacct/a/cpu.cfs_quota_us": "150000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}
    files |= {"memory/a/memory.limit_in_bytes": "1073741824", "memory/memory.limit_in_bytes": "9223372036854771712"}
    assert read(tmp_path, "4:memory:/a\n3:cpu,cpuacct:/a\n1:name=systemd:/a\n", files) == (1.5, 1 << 30)


@pytest.mark.parametrize(
    ("membership", "files"),
    [
        ("", {}),
        ("0::/\n", {}),
        ("0::/\n", {"cpu.max": "max 100000", "memory.max": "max"}),
        ("3:cpu:/a\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}),
        ("0::/../../outside\n", {"cpu.max": "nonsense"}),
    ],
)
def test_no_limit_is_none(tmp_path: Path, membership: str, files: dict[str, str]) -> None:
    assert read(tmp_path, membership, files) == (None, None)


@pytest.mark.parametrize(("quota", "workers"), [(None, None), (0.5, 1), (1.0, 1), (1.2, 2), (1000.0, None)])
def test_a_judge_has_no_more_workers_than_its_quota_keeps_busy(
    quota: float | None, workers: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = len(os.sched_getaffinity(0))
    monkeypatch.setattr(cgroup, "allowance", lambda: cgroup.Allowance(quota, None))
    assert cgroup.usable_cpus() == min(present, workers or present)
