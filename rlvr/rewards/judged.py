"""Grading of completions: extract the program, let the judge decide, turn the verdict into a reward."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from data_curation import Problem
from rlvr.config import JudgeSection, PromptSection, RewardSection
from rlvr.rewards.judges import open_judge
from rlvr.rollouts.prompts import extract_program
from sandbox import Judgement, Verdict, scoring
from sandbox.isolation.cgroup import usable_cpus


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
        workers = section.workers or max(1, usable_cpus() // processes)
        self.judge = open_judge(section, workers)
        self.seconds = 0.0  # wall time spent waiting for verdicts, over all calls
        # one thread waits for one program; more than the workers, so that they never wait for us
        here = section.url is None and section.ray is None
        self._waiters = ThreadPoolExecutor(2 * workers + 2 if here else 64, thread_name_prefix="grading")

    def __enter__(self) -> ProgramGrader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._waiters.shutdown(wait=False, cancel_futures=True)
        self.judge.close()

    def grade(
        self, problems: Sequence[Problem], completions: Sequence[str], stream: GradingStream | None = None
    ) -> list[GradedRollout]:
        """Returns one graded rollout for each (problem, completion) pair, in order.

        Every rollout of a problem meets the same tests; where further tests cannot change a program's score by the
        rule of scoring, they are left out. `stream` holds what was submitted early; rows whose completion
        differs from the one submitted are judged anew.
        """
        started = time.perf_counter()
        early = stream.take(problems, completions) if stream is not None else {}
        rows = [row for row in range(len(completions)) if row not in early]
        programs = [extract_program(completion, self.prompt) for completion in completions]
        judgements: dict[int, Judgement] = {}
        if rows:
            judgements = self._judge_rows(problems, programs, rows)
        for row, future in early.items():
            judgements[row] = future.result()
        self.seconds += time.perf_counter() - started
        return [
            GradedRollout(program, judgements[row], *self._score(problems[row], judgements[row]))
            for row, program in enumerate(programs)
        ]

    def begin(self, problem: Problem, completion: str) -> Future[Judgement]:
        """Starts judging one completion; returns at once."""
        return self._waiters.submit(self._judge_one, problem, completion)

    def _judge_rows(
        self, problems: Sequence[Problem], programs: Sequence[str], rows: Sequence[int]
    ) -> dict[int, Judgement]:
        by_stop: dict[str, list[int]] = {}
        for row in rows:
            by_stop.setdefault(self._stop(problems[row]), []).append(row)
        found: dict[int, Judgement] = {}
        for stop, alike in by_stop.items():
            submissions = [problems[row].submission(programs[row], self.prompt.language) for row in alike]
            found.update(zip(alike, self.judge.judge_batch(submissions, stop=stop), strict=True))
        return found

    def _judge_one(self, problem: Problem, completion: str) -> Judgement:
        submission = problem.submission(extract_program(completion, self.prompt), self.prompt.language)
        return self.judge.judge_batch([submission], stop=self._stop(problem))[0]

    def _rule(self, problem: Problem) -> str:
        """The rule of scoring; a problem without subtasks is scored by all its tests."""
        rule = self.reward.scoring
        return "all_pass" if rule == "subtasks" and not problem.subtasks else rule

    def _stop(self, problem: Problem) -> str:
        return scoring.stop_of(self._rule(problem), problem.subtasks)

    def _score(self, problem: Problem, judgement: Judgement) -> tuple[float | None, float | None]:
        if judgement.verdict is Verdict.IE:
            return None, None
        score = scoring.score(self._rule(problem), judgement, problem.cases, problem.subtasks)
        return float(judgement.accepted), score


class GradingStream:
    """Rollouts handed to the judge while others are still being sampled."""

    def __init__(self, grader: ProgramGrader, problems: Sequence[Problem]) -> None:
        self._grader = grader
        self._problems = problems
        self._submitted: dict[int, tuple[str, Future[Judgement]]] = {}

    def submit(self, row: int, completion: str) -> None:
        """Starts judging the completion of a row; returns at once."""
        self._submitted[row] = (completion, self._grader.begin(self._problems[row], completion))

    def take(self, problems: Sequence[Problem], completions: Sequence[str]) -> dict[int, Future[Judgement]]:
        """Returns row -> judgement to come, for rows submitted with this very problem and completion."""
        return {
            row: future
            for row, (completion, future) in self._submitted.items()
            if self._problems[row] is problems[row] and completion == completions[row]
        }
