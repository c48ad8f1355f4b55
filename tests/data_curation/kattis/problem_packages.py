"""Problem packages as setters make them, written into a folder: our own problems, in both layouts of the format."""

from __future__ import annotations

import os
from pathlib import Path

ADD = "a, b = map(int, input().split())\nprint(a + b)\n"


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def two_piles(root: Path) -> Path:
    """Legacy: a name that is no YAML, tests that are links, a program of several files, the time limit by rule."""
    folder = write(
        root / "twopiles",
        {
            "problem.yaml": "# setters like colons\nname: Piles: Two of Them\nsource: Autumn Contest\n"
            "license: cc by-sa\nlimits:\n  memory: 512\n",
            "problem_statement/problem.en.tex": "\\problemname{Piles: Two of Them}\nHow many stones lie in "
            "\\textbf{two} piles of $a$ and $b$ stones? % easy\n\\section*{Input}\n"
            "One line with $a$ and $b$.\n\\begin{itemize}\n"
            "\\item $0 \\le a, b \\le 10^9$\n\\end{itemize}\n\\section*{Output}\nTheir number.\n",
            "data/sample/1.in": "1 2\n",
            "data/sample/1.ans": "3\n",
            "data/secret/02-large.in": "1000000000 1000000000\n",
            "data/secret/02-large.ans": "2000000000\n",
            "data/secret/group/zeros.in": "0 0\n",
            "data/secret/group/zeros.ans": "0\n",
            "submissions/accepted/plain.py": ADD,
            "submissions/accepted/split/main.py": "from adding import add\nprint(add(*map(int, input().split())))\n",
            "submissions/accepted/split/adding.py": "def add(a, b):\n    return a + b\n",
            "submissions/wrong_answer/minus.py": ADD.replace("+", "-"),
            "submissions/wrong_answer/late.py": "a, b = map(int, input().split())\nprint(a + b if a < 9 else 1)\n",
            "submissions/run_time_error/crash.py": "a, b = map(int, input().split())\nprint(a + b // (b - 2))\n",
            "submissions/time_limit_exceeded/count.py": ADD + "while a > 10: pass\n",
            "submissions/time_limit_exceeded/wrong_then_slow.py": "a, b = map(int, input().split())\n"
            "if a > 9:\n    while True: pass\nprint(7)\n",
            "submissions/accepted/.DS_Store": b"\0\1",
        },
    )
    os.symlink("../sample/1.in", folder / "data/secret/01-as-sample.in")
    os.symlink("../sample/1.ans", folder / "data/secret/01-as-sample.ans")
    os.symlink("../sample", folder / "data/secret/zz-samples")
    return folder


VALIDATOR = """
import sys
given, answer, feedback, *flags = sys.argv[1:]
n = int(open(given).read())
words = sys.stdin.read().split()
def no(why):
    with open(feedback + "judgemessage.txt", "w") as out:
        out.write(why)
    sys.exit(43)
if len(words) != 2:
    no("two numbers, please")
a, b = map(int, words)
if a + b != n or a < 0 or b < 0:
    no("wrong sum")
if "different" in flags and a == b:
    no("they are equal")
sys.exit(42)
"""


