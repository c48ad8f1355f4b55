"""DRIVE's curriculum: Pre-GRPO ranking and nested hard-focus phases."""

from rlvr.curriculum.ranking import hardest
from rlvr.curriculum.schedule import ProblemSchedule

__all__ = ["ProblemSchedule", "hardest"]
