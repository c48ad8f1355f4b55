"""From verdicts to rewards."""

from rlvr.rewards.judged import GradedRollout, GradingStream, ProgramGrader
from rlvr.rewards.shaping import overlong_penalty

__all__ = ["GradedRollout", "GradingStream", "ProgramGrader", "overlong_penalty"]
