"""Published data that tests may use where it lies beside the repository; nothing of it is part of the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def published(name: str) -> str:
    """The path of a published file; skips the test, saying so, where it is not at hand."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not at hand")
    return str(path)
