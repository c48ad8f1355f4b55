"""Writes run folders as training leaves them, from a simulated policy: the report is developed and tested on these."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from rlvr.budget import solve_allocation
from rlvr.evaluation import Cost, SampleRecord, build_results, write_results, write_samples

# (statement, right line, wrong line)
OPERATIONS = [
    ("remove the negative numbers", "a=[x for x in a if x>=0]", "a=[x for x in a if x>0]"),
    ("replace every number greater than 5 by 5", "a=[min(x,5) for x in a]", "a=[min(x,4) for x in a]"),
    ("add to each number those before it", "a=[sum(a[:i+1]) for i in range(n)]", "a=[sum(a[:i]) for i in range(n)]"),
    ("keep the first occurrences only", "a=list(dict.fromkeys(a))", "a=list(set(a))"),
    ("reverse the list", "a=a[::-1]", "a=a[:-1]"),
    ("square each number", "a=[x*x for x in a]", "a=[x*2 for x in a]"),
    ("keep the even numbers", "a=[x for x in a if x%2==0]", "a=[x for x in a if x%2==1]"),
]  # fmt: skip
FAILURES = ["WA", "RE", "CE", "TLE", "NO_CODE"]
FAILURE_SHARES = [0.72, 0.14, 0.09, 0.03, 0.02]
MESSAGES = {
    "WA": "line 1: expected '12', got '<b>7</b>'",
    "RE": "IndexError: list index out of range",
    "CE": "SyntaxError: invalid syntax (line 4)",
    "TLE": "CPU time limit of 2 s exceeded",
    "NO_CODE": "no program in the completion",
    "IE": "worker died twice",
    "AC": "",
}
NOTES = ["then the sum", "as a list", "over all values", "in input order", "without the last", "reading n first"]
TESTS = 10


@dataclass
class Problem:
    id: str
    difficulty: int
    operations: list[int]
    bias: float
    history: list[int] = field(default_factory=list)

    @property
    def prompt(self) -> str:
        steps = ". Then ".join(OPERATIONS[i][0] for i in self.operations)
        return f'Read n and a list of n integers. {steps.capitalize()}. Print the list & its "sum".\n# program\n'

    def program(self, rng: np.random.Generator, verdict: str) -> str:
        lines = ["n=int(input())", "a=list(map(int,input().split()))"]
        wrong = int(rng.integers(len(self.operations))) if verdict != "AC" else -1
        lines += [OPERATIONS[i][2 if place == wrong else 1] for place, i in enumerate(self.operations)]
        if verdict == "CE":
            lines[-1] = lines[-1][:-1] + "if"
        if verdict == "RE":
            lines.append("print(a[len(a)])")
        lines.append("print(*a)" if rng.random() < 0.6 else "print(*a,sep=' ')")
        if rng.random() < 0.5:  # about half of a real run's programs are repeated within a problem
            lines.append(f"# {rng.integers(1 << 30):x} {rng.choice(NOTES)} {rng.choice(NOTES)}")
        return "\n".join(lines)

    def rate(self, skill: float) -> float:
        return float(1 / (1 + np.exp(-(skill - 1.6 * self.difficulty + self.bias))))

    @property
    def estimate(self) -> float | None:
        return float(np.mean(self.history[-16:])) if self.history else None


def make_problems(
    rng: np.random.Generator, count: int, prefix: str, levels: tuple[int, ...] = (1, 2, 3)
) -> list[Problem]:
    return [
        Problem(
            id=f"{prefix}-{i:04d}",
            difficulty=levels[i % len(levels)],
            operations=[int(o) for o in rng.integers(0, len(OPERATIONS), levels[i % len(levels)])],
            bias=float(rng.normal(0, 0.8)),
        )
        for i in range(count)
    ]


def draw_verdict(rng: np.random.Generator, rate: float) -> str:
    if rng.random() < 0.0005:
        return "IE"
    return "AC" if rng.random() < rate else str(rng.choice(FAILURES, p=FAILURE_SHARES))


def draw_cases(rng: np.random.Generator, verdict: str) -> list[str]:
    if verdict == "AC":
        return ["AC"] * TESTS
    if verdict in ("NO_CODE", "CE"):
        return []
    first = int(rng.integers(0, TESTS))
    return ["AC"] * first + [verdict] + ["SKIPPED"] * (TESTS - first - 1)


def write_stage(
    folder: Path,
    rollouts: Path,
    problems: list[Problem],
    rng: np.random.Generator,
    *,
    stage: str,
    steps: int,
    skill: tuple[float, float],
    problems_per_step: int,
    rollouts_per_problem: int,
    knapsack: bool,
    first_step: int = 1,
    phases: int = 1,
    start: float = 1.76e9,
) -> float:
    """Metrics and rollouts of one RL stage; returns the time it ended."""
    folder.mkdir(parents=True, exist_ok=True)
    rollouts.mkdir(parents=True, exist_ok=True)
    tokens, now, lines = 0, start, []
    for index in range(steps):
        step = first_step + index
        level = skill[0] + (skill[1] - skill[0]) * (1 - np.exp(-3 * index / max(1, steps - 1)))
        chosen = [problems[int(i)] for i in rng.choice(len(problems), problems_per_step, replace=False)]
        budget = problems_per_step * rollouts_per_problem
        counts = [rollouts_per_problem] * len(chosen)
        if knapsack:
            counts = list(solve_allocation([0.5 if p.estimate is None else p.estimate for p in chosen], budget, 2, 64))
        rows: list[dict[str, Any]] = []
        group_means, by_level, mixed = [], {}, []
        for group, (problem, n) in enumerate(zip(chosen, counts, strict=True)):
            verdicts = [draw_verdict(rng, problem.rate(level)) for _ in range(n)]
            rewards = [None if v == "IE" else float(v == "AC") for v in verdicts]
            scored = [r for r in rewards if r is not None] or [0.0]
            mean, std = float(np.mean(scored)), float(np.std(scored))
            group_means.append(mean)
            by_level.setdefault(problem.difficulty, []).append(mean)
            mixed.append(std > 0)
            for verdict, reward in zip(verdicts, rewards, strict=True):
                program = "" if verdict == "NO_CODE" else problem.program(rng, verdict)
                cases = draw_cases(rng, verdict)
                rows.append(
                    {
                        "step": step, "stage": stage, "problem_id": problem.id, "family": problem.id,
                        "difficulty": str(problem.difficulty), "prompt": problem.prompt,
                        "completion": program or "I think the answer is", "program": program, "verdict": verdict,
                        "reward": reward, "advantage": 0.0 if reward is None or std == 0 else (reward - mean) / std,
                        "passed": cases.count("AC"), "tests": TESTS, "cases": cases, "message": MESSAGES[verdict],
                        "completion_tokens": len(program) // 4 + 3,
                        "finish_reason": "length" if verdict == "NO_CODE" else "stop",
                        "n_allocated": n, "success_rate": problem.estimate, "group": group,
                    }
                )  # fmt: skip
            problem.history += [int(r) for r in scored]
        pq.write_table(pa.Table.from_pylist(rows, schema=ROLLOUT_SCHEMA), rollouts / f"step-{step:06d}.parquet")
        seconds = {"generate": 0.58 + 0.05 * rng.random(), "grade": 0.2 * (1.3 - index / steps), "update": 0.78}
        now += sum(seconds.values())
        tokens += sum(row["completion_tokens"] + 25 for row in rows)
        scored = [row["reward"] for row in rows if row["reward"] is not None]
        verdict_counts = Counter(row["verdict"] for row in rows)
        line: dict[str, Any] = {
            "step": step, "time": now, "stage": stage,
            "loss": float(rng.normal(0.01, 0.02)), "reward": float(np.mean(scored)),
            "reward_std": float(np.std(scored)),
            "entropy": 0.14 - 0.05 * index / steps + float(rng.normal(0, 0.006)),
            "completions/mean_length": float(np.mean([row["completion_tokens"] for row in rows])),
            "completions/clipped_ratio": float(np.mean([row["finish_reason"] == "length" for row in rows])),
            "frac_reward_zero_std": 1 - float(np.repeat(mixed, counts).mean()),
            "learning_rate": 6e-4, "grad_norm": 0.3 + float(rng.random()) * 0.1, "num_tokens": tokens,
            "step_time": sum(seconds.values()),
            "effective_gradient_ratio": float(np.repeat(mixed, counts).mean()),
            "effective_prompt_ratio": float(np.mean(mixed)), "group_pass_rate": float(np.mean(group_means)),
            "budget/n_min": min(counts), "budget/n_max": max(counts), "budget/n_mean": float(np.mean(counts)),
            "budget/allocation_histogram": {str(n): c for n, c in sorted(Counter(counts).items())},
            "sandbox/infrastructure_errors": verdict_counts["IE"],
            "curriculum/phase": 1.0 + (phases > 1) * (index * phases // steps),
            **{f"verdict/{v}": c / len(rows) for v, c in verdict_counts.items()},
            **{f"pass_rate/{d}": float(np.mean(v)) for d, v in by_level.items()},
            **{f"time/{name}": value for name, value in seconds.items()},
        }  # fmt: skip
        lines.append(line)
    (folder / "metrics.jsonl").open("a").writelines(json.dumps(line) + "\n" for line in lines)
    return now


ROLLOUT_SCHEMA = pa.schema(
    [
        *[(n, pa.int32()) for n in ("step", "passed", "tests", "completion_tokens", "n_allocated", "group")],
        *[(n, pa.float32()) for n in ("reward", "advantage", "success_rate")],
        *[(n, pa.string()) for n in ("stage", "problem_id", "family", "difficulty", "prompt", "completion", "program")],
        *[(n, pa.string()) for n in ("verdict", "message", "finish_reason")],
        ("cases", pa.list_(pa.string())),
    ]
)


def write_sft(folder: Path, rng: np.random.Generator, start: float) -> float:
    folder.mkdir(parents=True, exist_ok=True)
    now = start
    with (folder / "metrics.jsonl").open("w") as file:
        for step in range(10, 501, 10):
            now += 0.84
            loss = 0.32 + 2.6 * np.exp(-step / 70) + rng.normal(0, 0.01)
            line = {"step": step, "time": now, "stage": "sft", "loss": float(loss), "learning_rate": 3e-3,
                    "grad_norm": 0.8, "num_tokens": step * 64 * 40}  # fmt: skip
            file.write(json.dumps(line) + "\n")
    return now


def write_evaluation(
    folder: Path, problems: list[Problem], rng: np.random.Generator, *, skill: float, checkpoint: str, suite: str
) -> None:
    records = []
    for problem in problems:
        for sample in range(9):
            greedy = sample == 8
            verdict = draw_verdict(rng, problem.rate(skill + (0.8 if greedy else 0.0)))
            program = problem.program(rng, verdict)
            cases = draw_cases(rng, verdict)
            records.append(
                SampleRecord.model_validate(
                    {
                        "problem_id": problem.id,
                        "sample": 0 if greedy else sample,
                        "greedy": greedy,
                        "verdict": verdict,
                        "difficulty": str(problem.difficulty),
                        "passed": cases.count("AC"),
                        "tests": TESTS,
                        "cases": cases,
                        "completion_tokens": len(program) // 4,
                        "prompt": problem.prompt,
                        "finish_reason": "length" if verdict == "NO_CODE" else "stop",
                        "program": program,
                    }
                )
            )
    cost = Cost(tokens=sum(r.completion_tokens for r in records), generate_s=3.1, grade_s=1.4)
    config = {"n": 8, "temperature": 1.0, "top_p": 1.0, "greedy": True, "max_completion_length": 40, "seed": 0}
    results = build_results({suite: records}, checkpoint=checkpoint, config=config, cost=cost)
    write_results(results, folder)
    write_samples(records, folder)


def write_identity(folder: Path, environments: tuple[str, ...] = ("",), **config: Any) -> None:
    """Resolved recipe, and an environment in each of the subfolders."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.resolved.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    environment = {
        "time": "2025-11-02T10:00:00+0000", "command": ["rlvr", "quickstart"], "git_revision": "0123456789abcdef",
        "versions": {"python": "3.11.7", "torch": "2.13.0", "transformers": "5.23.0", "trl": "1.16.0"},
        "machine": "x86_64", "cores": 2, "memory_gib": 23.4, "seed": 0, "data_fingerprint": "4f0c2d9e8a7b6c5d",
    }  # fmt: skip
    for name in environments:
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "environment.json").write_text(json.dumps(environment))