def split_number(root: Path) -> Path:
    """2023-07: several right answers, a validator with arguments of a group, submissions.yaml with a glob."""
    return write(
        root / "splitnumber",
        {
            "problem.yaml": "problem_format_version: 2023-07-draft\nuuid: 1\nname:\n  sv: Dela talet\n"
            "  en: Split a Number\nlimits:\n  time_limit: 2.0\n  output: 1\nkeywords: [math, easy]\ncredits: Someone\n",
            "statement/problem.en.md": "Write a number as the sum of two.\n\n## Input\nOne number.\n",
            "output_validator/check.py": VALIDATOR,
            "data/sample/one.in": "5\n",
            "data/sample/one.ans": "2 3\n",
            "data/secret/test_group.yaml": "output_validator_args: [different]\n",
            "data/secret/a-small.in": "1\n",
            "data/secret/a-small.ans": "0 1\n",
            "data/secret/b-even.in": "8\n",
            "data/secret/b-even.ans": "1 7\n",
            "submissions/accepted/zero.py": "print(0, input())\n",
            "submissions/accepted/from_end.cpp": "#include <iostream>\nint main() { int n; std::cin >> n;"
            ' std::cout << n << " " << 0 << std::endl; }\n',
            "submissions/rejected/halves.py": "n = int(input())\nprint(n // 2, n - n // 2)\n",
            "submissions/wrong_answer/one_word.py": "print(input())\n",
            "submissions/brute_force/slow_or_dead.py": "n = int(input())\nprint(0, n)\nassert n != 8\n",
            "submissions/other/no_promise.py": "print()\n",
            "submissions/submissions.yaml": "rejected/{halves,thirds}.py:\n  sample:\n    permitted: [AC]\n"
            "  secret/*-even:\n    required: [WA]\n",
        },
    )


GUESSING = """
import sys
given, answer, feedback = sys.argv[1:4]
secret = int(open(given).read())
for _ in range(10):
    line = sys.stdin.readline()
    if not line:
        sys.exit(43)
    guess = int(line)
    print("right" if guess == secret else "lower" if guess > secret else "higher", flush=True)
    if guess == secret:
        sys.exit(42)
sys.exit(43)
"""


def guessing(root: Path) -> Path:
    """Legacy: an interactive problem."""
    bisect = (
        "low, high = 1, 1000\nwhile True:\n    middle = (low + high) // 2\n    print(middle, flush=True)\n"
        "    said = input()\n    if said == 'right': break\n"
        "    if said == 'lower': high = middle - 1\n    else: low = middle + 1\n"
    )
    return write(
        root / "guessing",
        {
            "problem.yaml": "name: Guessing\nvalidation: custom interactive\nlimits: {time_multiplier: 10}\n",
            "output_validators/guess/guess.py": GUESSING,
            "data/sample/1.in": "77\n",
            "data/sample/1.ans": "",
            "data/secret/1.in": "1000\n",
            "data/secret/1.ans": "",
            "submissions/accepted/bisect.py": bisect,
            "submissions/wrong_answer/one_by_one.py": "for n in range(1, 1001):\n    print(n, flush=True)\n"
            "    if input() == 'right': break\n",
        },
    )


def thirds(root: Path) -> Path:
    """Legacy: numbers within a tolerance, a .timelimit, groups worth points, DOMjudge's marks."""
    folder = write(
        root / "thirds",
        {
            "problem.yaml": "name: 'Thirds'\ntype: scoring\nvalidation: default\n"
            "validator_flags: float_tolerance 1e-4\nrights_owner: us\nlicense: cc0\n",
            ".timelimit": "1\n",
            "data/secret/testdata.yaml": "range: 0 100\n",
            "data/secret/group1/testdata.yaml": "range: 0 30\n",
            "data/secret/group1/1.in": "1\n",
            "data/secret/group1/1.ans": "0.333333333\n",
            "data/secret/group2/testdata.yaml": "range: 0 70\noutput_validator_flags: float_tolerance 1e-9\n",
            "data/secret/group2/1.in": "2000\n",
            "data/secret/group2/1.ans": "666.6666666667\n",
            "submissions/accepted/precise.py": "print(f'{int(input()) / 3:.12e}')\n",
            "submissions/partially_accepted/coarse.py": "print(f'{int(input()) / 3:.4f}')\n",
            "submissions/wrong_answer/none.py": "print('a third')\n",
            "submissions/mixed/either.py": "# @EXPECTED_RESULTS@: WRONG-ANSWER, RUN-ERROR\n"
            "print(1 // (int(input()) - 1))\n",
            "submissions/accepted/old.pl": "print 1;\n",
        },
    )
    return folder


def all_packages(root: Path) -> Path:
    for make in (two_piles, split_number, guessing, thirds):
        make(root)
    return root
