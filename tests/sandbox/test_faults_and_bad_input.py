"""Odd tests and failing machines: a clear error or the judge's own verdict, nothing lost, nothing hangs."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

import sandbox
from sandbox import Judge, Limits, Submission, TestCase, Verdict, submission
from sandbox.execution.folder import Folder
from sandbox.isolation import bwrap
from sandbox.testfiles import read_tests

ECHO = "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read())"


def test_tests_that_are_no_utf8_are_passed_on_byte_for_byte(any_level: Judge, tmp_path: Path) -> None:
    every = bytes(range(256)).replace(b"\r", b"") * 3
    (tmp_path / "1.in").write_bytes(every)
    (tmp_path / "1.ans").write_bytes(every)
    tests = read_tests(tmp_path)
    assert any_level.judge(ECHO, tests, checker="exact").accepted
    spoiled = [TestCase(tests[0].input, tests[0].output[:-1] + "x")]
    assert any_level.judge(ECHO, spoiled, checker="exact").verdict is Verdict.WA


@pytest.mark.parametrize("where", ["input", "output"])
def test_text_that_stands_for_no_bytes_is_refused_and_nothing_waits_for_it(judge: Judge, where: str) -> None:
    test = TestCase(**{"input": "1", "output": "1", where: "\ud83d"})  # type: ignore[arg-type]
    for _ in range(2):  # a second, equal submission must not wait for the first
        with pytest.raises(ValueError, match=rf"test 2: {where} holds U\+D83D"):
            judge.judge(ECHO, [TestCase("1", "1"), test])
    assert judge.judge(ECHO, [TestCase("1", "1")]).accepted


def test_a_test_larger_than_can_be_sent_is_refused(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "_LARGEST_TEST", 1 << 20)
    with pytest.raises(ValueError, match="test 1: input of 3 MiB, at most 1"):
        judge.judge(ECHO, [TestCase("1" * (3 << 20), "1")])


def test_tests_from_a_file_that_is_no_json_name_the_row(tmp_path: Path) -> None:
    path = tmp_path / "tests.jsonl"
    for bad in ('{"input": "1", "output"', "[1]", '{"input": 1}', '{"input": "1", "output": "1", "answer": "1"}'):
        path.write_text('{"input": "1", "output": "2"}\n' + bad)
        with pytest.raises(ValueError, match="row 2"):
            read_tests(path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="no tests"):
        read_tests(path)


@pytest.mark.slow
def test_a_test_of_a_hundred_megabytes(any_level: Judge) -> None:
    count = 12_500_000
    given = "1234567 " * count
    code = "import sys\ntotal = 0\nwhile c := sys.stdin.buffer.read(8 << 16): total += c.count(b' ')\nprint(total)"
    assert any_level.judge(code, [TestCase(given, str(count))], limits=Limits(wall_s=300)).accepted


@pytest.mark.slow
def test_thousands_of_tests(judge: Judge) -> None:
    tests = [TestCase(str(n), str(n + 1)) for n in range(1200)]
    judgement = judge.judge("print(int(input()) + 1)", tests, limits=Limits(wall_s=120))
    assert judgement.accepted and len(judgement.cases) == 1200
    tests[1000] = TestCase("1", "1")
    judgement = judge.judge("print(int(input()) + 1)", tests, limits=Limits(wall_s=120))
    assert [case.verdict for case in judgement.cases] == ["AC"] * 1000 + ["WA"] + ["SKIPPED"] * 199


@pytest.mark.parametrize("full", ["never", "in_between", "from_the_start"])
def test_a_full_disk_is_not_the_programs_fault(tmp_path: Path, full: str) -> None:
    if bwrap.binary() is None:
        pytest.skip("needs bwrap, for a small disk")
    script = f"""
        import os, tempfile
        import sandbox
        from sandbox import TestCase
        sandbox.isolation.levels.probe("confined")
        tempfile.tempdir = {str(tmp_path)!r}
        filling = os.path.join(tempfile.tempdir, "filling")

        def fill():
            with open(filling, "wb") as file:
                room = os.statvfs(tempfile.tempdir)
                file.write(bytes(room.f_bavail * room.f_frsize - 50_000))

        with sandbox.Judge(1, protection="confined", cache=False) as judge:
            if {full == "from_the_start"}: fill()
            else: assert judge.judge("print(input())", [TestCase("1", "1")]).accepted
            if {full == "in_between"}: fill()
            program, tests = "print(len(open('in.txt').read()))", [TestCase("x" * 500_000, "500000")] * 2
            for file in ("in.txt", "in.txt"):
                found = judge.judge(program, tests, input_file=file)
                print(found.verdict, found.message)
            if os.path.exists(filling): os.unlink(filling)
            print(judge.judge(program, tests, input_file="in.txt").verdict)
    """
    root = ["--dev-bind", "/", "/", "--size", str(4 << 20), "--tmpfs", str(tmp_path)]
    command = [str(bwrap.binary()), *root, sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if "bwrap:" in done.stderr:
        pytest.skip(f"no small disk to be had: {done.stderr.strip()}")
    *while_full, afterwards = done.stdout.splitlines()
    assert len(while_full) == 2, done
    for line in while_full:
        assert line.strip() == "AC" if full == "never" else line.startswith("IE ") and "No space left" in line, done
    assert afterwards == "AC", done


def test_what_a_killed_judge_left_behind_is_removed_by_the_next(judge: Judge) -> None:
    script = f"""
        import sandbox, time
        judge = sandbox.Judge(1, protection={judge.protection!r}, cache=False)
        judge.judge("open('left', 'w').write('x')", [sandbox.TestCase("", "")])
        print(judge._pool._folder.path, flush=True)
        time.sleep(600)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    path = process.stdout.readline().strip()
    living = Folder()
    assert os.path.isdir(path) and os.path.isdir(living.path)  # those of the living stay
    process.kill()
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 60
    while os.path.exists(path):
        assert time.monotonic() < deadline
        Folder().close()
        time.sleep(0.05)
    assert os.path.isdir(living.programs)
    living.close()
    assert not os.path.exists(living.path)


