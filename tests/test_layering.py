"""The packages' order, rlvr -> data_curation -> sandbox, and that looking around costs no deep-learning library."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "sandbox": {"sandbox"},
    "data_curation": {"data_curation", "sandbox"},
    "rlvr": {"rlvr", "data_curation", "sandbox"},
}
HEAVY = {"torch", "transformers", "trl", "vllm", "datasets", "accelerate", "deepspeed"}
LIGHT = [
    "sandbox",
    "data_curation",
    "rlvr.budget",
    "rlvr.cli",
    "rlvr.config",
    "rlvr.curriculum",
    "rlvr.doctor",
    "rlvr.evaluation",
    "rlvr.fingerprints",
    "rlvr.models",
    "rlvr.report",
]
RUNS_A_MODEL = ["rlvr.evaluation.vllm_engine"]
LONGEST_FILE = 600


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, top-level module) of every absolute import, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.lineno, node.module.split(".")[0]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_one_way(package: str) -> None:
    forbidden = MAY_IMPORT.keys() - MAY_IMPORT[package]
    assert sources(package), f"no sources of {package}"
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources(package)
        for line, module in imported(path)
        if module in forbidden
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("package", ["sandbox", "data_curation"])
def test_judging_and_curation_never_import_a_model_library(package: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources(package)
        for line, module in imported(path)
        if module in HEAVY - {"datasets"}  # an optional reader of hub data sets, inside functions only
    ]
    assert not found, "\n".join(found)


def test_in_the_box_only_the_standard_library_is_imported() -> None:
    allowed = sys.stdlib_module_names | {path.stem for path in sources("sandbox/box")}
    found = [
        f"{path.relative_to(ROOT)}:{line} imports {module}"
        for path in sources("sandbox/box")
        for line, module in imported(path)
        if module not in allowed
    ]
    assert not found, "\n".join(found)


IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys
roots, runs_a_model, heavy = json.loads(sys.argv[1])
blame, count = {}, 0
for root in roots:
    path = getattr(importlib.import_module(root), "__path__", [])
    for name in [root, *(entry.name for entry in pkgutil.walk_packages(path, root + "."))]:
        # Files of the box are run as scripts there; __main__ would run a command.
        if name in runs_a_model or name.startswith("sandbox.box.") or name.endswith("__main__"):
            continue
        importlib.import_module(name)
        count += 1
        for module in set(heavy) & set(sys.modules) - set(blame):
            blame[module] = name
print(json.dumps([count, blame]))
"""


def test_importing_anything_but_training_and_generation_loads_no_model_library() -> None:
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING, json.dumps([LIGHT, RUNS_A_MODEL, sorted(HEAVY)])],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    count, blame = json.loads(run.stdout)
    assert count > 40
    assert blame == {}, "heavy module -> the import that loaded it"


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_files_stay_short_enough_to_read(package: str) -> None:
    lengths = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in sources(package)}
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}
