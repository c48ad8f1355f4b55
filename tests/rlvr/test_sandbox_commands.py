"""`rlvr sandbox judge` as a problem setter uses it: every form of problem, and what bad input is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from rlvr.commands.sandbox import judge
from sandbox.isolation import levels

SUM = "print(sum(map(int, input().split())))\n"
CHECKER = """
import json, sys
case = json.load(sys.stdin)
sys.exit(0 if case["output"].split() == case["expected"].split() else 1)
"""
INTERACTOR = """
import sys
secret = open(sys.argv[1]).read().split()[0]
print("guess", flush=True)
sys.exit(0 if input() == secret else 1)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    if all(levels.probe(level).reason is not None for level in ("namespaced", "confined")):
        pytest.skip("this machine offers neither namespaces nor Landlock with seccomp")
    (tmp_path / "tests").mkdir()
    for name, given, answer in (("1", "1 2\n", "3\n"), ("2", "5 5\n", "10\n"), ("10", "0 0\n", "0\n")):
        (tmp_path / "tests" / f"{name}.in").write_text(given)
        (tmp_path / "tests" / f"{name}.ans").write_text(answer)
    return tmp_path


def run(folder: Path, code: str, *options: str, name: str = "program.py", tests: str = "tests") -> Result:
    (folder / name).write_text(code)
    return CliRunner().invoke(judge, [str(folder / name), "--tests", str(folder / tests), *options])


def test_verdicts_and_exit_codes(folder: Path) -> None:
    right = run(folder, SUM)
    assert right.exit_code == 0 and "AC (3 of 3 tests" in right.output, right.output
    assert [line.split()[0] for line in right.output.splitlines()[1:4]] == ["1", "2", "10"]
    wrong = run(folder, "print(3)")
    assert wrong.exit_code == 1 and "WA: test 2: token 1 differs (1 of 3 tests" in wrong.output
    found = json.loads(run(folder, "print(3)", "--all", "--json").output)
    assert (found["verdict"], found["passed"], [case["verdict"] for case in found["cases"]]) == (
        "WA",
        1,
        ["AC", "WA", "WA"],
    )


def test_a_completion_is_searched_for_its_program(folder: Path) -> None:
    completion = f"<think>```python\nprint(3)\n```</think>\nSo:\n```python\n{SUM}```\n"
    assert run(folder, completion, "--completion", name="completion.md").exit_code == 0
    none = run(folder, "I do not know.", "--completion", name="completion.md")
    assert none.exit_code == 1 and "NO_CODE" in none.output


def test_a_checker_and_an_interactor_of_the_problems_own(folder: Path) -> None:
    (folder / "checker.py").write_text(CHECKER)
    (folder / "interactor.py").write_text(INTERACTOR)
    assert run(folder, SUM, "--checker-program", str(folder / "checker.py")).exit_code == 0
    (folder / "checker.py").write_text("raise OSError('out of order')")
    broken = run(folder, SUM, "--checker-program", str(folder / "checker.py"))
    assert broken.exit_code == 3 and "IE: test 1" in broken.output and "out of order" in broken.output
    talk = run(folder, "input()\nprint(1)", "--interactor", str(folder / "interactor.py"))
    assert talk.exit_code == 1 and "WA: test 2: refused by the problem's interactor" in talk.output


def test_programs_with_files_of_their_own(folder: Path) -> None:
    code = "open('sum.out', 'w').write(str(sum(map(int, open('sum.in').read().split()))))"
    assert run(folder, code, "--input-file", "sum.in", "--output-file", "sum.out").exit_code == 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b'{"input": "1 2"}\n', "row 1: 'output' is missing"),
        (b'\n{"input": "1 2", "output": 3}\n', "row 2: output: expected a string, got 3"),
        (b'{"input": "", "output": "\xff"}\n', "row 1: not UTF-8"),
        (b'{"input": "1 2", "output": "3", "ouput": ""}\n', "row 1: unknown key 'ouput'; known: input, output"),
        (b'{"input": "1 2", "output": "3", "weight": "heavy"}\n', "row 1: weight: expected a number"),
        (b"[1, 2]\n", "row 1: expected an object"),
        (b"{\n", "row 1: not JSON"),
        (b"[" * 100_000, "row 1: not JSON"),
        (b"\n\n", "no tests"),
    ],
)
def test_tests_that_cannot_be_read_are_named(folder: Path, text: bytes, complaint: str) -> None:
    (folder / "tests.jsonl").write_bytes(text)
    found = run(folder, SUM, tests="tests.jsonl")
    assert isinstance(found.exception, ValueError) and complaint in str(found.exception), found.exception
    assert len(str(found.exception).splitlines()) == 1


def test_an_answer_that_is_missing_is_named(folder: Path) -> None:
    (folder / "tests" / "2.ans").unlink()
    found = run(folder, SUM)
    assert isinstance(found.exception, FileNotFoundError) and "2.in: no answer beside it" in str(found.exception)


def test_tests_that_are_not_utf8_are_judged_by_their_bytes(folder: Path) -> None:
    (folder / "tests" / "1.in").write_bytes(b"\xff\xfe\x00 \x80\n")
    (folder / "tests" / "1.ans").write_bytes(b"\xff\xfe\x00 \x80\n")
    echo = "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read())"
    found = json.loads(run(folder, echo, "--all", "--json").output)
    assert [case["verdict"] for case in found["cases"]] == ["AC", "WA", "WA"]
