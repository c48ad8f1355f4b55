"""LeetCode problems in three layouts: LeetCodeDataset (hub and repository columns) and weekly contests with asserts."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from data_curation.schema import Problem, Solution, Test
from data_curation.sources.calls import (
    PREAMBLE,
    call_test,
    condition_test,
    keyword_arguments,
    parameters,
    value_of,
)
from data_curation.sources.decoding import Unreadable, objects, optional, strings, text
from data_curation.sources.humaneval import check_tests
from data_curation.sources.testcases import distinct
from data_curation.sources.units import day, number

COLUMNS = frozenset({"entry_point", "input_output", "starter_code", "test"})
CONTEST_COLUMNS = frozenset({"task_id", "prompt_sft", "test", "meta", "start_time"})
REAL_CHECKER = "floats:1e-5"  # what LeetCode's own judge allows for real numbers
_ANY_ORDER = re.compile(r"return[^.\n]{0,80} in any order", re.IGNORECASE)

# Values of linked lists and trees as LeetCode writes them; the names are those of LeetCodeDataset's preamble.
STRUCTURES = """\
class ListNode:
    def __init__(self, val=0, next=None):
        self.val = val
        self.next = next


class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val = val
        self.left = left
        self.right = right


def list_node(values):
    head = None
    for value in reversed(values or []):
        head = ListNode(value, head)
    return head


def tree_node(values):
    if not values or values[0] is None:
        return None
    root = TreeNode(values[0])
    row, place = [root], 1
    for node in row:
        for side in ("left", "right"):
            if place < len(values) and values[place] is not None:
                setattr(node, side, TreeNode(values[place]))
                row.append(getattr(node, side))
            place += 1
    return root
"""
READERS = """

def list_values(node):
    values = []
    while node is not None:
        values.append(node.val)
        node = node.next
    return values


def tree_values(root):
    values, row = [], [root]
    for node in row:
        values.append(None if node is None else node.val)
        if node is not None:
            row += [node.left, node.right]
    while values and values[-1] is None:
        values.pop()
    return values
"""


def leetcode_problem(row: Mapping[str, Any], number_in_file: int) -> Problem:
    """The problem of a LeetCodeDataset row. Named arguments are passed in the order of the starter code's signature."""
    slug = text(row, "slug", "task_id", "id").removeprefix("leetcode__")
    statement = text(row, "statement", "problem_description")
    entry, starter = text(row, "entry_point"), text(row, "starter_code")
    tests = _tests(row, entry, starter)
    reference = optional(row.get("reference_solution") or row.get("completion"))
    rating = number(row.get("contest_rating"))
    preamble = optional(row.get("prompt_prelude")) or _prelude(optional(row.get("prompt")))
    return Problem(
        id=f"leetcode/{slug}",
        title=slug.replace("-", " ").title(),
        statement=statement,
        starter_code=starter,
        preamble=completed_preamble(preamble),
        tests=tests,
        memory_mb=512,
        checker=leetcode_checker(statement, tests),
        solutions=[Solution(code=reference, note="reference")] if reference.strip() else [],
        rating=rating,
        difficulty=optional(row.get("difficulty")).casefold(),
        tags=["leetcode", *strings(row.get("tags"), "tags"), *_contest(row)],
        date=day(row.get("estimated_date") or row.get("date"), "estimated_date"),
        source="leetcode",
        license=optional(row.get("license")),
        url=f"https://leetcode.com/problems/{slug}",
    )


def contest_problem(row: Mapping[str, Any], number_in_file: int) -> Problem:
    """The problem of a weekly-contest row: `test` is asserts on `Solution().method(**test_input)`."""
    meta = row.get("meta") if isinstance(row.get("meta"), Mapping) else {}
    assert isinstance(meta, Mapping)
    slug = optional(meta.get("titleSlug")) or text(row, "title")
    statement, starter = _split_docstring(text(row, "prompt"))
    tests, helpers = _contest_tests(text(row, "test"), starter)
    contest = re.match(r"(.*-contest-[0-9]+)-", text(row, "task_id"))
    return Problem(
        id=f"leetcode/{slug}",
        title=optional(meta.get("title")) or slug.replace("-", " ").title(),
        statement=statement,
        starter_code=starter,
        preamble=completed_preamble(PREAMBLE) + helpers,
        tests=tests,
        memory_mb=512,
        checker=leetcode_checker(statement, tests),
        rating=number(row.get("contest_rating")),
        difficulty=optional(meta.get("difficulty")).casefold(),
        tags=["leetcode", *([f"contest:{contest[1]}"] if contest else [])],
        date=day(row.get("start_time"), "start_time"),
        source="leetcode-contest",
        license=optional(row.get("license")),
        url=optional(row.get("url")),
    )


