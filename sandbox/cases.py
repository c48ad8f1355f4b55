"""What a program is run on: test cases and limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TestCase:
    """One test of a problem.

    Two forms, told apart by `call`:

    - stdin/stdout (`call is None`): `input` is fed to standard input, `output` is the expected standard output.
    - call-based: `call` is a Python expression evaluated in the namespace the program has built, with the names
      `args` (list) bound to the JSON list in `input`; for example ``solve(*args)``, ``Solution().twoSum(*args)`` or,
      with an empty input, ``set(f([1, 2]))``. ``make_linked_list(values)`` and ``make_tree(values)`` (level by level,
      null for a missing child) make such arguments, of the program's own `ListNode` and `TreeNode` where it has some.
      `output` is the JSON text of the expected value (tuples as lists, sets as ``{"__set__": [...]}``, non-string
      dict keys as ``{"__dict__": [[key, value], ...]}``).

    `output` never enters a process that runs a program. Tests with the same `group` form a subtask.
    """

    __test__ = False  # not a pytest class

    input: str = ""
    output: str = ""
    call: str | None = None
    weight: float = 1.0
    name: str = ""
    group: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one run. CPU time decides; wall time is a backstop against sleeping programs.

    `cpu_s` is the problem's limit for C++; a language's time factor multiplies it (`language_factors=False` turns
    that off). `wall_s=None` means 3 x the CPU limit + 2 s.
    """

    cpu_s: float = 2.0
    wall_s: float | None = None
    memory_mb: int = 256
    output_mb: float = 64.0
    language_factors: bool = True
