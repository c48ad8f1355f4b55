"""What the judge is given and what it gives back besides judgements; whether a submission makes sense."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sandbox import checkers, languages
from sandbox.cases import Limits, TestCase
from sandbox.checkers import user
from sandbox.execution.job import RunLimits
from sandbox.grading import Stop
from sandbox.languages import ToolchainMissing
from sandbox.verdicts import Verdict

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")

_REMEMBERED_CALLS = 100_000
_sound_calls: set[bytes] = set()  # digests of calls found in order: a problem's tests are met by many programs


@dataclass(frozen=True, slots=True)
class Submission:
    """A program to be judged on tests.

    `input_file` and `output_file` name the files the program reads and writes where a problem does not use the
    standard streams. `interactor` is the problem's side of a conversation, written like a checker of its own
    ("python:...", "testlib:...", "kattis:..."); it decides instead of `checker`.
    """

    code: str
    tests: Sequence[TestCase]
    language: str = "python"
    limits: Limits = field(default_factory=Limits)
    checker: str = "tokens"
    input_file: str = ""
    output_file: str = ""
    interactor: str = ""


@dataclass(frozen=True, slots=True)
class Execution:
    """What a program did with one input. Verdict AC means that it ended within its limits with exit code 0."""

    verdict: Verdict
    stdout: bytes = b""
    stderr: bytes = b""  # the last 8 KiB
    cpu_s: float = 0.0
    wall_s: float = 0.0
    memory_mb: float = 0.0
    message: str = ""
    exit_code: int | None = None  # minus the signal's number where one ended it; None when the judge stopped it
    collected: bytes = b""  # the file asked for; empty where there is none


@dataclass(frozen=True, slots=True)
class Checked:
    """A submission found to make sense, with what its names stand for."""

    submission: Submission
    language: languages.Language
    checker: checkers.Checker
    interactor: user.Referee | None
    limits: RunLimits
    stop: Stop
    keep_output: bool


_LARGEST_TEST = 1 << 30  # characters
_NO_BYTES = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # not those that stand for bytes


def checked(submission: Submission, stop: str, keep_output: bool, *, testlib: bool) -> Checked:
    """The submission with what its names stand for; `testlib` says whether there is a testlib.h.

    ValueError naming what is wrong and what would be right; ToolchainMissing with what to install.
    """
    _check_tests(submission.tests)
    language = languages.find(submission.language)
    checker = checkers.find(submission.checker)
    interactor = user.parse(submission.interactor) if submission.interactor else None
    if submission.interactor and interactor is None:
        raise ValueError(
            f"unknown interactor {submission.interactor[:60]!r}: known are "
            + ", ".join(f"{protocol}:SOURCE" for protocol in user.PROTOCOLS)
        )
    check_file_names((submission.input_file, submission.output_file))
    called = any(test.call is not None for test in submission.tests)
    if called and language.name != "python":
        raise ValueError(f"call-based tests are run in python only, not in {language.name}")
    if called and (interactor or submission.input_file or submission.output_file):
        raise ValueError("call-based tests have neither files nor an interactor")
    if checker.returned_only and not all(test.call is not None for test in submission.tests):
        raise ValueError(f"checker {checker.spec!r} compares returned values: every test needs a `call`")
    if checker.in_place and not all(_has_arguments(test.input) for test in submission.tests):
        raise ValueError("checker 'in_place' looks at the first argument: every test needs one in `input`")
    if interactor and (submission.input_file or submission.output_file):
        raise ValueError("an interactive problem has no input or output file")
    if submission.code.strip():
        require(language)
    for referee in (checker.referee, interactor):
        if referee is not None:
            require(languages.find(referee.language))
            if referee.protocol == "testlib" and not testlib:
                raise ValueError(
                    "a testlib program needs testlib.h: --testlib, Judge(testlib=PATH), or its path in SANDBOX_TESTLIB"
                )
    limits = run_limits(submission.limits, language)
    return Checked(submission, language, checker, interactor, limits, Stop.parse(stop), keep_output)


def _has_arguments(text: str) -> bool:
    return text.strip()[1:].lstrip()[:1] not in ("", "]")


def _check_tests(tests: Sequence[TestCase]) -> None:
    if not tests:
        raise ValueError("no tests: a program cannot be judged on an empty list of tests")
    for number, test in enumerate(tests, 1):
        for name, value in (("input", test.input), ("output", test.output), ("call", test.call)):
            if not isinstance(value, str) and not (name == "call" and value is None):
                raise ValueError(f"test {number}: {name} is {type(value).__name__}, expected text")
            if value is None or (value.isascii() and len(value) <= _LARGEST_TEST):
                continue
            if len(value) > _LARGEST_TEST:
                raise ValueError(f"test {number}: {name} of {len(value) >> 20} MiB, at most {_LARGEST_TEST >> 20}")
            found = _NO_BYTES.search(value)
            if found:
                raise ValueError(f"test {number}: {name} holds U+{ord(found[0]):04X}, which stands for no bytes")
        if test.call is not None:
            _check_call(number, test.input, test.call)


def _check_call(number: int, arguments: str, call: str) -> None:
    """ValueError for a test that no program could pass: it would be taken for the program's error."""
    digest = hashlib.blake2b(digest_size=16)
    for text in (call, "\0", arguments):
        digest.update(text.encode("utf-8", "surrogatepass"))
    if digest.digest() in _sound_calls:
        return
    try:
        compile(call, "<call>", "eval", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"test {number}: call is no Python expression: {error}") from None
    try:
        decoded = json.loads(arguments) if arguments.strip() else []
    except (ValueError, RecursionError) as error:
        raise ValueError(f"test {number}: input is no JSON list of arguments: {error}") from None
    if not isinstance(decoded, list):
        raise ValueError(f"test {number}: input is no JSON list of arguments, but {type(decoded).__name__}")
    if len(_sound_calls) >= _REMEMBERED_CALLS:
        _sound_calls.clear()
    _sound_calls.add(digest.digest())


def check_file_names(names: Iterable[str]) -> None:
    """ValueError for a name that is not that of a plain file in the working directory."""
    for name in names:
        if name and not _FILE_NAME.fullmatch(name):
            raise ValueError(f"file name {name!r}: letters, digits, '.', '_' and '-' only")


def require(language: languages.Language) -> None:
    """ToolchainMissing, naming what to install, where programs in `language` cannot be run here."""
    remedy = language.missing()
    if remedy is not None:
        raise ToolchainMissing(f"{language.name} cannot be used here: {remedy}")


_LARGEST_LIMITS = {"cpu_s": 1_000_000, "wall_s": 1_000_000, "memory_mb": 1 << 24, "output_mb": 1 << 16}


def run_limits(limits: Limits, language: languages.Language) -> RunLimits:
    """`limits` after the language's time factor. ValueError for one that is not positive, or beyond all sense."""
    for name, most in _LARGEST_LIMITS.items():
        value = getattr(limits, name)
        if value is not None and not 0 < value <= most:
            raise ValueError(f"limits: {name}={value} must be a positive number, at most {most}")
    return RunLimits.of(limits, language.factor, language.runtime_mb)
