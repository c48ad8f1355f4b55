"""The 57 operations of the generated family: 39 on a list, 18 that print.

`{k}` is the operation's constant. A list operation's right and wrong forms are expressions over the list `a` that
give the next list; a printing operation's are the arguments of `print`. The text that goes into a program is the
text that is evaluated here, so a program and its expected output cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from data_curation.families import unit_hash

LOWEST_BUG_RATE, HIGHEST_BUG_RATE = 0.1, 0.6


@dataclass(frozen=True)
class Operation:
    """One step of a pipeline: its name, phrasings, right form, plausible wrong forms and constants (empty: none)."""

    name: str
    phrasings: tuple[str, ...]
    right: str
    wrong: tuple[str, ...]
    constants: tuple[int, ...] = ()
    prints: bool = False

    @property
    def yes_no(self) -> bool:
        return "YES" in self.right

    @property
    def bug_rate(self) -> float:
        """Share of the demonstration corpus' lines for this operation that are wrong, fixed by the name."""
        return LOWEST_BUG_RATE + (HIGHEST_BUG_RATE - LOWEST_BUG_RATE) * unit_hash(f"bug rate of {self.name}")


def _shown(*values: object) -> str:
    """What `print(*values)` writes, without the newline."""
    return " ".join(map(str, values))


@lru_cache(maxsize=4096)
def evaluator(expression: str, prints: bool) -> Callable[[list[int]], Any]:
    """The expression as a function of `a`: a new list, or the printed text. Only texts of this module come here."""
    body = f"show({expression})" if prints else expression
    function: Callable[[list[int]], Any] = eval(f"lambda a: {body}", {"show": _shown})
    return function


def _filter(name: str, phrasings: tuple[str, ...], keep: str, *wrong: str, k: tuple[int, ...] = ()) -> Operation:
    return Operation(name, phrasings, f"[x for x in a if {keep}]", tuple(f"[x for x in a if {w}]" for w in wrong), k)


def _map(name: str, phrasings: tuple[str, ...], value: str, *wrong: str, k: tuple[int, ...] = ()) -> Operation:
    return Operation(name, phrasings, f"[{value} for x in a]", tuple(f"[{w} for x in a]" for w in wrong), k)


def _order(name: str, phrasings: tuple[str, ...], right: str, *wrong: str, k: tuple[int, ...] = ()) -> Operation:
    return Operation(name, phrasings, right, wrong, k)


def _print(name: str, phrasings: tuple[str, ...], right: str, *wrong: str, k: tuple[int, ...] = ()) -> Operation:
    return Operation(name, phrasings, right, wrong, k, prints=True)


