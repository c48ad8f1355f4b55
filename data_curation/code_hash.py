"""Which code a result was made by: a hash of modules and of everything in this package that they import."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

_PACKAGE = __name__.partition(".")[0]
_ROOT = Path(__file__).resolve().parent
# Its values are options, which are in a stage's key on their own; what checks them changes no result.
_NO_RESULT = {f"{_PACKAGE}.config"}


def code_hash(*modules: str) -> str:
    """16 hex digits over the code of `modules` and of the modules of this package they import, directly or not.

    Comments, docstrings and layout do not count. Imports count wherever they stand, within functions as well. What a
    package's `__init__` imports counts where the package itself is imported, not where one of its modules is.
    """
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            waiting += imported_modules(module)
    digest = hashlib.sha256()
    for module in sorted(seen):
        digest.update(f"{module}\n{_code(module)}\n".encode())
    return digest.hexdigest()[:16]


@cache
def imported_modules(module: str) -> tuple[str, ...]:
    """The modules of this package that `module` imports, in order of their names."""
    found: set[str] = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if _is_ours(alias.name)}
        elif isinstance(node, ast.ImportFrom) and node.module is not None and _is_ours(node.module):
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {part for part in parts if _file(part) is not None}
            found |= modules if modules == parts else modules | {node.module}
    return tuple(sorted(found - _NO_RESULT))


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] == _PACKAGE


@cache
def _code(module: str) -> str:
    tree = _tree(module)
    for node in ast.walk(tree):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                if ast.get_docstring(node, clean=False) is not None:
                    del node.body[0]
    return ast.dump(tree)


def _tree(module: str) -> ast.Module:
    file = _file(module)
    if file is None:
        raise ImportError(f"{module}: no source file")
    return ast.parse(file.read_text(encoding="utf-8"), str(file))


@cache
def _file(module: str) -> Path | None:
    """Where the source of a module of this package lies; nothing is imported."""
    path = _ROOT.joinpath(*module.split(".")[1:])
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None
