"""The doctor says what was tried, and names a remedy for what failed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import sandbox
from sandbox import doctor
from sandbox.isolation import bwrap, levels


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