# Constants are chosen so that no two operations mean the same: "greater than 3" excludes "at least 4".
LIST_OPERATIONS: tuple[Operation, ...] = (
    # filters
    _filter("even", ("keep only the even numbers", "remove the odd numbers"), "x%2==0", "x%2==1", "x//2==0"),
    _filter("odd", ("keep only the odd numbers", "remove the even numbers"), "x%2==1", "x%2==0"),
    _filter("positive", ("keep only the positive numbers",), "x>0", "x>=0"),
    _filter("not_negative", ("remove the negative numbers",), "x>=0", "x>0"),
    _filter("above", ("keep only the numbers greater than {k}",), "x>{k}", "x>={k}", "x<{k}", k=(-3, 2, 3, 5, 8)),
    _filter("at_least", ("keep only the numbers that are at least {k}",), "x>={k}", "x>{k}", k=(-5, 2, 5, 7)),
    _filter("below", ("keep only the numbers less than {k}",), "x<{k}", "x<={k}", k=(-2, 0, 3, 5, 7)),
    _filter("at_most", ("keep only the numbers that are at most {k}",), "x<={k}", "x<{k}", k=(-4, 1, 3, 5)),
    _filter("multiple", ("keep only the multiples of {k}",), "x%{k}==0", "x//{k}==0", k=(3, 4, 5)),
    _filter("not_multiple", ("remove the multiples of {k}",), "x%{k}!=0", "x%{k}==1", k=(3, 4, 5)),
    # maps
    _map("square", ("replace every number by its square", "square every number"), "x*x", "x*2"),
    _map("double", ("double every number",), "x*2", "x*x"),
    _map("absolute", ("replace each number by its absolute value",), "abs(x)", "-x", "max(x,0)"),
    _map("negate", ("negate every number", "change the sign of every number"), "-x", "abs(x)"),
    _map("add", ("add {k} to every number",), "x+{k}", "x*{k}", k=(2, 3, 4, 7)),
    _map("subtract", ("subtract {k} from every number",), "x-{k}", "{k}-x", k=(2, 3, 5)),
    _map("multiply", ("multiply every number by {k}",), "x*{k}", "x**{k}", k=(3, 4, 5)),
    _map("remainder", ("replace every number by its remainder modulo {k}",), "x%{k}", "abs(x)%{k}", k=(3, 4, 5, 7)),
    _map("floor_divide", ("divide every number by {k}, rounding down",), "x//{k}", "int(x/{k})", k=(2, 3, 4)),
    _map(
        "digit_sum",
        ("replace every number by the sum of its digits",),
        "sum(map(int,str(abs(x))))",
        "sum(map(int,str(x)))",
    ),
    _map("cap_above", ("replace every number greater than {k} by {k}",), "min(x,{k})", "max(x,{k})", k=(2, 4, 5, 9)),
    _map("cap_below", ("replace every number less than {k} by {k}",), "max(x,{k})", "min(x,{k})", k=(-4, 0, 1, 3)),
    # order and choice
    _order("reverse", ("reverse the list",), "a[::-1]", "a[::-2]", "sorted(a)[::-1]"),
    _order("ascending", ("sort the list in increasing order",), "sorted(a)", "sorted(a,key=abs)", "sorted(a)[::-1]"),
    _order("descending", ("sort the list in decreasing order",), "sorted(a)[::-1]", "a[::-1]", "sorted(a)"),
    _order(
        "first_occurrences",
        ("keep only the first occurrence of each value",),
        "list(dict.fromkeys(a))",
        "list(set(a))",
        "sorted(set(a))",
    ),
    _order(
        "occurring_once",
        ("keep only the values that occur exactly once",),
        "[x for x in a if a.count(x)==1]",
        "list(dict.fromkeys(a))",
    ),
    _order("first_k", ("keep only the first {k} numbers",), "a[:{k}]", "a[:{k}-1]", k=(2, 3, 4)),
    _order("last_k", ("keep only the last {k} numbers",), "a[-{k}:]", "a[{k}:]", k=(2, 3, 4)),
    _order("drop_first", ("drop the first {k} numbers",), "a[{k}:]", "a[{k}-1:]", k=(2, 3)),
    _order("drop_last", ("drop the last {k} numbers",), "a[:-{k}]", "a[:{k}]", k=(2, 3)),
    _order("odd_positions", ("keep only the numbers at odd positions, counting from 1",), "a[::2]", "a[1::2]"),
    _order("even_positions", ("keep only the numbers at even positions, counting from 1",), "a[1::2]", "a[::2]"),
    _order("rotate_left", ("move the first number to the end",), "a[1:]+a[:1]", "a[-1:]+a[:-1]"),
    _order("rotate_right", ("move the last number to the front",), "a[-1:]+a[:-1]", "a[1:]+a[:1]"),
    # neighbours
    _order(
        "differences",
        ("replace the list by the differences between each number and the one before it",),
        "[y-x for x,y in zip(a,a[1:])]",
        "[x-y for x,y in zip(a,a[1:])]",
    ),
    _order(
        "prefix_sums",
        ("replace the list by its prefix sums",),
        "[sum(a[:i+1]) for i in range(len(a))]",
        "[sum(a[:i]) for i in range(len(a))]",
    ),
    _order(
        "neighbour_sums",
        ("replace the list by the sums of each two neighbours",),
        "[x+y for x,y in zip(a,a[1:])]",
        "[x+y for x,y in zip(a,a)]",
    ),
    _order("mirror", ("append the reversed list to itself",), "a+a[::-1]", "a+a", "a[::-1]+a"),
)

