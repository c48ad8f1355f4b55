"""The hash of the code of a stage: what it imports counts, what nobody runs does not."""

from __future__ import annotations

import pytest

from data_curation import code_hash as hashing
from data_curation.code_hash import code_hash
from data_curation.pipeline import STAGES

FILES = {
    "stage": "from data_curation.helper import twice\n\ndef run(x):\n    return twice(x)\n",
    "helper": "def twice(x):\n    from data_curation import deep\n    return deep.add(x, x)\n",
    "deep": "def add(x, y):\n    return x + y\n",
    "other": "import json\n\ndef run(x):\n    return x\n",
}


@pytest.fixture
def hashes(tmp_path, monkeypatch):
    """The hashes of `stage` and `other` in a package of the four files, some of them changed."""
    monkeypatch.setattr(hashing, "_ROOT", tmp_path)

    def of(**changed: str) -> tuple[str, str]:
        for cached in (hashing.imported_modules, hashing._code, hashing._file):
            cached.cache_clear()
        for name, code in {**FILES, **changed}.items():
            (tmp_path / f"{name}.py").write_text(code)
        return code_hash("data_curation.stage"), code_hash("data_curation.other")

    yield of
    for cached in (hashing.imported_modules, hashing._code, hashing._file):
        cached.cache_clear()


def test_a_change_anywhere_below_a_stage_changes_its_hash_and_no_other(hashes):
    stage, other = hashes()
    assert stage != other
    for name, before, after in (
        ("deep", "x + y", "x - y"),
        ("helper", "x, x", "x, 1"),
        ("stage", "twice(x)", "twice(1)"),
    ):
        changed, untouched = hashes(**{name: FILES[name].replace(before, after)})
        assert changed != stage and untouched == other
    assert hashes() == (stage, other)


def test_comments_docstrings_and_layout_change_nothing(hashes):
    before = hashes()
    said = 'def add(x, y):\n    """The sum."""\n\n    return (x +\n            y)  # both\n'
    assert hashes(deep=f'"""Sums."""\n{said}') == before
    assert hashes(deep=FILES["deep"].replace("return x + y", '"""a value"""; return x + y, "kept"')) != before


def test_the_code_of_every_stage_is_found_down_to_what_it_judges_and_writes_with():
    reached = {}
    for name, stage in STAGES:
        seen, waiting = set(), [stage.module]
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting += hashing.imported_modules(module)
        reached[name] = {module.removeprefix("data_curation.") for module in seen}
    assert all({"schema", "storage", "stored"} <= modules for modules in reached.values())
    assert "stages.kept_results" in reached["verify"] and "families" in reached["verify"]
    assert {"stages.mutants", "sources.calls"} <= reached["strengthen"]
    assert "stages.verify" not in reached["split"]
