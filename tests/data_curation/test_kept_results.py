"""One computation a problem, in threads: what a failure or Ctrl-C ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sandbox
from data_curation import Problem
from data_curation.stages.kept_results import Kept, computed
from data_curation.stages.result import Workplace

SLEEPS = "import time; time.sleep(3000)"

INTERRUPTED = f"""
import signal, sys
from pathlib import Path
import sandbox
from data_curation import Problem
from data_curation.stages.kept_results import Kept, computed
from data_curation.stages.result import Workplace

signal.signal(signal.SIGINT, signal.default_int_handler)  # also in a background job
def compute(problem):
    print("running", flush=True)
    return sandbox.judge({SLEEPS!r}, [sandbox.TestCase("", "")], limits=sandbox.Limits(wall_s=3000)).verdict

problems = [Problem(id=str(n), statement="Wait.") for n in range(6)]
kept = Kept(lambda problem: None, None, None)
try:
    list(computed(compute, problems, kept, Workplace(Path(sys.argv[1])), "wait", 2))
except KeyboardInterrupt:
    print("interrupted; the next judge is", sandbox.judge("print(1)", [sandbox.TestCase("", "1")]).verdict)
"""


def test_control_c_ends_the_programs_that_the_threads_wait_for(tmp_path: Path) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["running\n"] * 2
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=300)
    assert (process.returncode, out) == (0, "interrupted; the next judge is AC\n")


def test_a_failure_ends_the_others_and_keeps_what_was_done(tmp_path: Path) -> None:
    def compute(problem: Problem) -> int:
        if problem.id == "1":
            raise RuntimeError("the second fails")
        if problem.id == "2":
            sandbox.judge(SLEEPS, [sandbox.TestCase("", "")], limits=sandbox.Limits(wall_s=3000))
        return int(problem.id)

    def save(result: int, file: Path) -> None:
        file.write_text(str(result))

    kept = Kept[int](lambda problem: tmp_path / problem.id, lambda file: int(file.read_text()), save)
    problems = [Problem(id=str(number), statement="Wait.") for number in range(4)]
    with pytest.raises(RuntimeError, match="the second fails"):
        list(computed(compute, problems, kept, Workplace(tmp_path), "wait", 3))
    assert (tmp_path / "0").read_text() == "0" and not (tmp_path / "1").exists()
