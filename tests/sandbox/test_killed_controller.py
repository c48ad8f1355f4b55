"""Nothing outlives a judge whose process is killed, whatever it was doing: no process, no folder, no shared memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox import Judge

# All at once: compilers, a conversation, one program on many tests, a long compilation of Python, single runs.
CONTROLLER = """
    import sys, threading
    from sandbox import Judge, Submission, TestCase
    judge = Judge(workers=2, protection=sys.argv[1], cache=False, min_protection="confined")
    slow_c = "int main(void) {" + "volatile int a; a = 1; " * 4000 + "return %d; }"
    speaker = "import time\\nprint(1, flush=True)\\ninput()"
    listener = "python:import sys, time\\ninput()\\ntime.sleep(30)\\nsys.exit(42)"
    works = [Submission(slow_c % n, [TestCase("", "")], "c") for n in range(8)]
    works += [Submission(f"import time\\ntime.sleep(.05)#{n}", [TestCase("", "")] * 40) for n in range(4)]
    works += [Submission(speaker + f"#{n}", [TestCase("", "")], interactor=listener) for n in range(2)]
    works += [Submission("x = " + " + ".join(["[1]"] * 20000) + f"#{n}", [TestCase("", "")] * 2) for n in range(2)]
    works += [Submission(f"while True: pass#{n}", [TestCase("", "")]) for n in range(4)]
    order = int(sys.argv[2])
    works = works[order:] + works[:order]
    print("running", flush=True)
    judge.judge_batch(works)
"""

# Adopts what loses its parent, so that nothing can hide; prints what is left, after a generous wait.
WATCHER = """
    import contextlib, ctypes, json, os, pathlib, random, subprocess, sys, time
    import psutil
    from sandbox.isolation.groups import find
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    level, count, place, seed, controller = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5]
    random.seed(seed)

    def table():
        shared = set(os.listdir("/dev/shm"))
        for name in ("shm", "msg", "sem"):
            path = pathlib.Path("/proc/sysvipc", name)
            shared |= {f"{name} {line.split()[1]}" for line in path.read_text().splitlines()[1:]}
        return shared

    def living():
        while True:
            try:
                if not os.waitpid(-1, os.WNOHANG)[0]: break
            except ChildProcessError:
                break
        names = []
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                names.append(" ".join(process.cmdline())[:300])
        return names

    def left():
        grouped = [group for folder in groups for group in os.listdir(folder) if group.partition(".")[0] in names]
        return [*living(), *os.listdir(place), *grouped]

    before, kinds, found, names = table(), [], [], set()
    groups = find().place.folders if find().place is not None else ()
    for number in range(count):
        arguments = [sys.executable, "-c", controller, level, str(number % 20)]
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, env=os.environ | {"TMPDIR": place})
        assert process.stdout.readline() == b"running\\n"
        time.sleep(random.uniform(0, 1.5))
        names.update(os.listdir(place))
        kinds.append(len(psutil.Process().children(recursive=True)))
        process.kill()
        process.wait()
        process.stdout.close()
        deadline = time.monotonic() + 90
        while left() and time.monotonic() < deadline:
            time.sleep(0.05)
        found += left()
    print(json.dumps({"processes": kinds, "left": found, "shared": sorted(table() - before)}))
"""


@pytest.mark.parametrize("times", [4, pytest.param(20, marks=pytest.mark.slow)])
@pytest.mark.parametrize("level", ["namespaced", "confined"])
def test_nothing_is_left_of_a_judge_killed_at_a_random_moment(
    level: str, times: int, judge_at: Callable[[str], Judge], tmp_path: Path
) -> None:
    judge_at(level)  # skips where the level is not to be had
    place = tmp_path / "judge"
    place.mkdir()
    arguments = [level, str(times), str(place), "1", textwrap.dedent(CONTROLLER)]
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(WATCHER), *arguments], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert found["left"] == []
    assert found["shared"] == []
    assert max(found["processes"]) > 4  # it was at work


def test_a_folder_whose_keeper_was_killed_as_well_is_cleared_by_the_next_judge(tmp_path: Path) -> None:
    script = """
        import os, signal, sys
        from sandbox.execution.folder import Folder
        folder = Folder()
        folder._keeper.kill()
        print(folder.path, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    clean = "from sandbox.execution.folder import Folder; Folder().close()"
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    left = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], env=environment, stdout=subprocess.PIPE)
    assert Path(left.stdout.decode().strip()).is_dir()
    subprocess.run([sys.executable, "-c", clean], env=environment, check=True)
    assert list(tmp_path.iterdir()) == []
