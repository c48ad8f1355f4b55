"""Wrong programs made from right ones: one small slip each, of the kinds people make.

Only Python programs are mutated: the syntax tree says where a slip is possible, and every mutant still compiles.
"""

from __future__ import annotations

import ast
import copy
import warnings
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.Gt),
    ast.LtE: (ast.Lt, ast.GtE),
    ast.Gt: (ast.GtE, ast.Lt),
    ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_OPERATORS: dict[type[ast.operator], tuple[type[ast.operator], ...]] = {
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Add,),
    ast.FloorDiv: (ast.Mult, ast.Mod),
    ast.Div: (ast.FloorDiv,),
    ast.Mod: (ast.FloorDiv,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd, ast.BitXor),
    ast.BitXor: (ast.BitOr,),
    ast.LShift: (ast.RShift,),
    ast.RShift: (ast.LShift,),
}
_CALLS = {"max": "min", "min": "max", "any": "all", "all": "any", "sorted": "list", "set": "list", "abs": "int"}

# a change of one node: gives the node that takes its place; each is made for one kind of node
_Change = Callable[[Any], ast.AST]


def mutants(code: str, count: int, seed: int = 0) -> list[str]:
    """Up to `count` distinct programs that differ from `code` in one place; fewer if it has fewer places.

    [] for code that is not Python of this interpreter. The same code, count and seed give the same mutants.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
            original = ast.unparse(tree)
    except (SyntaxError, ValueError, RecursionError):
        return []
    places = list(_places(tree))
    Random(f"{seed} {original}").shuffle(places)
    found: dict[str, None] = {}
    for number, change in places:
        if len(found) == count:
            break
        changed = copy.deepcopy(tree)
        _replace(changed, number, change)
        text = ast.unparse(ast.fix_missing_locations(changed))
        if text != original:
            found[text] = None
    return list(found)


def _places(tree: ast.AST) -> Iterator[tuple[int, _Change]]:
    """(number of the node in a walk, change) of every slip the program offers."""
    for number, node in enumerate(ast.walk(tree)):
        for change in _slips(node):
            yield number, change


def _slips(node: ast.AST) -> Iterator[_Change]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield from (_compared(other) for other in _COMPARISONS.get(type(node.ops[0]), ()))
    elif isinstance(node, ast.BinOp | ast.AugAssign):
        yield from (_operated(other) for other in _OPERATORS.get(type(node.op), ()))
    elif isinstance(node, ast.BoolOp):
        yield lambda n: ast.BoolOp(ast.Or() if isinstance(n.op, ast.And) else ast.And(), n.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield lambda n: n.operand
    elif isinstance(node, ast.Constant) and type(node.value) is int and abs(node.value) < 10**6:
        yield lambda n: ast.Constant(n.value + 1)
        yield lambda n: ast.Constant(n.value - 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield lambda n: ast.Constant(not n.value)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        yield _called
    elif isinstance(node, ast.If):
        yield lambda n: ast.If(ast.UnaryOp(ast.Not(), n.test), n.body, n.orelse)
        yield lambda n: ast.If(ast.Constant(False), n.body, n.orelse)
    elif isinstance(node, ast.Break | ast.Continue) or (
        isinstance(node, ast.Expr | ast.AugAssign) and not _is_text(node)
    ):
        yield lambda n: ast.Pass()
    elif isinstance(node, ast.Slice):
        if node.lower is not None:
            yield lambda n: ast.Slice(None, n.upper, n.step)
        if node.upper is not None:
            yield lambda n: ast.Slice(n.lower, None, n.step)


def _compared(other: type[ast.cmpop]) -> _Change:
    return lambda node: ast.Compare(node.left, [other()], node.comparators)


def _operated(other: type[ast.operator]) -> _Change:
    def change(node: ast.BinOp | ast.AugAssign) -> ast.AST:
        if isinstance(node, ast.AugAssign):
            return ast.AugAssign(node.target, other(), node.value)
        return ast.BinOp(node.left, other(), node.right)

    return change


def _called(node: ast.Call) -> ast.AST:
    assert isinstance(node.func, ast.Name)
    name = node.func.id
    arguments = node.args[:1] if name == "sorted" else node.args
    return ast.Call(ast.Name(_CALLS[name], ast.Load()), arguments, [] if name == "sorted" else node.keywords)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _replace(tree: ast.AST, number: int, change: _Change) -> None:
    target = next(node for position, node in enumerate(ast.walk(tree)) if position == number)
    new = change(target)
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is target:
                setattr(parent, name, new)
                return
            if isinstance(value, list):
                for position, item in enumerate(value):
                    if item is target:
                        value[position] = new
                        return
