"""Run untrusted programs, compare their output, give verdicts."""
from sandbox.cases import Limits, TestCase
from sandbox.verdicts import CaseResult, Judgement, Verdict
__all__ = ["CaseResult", "Judgement", "Limits", "TestCase", "Verdict"]
