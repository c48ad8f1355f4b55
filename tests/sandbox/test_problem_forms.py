# ruff: noqa: E501
"""Programs as contests mean them: files, conversations with an interactor, checkers by the usual protocols."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import sandbox
from sandbox import Judge, Limits, Submission, TestCase, Verdict
from sandbox.checkers import user
from sandbox.isolation import levels
from sandbox.languages import available

needs_cpp = pytest.mark.skipif(available()["cpp"] is not None, reason="no C++ compiler on this machine")
SHORT = Limits(cpu_s=0.3, wall_s=3)


def verdicts(judgement: sandbox.Judgement) -> str:
    return " ".join(case.verdict for case in judgement.cases)


# files

COPY = "a = int(open('game.in').read())\nopen('game.out', 'w').write(f'{a + 1} \\n')"


def test_programs_may_read_and_write_files(any_level: Judge) -> None:
    tests = [TestCase("1", "2"), TestCase("5", "7")]
    judgement = any_level.judge(COPY, tests, input_file="game.in", output_file="game.out", stop="never")
    assert verdicts(judgement) == "AC WA"
    kept = any_level.judge(COPY, tests[:1], input_file="game.in", output_file="game.out", keep_output=True)
    assert kept.cases[0].output == "2 \n"


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("print(2)", Verdict.WA),  # to the wrong place
        ("open('game.out', 'w').write('2')\nopen('game.in', 'w').write('x')", Verdict.AC),
        ("import os\nos.symlink('/etc/passwd', 'game.out')", Verdict.RE),
        ("import os\nos.mkdir('game.out')", Verdict.RE),
        ("print(2)\nimport sys\nsys.stdin.read() == '' or exit(3)", Verdict.WA),  # nothing on standard input
        ("open('game.out', 'w').write('2')\nraise ValueError", Verdict.RE),
        ("f = open('game.out', 'w')\nwhile True: f.write('2' * 4096)", Verdict.OLE),
    ],
)
def test_only_the_output_file_counts(judge: Judge, code: str, verdict: Verdict) -> None:
    found = judge.judge(
        code, [TestCase("1", "2")], input_file="game.in", output_file="game.out", limits=Limits(output_mb=2)
    )
    assert found.verdict is verdict, found


def test_files_do_not_outlive_a_test(judge: Judge) -> None:
    code = "import os\nbefore = sorted(os.listdir('.'))\nopen('out', 'w').write(str(before))\nopen('left', 'w')"
    tests = [TestCase("", "['in']")] * 3
    assert judge.judge(code, tests, input_file="in", output_file="out", checker="exact").verdict is Verdict.AC


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/b", ".hidden", "a b", "x" * 200])
def test_file_names_are_plain(judge: Judge, name: str) -> None:
    with pytest.raises(ValueError, match="file name"):
        judge.judge("print(1)", [TestCase("1", "2")], output_file=name)


@needs_cpp
def test_compiled_programs_use_files_too(judge: Judge) -> None:
    code = '#include <fstream>\nint main() { std::ifstream i("a.in"); std::ofstream o("a.out"); int a; i >> a; o << a + 1; }'
    found = judge.judge(code, [TestCase("1", "2")], language="cpp", input_file="a.in", output_file="a.out")
    assert found.verdict is Verdict.AC, found


# conversations

HIGHER_LOWER = """
import sys
secret, answer = int(open(sys.argv[1]).read()), open(sys.argv[2]).read()
assert answer == "known to nobody"
for turn in range(11):
    try:
        guess = int(input())
    except ValueError:
        sys.exit(1)
    if guess == secret:
        print("found", flush=True)
        sys.exit(0)
    print("lower" if secret < guess else "higher", flush=True)
sys.exit(1)
"""
SECRETS = [TestCase(str(secret), "known to nobody") for secret in (512, 1, 1000)]
BISECT = """
low, high = 1, 1000
while True:
    middle = (low + high) // 2
    print(middle, flush=True)
    said = input()
    if said == "found": break
    if said == "lower": high = middle - 1
    else: low = middle + 1