def _split_docstring(prompt: str) -> tuple[str, str]:
    """(statement, starter code) of a prompt: a docstring and the code after it."""
    match = re.match(r'\s*"""(.*?)"""(.*)', prompt, re.DOTALL)
    if match is None or "class Solution" not in match[2]:
        raise Unreadable("`prompt` is not a docstring followed by a class Solution")
    return match[1].strip(), match[2].strip() + "\n"


def leetcode_checker(statement: str, tests: Sequence[Test]) -> str:
    """Any order for lists whose statement says so, else equal values with real numbers to 1e-5."""
    lists = all(test.output.startswith("[") and "." not in test.output for test in tests)
    return "unordered_tokens" if lists and _ANY_ORDER.search(statement) else REAL_CHECKER


def _contest(row: Mapping[str, Any]) -> list[str]:
    contest = optional(row.get("contest"))
    return [f"contest:{contest}"] if contest else []


def _prelude(prompt: str) -> str:
    """The imports and node classes of a prompt, which may go on with the header of the solution."""
    return prompt.partition("class Solution")[0]


def completed_preamble(preamble: str) -> str:
    """The preamble with node classes if it lacks them, and with the functions that read values out of nodes."""
    if "def list_node" not in preamble or "def tree_node" not in preamble:
        preamble = f"{preamble.rstrip()}\n\n\n{_missing(preamble)}"
    return preamble.rstrip() + "\n" + READERS


def _missing(preamble: str) -> str:
    blocks = re.split(r"\n\n\n", STRUCTURES.rstrip())
    return "\n\n\n".join(b for b in blocks if b.partition("(")[0].partition(":")[0] not in preamble) + "\n"


def _tests(row: Mapping[str, Any], entry: str, starter: str) -> list[Test]:
    code = optional(row.get("test"))
    if code:
        return assert_tests(code, entry, starter)
    tests = []
    for case in objects(row.get("input_output"), "input_output"):
        arguments = keyword_arguments(optional(case.get("input")))
        tests.append(_called(entry, arguments, value_of(optional(case.get("output"))), starter))
    if not tests:
        raise Unreadable("no tests: `test` and `input_output` are empty")
    return distinct(tests)


def assert_tests(code: str, entry: str, starter: str) -> list[Test]:
    """Calls compared outside the box wherever an assert is an equality with a literal, a list or a tree."""
    body = _check_body(code)
    tests: list[Test] = []
    for statement in body or []:
        test = _equality_test(statement, entry, starter) if isinstance(statement, ast.Assert) else None
        if test is None:
            tests = []
            break
        tests.append(test)
    return distinct(tests) or check_tests(code, entry, allowed=_NODE_FUNCTIONS)


_NODE_FUNCTIONS = ("list_node", "tree_node", "is_same_list", "is_same_tree", "inf")
_SAME = {"is_same_list": ("list_node", "list_values"), "is_same_tree": ("tree_node", "tree_values")}


def _check_body(code: str) -> list[ast.stmt] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = ast.parse(code)
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise Unreadable(f"`test` is no Python: {error}") from None
    return next((n.body for n in module.body if isinstance(n, ast.FunctionDef) and n.name == "check"), None)


