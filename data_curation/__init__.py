"""Raw problem sets become verified, deduplicated, graded problems."""

from data_curation.config import ConfigError, CurationConfig, load_config
from data_curation.schema import Generator, Problem, Solution, Test
from data_curation.sources import RejectedRows, RowError, iter_problems, load_problems
from data_curation.storage import save_problems

__all__ = [
    "ConfigError",
    "CurationConfig",
    "Generator",
    "Problem",
    "RejectedRows",
    "RowError",
    "Solution",
    "Test",
    "iter_problems",
    "load_config",
    "load_problems",
    "save_problems",
]