"""


def converse(
    judge: Judge, code: str, interactor: str = HIGHER_LOWER, tests: list[TestCase] = SECRETS
) -> sandbox.Judgement:
    return judge.judge(code, tests, interactor="python:" + interactor, limits=SHORT, stop="never")


def test_a_right_conversation_is_accepted(any_level: Judge) -> None:
    assert verdicts(converse(any_level, BISECT)) == "AC AC AC"


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("print(1, flush=True)", Verdict.WA),  # leaves in the middle
        ("pass", Verdict.WA),  # says nothing
        ("input()", Verdict.ILE),  # both wait
        ("import time\ntime.sleep(60)", Verdict.ILE),
        ("while True: pass", Verdict.TLE),
        ("x = [bytearray(1 << 24) for _ in range(100)]", Verdict.MLE),
        ("raise ValueError", Verdict.RE),
        ("print(1, flush=True)\ninput()\nraise ValueError", Verdict.RE),
        ("print('nonsense', flush=True)\ninput()", Verdict.WA),  # ends because the interactor has left
        ("for n in range(10**7): print(2, flush=True)", Verdict.WA),  # talks on after the refusal
        ("import os\nos.close(1)\nos.close(0)", Verdict.WA),
        ("import os\nos.close(0)\nprint(512, flush=True)", Verdict.AC),
        ("import os, time\nos.close(1)\ntime.sleep(60)", Verdict.ILE),
        ("print(512, flush=True)", Verdict.AC),  # does not wait for the answer
        ("print(512, flush=True)\ninput()\nraise ValueError", Verdict.RE),
        ("print(512, flush=True)\ninput()\nwhile True: pass", Verdict.TLE),
        ("print(512, flush=True)\ninput()\nfor n in range(9999): print(n, flush=True)", Verdict.AC),
        ("print(512, flush=True)\ninput()\nwhile True: print('x' * 99999, flush=True)", Verdict.OLE),
        ("print(512, flush=True)\ninput()\ninput()", Verdict.RE),  # nobody is there any more
        ("print(512, flush=True)\ninput()\nimport os, signal\nos.kill(os.getpid(), 9)", Verdict.RE),
    ],
)
def test_who_ended_first_decides(judge: Judge, code: str, verdict: Verdict) -> None:
    limits = Limits(cpu_s=0.3, wall_s=3, output_mb=1)
    found = judge.judge(code, SECRETS[:1], interactor="python:" + HIGHER_LOWER, limits=limits)
    assert found.verdict is verdict, found


@pytest.mark.parametrize(
    "source",
    [
        "raise KeyError", "import os\nos.abort()", "while True: pass", "import sys\ninput()\nsys.exit(9)",
        "x = [bytearray(1 << 24) for _ in range(100)]", "input()\nint('x')",
    ],
)  # fmt: skip
def test_an_interactor_that_fails_is_nobodys_wrong_answer(
    judge: Judge, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = Limits(cpu_s=0.3, wall_s=3, memory_mb=256, output_mb=1, language_factors=False)
    monkeypatch.setattr(user, "INTERACTOR_LIMITS", limits)
    found = converse(judge, "print(5, flush=True)\ntry:\n    input()\nexcept EOFError:\n    pass", source, SECRETS[:1])
    assert found.verdict is Verdict.IE, found


SPIES = {
    "descriptors": "import os\nfound = [os.pread(fd, 9999, 0) for fd in range(3, 64) if _open(fd)]",
    "proc": "found = []\nfor pid in os.listdir('/proc'):\n    if pid.isdigit():\n        for fd in range(10):\n            try: found.append(open(f'/proc/{pid}/fd/{fd}', 'rb').read(9999))\n            except OSError: pass",
    "parent_fds": "found = []\nfor fd in range(64):\n    try: found.append(open(f'/proc/{os.getppid()}/fd/{fd}', 'rb').read(9999))\n    except OSError: pass",
    "desk": "found = [open(os.path.join(top, name), 'rb').read(9999) for top, _, names in os.walk('..') for name in names]",
    "memory": "import gc\nfound = [str(x).encode() for x in gc.get_objects() if isinstance(x, (str, bytes, dict, list))]",
}


@pytest.mark.parametrize("spy", sorted(SPIES))
def test_the_interactors_secret_is_out_of_reach(any_level: Judge, spy: str) -> None:
    secret = "734512896021"
    head = "import os\ndef _open(fd):\n    try: os.fstat(fd); return True\n    except OSError: return False\n"
    tail = f"\nprint('hidden' if not any(b'{secret[:6]}' + b'{secret[6:]}' in bytes(f) for f in found) else 'seen', flush=True)"
    interactor = "import sys\nsecret = open(sys.argv[1]).read()\nsys.exit(0 if input() == 'hidden' else 1)"
    code = f"{head}try:\n    exec({SPIES[spy]!r})\nexcept OSError:\n    found = []{tail}"
    found = any_level.judge(code, [TestCase(secret, secret)], interactor="python:" + interactor, limits=SHORT)
    assert found.verdict is Verdict.AC, found


def test_the_worker_is_clean_after_a_conversation(judge: Judge) -> None:
    code = "import os\nprint(sorted(os.listdir('.')), sum(os.path.exists(f'/proc/self/fd/{n}') for n in range(3, 99)))"
    before = judge.judge(code, [TestCase("", "")], keep_output=True).cases[0].output
    for _ in range(3):
        converse(judge, "open('left', 'w').write('x')\n" + BISECT)
        converse(judge, "raise ValueError")
    assert judge.judge(code, [TestCase("", "")], keep_output=True).cases[0].output == before


@needs_cpp
def test_interactors_in_cpp_follow_the_kattis_protocol(any_level: Judge) -> None:
    source = """
        #include <cstdio>
        #include <fstream>
        #include <string>
        int main(int argc, char **argv) {
            std::ifstream in(argv[1]);
            std::ofstream notes(std::string(argv[3]) + "judgemessage.txt");
            int secret, guess;
            in >> secret;
            for (int turn = 0; turn < 11; turn++) {
                if (scanf("%d", &guess) != 1) return 43;
                notes << guess << std::endl;
                puts(guess == secret ? "found" : secret < guess ? "lower" : "higher");
                fflush(stdout);
                if (guess == secret) return notes ? 42 : 1;
            }
            return 43;
        }
    """
    spec = user.spec("kattis", source)
    submissions = [Submission(code, SECRETS, limits=SHORT, interactor=spec) for code in (BISECT, "print(1)", "pass")]
    found = any_level.judge_batch(submissions)
    assert [judgement.verdict for judgement in found] == [Verdict.AC, Verdict.WA, Verdict.WA], found
    adder = """
        #include <iostream>
        int main() { int low = 1, high = 1000; std::string said; while (said != "found") { int m = (low + high) / 2;
            std::cout << m << std::endl; std::cin >> said; if (said == "lower") high = m - 1; else low = m + 1; } }
    """
    found = any_level.judge(adder, SECRETS, language="cpp", limits=SHORT, interactor=spec)
    assert found.verdict is Verdict.AC, found


def test_an_interactor_that_does_not_compile_is_refused_or_ie(judge: Judge) -> None:
    with pytest.raises(ValueError, match="does not compile"):
        converse(judge, BISECT, "if")
    with pytest.raises(ValueError, match="unknown interactor"):
        judge.judge(BISECT, SECRETS, interactor="tokens")
    if available()["cpp"] is None:
        found = judge.judge(BISECT, SECRETS, interactor="kattis:int main(")
        assert found.verdict is Verdict.IE and "interactor does not compile" in found.message


# checkers by protocol

# the few calls of the interface that the checkers below use; a stand-in for the user's own testlib.h
TESTLIB = r"""
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <string>
enum TResult { _ok = 0, _wa = 1, _pe = 2, _fail = 3, _points = 7 };
static void quitf(TResult result, const char *format, ...) {
    va_list rest; va_start(rest, format); vfprintf(stderr, format, rest); exit(result);
}
static void quitp(double points) { fprintf(stderr, "points %.4f done", points); exit(_points); }
struct InStream {
    std::istream *from = nullptr; std::ifstream file;
    void open(const char *path) { file.open(path); if (!file) quitf(_fail, "no file %s", path); from = &file; }
    bool seekEof() { *from >> std::ws; return from->peek() == EOF; }
    int readInt() { int x; if (!(*from >> x)) quitf(_pe, "expected integer"); return x; }
};
static InStream inf, ouf, ans;
static std::ofstream tout;
static void registerTestlibCmd(int argc, char **argv) {
    if (argc < 4) quitf(_fail, "input output answer"); inf.open(argv[1]); ouf.open(argv[2]); ans.open(argv[3]);
}
static void registerInteraction(int argc, char **argv) {
    if (argc < 3) quitf(_fail, "input output"); inf.open(argv[1]); ouf.from = &std::cin; tout.open(argv[2]);
    if (!tout) quitf(_fail, "cannot write %s", argv[2]);
}
"""
SUM = """
#include "testlib.h"
int main(int argc, char **argv) {
    registerTestlibCmd(argc, argv);
    int whole = inf.readInt(), a = ouf.readInt(), b = ouf.readInt();
    if (!ouf.seekEof()) quitf(_pe, "extra");
    if (ans.readInt() != whole) quitf(_fail, "the jury is wrong");
    if (a + b == whole + 1) quitp(0.5);
    if (a + b != whole) quitf(_wa, "%d", a + b);
    quitf(_ok, "fine");
}
"""


@pytest.fixture(scope="module")
def testlib_judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    path: Path = tmp_path_factory.mktemp("testlib") / "testlib.h"
    path.write_text(TESTLIB)
    level = next((name for name in ("namespaced", "confined") if levels.probe(name).reason is None), None)
    if level is None:
        pytest.skip("this machine offers neither namespaces nor Landlock with seccomp")
    with Judge(workers=min(2, os.cpu_count() or 1), protection=level, testlib=path) as judge:
        yield judge


@needs_cpp
@pytest.mark.parametrize(
    ("printed", "expected", "verdict", "points"),
    [
        ("2 3", "5", Verdict.AC, None), ("2 2", "5", Verdict.WA, None), ("two", "5", Verdict.PE, None),
        ("2 3 4", "5", Verdict.PE, None), ("3 3", "5", Verdict.WA, 0.5), ("2 3", "6", Verdict.IE, None),
    ],
)  # fmt: skip
def test_testlib_exit_codes(
    testlib_judge: Judge, printed: str, expected: str, verdict: Verdict, points: float | None
) -> None:
    found = testlib_judge.judge(f"print('{printed}')", [TestCase("5", expected)], checker="testlib:" + SUM)
    assert found.cases[0].verdict is (Verdict.WA if verdict is Verdict.PE else verdict), found
    assert found.cases[0].points == points


def test_presentation_errors_are_told_apart_on_request(testlib_judge: Judge) -> None:
    with Judge(workers=1, protection=testlib_judge.protection, presentation_errors=True) as judge:
        for checker, code, verdict in (
            ("lines", "print(1, 2)", Verdict.PE),
            ("exact", "print(1, '\\n2')", Verdict.PE),
            ("lines", "print(1, 3)", Verdict.WA),
        ):
            assert judge.judge(code, [TestCase("", "1\n2\n")], checker=checker).verdict is verdict


@needs_cpp
def test_testlib_interactors(testlib_judge: Judge) -> None:
    source = """
        #include "testlib.h"
        int main(int argc, char **argv) {
            registerInteraction(argc, argv);
            int secret = inf.readInt();
            for (int turn = 0; turn < 11; turn++) {
                int guess = ouf.readInt();
                tout << guess << std::endl;
                std::cout << (guess == secret ? "found" : secret < guess ? "lower" : "higher") << std::endl;
                if (guess == secret) quitf(_ok, "%d turns", turn);
            }
            quitf(_wa, "too many");
        }
    """
    for code, verdict in ((BISECT, Verdict.AC), ("print('x')", Verdict.WA), ("pass", Verdict.WA)):
        found = testlib_judge.judge(code, SECRETS, interactor="testlib:" + source, limits=SHORT)
        assert found.verdict is verdict, found


def test_testlib_must_be_given(judge: Judge, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"SANDBOX_TESTLIB"):
        judge.judge("print(1)", [TestCase("5", "5")], checker="testlib:" + SUM)
    with pytest.raises(ValueError, match="cannot be read"):
        Judge(workers=1, testlib=tmp_path / "missing.h")


VALIDATOR = """
import sys
given, answer, feedback = open(sys.argv[1]).read(), open(sys.argv[2]).read(), sys.argv[3]
with open(feedback + "judgemessage.txt", "w") as message:
    message.write("seen")
