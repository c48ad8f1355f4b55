"""Run untrusted programs, compare their output, give verdicts."""

from sandbox.cases import Limits, TestCase
from sandbox.isolation.levels import ProtectionUnavailable
from sandbox.judge import (
    Execution,
    Judge,
    Statistics,
    Submission,
    ajudge,
    as_completed,
    configure,
    execute,
    judge,
    judge_batch,
    protection,
)
from sandbox.languages import ToolchainMissing
from sandbox.verdicts import CaseResult, Judgement, Verdict

__all__ = [
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
    "configure",
    "execute",
    "judge",
    "judge_batch",
    "protection",
]
