"""`Problem`: the one shape in which problems travel through curation, training and evaluation."""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

import sandbox

NEEDS_CHECKER = "checker not at hand"  # tag: the source compares outputs with a program that it does not hold
PYTHONS = frozenset({"python", "pypy", "pypy3"})  # languages a preamble is written in


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Test(_Strict):
    """One test case; the fields of `sandbox.TestCase`."""

    __test__ = False  # not a pytest class

    input: str = ""
    output: str = ""
    call: str | None = None
    weight: float = 1.0
    sample: bool = False  # shown in the statement
    group: str = ""  # the subtask it belongs to
    shown: str = ""  # the assert statement it was made of, for prompts; no verdict depends on it

    @property
    def characters(self) -> int:
        """How much text it is."""
        return len(self.input) + len(self.output) + len(self.call or "")

    def case(self) -> sandbox.TestCase:
        return sandbox.TestCase(self.input, self.output, self.call, self.weight, group=self.group)


class Solution(_Strict):
    """A program with what is known of it."""

    code: str
    language: str = "python"
    verdict: Literal["accepted", "wrong_answer", "time_limit_exceeded", "run_time_error", "rejected"] = "accepted"
    note: str = ""


class Generator(_Strict):
    """A Python program that prints one test input for each line of `arguments` given on its standard input.

    Curation runs it in the sandbox and takes the expected outputs from the accepted solutions, which must agree.
    """

    code: str
    arguments: list[str]


class Subtask(_Strict):
    """A group of tests and what it is worth; the fields of `sandbox.scoring.Subtask`."""

    name: str
    points: float = 1.0
    policy: Literal["all", "min", "sum"] = "all"


class Problem(_Strict):
    """A contest problem: statement, limits, tests, checker and known solutions.

    `family` groups renamed copies and close variants: splits never separate a family. `rating` is on the Codeforces
    scale; `difficulty` is a label or level of the source. `input_file` and `output_file` are named where programs use
    files instead of the standard streams; `interactor` is the problem's side of a conversation and decides instead of
    `checker`; both are written as `sandbox` takes them. `subtasks` say what groups of tests are worth.
    """

    id: str
    title: str = ""
    statement: str
    starter_code: str = ""
    preamble: str = ""  # Python that the tests take for granted (imports, ListNode): placed before every Python program
    tests: list[Test] = Field(default_factory=list)
    generator: Generator | None = None
    cpu_s: float = 2.0
    memory_mb: int = 256
    checker: str = "tokens"
    input_file: str = ""
    output_file: str = ""
    interactor: str = ""
    subtasks: list[Subtask] = Field(default_factory=list)
    languages: list[str] = Field(default_factory=lambda: ["python"])
    solutions: list[Solution] = Field(default_factory=list)
    family: str = ""
    rating: float | None = None
    difficulty: str = ""
    tags: list[str] = Field(default_factory=list)
    date: datetime.date | None = None
    source: str = ""
    license: str = ""
    url: str = ""

    @property
    def limits(self) -> sandbox.Limits:
        return sandbox.Limits(cpu_s=self.cpu_s, memory_mb=self.memory_mb)

    @property
    def cases(self) -> list[sandbox.TestCase]:
        return [test.case() for test in self.tests]

    def submission(
        self, program: str, language: str = "python", tests: Sequence[Test] | None = None
    ) -> sandbox.Submission:
        """The program with the problem's preamble, tests (or `tests`), limits, checker and form, for the judge."""
        return sandbox.Submission(
            code=with_preamble(self.preamble, program) if language in PYTHONS else program,
            tests=[test.case() for test in (self.tests if tests is None else tests)],
            language=language,
            limits=self.limits,
            checker=self.checker,
            input_file=self.input_file,
            output_file=self.output_file,
            interactor=self.interactor,
        )

    @property
    def fingerprint(self) -> str:
        """16 hex digits over what a reward depends on: statement, preamble, tests, limits, checker and form."""
        known = {"statement", "starter_code", "preamble", "tests", "cpu_s", "memory_mb", "checker"}
        body = self.model_dump(mode="json", include=known)
        for test in body["tests"]:
            del test["shown"]
            if not test["group"]:  # problems without later fields keep the fingerprint they always had
                del test["group"]
        for name in ("input_file", "output_file", "interactor", "subtasks"):
            if value := getattr(self, name):
                body[name] = [part.model_dump() for part in value] if name == "subtasks" else value
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


_FUTURE = re.compile(r"^from __future__ import [^\n(\\]+\n?", re.MULTILINE)


def with_preamble(preamble: str, program: str) -> str:
    """The preamble, then the program; the program's `from __future__` lines go first, where Python wants them."""
    if not preamble or not program.strip():
        return program
    future = "".join(line.rstrip("\n") + "\n" for line in _FUTURE.findall(program))
    return f"{future}{preamble.rstrip()}\n\n{_FUTURE.sub('', program) if future else program}"
