"""Checkers and interactors that come with a problem. They run in the sandbox like any program.

Three protocols, told apart by how the program is called and what its exit code means:

- `python`: a checker reads one JSON object (`input`, `expected`, `output`) and exits with 0 to accept, 1 to refuse.
  An interactor finds the paths of its input and answer in `sys.argv[1:]` and talks on standard input and output.
- `testlib`: C++ against the user's own `testlib.h`, called as testlib programs are; exit codes 0 accepted, 1 wrong,
  2 and 4 presentation, 7 points, 8 unexpected end of output, anything else a failure of the checker.
- `kattis`: an output validator of the problem package format, Python or C++, called with input, answer and feedback
  directory; exit codes 42 accepted and 43 wrong.

A spec is "PROTOCOL:SOURCE", or "PROTOCOL:" and a JSON object with `source`, `language`, `flags` and `files` (further
C++ files by name).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sandbox.cases import Limits, TestCase
from sandbox.execution.job import Facts, RunInput
from sandbox.verdicts import Verdict

PROTOCOLS = ("python", "testlib", "kattis")
LIMITS = Limits(cpu_s=10.0, memory_mb=1024, output_mb=64.0, language_factors=False)
INTERACTOR_LIMITS = Limits(cpu_s=20.0, wall_s=60.0, memory_mb=1024, output_mb=64.0, language_factors=False)

_LANGUAGES = {"python": ("python",), "testlib": ("cpp",), "kattis": ("cpp", "python")}
_MEANING = {
    "python": {0: Verdict.AC, 1: Verdict.WA},
    "testlib": {0: Verdict.AC, 1: Verdict.WA, 2: Verdict.PE, 4: Verdict.PE, 7: Verdict.WA, 8: Verdict.WA},
    "kattis": {42: Verdict.AC, 43: Verdict.WA},
}
_REFUSAL = {"python": 1, "kattis": 43}
_POINTS = re.compile(r"\bpoints?\b[^0-9+-]*([+-]?[0-9]+(?:\.[0-9]*)?)")

# An uncaught exception must not look like a refusal, whose exit code it shares; the other side's early end is one.
_FRAME = """
import sys, traceback
try:
    exec(compile({source!r}, "checker.py", "exec"), {{"__name__": "__main__"}})
except SystemExit:
    raise
except (EOFError, BrokenPipeError):
    if not {conversation}:
        raise
    import os
    os._exit({refusal})
except BaseException:
    traceback.print_exc()
    sys.exit(3)
"""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a checker said of one output. `verdict` is IE when the checker failed; `points` where it gave some."""

    verdict: Verdict
    message: str = ""
    points: float | None = None


@dataclass(frozen=True, slots=True)
class Referee:
    """A problem's own checker or interactor."""

    protocol: str
    language: str
    source: str
    flags: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()

    def code(self, *, conversation: bool) -> str:
        """The program to run. ValueError when Python source does not compile."""
        if self.language != "python":
            return self.source
        try:
            compile(self.source, "checker.py", "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            raise ValueError(f"checker {self.protocol}: the source does not compile: {error}") from None
        refusal = _REFUSAL[self.protocol]
        return _FRAME.format(source=self.source, conversation=conversation, refusal=refusal)

    def question(self, test: TestCase, output: bytes) -> RunInput:
        """One run of the checker on one output."""
        given, expected = (text.encode("utf-8", "surrogateescape") for text in (test.input, test.output))
        if self.protocol == "python":
            case = {"input": test.input, "expected": test.output, "output": output.decode("utf-8", "surrogateescape")}
            return RunInput(json.dumps(case).encode())
        if self.protocol == "testlib":
            files = (("input", given), ("output", output), ("answer", expected))
            return RunInput(files=files, arguments=("input", "output", "answer", *self.flags))
        return RunInput(
            output,
            files=(("input", given), ("answer", expected), ("feedback/", b"")),
            arguments=("input", "answer", "feedback/", *self.flags),
            collect="feedback/score.txt",
        )

    @property
    def conversation_arguments(self) -> tuple[str, ...]:
        """Arguments of an interactor; the names in braces become paths."""
        if self.protocol == "testlib":
            return ("{input}", "{notes}/output", "{answer}", *self.flags)
        if self.protocol == "kattis":
            return ("{input}", "{answer}", "{notes}/", *self.flags)
        return ("{input}", "{answer}", *self.flags)

    def opinion(self, facts: Facts) -> Opinion:
        """What the checker's exit says of the output it was asked about."""
        if facts.verdict not in (Verdict.AC, Verdict.RE):
            return Opinion(Verdict.IE, f"the checker failed: {facts.verdict}: {facts.message}")
        points = _number(facts.value.decode("ascii", "replace"))
        return self.meaning(facts.exit_code, facts.message, facts.stderr.decode("utf-8", "replace"), points)

    def meaning(self, code: int | None, failure: str, stderr: str, points: float | None = None) -> Opinion:
        verdict = None if code is None else _MEANING[self.protocol].get(code)
        if verdict is None:
            hint = ": 42 and 43 are answers of the kattis protocol, not of this one" if code in (42, 43) else ""
            return Opinion(Verdict.IE, f"the checker failed: {failure or f'exit code {code}'}{hint}")
        if self.protocol == "testlib" and code == 7:
            found = _POINTS.search(stderr)
            points = _number(found[1]) if found else None
        message = {Verdict.WA: "refused by the problem's checker", Verdict.PE: "refused: not in the form asked for"}
        return Opinion(verdict, message.get(verdict, ""), points)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def spec(protocol: str, source: str, language: str = "", flags: tuple[str, ...] = (), files: Any = ()) -> str:
    """The text that names such a checker or interactor, for `Submission` and problem files."""
    if not (language or flags or files) and not source.lstrip().startswith("{"):
        return f"{protocol}:{source}"
    body = {"source": source, "language": language, "flags": list(flags), "files": dict(files)}
    return f"{protocol}:{json.dumps({key: value for key, value in body.items() if value})}"


@lru_cache(maxsize=256)
def parse(text: str) -> Referee | None:
    """The checker or interactor that `text` describes, None if it names no such protocol; ValueError if faulty."""
    protocol, colon, body = text.partition(":")
    if protocol not in PROTOCOLS or not colon or not body.strip():
        return None
    fields: dict[str, Any] = {"source": body}
    if body.lstrip().startswith("{") and protocol != "python":
        try:
            fields = json.loads(body)
        except ValueError as error:
            raise ValueError(f"checker {protocol}: not a JSON object: {error}") from None
    known = {"source", "language", "flags", "files"}
    if not isinstance(fields.get("source"), str) or set(fields) - known:
        raise ValueError(f"checker {protocol}: the object takes {', '.join(sorted(known))}, of which source is needed")
    language = fields.get("language") or _LANGUAGES[protocol][0]
    if language not in _LANGUAGES[protocol]:
        raise ValueError(f"checker {protocol}: language {language!r}: known are {', '.join(_LANGUAGES[protocol])}")
    files = tuple(sorted(dict(fields.get("files") or {}).items()))
    for name, _ in files:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*", name):
            raise ValueError(f"checker {protocol}: file name {name!r}: letters, digits, '.', '_', '+', '-' only")
    referee = Referee(protocol, language, fields["source"], tuple(map(str, fields.get("flags") or ())), files)
    referee.code(conversation=False)
    return referee