ok = sys.stdin.read().split() == answer.split()
if "half" in sys.argv[4:]:
    open(feedback + "score.txt", "w").write("0.5")
sys.exit(42 if ok else 43)
"""


def test_kattis_validators_in_python(any_level: Judge) -> None:
    spec = user.spec("kattis", VALIDATOR, "python", ("half",))
    tests = [TestCase("1", "2"), TestCase("2", "9")]
    found = any_level.judge("print(int(input()) + 1)", tests, checker=spec, stop="never")
    assert verdicts(found) == "AC WA" and found.cases[0].points == 0.5
    crash = user.spec("kattis", "raise SystemExit(1)", "python")
    assert any_level.judge("print(2)", tests, checker=crash).verdict is Verdict.IE


@needs_cpp
def test_kattis_validators_in_cpp_with_files_of_their_own(judge: Judge) -> None:
    source = """
        #include "validate.h"
        #include <fstream>
        int main(int argc, char **argv) {
            std::ifstream answer(argv[2]); int a, b;
            if (!(std::cin >> a)) return REJECT;
            answer >> b;
            return a == b ? ACCEPT : REJECT;
        }
    """
    spec = user.spec(
        "kattis", source, files={"validate.h": "#include <iostream>\nenum { ACCEPT = 42, REJECT = 43 };\n"}
    )
    found = judge.judge("print(int(input()) + 1)", [TestCase("1", "2"), TestCase("1", "3")], checker=spec, stop="never")
    assert verdicts(found) == "AC WA", found


@pytest.mark.parametrize(
    "text",
    [
        "kattis:{", 'kattis:{"source": 3}', 'kattis:{"source": "", "colour": 1}', "python:if",
        'kattis:{"source": "x", "language": "java"}', 'testlib:{"source": "x", "files": {"../x": ""}}',
    ],
)  # fmt: skip
def test_faulty_specs_are_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"checker (kattis|testlib|python)"):
        user.parse(text)


def test_specs_say_what_was_put_into_them() -> None:
    text = user.spec("kattis", "source", "cpp", ("a", "b"), {"x.h": "y"})
    found = user.parse(text)
    assert found is not None and found == user.Referee("kattis", "cpp", "source", ("a", "b"), (("x.h", "y"),))
    assert json.loads(text.partition(":")[2])["flags"] == ["a", "b"]
    assert user.parse(user.spec("python", "{1: 2}")) is not None  # a source that begins like JSON
