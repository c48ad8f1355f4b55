"""Raw problem sets become verified, deduplicated, graded problems."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_curation.config import ConfigError, CurationConfig, load_config
    from data_curation.outputs import CurationResult, prompt_text
    from data_curation.pipeline import curate
    from data_curation.schema import Generator, Problem, Solution, Test
    from data_curation.sources import RejectedRows, RowError, iter_problems, load_problems
    from data_curation.storage import save_problems

# name -> module; imported at first use, so that `import data_curation` costs no pyarrow and no jinja2
_HOMES = {
    "ConfigError": "config",
    "CurationConfig": "config",
    "CurationResult": "outputs",
    "Generator": "schema",
    "Problem": "schema",
    "RejectedRows": "sources",
    "RowError": "sources",
    "Solution": "schema",
    "Test": "schema",
    "curate": "pipeline",
    "iter_problems": "sources",
    "load_config": "config",
    "load_problems": "sources",
    "prompt_text": "outputs",
    "save_problems": "storage",
}

__all__ = [
    "ConfigError",
    "CurationConfig",
    "CurationResult",
    "Generator",
    "Problem",
    "RejectedRows",
    "RowError",
    "Solution",
    "Test",
    "curate",
    "iter_problems",
    "load_config",
    "load_problems",
    "prompt_text",
    "save_problems",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
