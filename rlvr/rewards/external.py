"""Reward functions for other trainers: TRL's `reward_funcs`, verl's custom reward function, a SkyRL environment's step.

They judge rows that `rlvr export` has written, with this project's judge: all tests must pass for a reward of 1.
"""

from __future__ import annotations

import atexit
import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import sandbox
from data_curation import Problem
from data_curation.sources.decoding import objects
from data_curation.sources.testcases import checker_for, paired_tests
from data_curation.sources.verifiable import case_tests
from rlvr.config import PromptSection
from rlvr.rollouts.prompts import completion_text, extract_program

_judges: list[sandbox.Judge] = []
_lock = threading.Lock()


class JudgeFailed(RuntimeError):
    """The judge itself failed twice on a program; there is no reward to give, and 0 would be a lie."""


def trl_reward(completions: Sequence[Any], problem: Sequence[str], **columns: Any) -> list[float | None]:
    """1.0 or 0.0 for each completion, None where the judge failed (TRL leaves such samples out).

    For `GRPOTrainer(reward_funcs=trl_reward, train_dataset=...)` with a data set exported as `trl`.
    """
    problems = [Problem.model_validate_json(text) for text in problem]
    return _rewards(problems, [completion_text(completion) for completion in completions])


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str | Mapping[str, Any] | Sequence[Any],
    extra_info: Mapping[str, Any] | None = None,
    **_: Any,
) -> float:
    """1.0 or 0.0, under the name and signature that verl's `custom_reward_function` asks for; raises JudgeFailed.

    `ground_truth` is that of an exported row of verl or SkyRL, plain or with the whole problem.
    """
    problem = problem_of(ground_truth, extra_info or {})
    (reward,) = _rewards([problem], [solution_str])
    if reward is None:
        (reward,) = _rewards([problem], [solution_str])
    if reward is None:
        raise JudgeFailed(f"{problem.id}: the judge failed twice; `rlvr doctor` says what this machine lacks")
    return reward


def problem_of(ground_truth: str | Mapping[str, Any] | Sequence[Any], extra: Mapping[str, Any]) -> Problem:
    """The problem that an exported ground truth stands for, under the limits and checker in `extra_info`."""
    truth = json.loads(ground_truth) if isinstance(ground_truth, str) else ground_truth
    if isinstance(truth, Mapping) and "statement" in truth:
        return Problem.model_validate(truth)
    if isinstance(truth, Mapping):
        tests = paired_tests(truth, "ground_truth")
    else:
        cases = objects(truth, "ground_truth")
        names = [(case.get("metadata") or {}).get("func_name") for case in cases]
        tests = case_tests(cases, "ground_truth", next(filter(None, names), ""), "")
    return Problem(
        id=str(extra.get("problem_id") or "exported"),
        statement="",
        tests=tests,
        checker=str(extra.get("checker") or checker_for(tests)),
        cpu_s=float(extra.get("cpu_s") or 2.0),
        memory_mb=int(extra.get("memory_mb") or 256),
    )


def _rewards(problems: Sequence[Problem], completions: Sequence[str]) -> list[float | None]:
    section = PromptSection()
    runs = [
        problem.submission(extract_program(completion, section), section.language)
        for problem, completion in zip(problems, completions, strict=True)
    ]
    judgements = _judge().judge_batch(runs, stop="first_failure")
    return [None if found.verdict.is_infrastructure else float(found.accepted) for found in judgements]


def _judge() -> sandbox.Judge:
    """The judge of this process, started at the first call and closed at its end."""
    with _lock:
        if not _judges:
            _judges.append(sandbox.Judge())
            atexit.register(_judges[0].close)
        return _judges[0]
