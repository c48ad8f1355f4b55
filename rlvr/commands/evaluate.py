"""`rlvr evaluate`: suites on a checkpoint, an endpoint, a file of samples or all checkpoints of a run; comparison."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rlvr.config import EvaluationRecipe
    from rlvr.evaluation import Results

_PATH = click.Path(path_type=Path)


class _RunByDefault(click.Group):
    """`rlvr evaluate ARGS` is `rlvr evaluate run ARGS` unless ARGS start with another verb of the group."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RunByDefault)
def evaluate() -> None:
    """Measure models: pass@k with intervals, ratings, contamination. Without a verb: run.

    \b
    rlvr evaluate --config RECIPE.yaml [KEY=VALUE]...
    rlvr evaluate --suite humaneval --data humaneval.jsonl.gz --model models/smollm2-135m
    rlvr evaluate --suite drive --data DIR --endpoint http://127.0.0.1:8000/v1 --model NAME
    rlvr evaluate --suite mbpp --data mbpp.jsonl --samples samples.jsonl
    rlvr evaluate --suite mbpp --data mbpp.jsonl --references
    rlvr evaluate runs/NAME --all-checkpoints --suite mbpp --data mbpp.jsonl
    rlvr evaluate compare A B
    rlvr evaluate leaderboard runs/
    """


@evaluate.command()
@click.argument("arguments", nargs=-1, metavar="[RUN] [KEY=VALUE]...")
@click.option("--config", type=_PATH, default=None, help="Recipe (YAML), instead of a suite.")
@click.option("--suite", "suites", multiple=True, help="Name of a shipped suite or group, or a YAML file; repeatable.")
@click.option("--data", default=None, help="What {data} in the suite's problem source stands for.")
@click.option("--model", default=None, help="Checkpoint folder or model name; with --endpoint the name it serves.")
@click.option("--engine", type=click.Choice(["transformers", "vllm"]), default=None)
@click.option("--endpoint", default=None, help="Address of an OpenAI-compatible server, up to /v1.")
@click.option("--samples", type=_PATH, default=None, help="A file of samples made elsewhere: grade only.")
@click.option("--references", is_flag=True, help="Grade the suite's own solutions: is the judge right about them?")
@click.option("--all-checkpoints", is_flag=True, help="Every checkpoint of RUN, then its final one.")
@click.option("--out", type=_PATH, default=None, help="Default: RUN/evaluation or runs/evaluation/<model>.")
@click.option("--trained-on", multiple=True, help="Run folder or problem source to check for contamination.")
@click.option("--data-cutoff", default=None, help="Last date in the model's training data, such as 2024-06-30.")
@click.option("--regrade", is_flag=True, help="Judge what is there again; nothing is generated anew.")
@click.option("--dry-run", is_flag=True, help="Check and print the resolved recipes, then stop.")
@click.option("--list", "list_suites", is_flag=True, help="List the suites that ship with the package.")
def run(arguments: tuple[str, ...], list_suites: bool, dry_run: bool, regrade: bool, **options: Any) -> None:
    """Evaluate a checkpoint, an endpoint or a file of samples."""
    if list_suites:
        return _list()
    runs = [argument for argument in arguments if "=" not in argument]
    overrides = [argument for argument in arguments if "=" in argument]
    if len(runs) > 1:
        raise click.UsageError(f"one RUN at a time, got {' and '.join(runs)}")
    for recipe in _recipes(Path(runs[0]) if runs else None, overrides, **options):
        if dry_run:
            from rlvr.config.load import resolved_yaml

            click.echo(resolved_yaml(recipe), nl=False)
            continue
        from rlvr.config import require_folder
        from rlvr.evaluation.evaluate import evaluate as measure

        require_folder("--out", recipe.output_dir)
        results = measure(recipe, regrade=regrade)
        if recipe.samples == "references":
            lines = of_references(recipe)
        else:
            lines = summary(results) + published(recipe.suite, options["suites"])
        for line in lines:
            click.echo(line)
        click.echo(Path(recipe.output_dir) / "results.json")


