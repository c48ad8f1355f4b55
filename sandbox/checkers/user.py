"""Checkers given as Python source. They run in the sandbox like any program: an output may be made to attack them."""

from __future__ import annotations

import json

from sandbox.cases import Limits

PREFIX = "python:"
LIMITS = Limits(cpu_s=10.0, memory_mb=1024, output_mb=1.0, language_factors=False)
ACCEPT, REJECT = 0, 1

# An uncaught exception must not look like a refusal, whose exit code it shares.
_FRAME = """
import sys, traceback
try:
    exec(compile({source!r}, "checker.py", "exec"), {{"__name__": "__main__"}})
except SystemExit:
    raise
except BaseException:
    traceback.print_exc()
    sys.exit(3)
"""


def program(source: str) -> bytes:
    """The program that runs the checker. ValueError when the source is no valid Python."""
    try:
        compile(source, "checker.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"checker python: the source does not compile: {error}") from None
    return _FRAME.format(source=source).encode("utf-8", "surrogatepass")


def question(given: str, expected: str, output: bytes) -> bytes:
    """What the checker reads on its standard input: one JSON object with input, expected and output."""
    return json.dumps(
        {"input": given, "expected": expected, "output": output.decode("utf-8", "surrogateescape")}
    ).encode()
