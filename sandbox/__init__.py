"""Run untrusted programs, compare their output, give verdicts."""

from sandbox.cases import Limits, TestCase
from sandbox.door import ajudge, as_completed, close, configure, execute, judge, judge_batch, protection
from sandbox.execution.cache import JUDGE_VERSION
from sandbox.isolation.levels import ProtectionUnavailable
from sandbox.judge import Judge, Statistics
from sandbox.languages import ToolchainMissing
from sandbox.submission import Execution, Submission
from sandbox.verdicts import CaseResult, Judgement, Verdict

__all__ = [
    "JUDGE_VERSION",
    "CaseResult",
    "Execution",
    "Judge",
    "Judgement",
    "Limits",
    "ProtectionUnavailable",
    "Statistics",
    "Submission",
    "TestCase",
    "ToolchainMissing",
    "Verdict",
    "ajudge",
    "as_completed",
    "close",
    "configure",
    "execute",
    "judge",
    "judge_batch",
    "protection",
]