def _recipes(
    folder: Path | None,
    overrides: Sequence[str],
    *,
    config: Path | None,
    suites: tuple[str, ...],
    data: str | None,
    model: str | None,
    engine: str | None,
    endpoint: str | None,
    samples: Path | None,
    references: bool,
    all_checkpoints: bool,
    out: Path | None,
    trained_on: tuple[str, ...],
    data_cutoff: str | None,
) -> list[EvaluationRecipe]:
    from rlvr.config import EvaluationRecipe, load_recipe
    from rlvr.evaluation.suites import load_suites, suite_recipe

    if config is not None:
        strange = {"RUN": folder, "--suite": suites, "--data": data, "--endpoint": endpoint, "--samples": samples,
                   "--references": references, "--all-checkpoints": all_checkpoints}  # fmt: skip
        given = [name for name, value in strange.items() if value]
        if given:
            raise click.UsageError(f"--config names suite, problems and target itself; leave out {', '.join(given)}")
        replaced = {"model.name_or_path": model, "engine": engine, "output_dir": out and str(out),
                    "trained_on": list(trained_on) or None, "data_cutoff": data_cutoff}  # fmt: skip
        extra = [f"{key}={json.dumps(value)}" for key, value in replaced.items() if value is not None]
        return [load_recipe(EvaluationRecipe, config, [*overrides, *extra])]
    if not suites:
        raise click.UsageError("give --config, or --suite (rlvr evaluate --list shows those that ship)")
    named = {"RUN": folder, "--endpoint": endpoint, "--samples": samples, "--references": references or None}
    if endpoint is None:
        named["--model"] = model
    given = [name for name, value in named.items() if value is not None]
    if len(given) > 1:
        raise click.UsageError(f"one target at a time, got {' and '.join(given)}")
    if all_checkpoints and folder is None:
        raise click.UsageError("--all-checkpoints needs the folder of a RUN")
    facts = {"trained_on": list(trained_on) or None, "data_cutoff": data_cutoff, "engine": engine}
    targets: list[tuple[str, dict[str, Any]]]
    if folder is not None:
        base = out or folder / "evaluation"
        targets = [
            (name, {"model": {"name_or_path": str(path)}}) for name, path in _checkpoints(folder, all_checkpoints)
        ]
    elif endpoint is not None:
        if model is None:
            raise click.UsageError("--endpoint needs --model, the name the server knows it by")
        base, targets = (
            out or Path("runs/evaluation"),
            [(_slug(model), {"endpoint": {"url": endpoint, "model": model}})],
        )
    elif samples is not None:
        base, targets = out or Path("runs/evaluation"), [(_slug(samples.stem), {"samples": str(samples)})]
    elif references:
        base, targets = out or Path("runs/evaluation"), [("references", {"samples": "references"})]
    elif model is not None:
        base, targets = out or Path("runs/evaluation"), [(_slug(model), {"model": {"name_or_path": model}})]
    else:
        raise click.UsageError(
            "say what to evaluate: RUN, --model, --endpoint with --model, --samples, or --references"
        )
    chosen = [suite for name in suites for suite in load_suites(name)]
    return [
        suite_recipe(suite, base / name / suite.suite, data=data, overrides=overrides, **target, **facts)
        for suite in chosen
        for name, target in targets
    ]


def _checkpoints(run: Path, every: bool) -> list[tuple[str, Path]]:
    """(name, path) of a run's checkpoints in the order they were made; only the last one unless `every`."""
    if not run.is_dir():
        raise FileNotFoundError(f"{run}: no such run")
    numbered = sorted(
        (int(match[1]), path)
        for path in run.glob("checkpoint-*")
        if (match := re.fullmatch(r"checkpoint-(\d+)", path.name)) and (path / "config.json").is_file()
    )
    found = [(path.name, path) for _, path in numbered]
    found += [(name, run / name) for name in ("best", "final") if (run / name / "config.json").is_file()]
    if not found and (run / "config.json").is_file():
        found = [(run.name, run)]
    if not found:
        raise FileNotFoundError(f"{run}: holds no checkpoint-N and no final; is it the folder of a run?")
    return found if every else found[-1:]


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name.rstrip("/").rsplit("/", 1)[-1]) or "model"


def _list() -> None:
    from rlvr.config.evaluation import SuiteGroup
    from rlvr.config.load import load_recipe
    from rlvr.evaluation.suites import load_suites, shipped_suites

    for name, path in shipped_suites().items():
        suites = load_suites(name)
        if len(suites) == 1:
            text = suites[0].description
        else:
            text = f"{load_recipe(SuiteGroup, path).description} ({', '.join(suite.suite for suite in suites)})"
        click.echo(f"{name:22s} {text}")


