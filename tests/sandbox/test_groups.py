"""Control groups around workers and compilers: real ones where this machine permits them, none where it does not."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import Judge, Limits, TestCase, Verdict
from sandbox.execution import compile_box, pool
from sandbox.isolation import groups, levels, packages
from sandbox.isolation.groups import Group, Groups, Place

ROOMY = Limits(cpu_s=10.0, wall_s=120.0, memory_mb=512, output_mb=256)
FORKING = """
import os, time
for _ in range(300):
    if os.fork() == 0:
        time.sleep(60)
print("all of them")
"""


def judge(level: str, **options: bool) -> Judge:
    reason = levels.probe(level).reason
    if reason is not None:
        pytest.skip(f"this machine offers no {level} protection: {reason}")
    return Judge(workers=1, protection=level, cache=False, allow_unconfined=level == "limited", **options)


@pytest.fixture
def permitted() -> Place:
    found = groups.find()
    if found.place is None:
        pytest.skip(f"no control groups can be made here: {found.reason}")
    return found.place


@pytest.fixture(params=["namespaced", "confined"])
def grouped(request: pytest.FixtureRequest, permitted: Place) -> Iterator[Judge]:
    with judge(request.param) as one:
        yield one


def group_of(one: Judge) -> Group | None:
    assert one.judge("print(1)", [TestCase("", "1")]).accepted
    return one._pool._workers[0].group


def test_a_worker_is_in_its_group_which_goes_with_it(grouped: Judge) -> None:
    group = group_of(grouped)
    assert group is not None
    assert all((folder / "cgroup.procs").read_text().split() for folder in group.folders)
    assert (group.folders[-1] / "pids.max").read_text().strip() == str(groups.PROCESSES)
    grouped.close()
    assert not any(folder.exists() for folder in group.folders)


def test_memory_beyond_the_group_is_mle(grouped: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "memory_to_allow", lambda *_: 64 << 20)
    for tests in (1, 2):  # in the warm process, and by a supervisor
        greedy = [TestCase("", "")] * tests
        found = grouped.judge("x = bytearray(b'1') * (200 << 20)", greedy, limits=ROOMY)
        assert found.verdict is Verdict.MLE, found
        assert "control group" in found.message
    assert grouped.judge("print(1)", [TestCase("", "1")]).accepted


def test_memory_of_files_is_counted_too(grouped: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "memory_to_allow", lambda *_: 64 << 20)
    printing = "import sys\nfor _ in range(200): sys.stdout.write('x' * (1 << 20))"
    assert grouped.judge(printing, [TestCase("", "")], limits=ROOMY).verdict is Verdict.MLE
    assert grouped.judge("print(1)", [TestCase("", "1")]).accepted


def test_what_is_allowed_follows_the_limits(grouped: Judge) -> None:
    group = group_of(grouped)
    assert group is not None
    before = group.memory_bytes
    large = Limits(memory_mb=4096)
    assert grouped.judge("x = bytearray(b'1') * (600 << 20)", [TestCase("", "")], limits=large).accepted
    assert group.memory_bytes > before


def test_a_compiler_is_held_as_well(grouped: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_box, "_GROUP_BYTES", 12 << 20)
    found = grouped.judge("int main(void) { return 0; }", [TestCase("", "")], language="c")
    assert found.verdict is Verdict.CE
    assert "12 MiB of memory" in found.message


def test_a_worker_that_cannot_start_leaves_no_group(permitted: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: str) -> str:
        raise OSError(errno.ENOSPC, "no space left on device")

    with judge("confined") as one:
        monkeypatch.setattr(packages, "provide", full)
        assert one.judge("print(1)", [TestCase("", "1")]).verdict is Verdict.IE
        assert one._pool.groups is not None
        name = os.path.basename(one._pool.artifacts.removesuffix("/programs"))
        assert not [entry for folder in permitted.folders for entry in os.listdir(folder) if entry.startswith(name)]


def test_too_many_processes_are_refused_and_said(permitted: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(groups, "PROCESSES", 40)
    with judge("limited") as one:
        found = one.judge(FORKING, [TestCase("", "all of them")], limits=ROOMY)
        assert found.verdict is Verdict.RE
        assert "too many processes" in found.message
        assert one.judge("print(1)", [TestCase("", "1")]).accepted


def test_without_groups_the_judge_judges() -> None:
    with judge("confined", control_groups=False) as one:
        assert group_of(one) is None


def test_a_group_that_cannot_be_entered_is_done_without(permitted: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Group, "doors", lambda _: [os.open("/dev/full", os.O_WRONLY)])
    with judge("confined") as one:
        assert group_of(one) is None
        assert one._pool._workers[0].report["no_group"]


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")


def found_in(tmp_path: Path, membership: str, files: dict[str, str]) -> groups.Found:
    (tmp_path / "membership").write_text(membership)
    tree(tmp_path / "cgroup", files)
    return groups.find(str(tmp_path / "membership"), str(tmp_path / "cgroup"))


def test_version_two_takes_the_nearest_group_that_hands_controllers_on(tmp_path: Path) -> None:
    files = {"cgroup.subtree_control": "cpu memory pids", "scope/cgroup.subtree_control": "memory pids"}
    files |= {"scope/own/cgroup.subtree_control": ""}
    found = found_in(tmp_path, "0::/scope/own\n", files)
    assert found.place == Place(2, (str(tmp_path / "cgroup/scope"),))


@pytest.mark.parametrize(
    ("membership", "files"),
    [("", {}), ("0::/own\n", {"own/cgroup.subtree_control": "cpu"}), ("3:cpu:/\n", {"cpu/tasks": ""})],
)
def test_where_none_can_be_made_a_reason_is_given(tmp_path: Path, membership: str, files: dict[str, str]) -> None:
    found = found_in(tmp_path, membership, files)
    assert found.place is None
    assert found.reason


def test_version_two_is_limited_and_counted_by_its_own_files(tmp_path: Path) -> None:
    group = Groups(Place(2, (str(tmp_path),)), "sandbox-judge-x").make(1 << 30)
    assert group is not None
    folder = tmp_path / "sandbox-judge-x.0"
    group.limit(2 << 30)
    assert (folder / "memory.max").read_text() == f"{2 << 30}\n"
    assert (folder / "memory.swap.max").read_text() == "0\n"
    tree(folder, {"memory.events": "low 0\noom 3\noom_kill 2", "pids.events": "max 5"})
    assert group.new_events() == (2, 5)
    assert group.new_events() == (0, 0)
