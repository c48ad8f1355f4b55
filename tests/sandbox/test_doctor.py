"""The doctor says what was tried, and names a remedy for what failed."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import unprivileged

import sandbox
from sandbox import doctor
from sandbox.isolation import bwrap, cgroup, levels


def test_the_report_names_the_level_judges_get(judge: sandbox.Judge) -> None:
    report = doctor.examine()
    assert report.level == judge.protection
    assert all(finding.works for finding in report.findings if "attempts to leave" in finding.name)
    assert f"protection level: {report.level}" in report.text()


def test_every_missing_primitive_comes_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels, "probe", lambda level: levels.Probe(level, "Operation not permitted", {}))
    monkeypatch.setattr(bwrap, "binary", lambda: None)
    report = doctor.examine()
    assert report.level is None
    missing = [finding for finding in report.findings if not finding.works]
    assert {"bubblewrap", "namespaces", "Landlock", "seccomp"} <= {finding.name for finding in missing}
    assert all(finding.remedy for finding in missing)


def test_the_command_prints_json_and_exits_by_the_level(judge: sandbox.Judge) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sandbox.doctor", "--json"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["level"] == judge.protection


def findings(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {finding["name"]: finding for finding in report["findings"]}


def test_in_an_ordinary_container_the_level_is_confined_and_the_setting_that_gives_more_is_named() -> None:
    code, report = unprivileged.doctor()
    found = findings(report)
    if not found["Landlock"]["works"]:
        pytest.skip("this kernel has no Landlock")
    assert (code, report["level"]) == (0, "confined")
    assert found["confined: attempts to leave"]["works"]
    missing = found["namespaces"]
    assert not missing["works"] and missing["seen"]
    if found["bubblewrap"]["works"]:
        assert "seccomp=unconfined" in missing["remedy"] and "hostUsers: false" in missing["remedy"]
    else:
        assert "bubblewrap" in missing["remedy"]


@pytest.mark.parametrize(
    ("missing", "name", "remedy"), [("landlock", "Landlock", "lsm="), ("seccomp", "seccomp", "CONFIG_SECCOMP_FILTER")]
)
def test_without_a_wall_a_container_gets_no_level_and_the_wall_is_named(missing: str, name: str, remedy: str) -> None:
    code, report = unprivileged.doctor(missing)
    assert (code, report["level"]) == (1, None)
    found = findings(report)[name]
    assert not found["works"] and remedy in found["remedy"]


def test_an_ordinary_user_outside_of_containers_gets_what_namespaces_allow() -> None:
    code, report = unprivileged.doctor(filtered=False)
    found = findings(report)
    if found["namespaces"]["works"]:
        assert (code, report["level"]) == (0, "namespaced")
        assert found["namespaced: attempts to leave"]["works"]
    else:
        assert found["namespaces"]["remedy"] and report["level"] in ("confined", None)


def test_a_judge_that_is_to_have_more_than_there_is_does_not_start() -> None:
    host = unprivileged.UnprivilegedJudge(1)
    try:
        with pytest.raises(sandbox.ProtectionUnavailable, match=r"namespaced: .*doctor"):
            host.another(min_protection="namespaced")
        assert host.another(min_protection="confined") == "confined"
    finally:
        host.close()


def test_too_little_memory_for_the_workers_is_named_with_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "usable_cpus", lambda: 8)
    monkeypatch.setattr(cgroup, "available_memory", lambda: 1 << 30)
    finding = doctor._room()
    assert not finding.works and "workers=3" in finding.remedy
    monkeypatch.setattr(cgroup, "available_memory", lambda: 16 << 30)
    assert doctor._room().works
