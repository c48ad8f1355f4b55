"""How good a model is at contest problems: pass@k with intervals over problems, and results files."""

from rlvr.evaluation.comparison import Comparison, adjust, compare
from rlvr.evaluation.estimated_rating import EstimatedRating, estimate_rating
from rlvr.evaluation.metrics import build_results, suite_metrics
from rlvr.evaluation.records import ProblemOutcome, SampleRecord, read_samples, write_samples
from rlvr.evaluation.results import (
    Cost,
    Estimate,
    Results,
    SuiteMetrics,
    read_results,
    results_by_suite,
    write_results,
)
from rlvr.evaluation.statistics import (
    PairedDifference,
    bootstrap_ci,
    by_difficulty,
    difficulty_key,
    holm,
    mean_ci,
    mean_pass_at_k,
    paired_difference,
    pass_at_k,
    standard_error,
    wilson_ci,
)

__all__ = [
    "Comparison",
    "Cost",
    "Estimate",
    "EstimatedRating",
    "PairedDifference",
    "ProblemOutcome",
    "Results",
    "SampleRecord",
    "SuiteMetrics",
    "adjust",
    "bootstrap_ci",
    "build_results",
    "by_difficulty",
    "compare",
    "difficulty_key",
    "estimate_rating",
    "holm",
    "mean_ci",
    "mean_pass_at_k",
    "paired_difference",
    "pass_at_k",
    "read_results",
    "read_samples",
    "results_by_suite",
    "standard_error",
    "suite_metrics",
    "wilson_ci",
    "write_results",
    "write_samples",
]
