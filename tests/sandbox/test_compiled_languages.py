# ruff: noqa: SIM905
"""C and C++: compiled once in a box of their own, run confined like everything else."""

from __future__ import annotations

import os
import textwrap
import threading
from pathlib import Path

import pytest

import sandbox
from sandbox import Limits, TestCase, ToolchainMissing, Verdict
from sandbox.execution.job import Job
from sandbox.languages import available

pytestmark = pytest.mark.skipif(
    available()["cpp"] is not None or available()["c"] is not None, reason="no C or C++ compiler on this machine"
)

ADDER = '#include <cstdio>\nint main() { long long a; scanf("%lld", &a); printf("%lld", a + 1); }'


def test_a_program_is_compiled_once_and_run_on_every_test(any_level: sandbox.Judge) -> None:
    tests = [TestCase(str(n), str(n + 1)) for n in range(5)]
    judgement = any_level.judge(ADDER, tests, language="cpp")
    assert judgement.verdict is Verdict.AC, judgement
    assert any_level.judge(ADDER, [TestCase("1", "3")], language="cpp").verdict is Verdict.WA


def test_c_programs_are_judged(any_level: sandbox.Judge) -> None:
    code = '#include <stdio.h>\n#include <math.h>\nint main(void) { printf("%.0f", sqrt(16.0)); return 0; }'
    assert any_level.judge(code, [TestCase("", "4")], language="c").verdict is Verdict.AC


def test_the_usual_header_and_large_stacks_work(judge: sandbox.Judge) -> None:
    code = """
        #include <bits/stdc++.h>
        #include <thread>
        using namespace std;
        int depth(int n) { volatile char pad[64]; pad[0] = 1; return n == 0 ? 0 : depth(n - 1) + pad[0]; }
        static long long huge[200'000'000];  // untouched: 1.6 GB of address space, no memory
        int main() {
            ios::sync_with_stdio(false);
            cin.tie(nullptr);
            vector<int> v{3, 1, 2};
            ranges::sort(v);
            int total = 0;
            thread t([&] { total = depth(1000); });
            t.join();
            cout << v[0] << ' ' << depth(400000) << ' ' << total << ' ' << huge[5] << '\\n';
        }
    """
    judgement = judge.judge(textwrap.dedent(code), [TestCase("", "1 400000 1000 0")], language="cpp")
    assert judgement.verdict is Verdict.AC, judgement


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("for (;;) ;", Verdict.TLE),
        ("sleep(100);", Verdict.ILE),
        ("for (;;) memset(malloc(1 << 20), 1, 1 << 20);", Verdict.MLE),
        ('for (;;) puts("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");', Verdict.OLE),
        ("*(volatile int*)0 = 1;", Verdict.RE),
        ("abort();", Verdict.RE),
        ("return 3;", Verdict.RE),
        ("kill(getpid(), SIGKILL);", Verdict.RE),
    ],
)
def test_verdicts_of_binaries(judge: sandbox.Judge, body: str, expected: Verdict) -> None:
    headers = "stdio.h stdlib.h string.h unistd.h signal.h".split()
    code = "".join(f"#include <{header}>\n" for header in headers) + f"int main() {{ {body} }}"
    limits = Limits(
        cpu_s=0.4 if expected is Verdict.TLE else 20, wall_s=0.6 if expected is Verdict.ILE else 30, output_mb=4
    )
    judgement = judge.judge(code, [TestCase("", "1")], language="c", limits=limits)
    assert judgement.verdict is expected, judgement


def test_a_binary_reaches_nothing_outside(any_level: sandbox.Judge) -> None:
    code = """
        #define _GNU_SOURCE
        #include <fcntl.h>
        #include <signal.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <sys/ptrace.h>
        #include <sys/socket.h>
        #include <sys/syscall.h>
        #include <unistd.h>
        #define TRY(call) if ((long)(call) >= 0) printf("ESCAPED %s\\n", #call)
        extern char **environ;
        int main(int argc, char **argv) {
            char *empty[] = {"sh", "-c", "echo ESCAPED", 0};
            TRY(fork()); TRY(vfork()); TRY(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)); TRY(syscall(435, argv, 88));
            TRY(execv("/bin/sh", empty)); TRY(execv("/usr/bin/env", empty));
            TRY(execv("/lib64/ld-linux-x86-64.so.2", empty));
            TRY(open("/etc/passwd", O_RDONLY)); TRY(open("/", O_RDONLY)); TRY(open("/proc/1/environ", O_RDONLY));
            TRY(open("/tmp/x", O_RDWR | O_CREAT, 0600)); TRY(open("../x", O_RDWR | O_CREAT, 0600));
            TRY(open(argv[0], O_WRONLY)); TRY(unlink(argv[0])); TRY(symlink("/", "root"));
            TRY(socket(AF_INET, SOCK_STREAM, 0)); TRY(socket(AF_UNIX, SOCK_STREAM, 0));
            TRY(kill(getppid(), SIGKILL)); TRY(kill(-1, SIGKILL)); TRY(kill(0, SIGKILL));
            TRY(ptrace(PTRACE_ATTACH, getppid(), 0, 0)); TRY(unshare(0x10000000)); TRY(chroot("."));
            for (int fd = 3; fd < 256; fd++) TRY(fcntl(fd, F_GETFD));
            for (char **e = environ; *e; e++) if (getenv("HOME") || getenv("SANDBOX_TEST")) printf("ESCAPED %s\\n", *e);
            printf("end");
        }
    """
    run = any_level.execute(textwrap.dedent(code), [""], language="c", limits=Limits(cpu_s=1, wall_s=30))[0]
    assert run.stdout == b"end", run