PRINT_OPERATIONS: tuple[Operation, ...] = (
    _print("sum", ("print the sum of the numbers",), "sum(a)", "len(a)"),
    _print("maximum", ("print the largest number, or 0 if nothing is left",), "max(a,default=0)", "max(a)"),
    _print("minimum", ("print the smallest number, or 0 if nothing is left",), "min(a,default=0)", "min(a)"),
    _print("length", ("print how many numbers are left",), "len(a)", "len(set(a))", "sum(a)"),
    _print("distinct", ("print the number of distinct values",), "len(set(a))", "len(a)"),
    _print(
        "range",
        ("print the difference between the largest and the smallest number, or 0 if nothing is left",),
        "max(a,default=0)-min(a,default=0)",
        "max(a)-min(a)",
    ),
    _print("whole_list", ("print the resulting list", "print the list"), "*a", "a"),
    _print("first", ("print the first element, or 0 if nothing is left",), "a[0] if a else 0", "a[0]"),
    _print("last", ("print the last element, or 0 if nothing is left",), "a[-1] if a else 0", "a[-1]"),
    _print("sum_of_squares", ("print the sum of the squares",), "sum(x*x for x in a)", "sum(a)**2"),
    _print("sum_of_absolutes", ("print the sum of the absolute values",), "sum(map(abs,a))", "abs(sum(a))"),
    _print(
        "count_negative",
        ("print how many numbers are negative",),
        "sum(x<0 for x in a)",
        "sum(x<=0 for x in a)",
        "sum(x for x in a if x<0)",
    ),
    _print("count_even", ("print how many numbers are even",), "sum(x%2==0 for x in a)", "sum(x%2 for x in a)"),
    _print(
        "count_above",
        ("print how many numbers are greater than {k}",),
        "sum(x>{k} for x in a)",
        "sum(x>={k} for x in a)",
        k=(1, 2, 4, 6),
    ),
    _print(
        "contains",
        ("print YES if the list contains {k}, otherwise NO",),
        '"YES" if {k} in a else "NO"',
        "{k} in a",
        k=(0, 1, 2, 3, 4, 6),
    ),
    _print(
        "is_sorted",
        ("print YES if the list is in increasing order (equal neighbours allowed), otherwise NO",),
        '"YES" if a==sorted(a) else "NO"',
        '"YES" if a==sorted(set(a)) else "NO"',
        "a==sorted(a)",
    ),
    _print(
        "sum_modulo",
        ("print the sum modulo {k}",),
        "sum(a)%{k}",
        "abs(sum(a))%{k}",
        "sum(x%{k} for x in a)",
        k=(5, 7, 10),
    ),
    _print(
        "mode_count",
        ("print how many times the most frequent value occurs (0 for an empty list)",),
        "max(map(a.count,a),default=0)",
        "max(map(a.count,a))",
        "max(a,key=a.count,default=0)",
    ),
)

# About half of them: what a policy with a minute of warm-up can come to know.
CORE = frozenset(
    {
        *("even", "odd", "positive", "above", "below", "square", "double", "absolute", "negate", "add", "remainder"),
        *("reverse", "ascending", "descending", "first_occurrences", "first_k", "drop_first", "differences"),
        *("prefix_sums", "mirror", "sum", "maximum", "minimum", "length", "distinct", "whole_list", "first"),
        *("count_even", "count_negative", "contains"),
    }
)


@dataclass(frozen=True)
class Vocabulary:
    """The operations that problems are drawn from."""

    steps: tuple[Operation, ...]
    prints: tuple[Operation, ...]


VOCABULARIES = {
    "full": Vocabulary(LIST_OPERATIONS, PRINT_OPERATIONS),
    "core": Vocabulary(
        tuple(operation for operation in LIST_OPERATIONS if operation.name in CORE),
        tuple(operation for operation in PRINT_OPERATIONS if operation.name in CORE),
    ),
}
