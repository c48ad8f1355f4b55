"""DRIVE's curriculum: Pre-GRPO ranking and nested hard-focus phases, their end, and problems that are solved."""

from rlvr.curriculum.ranking import hardest
from rlvr.curriculum.schedule import ProblemSchedule

__all__ = ["ProblemSchedule", "hardest"]