def _equality_test(statement: ast.Assert, entry: str, starter: str) -> Test | None:
    """The test of `candidate(a=1) == value` or `is_same_list(candidate(...), list_node(value))`; None for others."""
    condition, read, expected = statement.test, "", None
    if isinstance(condition, ast.Compare) and len(condition.ops) == 1 and isinstance(condition.ops[0], ast.Eq):
        call, right = condition.left, condition.comparators[0]
    elif isinstance(condition, ast.Call) and isinstance(condition.func, ast.Name) and condition.func.id in _SAME:
        if len(condition.args) != 2 or not isinstance(condition.args[1], ast.Call):
            return None
        builder, read = _SAME[condition.func.id]
        call, made = condition.args[0], condition.args[1]
        if not isinstance(made.func, ast.Name) or made.func.id != builder or len(made.args) != 1:
            return None
        right = made.args[0]
    else:
        return None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "candidate":
        return None
    try:
        expected = value_of(right)
    except Unreadable:
        return None
    if read == "tree_values":
        expected = tree_form(expected)
    return _node_call(call, entry, starter, read, expected or [] if read else expected)


def _node_call(call: ast.Call, entry: str, starter: str, read: str, expected: Any) -> Test | None:
    """The test of one call whose arguments are literals, or lists and trees made from literals."""
    if call.args or any(keyword.arg is None for keyword in call.keywords):
        return None
    arguments: dict[str, Any] = {}
    makers: dict[str, str] = {}
    for keyword in call.keywords:
        name, value = str(keyword.arg), keyword.value
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and len(value.args) == 1:
            if value.func.id not in ("list_node", "tree_node"):
                return None
            makers[name], value = value.func.id, value.args[0]
        try:
            arguments[name] = value_of(value)
        except Unreadable:
            return None
    return _called(entry, arguments, expected, starter, makers, read)


def _called(
    entry: str,
    arguments: Mapping[str, Any],
    expected: Any,
    starter: str,
    makers: Mapping[str, str] | None = None,
    read: str = "",
) -> Test:
    names = parameters(starter, entry)
    by_place = names is not None and set(names) == set(arguments)
    names = names if names is not None and by_place else list(arguments)
    plain = call_test(entry, [arguments[name] for name in names], expected)
    call = str(plain.call)
    if plain.input and (makers or not by_place):
        written = []
        for place, name in enumerate(names):
            value = f"args[{place}]"
            maker = (makers or {}).get(name)
            value = f"{maker}({value})" if maker else value
            written.append(value if by_place else f"{name}={value}")
        call = f"{entry}({', '.join(written)})"
    elif makers or not by_place:
        raise Unreadable("a test's arguments have no JSON form")
    return plain.model_copy(update={"call": f"{read}({call})" if read else call})


def tree_form(values: Any) -> list[Any]:
    """A tree in LeetCode's level order with children of missing nodes left out, without missing nodes at its end."""
    values = list(values or [])
    while values and values[-1] is None:
        values.pop()
    return values


def _contest_tests(code: str, starter: str) -> tuple[list[Test], str]:
    """(tests, helper definitions) of `test_input = {...}` followed by `assert my_solution.f(**test_input) == value`."""
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise Unreadable(f"`test` is no Python: {error}") from None
    tests: list[Test] = []
    helpers: list[str] = []
    given: ast.expr | None = None
    for statement in body:
        if isinstance(statement, ast.Assert) and given is not None:
            tests.append(_contest_test(statement, given, starter))
        elif isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "test_input":
            given = statement.value
        elif not (isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "my_solution"):
            helpers.append(ast.unparse(statement) + "\n")
    if not tests:
        raise Unreadable("`test` has no assert on a test_input")
    return distinct(tests), "".join(["\n\n", *helpers] if helpers else [])


def _contest_test(statement: ast.Assert, given: ast.expr, starter: str) -> Test:
    condition = statement.test
    if isinstance(condition, ast.Compare) and len(condition.ops) == 1 and isinstance(condition.ops[0], ast.Eq):
        call = condition.left
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            try:
                arguments, expected = value_of(given), value_of(condition.comparators[0])
            except Unreadable:
                pass  # made by an expression: the whole condition is evaluated in the box
            else:
                return _called(f"Solution().{call.func.attr}", arguments, expected, starter)
    text = ast.unparse(condition).replace("my_solution", "Solution()").replace("test_input", f"({ast.unparse(given)})")
    return condition_test(ast.parse(text, mode="eval").body)