@pytest.mark.parametrize(
    "code",
    [
        "int main() {",
        '#include "/etc/passwd"\nint main() {}',
        '#include "/dev/zero"\nint main() {}',
        '#include "/proc/self/environ"\nint main() {}',
        'asm(".incbin \\"/etc/passwd\\"");\nint main() {}',
        "#include <nothing.h>\nint main() {}",
        "#error " + "x" * 100_000 + "\n",
        "int helper() { return 1; }",
    ],
    ids=range(8),
)
def test_sources_that_do_not_compile_or_pry_are_compile_errors(judge: sandbox.Judge, code: str) -> None:
    judgement = judge.judge(code, [TestCase("", "1")], language="c")
    assert judgement.verdict is Verdict.CE, judgement
    assert len(judgement.message) <= 300
    assert "root:" not in judgement.message


def test_a_missing_compiler_is_named_with_its_remedy(judge: sandbox.Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    from sandbox import languages

    cpp = languages.find("cpp")
    with monkeypatch.context() as patched:
        patched.setattr(cpp, "tool", "no-such-compiler")
        patched.delitem(cpp.__dict__, "path", raising=False)
        with pytest.raises(ToolchainMissing, match="install"):
            judge.judge(ADDER, [TestCase("1", "2")], language="cpp")
        assert "install" in str(available()["cpp"])
    cpp.__dict__.pop("path", None)
    assert available()["cpp"] is None


def test_binaries_go_with_the_judge(judge: sandbox.Judge) -> None:
    with sandbox.Judge(workers=1, protection=judge.protection, cache=False) as own:
        folder = own._pool.artifacts
        assert own.judge(ADDER, [TestCase("1", "2")], language="cpp").accepted
        assert os.listdir(folder)
    assert not os.path.exists(folder)


def test_programs_that_share_a_source_are_compiled_once(judge: sandbox.Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    from sandbox.languages import compiled

    built: list[str] = []
    real = compiled.build

    def counted(command: list[str], directory: str, *rest: object, **options: object) -> object:
        built.append(directory)
        return real(command, directory, *rest, **options)

    monkeypatch.setattr(compiled, "build", counted)
    validator = '{"source": "int main() { return 42; } // shared", "language": "cpp"}'
    submissions = [
        sandbox.Submission(f"print({n})", [TestCase("", "")], checker=f"kattis:{validator}") for n in range(8)
    ]
    with sandbox.Judge(workers=4, protection=judge.protection, cache=False) as own:
        assert [found.verdict for found in own.judge_batch(submissions)] == [Verdict.AC] * 8
    assert len(built) == 1


def printing(number: int) -> sandbox.Submission:
    code = f'#include <stdio.h>\nint main() {{ puts("{number}"); return 0; }}'
    return sandbox.Submission(code, [TestCase("", str(number))] * 2, language="c")


def test_programs_unused_for_longest_give_room_and_are_compiled_again(
    judge: sandbox.Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sandbox.Judge(workers=2, protection=judge.protection, cache=False) as own:
        assert own.judge_batch([printing(0)])[0].accepted
        (first,) = Path(own._pool.artifacts).glob("c-*")
        own._launcher._shelf.capacity = 3 * first.stat().st_size
        # more than there is room for wait at once, and what waits is never removed
        assert all(found.accepted for found in own.judge_batch([printing(n) for n in range(12)]))
        assert own.judge_batch([printing(1)])[0].accepted
        kept = list(Path(own._pool.artifacts).glob("c-*"))
        assert 1 <= len(kept) <= 3 and own._launcher._shelf.size <= own._launcher._shelf.capacity
        assert not own._launcher._shelf.crowded


def test_interactors_that_fill_the_shelf_are_waited_for_by_nobody(judge: sandbox.Judge) -> None:
    interactor = "python:import sys; print(1, flush=True); sys.exit(0)"
    cpp = 'kattis:{"source": "int main() { return 42; } // %d"}'
    talks = [sandbox.Submission(printing(n).code, [TestCase()], "c", interactor=cpp % n) for n in range(3)]
    talks.append(sandbox.Submission(printing(9).code, [TestCase()], "c", interactor=interactor))
    with sandbox.Judge(workers=1, protection=judge.protection, cache=False) as own:
        own._launcher._shelf.capacity = 0
        assert all(found.accepted for found in own.judge_batch(talks))
        assert not own._launcher._shelf.crowded and own._launcher._shelf.size == 0


def test_a_program_given_up_while_it_is_compiled_is_not_run(
    judge: sandbox.Judge, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sandbox.languages import compiled

    compiling, go_on = threading.Event(), threading.Event()
    real = compiled.build

    def held_up(*arguments: object, **options: object) -> object:
        compiling.set()
        assert go_on.wait(60)
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(compiled, "build", held_up)
    ended: list[str | None] = []
    with sandbox.Judge(workers=1, protection=judge.protection, cache=False) as own:
        submit = own._pool.submit

        def watched(job: Job) -> None:
            on_done = job.on_done
            job.on_done = lambda error, refused: (ended.append(error), on_done(error, refused))  # type: ignore[func-returns-value,assignment]
            submit(job)

        monkeypatch.setattr(own._pool, "submit", watched)
        answers = own.as_completed([sandbox.Submission("int main() { for (;;); }", [TestCase()], "c")])
        waiting = threading.Thread(target=lambda: next(answers, None))
        waiting.start()
        assert compiling.wait(60)
        ((key, pending),) = own._work._pending.items()
        own._work._leave(key, pending)
        go_on.set()
        waiting.join(60)
        assert not waiting.is_alive() and ended == ["cancelled"]