def write_quickstart_run(
    folder: Path,
    *,
    stage1_steps: int = 40,
    stage2_steps: int = 20,
    problems_per_step: int = 16,
    rollouts_per_problem: int = 8,
    evaluation_problems: int = 120,
    seed: int = 0,
) -> Path:
    """A finished quickstart: sft, stage1 (uniform), stage2 (knapsack), three evaluations."""
    rng = np.random.default_rng(seed)
    write_identity(
        folder, ("sft", "stage1", "stage2"), name=folder.name, output_dir=str(folder), seed=seed,
        curation={"pipelines": {"problems": 960}}, sft={"epochs": 2, "learning_rate": 3e-3},
        model={"vocab_size": 1024, "hidden": 128, "layers": 3},
        stage1={"grpo": {"max_steps": stage1_steps, "learning_rate": 6e-4}, "budget": {"policy": "uniform"}},
        stage2={"grpo": {"max_steps": 100, "learning_rate": 3e-4}, "budget": {"policy": "knapsack"},
                "curriculum": {"phases": [{"problems": 480, "steps": stage2_steps}]}},
    )  # fmt: skip
    now = write_sft(folder / "sft", rng, 1.76e9)
    heldout = make_problems(rng, evaluation_problems, "heldout")
    shared: dict[str, Any] = {"problems_per_step": problems_per_step, "rollouts_per_problem": rollouts_per_problem}
    pool = make_problems(rng, max(60, 3 * problems_per_step), "pipe")
    one, two = folder / "stage1", folder / "stage2"
    now = write_stage(one, one / "rollouts", pool, rng, stage="stage1", steps=stage1_steps, skill=(1.6, 3.6),
                      knapsack=False, start=now + 20, **shared)  # fmt: skip
    hard = make_problems(rng, max(60, 3 * problems_per_step), "hard", (2, 3, 3, 3))
    write_stage(two, two / "rollouts", hard, rng, stage="stage2", steps=stage2_steps, skill=(3.6, 4.4),
                knapsack=True, start=now + 15, **shared)  # fmt: skip
    for name, skill in (("sft", 1.6), ("stage1", 3.6), ("stage2", 4.4)):
        write_evaluation(folder / "evaluation" / name, heldout, rng, skill=skill, checkpoint=name, suite="heldout")
    dates = ["2025-11-02T10:01:00+00:00", "2025-11-02T10:04:00+00:00", "2025-11-02T10:06:00+00:00"]
    for name, date in zip(("sft", "stage1", "stage2"), dates, strict=True):
        path = folder / "evaluation" / name / "results.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"date": date}))
    return folder


