"""From verdicts to rewards."""

from rlvr.rewards.judged import GradedRollout, ProgramGrader
from rlvr.rewards.shaping import overlong_penalty

__all__ = ["GradedRollout", "ProgramGrader", "overlong_penalty"]