@pytest.mark.parametrize("jump", [-86400.0, 86400.0])
def test_a_jump_of_the_clock_changes_nothing(judge: Judge, jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    with Judge(workers=1, protection=judge.protection, silence_s=30) as own:
        assert own.judge(ECHO, [TestCase("0", "0")]).accepted
        monkeypatch.setattr(time, "time", lambda: real() + jump)
        found = own.judge_batch([Submission(f"{ECHO}#{n}", [TestCase(str(n), str(n))] * 2) for n in range(10)])
        assert all(judgement.accepted for judgement in found)
        slow = own.judge("import time\ntime.sleep(60)", [TestCase("", "")], limits=Limits(wall_s=0.5))
        assert slow.verdict is Verdict.ILE and slow.cases[0].wall_s < 60
        assert own.workers_replaced == 0


def test_nothing_that_measures_runs_reads_the_clock_that_jumps() -> None:
    folder = Path(sandbox.__file__).parent
    for source in [*(folder / "box").glob("*.py"), *(folder / "execution").glob("*.py")]:
        if source.name not in ("cache.py", "folder.py"):  # ages of files, nothing else
            assert "time.time(" not in source.read_text(), source


@pytest.mark.slow
def test_ten_thousand_waiting_programs_share_their_tests(judge: Judge) -> None:
    tests = [TestCase("x" * 200_000, "no")] * 5  # 1 MB that each program would need 10 GB of, if it were copied
    process = psutil.Process()
    with Judge(workers=1, protection=judge.protection, cache=False) as own:
        submissions = [Submission(f"print(1)#{n}", tests) for n in range(10_000)]
        gc.collect()
        before = process.memory_info().rss
        completed = own.as_completed(submissions)
        peak = 0
        for done, (_, judgement) in enumerate(completed, 1):
            assert judgement.verdict is Verdict.WA
            peak = max(peak, process.memory_info().rss - before)
            if done == 300:
                break
        completed.close()  # type: ignore[attr-defined]
        assert own.statistics().waiting == 0 or own.judge(ECHO, [TestCase("1", "1")]).accepted
    assert peak < 150 << 20, f"{peak >> 20} MiB for 10,000 programs"


def test_the_command_names_what_is_wrong_with_tests(tmp_path: Path) -> None:
    program = tmp_path / "a.py"
    program.write_text(ECHO)
    tests = tmp_path / "tests.jsonl"
    for text, said in (("{", "row 1"), (json.dumps({"input": "\ud83d", "output": ""}), "U+D83D"), ("", "no tests")):
        tests.write_text(text)
        command = [sys.executable, "-m", "rlvr.cli", "sandbox", "judge", str(program), "--tests", str(tests)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, said in done.stderr) == (2, True), done
        assert done.stderr.count("\n") <= 1, done.stderr


def test_a_test_that_cannot_be_sent_ends_its_own_job_only(any_level: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    from sandbox.execution import pool

    real = pool.test_message

    def failing(item: object, *others: object) -> bytes:
        if item.data == b"bad\n":  # type: ignore[attr-defined]
            raise OverflowError("a number too large")
        return real(item, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(pool, "test_message", failing)
    bad = [Submission(f"print(1)#{n}", [TestCase("bad\n", "1")] * (1 + n % 2)) for n in range(300)]
    good = Submission("print(1)", [TestCase("good\n", "1")] * 2)
    found = any_level.judge_batch([*bad, good])
    assert {judgement.verdict for judgement in found[:-1]} == {Verdict.IE}
    assert "a number too large" in found[0].message
    assert found[-1].accepted
