"""`rlvr sandbox verify-package` on packages as setters make them, in both layouts, every submission run for real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from problem_packages import ADD, all_packages, split_number, two_piles, write

import sandbox
from data_curation.kattis import PackageError, read_package
from data_curation.kattis.verify import Verification, verify
from rlvr.commands.sandbox import verify_package

needs_cpp = pytest.mark.skipif(sandbox.languages.find("cpp").missing() is not None, reason="no g++ here")


@pytest.fixture(scope="module")
def judge() -> Iterator[sandbox.Judge]:
    try:
        made = sandbox.Judge(workers=2, cache=False)
    except sandbox.ProtectionUnavailable as error:
        pytest.skip(str(error))
    yield made
    made.close()


def rows(found: Verification) -> dict[str, tuple[str, str, bool | None]]:
    return {row.submission.name: (row.submission.expected, row.verdict, row.as_expected) for row in found.rows}


def test_packages_of_both_layouts_are_as_promised(tmp_path: Path, judge: sandbox.Judge) -> None:
    all_packages(tmp_path)
    found = {name: verify(read_package(tmp_path / name), judge) for name in ("twopiles", "guessing", "thirds")}
    assert rows(found["twopiles"]) == {
        "accepted/plain.py": ("AC", "AC", True),
        "accepted/split": ("AC", "AC", True),
        "run_time_error/crash.py": ("RTE", "RTE", True),
        "time_limit_exceeded/count.py": ("TLE", "TLE", True),
        "time_limit_exceeded/wrong_then_slow.py": ("TLE", "TLE", True),
        "wrong_answer/late.py": ("WA", "WA", True),
        "wrong_answer/minus.py": ("WA", "WA", True),
    }
    assert len(found["twopiles"].package.tests) == 5 and found["twopiles"].time_limit_from.startswith("5 x slowest")
    assert found["twopiles"].time_limit_s == 1.0  # whole seconds, at least one
    assert found["twopiles"].package.metadata.name == "Piles: Two of Them"
    assert rows(found["guessing"]) == {
        "accepted/bisect.py": ("AC", "AC", True),
        "wrong_answer/one_by_one.py": ("WA", "WA", True),
    }
    assert rows(found["thirds"]) == {
        "accepted/old.pl": ("any", "not run", None),
        "accepted/precise.py": ("AC", "AC", True),
        "mixed/either.py": ("RTE/WA", "RTE", True),
        "partially_accepted/coarse.py": ("RTE/TLE/WA", "WA", True),
        "wrong_answer/none.py": ("WA", "WA", True),
    }
    assert found["thirds"].time_limit_s == 1.0 and found["thirds"].time_limit_from == "of the package"
    assert all(each.passed and not each.judge_failed for each in found.values())


@needs_cpp
def test_a_validator_decides_with_the_arguments_of_its_group(tmp_path: Path, judge: sandbox.Judge) -> None:
    found = verify(read_package(split_number(tmp_path)), judge)
    assert rows(found) == {
        "accepted/from_end.cpp": ("AC", "AC", True),
        "accepted/zero.py": ("AC", "AC", True),
        "brute_force/slow_or_dead.py": ("RTE/TLE", "RTE", True),
        "other/no_promise.py": ("any", "WA", None),
        "rejected/halves.py": ("RTE/TLE/WA", "WA", True),
        "wrong_answer/one_word.py": ("WA", "WA", True),
    }
    halves = next(row for row in found.rows if row.submission.name == "rejected/halves.py")
    assert {name: case.verdict for name, case in halves.results.items()} == {
        "sample/one": "AC", "secret/a-small": "AC", "secret/b-even": "WA",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("accepted/wrong.py", "print(4)\n", "WA on sample/1, expected AC"),
        ("accepted/broken.py", "print(\n", "CE"),
        ("wrong_answer/right.py", ADD, "no WA"),
        ("wrong_answer/crash.py", "print(1 // 0)\n", "RTE on sample/1, expected AC or WA"),
        ("time_limit_exceeded/fast.py", ADD, "no TLE"),
        ("run_time_error/wrong.py", "print(4)\n", "no RTE"),
    ],
)
def test_a_submission_in_the_wrong_folder_is_found(
    tmp_path: Path, judge: sandbox.Judge, name: str, code: str, said: str
) -> None:
    folder = two_piles(tmp_path)
    write(folder / "submissions", {name: code})
    found = verify(read_package(folder), judge, time_limit_s=1.0, categories=[name.partition("/")[0]])
    row = next(row for row in found.rows if row.submission.name == name)
    assert row.as_expected is False and said in f"{row.verdict} {row.why}"
    assert not found.passed


def test_without_an_accepted_submission_the_package_is_not_as_it_should_be(
    tmp_path: Path, judge: sandbox.Judge
) -> None:
    folder = two_piles(tmp_path)
    for path in (folder / "submissions/accepted").rglob("*.py"):
        path.unlink()
    write(folder, {"submissions/accepted/only.pl": "print 3;"})
    found = verify(read_package(folder), judge, time_limit_s=0.5)
    assert not found.passed and "no submission in submissions/accepted is accepted" in found.complaints


def test_the_command_prints_tables_and_tells_by_its_exit_code(tmp_path: Path, judge: sandbox.Judge) -> None:
    good = two_piles(tmp_path / "good")
    run = CliRunner().invoke(verify_package, [str(tmp_path / "good"), "--workers", "2", "--time-limit", "1"])
    assert run.exit_code == 0, run.output
    assert "twopiles: 'Piles: Two of Them', 5 tests (1 samples), time limit 1 s" in run.stdout
    assert "MISMATCH" not in run.stdout and run.stdout.count(" ok") == 7

    write(good, {"submissions/accepted/wrong.py": "print(4)\n"})
    run = CliRunner().invoke(
        verify_package, [str(good), "--workers", "2", "--only", "accepted", "--json", "--time-limit", "1"]
    )
    assert run.exit_code == 1
    wrong = next(each for each in json.loads(run.stdout)[0]["submissions"] if each["submission"] == "accepted/wrong.py")
    assert wrong["as_expected"] is False and wrong["tests"]["sample/1"]["verdict"] == "WA"

    write(good, {"problem.yaml": "name: [\n"})
    run = CliRunner().invoke(verify_package, [str(good), "--workers", "1"])
    assert run.exit_code == 2 and "problem.yaml: not YAML" in run.stderr
    assert isinstance(CliRunner().invoke(verify_package, [str(tmp_path / "nothing")]).exception, FileNotFoundError)


def test_a_package_whose_validator_does_not_compile_is_named_and_the_others_are_verified(tmp_path: Path) -> None:
    two_piles(tmp_path)
    [validator, *_] = sorted(path for path in split_number(tmp_path).glob("output_validat*/**/*") if path.is_file())
    validator.write_text("def (\n")
    run = CliRunner().invoke(
        verify_package, [str(tmp_path), "--workers", "1", "--only", "wrong_answer", "--time-limit", "1"]
    )
    assert run.exit_code == 2
    assert "splitnumber: " in run.stderr and "does not compile" in run.stderr
    assert "wrong_answer/minus.py" in run.stdout and "1 of 2 packages" in run.stdout


def test_a_category_that_no_package_has_is_refused(tmp_path: Path) -> None:
    run = CliRunner().invoke(verify_package, [str(two_piles(tmp_path)), "--only", "cobol"])
    assert run.exit_code == 2
    assert "--only cobol: no submissions of it; there are accepted, run_time_error" in run.stderr


def test_a_failing_judge_is_not_taken_for_a_mismatch(tmp_path: Path, judge: sandbox.Judge) -> None:
    package = read_package(two_piles(tmp_path))

    class Failing:
        def as_completed(self, submissions, **_):  # type: ignore[no-untyped-def]
            for index, _one in enumerate(submissions):
                yield index, sandbox.Judgement(sandbox.Verdict.IE, (), "confined", "no worker")

    found = verify(package, Failing(), time_limit_s=1.0)  # type: ignore[arg-type]
    assert found.judge_failed and all(row.as_expected is None and row.verdict == "IE" for row in found.rows)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = two_piles(tmp_path)
    (folder / "data/secret/group/zeros.ans").unlink()
    with pytest.raises(PackageError, match=r"zeros\.in: no answer beside it"):
        read_package(folder)
