"""Grading of completions: extract the program, let the judge decide, turn the verdict into a reward."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from data_curation import Problem
from rlvr.config import JudgeSection, PromptSection, RewardSection
from rlvr.rewards.judges import open_judge
from rlvr.rollouts.prompts import extract_program
from sandbox import Judgement, Verdict


@dataclass(frozen=True, slots=True)
class GradedRollout:
    """A graded completion: `accuracy` is the verdict as 0 or 1 (None: the judge failed), before any shaping."""

    program: str
    judgement: Judgement
    accuracy: float | None
    score: float | None


class ProgramGrader:
    """Judges completions of problems; owns the sandbox workers. Close it, or use it as a context manager."""

    def __init__(
        self, prompt: PromptSection, reward: RewardSection | None = None, judge: JudgeSection | None = None
    ) -> None:
        self.prompt = prompt
        self.reward = reward or RewardSection()
        section = judge or JudgeSection()
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # each training process has a judge of its own
        self.judge = open_judge(section, section.workers or max(1, (os.cpu_count() or 1) // processes))
        self.seconds = 0.0  # wall time spent grading, over all calls

    def __enter__(self) -> ProgramGrader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self.judge.close()

    def grade(self, problems: Sequence[Problem], completions: Sequence[str]) -> list[GradedRollout]:
        """Returns one graded rollout for each (problem, completion) pair, in order.

        Every rollout of a problem meets the same tests. With all_pass scoring a program is dropped at its first
        failing test, which cannot change its score.
        """
        started = time.perf_counter()
        programs = [extract_program(completion, self.prompt) for completion in completions]
        submissions = [
            problem.submission(program, self.prompt.language)
            for problem, program in zip(problems, programs, strict=True)
        ]
        stop = "first_failure" if self.reward.scoring == "all_pass" else "never"
        judgements = self.judge.judge_batch(submissions, stop=stop)
        self.seconds += time.perf_counter() - started
        return [
            GradedRollout(program, judgement, *self._score(judgement))
            for program, judgement in zip(programs, judgements, strict=True)
        ]

    def _score(self, judgement: Judgement) -> tuple[float | None, float | None]:
        if judgement.verdict is Verdict.IE:
            return None, None
        accuracy = float(judgement.accepted)
        if self.reward.scoring == "all_pass":
            return accuracy, accuracy
        if not judgement.cases:  # no program, or it did not compile
            return accuracy, 0.0
        return accuracy, judgement.passed / len(judgement.cases)
