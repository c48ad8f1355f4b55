"""Evaluation of a suite while a run trains, and the best checkpoint by a metric of it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rlvr.config import EvaluationRecipe, GRPORecipe, RecipeError
from rlvr.config.evaluation import EvaluationSchedule
from rlvr.evaluation.evaluate import evaluate
from rlvr.evaluation.problems import suite_problems
from rlvr.evaluation.results import Results
from rlvr.evaluation.suites import load_suites, suite_recipe
from rlvr.models import share_weights
from rlvr.training.callbacks import MetricsFile

BEST = "best"


class PeriodicEvaluation(TrainerCallback):
    """Evaluates the policy every so many steps into `evaluation/step-000050/<suite>` of the run's folder.

    The random numbers of training are untouched, so a run trains the same with and without it. What was evaluated
    before an interruption is read back. One process evaluates the whole suite while the others wait, and weights
    sharded over processes are refused: there `rlvr evaluate RUN --all-checkpoints` beside the run does it.
    """

    def __init__(
        self,
        recipe: GRPORecipe,
        tokenizer: Any,
        metrics: MetricsFile,
        save: Callable[[Path], None],
        wait: Callable[[], None],
        updates_per_step: int = 1,
    ) -> None:
        assert recipe.evaluation is not None
        self.schedule: EvaluationSchedule = recipe.evaluation
        self.folder = Path(recipe.output_dir)
        self.tokenizer, self.metrics, self.save, self.wait = tokenizer, metrics, save, wait
        self.updates_per_step = updates_per_step
        suites = load_suites(self.schedule.suite)
        if len(suites) != 1:
            raise RecipeError(f"evaluation.suite: {self.schedule.suite} is a group; name one of its suites")
        self.suite = suites[0]
        replaced = {f"sampling.{key}": value for key, value in self.schedule.sampling.items()}
        replaced |= {f"prompt.{key}": value for key, value in self.schedule.prompt.items()}
        self.overrides = [f"{key}={json.dumps(value)}" for key, value in replaced.items()]
        if self.schedule.limit is not None:
            self.overrides.append(f"data.limit={self.schedule.limit}")
        self.judge, self.seed, self.own = recipe.judge, recipe.seed, str(self.folder)
        self._check_metric(self.recipe(0))
        if self.recipe(0).prompt.style == "chat" and not getattr(tokenizer, "chat_template", None):
            raise RecipeError(
                f"evaluation.suite: {self.suite.suite} asks in chat, and the tokenizer of {recipe.model.name_or_path}"
                " has no chat template; set evaluation.prompt to {style: plain}"
            )
        self.problems = suite_problems(self.recipe(0))  # read once, and refused before anything is trained
        self.best: dict[str, Any] = self._read_best()

    def recipe(self, step: int) -> EvaluationRecipe:
        """The evaluation of the policy after `step` steps."""
        out = self.folder / "evaluation" / f"step-{step:06d}" / self.suite.suite
        return suite_recipe(
            self.suite,
            out,
            data=self.schedule.data,
            overrides=self.overrides,
            model={"name_or_path": f"{self.folder}/checkpoint-{step * self.updates_per_step}"},
            judge=self.judge.model_dump(mode="json"),
            trained_on=[self.own] if (self.folder / "training_problems.jsonl").is_file() else [],
            seed=self.seed,
        )

    def _check_metric(self, recipe: EvaluationRecipe) -> None:
        measured = [f"pass@{k}" for k in recipe.sampling.k] + ["avg@1"] * (1 in recipe.sampling.k)
        measured += ["greedy"] * recipe.sampling.greedy
        if self.schedule.metric not in measured:
            raise RecipeError(
                f"evaluation.metric: {self.schedule.metric!r} is not measured by {recipe.suite}; "
                f"one of {', '.join(measured)}"
            )

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 0 and self.schedule.at_start:
            self._evaluate(state, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        step, rest = divmod(state.global_step, self.updates_per_step)
        if not rest and (step % self.schedule.every == 0 or state.global_step >= state.max_steps):
            self._evaluate(state, kwargs["model"])

    def _evaluate(self, state: Any, model: Any) -> None:
        step = state.global_step // self.updates_per_step
        started = time.perf_counter()
        better = self.folder / ".best-is-new"
        if state.is_world_process_zero:
            results = evaluate(self.recipe(step), model, self.tokenizer, problems=self.problems)
            found = metric_of(results, self.suite.suite, self.schedule.metric)
            prefix = f"evaluation/{self.suite.suite}"
            if step > 0:  # the next line of the metrics file is that of this step
                self.metrics.extras |= {f"{prefix}/{self.schedule.metric}": found["value"]}
            print(
                f"step {step}: {self.suite.suite} {self.schedule.metric} {found['value']:.3f} "
                f"[{found['ci95'][0]:.3f}, {found['ci95'][1]:.3f}]",
                flush=True,
            )
            if self.schedule.keep_best and step > 0 and found["value"] > self.best.get("value", -1.0):
                self.best = {"step": step, "suite": self.suite.suite, "metric": self.schedule.metric, **found}
                better.touch()
        self.wait()
        if better.exists():  # every process: saving gathers weights
            self._keep(state.is_world_process_zero, better)
        if step > 0:
            self.metrics.extras |= {"time/evaluation": round(time.perf_counter() - started, 3)}

    def _keep(self, main: bool, better: Path) -> None:
        staged, kept = self.folder / ".best", self.folder / BEST
        self.save(staged)
        self.wait()
        if main:
            self.tokenizer.save_pretrained(staged)
            share_weights(staged)
            (staged / "best.json").write_text(json.dumps(self.best, indent=1) + "\n")
            old = self.folder / ".best-old"
            shutil.rmtree(old, ignore_errors=True)
            if kept.exists():
                kept.rename(old)
            staged.rename(kept)
            shutil.rmtree(old, ignore_errors=True)
            better.unlink()
        self.wait()

    def _read_best(self) -> dict[str, Any]:
        try:
            return json.loads((self.folder / BEST / "best.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return {}


def metric_of(results: Results, suite: str, metric: str) -> dict[str, Any]:
    """{"value", "ci95"} of a metric such as "pass@1" or "greedy". RecipeError for one that was not measured."""
    metrics = results.results[suite]
    named = {f"pass@{k}": estimate for k, estimate in metrics.pass_at.items()}
    named |= {"avg@1": named["pass@1"]} if "pass@1" in named else {}
    named |= {"greedy": metrics.greedy} if metrics.greedy is not None else {}
    if metric not in named:
        raise RecipeError(f"evaluation.metric: {metric!r} is not measured by {suite}; one of {', '.join(named)}")
    return {"value": named[metric].value, "ci95": list(named[metric].ci95)}