def summary(results: Results) -> list[str]:
    """What a results file says, in a few lines."""
    lines = []
    for suite, metrics in results.results.items():
        for k, estimate in sorted(metrics.pass_at.items()):
            low, high = estimate.ci95
            name = "avg@1" if k == 1 and results.n_samples > 1 else f"pass@{k}"
            counted = sum(problem.samples >= k for problem in results.per_problem.get(suite, {}).values())
            lines.append(f"{suite}: {name} {estimate.value:.3f} [{low:.3f}, {high:.3f}] over {counted} problems")
        if metrics.greedy is not None:
            low, high = metrics.greedy.ci95
            lines.append(f"{suite}: greedy {metrics.greedy.value:.3f} [{low:.3f}, {high:.3f}]")
        if metrics.estimated_rating is not None:
            rating = metrics.estimated_rating
            note = "" if rating.informative else "; all or none solved: the prior decides"
            lines.append(
                f"{suite}: estimated rating {rating.value:.0f} [{rating.ci95[0]:.0f}, {rating.ci95[1]:.0f}] from "
                f"{rating.problems} problem ratings{note}"
            )
        rates = (("truncated", metrics.truncation_rate), ("repetitive", metrics.repetition_rate),
                 ("mixed languages", metrics.language_mix_rate),
                 ("without a program", metrics.verdicts.get("NO_CODE", 0.0)))  # fmt: skip
        lines.append(f"{suite}: " + ", ".join(f"{name} {rate:.1%}" for name, rate in rates))
        if metrics.infrastructure_errors:
            lost = f"{metrics.infrastructure_errors} samples have no verdict and count nowhere"
            lines.append(f"{suite}: {lost}; samples.jsonl says why of each")
        found = results.config.get("contamination") or {}
        for count, what in (
            (found.get("overlapping_problems"), "are in the training data"),
            (found.get("problems_before_cutoff"), "are from before the model's data cutoff"),
        ):
            if count:
                held = found.get("suite_problems", metrics.problems)  # a file of samples may be of some of them
                lines.append(f"WARNING: {suite}: {count} of {held} problems {what}")
        if clean := found.get("without_overlap"):
            low, high = clean["pass@1_ci95"]
            name = "avg@1" if results.n_samples > 1 else "pass@1"
            lines.append(
                f"{suite}: {name} {clean['pass@1']:.3f} [{low:.3f}, {high:.3f}] over the {clean['problems']} problems "
                "without overlap"
            )
    cost = results.cost
    lines.append(f"cost: {cost.tokens:,} tokens, {cost.generate_s:.0f} s generating, {cost.grade_s:.0f} s grading")
    return lines


def published(name: str, suites: Sequence[str]) -> list[str]:
    """What others publish for the suite, as its definition says."""
    from rlvr.evaluation.suites import load_suites

    known = [suite for given in suites for suite in load_suites(given) if suite.suite == name and suite.published]
    if not known:
        return []
    shown = "; ".join(
        f"{model} {', '.join(f'{metric} {value:.3f}' for metric, value in metrics.items())}"
        for model, metrics in known[0].published.items()
    )
    return [f"{name}: published, with their own prompts, sampling and judges: {shown}"]


def of_references(recipe: EvaluationRecipe) -> list[str]:
    """How many of a suite's references passed, and what became of the others."""
    from rlvr.evaluation import read_samples
    from rlvr.evaluation.problems import suite_problems

    records = read_samples(Path(recipe.output_dir))
    failing = [record for record in records if record.verdict.value != "AC"]
    lines = [f"{recipe.suite}: {len(records) - len(failing)} of {len(records)} references pass"]
    lines += [f"  {r.problem_id}: {r.verdict.value} {' '.join(r.message.split())[:160]}".rstrip() for r in failing]
    tried = {record.problem_id for record in records}
    without = [problem.id for problem in suite_problems(recipe) if problem.id not in tried]
    if without:
        more = " ..." if len(without) > 5 else ""
        lines.append(f"{recipe.suite}: {len(without)} problems have no reference: {', '.join(without[:5])}{more}")
    return lines


@evaluate.command()
@click.argument("results", nargs=-1, required=True, type=_PATH, metavar="A B [C]...")
@click.option("--suite", default=None, help="Only this suite, where the results hold several.")
def compare(results: tuple[Path, ...], suite: str | None) -> None:
    """Compare results with the first one, problem by problem; p-values adjusted by Holm's rule over all of them.

    Each of A, B and C is a results.json, its folder, or a folder with the results of one model on several suites.
    """
    if len(results) < 2:
        raise click.UsageError("compare needs at least two results")
    from rlvr.evaluation import adjust, results_by_suite
    from rlvr.evaluation import compare as pair

    first, *others = [results_by_suite(path) for path in results]
    comparisons = []
    for path, other in zip(results[1:], others, strict=True):
        shared = [name for name in first if name in other and suite in (None, name)]
        if not shared:
            raise ValueError(
                f"suite {suite or '(any)'} is not in both: {results[0]} holds {', '.join(first)}, "
                f"{path} holds {', '.join(other)}"
            )
        comparisons += [pair(first[name], other[name], suite=name) for name in shared]
    for comparison in adjust(comparisons):
        click.echo(str(comparison))


@evaluate.command()
@click.argument("folders", nargs=-1, required=True, type=_PATH)
@click.option("--out", type=_PATH, default=Path("leaderboard.html"), show_default=True)
def leaderboard(folders: tuple[Path, ...], out: Path) -> None:
    """One self-contained page of all results below FOLDERS: tables, curves over training, problems and samples."""
    from rlvr.report.leaderboard import render_leaderboard

    click.echo(render_leaderboard(folders, out))
