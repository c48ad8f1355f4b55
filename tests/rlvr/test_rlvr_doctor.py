import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from rlvr.doctor import Check, check_disk, check_library, diagnose, parse_gpus, render_table


@pytest.fixture(scope="module")
def checks() -> list[Check]:
    return diagnose()


def test_everything_that_matters_is_looked_at(checks: list[Check]) -> None:
    names = [check.name for check in checks]
    assert names[:2] == ["python", "platform"] and len(names) == len(set(names))
    assert {"numpy", "torch", "trl", "vllm", "accelerator", "sandbox", "cores", "memory", "disk"} <= set(names)
    assert "language python" in names and "pytest" not in names
    assert all(check.remedy for check in checks if check.status == "fail")


def test_this_installation_is_in_range(checks: list[Check]) -> None:
    by_name = {check.name: check for check in checks}
    for name in ("python", "numpy", "pydantic", "click"):
        assert by_name[name].status == "ok", by_name[name]


def test_findings_are_plain_json(checks: list[Check]) -> None:
    rows = json.loads(json.dumps([check.as_dict() for check in checks]))
    assert all(set(row) == {"name", "status", "finding", "remedy"} for row in rows)


def test_the_table_shows_every_check_and_its_remedy() -> None:
    table = render_table([Check("disk", "fail", "full", "free some"), Check("cores", "ok", "4 usable")])
    assert table.splitlines() == [
        "fail  disk   full",
        "             -> free some",
        "ok    cores  4 usable",
        "1 ok, 0 to know about, 1 to repair",
    ]


@pytest.mark.parametrize(
    ("requirement", "extra", "status", "finding"),
    [
        ("numpy>=2", None, "ok", "(>=2)"),
        ("numpy<1", None, "fail", "supported is <1"),
        ("numpy<1", "train", "fail", "supported is <1"),
        ("numpy<1", "peft", "warn", "supported is <1"),
        ("no-such-library-here>=1", None, "fail", "missing, needed is >=1"),
        ("no-such-library-here", "train", "warn", "no training"),
        ("no-such-library-here", "vllm", "ok", "optional, vllm"),
    ],
)
def test_a_library_is_judged_by_its_range_and_by_who_needs_it(
    requirement: str, extra: str | None, status: str, finding: str
) -> None:
    check = check_library(Requirement(requirement), extra)
    assert check.status == status and finding in check.finding
    assert bool(check.remedy) == (status != "ok")


def test_gpus_are_read_from_the_drivers_listing() -> None:
    assert parse_gpus("NVIDIA H200, 143771, 570.1\nOdd, [N/A], 1\nno devices\n") == [
        "NVIDIA H200, 140 GiB, driver 570.1",
        "Odd, [N/A], driver 1",
    ]


def test_a_folder_that_does_not_exist_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    assert str(tmp_path) in check_disk(tmp_path / "runs" / "new").finding


def test_a_diagnosis_imports_nothing_heavy() -> None:
    script = (
        "import sys; from rlvr.doctor import diagnose; diagnose()\n"
        "print(sorted({'torch', 'transformers', 'trl', 'vllm', 'datasets'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