def write_training_run(folder: Path, *, steps: int = 12, seed: int = 1) -> Path:
    """A single GRPO run of two stages in one folder, with rollouts/<stage> and evaluation/<suite>."""
    rng = np.random.default_rng(seed)
    write_identity(
        folder, name=folder.name, stage="grpo", output_dir=str(folder), seed=seed,
        model={"name_or_path": "Qwen/Qwen2.5-Coder-0.5B", "dtype": "bfloat16"}, data={"problems": "builtin:contest"},
        grpo={"problems_per_step": 8, "num_generations": 8, "learning_rate": 1e-6, "loss_type": "dapo"},
        budget={"policy": "knapsack", "low": 2, "high": 128},
    )  # fmt: skip
    pool = make_problems(rng, 30, "contest", (1, 3, 5, 8))
    shared: dict[str, Any] = {"problems_per_step": 8, "rollouts_per_problem": 8, "knapsack": True}
    now = write_stage(folder, folder / "rollouts" / "entropy", pool, rng, stage="entropy", steps=steps,
                      skill=(2.0, 4.0), **shared)  # fmt: skip
    write_stage(folder, folder / "rollouts" / "hard", pool, rng, stage="hard", steps=steps, first_step=steps + 1,
                skill=(4.0, 5.0), start=now, phases=3, **shared)  # fmt: skip
    suite, checkpoint = "builtin-contest", f"{folder}/checkpoint-{2 * steps}"
    write_evaluation(folder / "evaluation" / suite, pool, rng, skill=5.0, checkpoint=checkpoint, suite=suite)
    return folder


if __name__ == "__main__":
    import sys

    target, total = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    if total:  # about so many rollouts, as a long run would leave
        write_quickstart_run(target, stage1_steps=total // 512 * 2 // 3, stage2_steps=total // 512 // 3,
                             problems_per_step=32, rollouts_per_problem=16)  # fmt: skip
    else:
        write_quickstart_run(target)
