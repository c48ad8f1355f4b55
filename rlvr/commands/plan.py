"""`rlvr plan`: what a budget buys, before it is spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rlvr.budget import AllocationPolicy
    from rlvr.budget.value import FloatArray

_POLICY = click.option(
    "--policy", "names", multiple=True, help="uniform, knapsack-window, knapsack-beta, dynamic; several may be given."
)
_LOW = click.option("--low", type=click.IntRange(min=2), default=2, show_default=True, help="Least rollouts a problem.")
_NO_FALLBACK = click.option("--no-fallback", is_flag=True, help="Leave nothing for problems never solved.")
_HIGH = click.option("--high", type=click.IntRange(min=2), default=128, show_default=True, help="Most of them.")


@click.group()
def plan() -> None:
    """Rollout budgets: what a history would be given, what a distribution of success rates would cost."""


@plan.command()
@click.argument("history", type=click.Path(path_type=Path))
@click.option("--rollouts", type=click.IntRange(min=2), default=8, show_default=True, help="Mean rollouts a problem.")
@_POLICY
@_LOW
@_HIGH
@_NO_FALLBACK
@click.option("--tokens", is_flag=True, help="Economise tokens instead of rollouts.")
@click.option("--show", type=click.IntRange(min=0), default=20, show_default=True, help="Problems listed.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable, every problem.")
def budget(
    history: Path,
    rollouts: int,
    names: tuple[str, ...],
    low: int,
    high: int,
    no_fallback: bool,
    tokens: bool,
    show: int,
    as_json: bool,
) -> None:
    """The allocation a history of outcomes would get.

    HISTORY: a stage's folder, a checkpoint, its rlvr_state.json, a pre_grpo.json, curation's difficulty.parquet, what
    `rlvr plan rates` wrote, or JSONL of problem_id with `outcomes` (a list of 0 and 1) or `rate` (with `rollouts`, how
    many it was measured with; without, it is taken at its word).
    """
    from rlvr.budget.histories import read_history

    rates = read_history(history)
    keys = list(rates)
    total = rollouts * len(keys)
    chosen = names or ("uniform", "knapsack-window", "knapsack-beta")
    plans = {name: _policy(name, low, high, not no_fallback, tokens).allocate(keys, rates, total) for name in chosen}
    rows: list[dict[str, Any]] = [
        {
            "problem_id": key,
            "rollouts_seen": rates.rollouts(key),
            "window_rate": rates.window(key),
            "posterior_mean": mean.mean if (mean := rates.posterior(key)) else None,
            **{name: counts[i] for name, counts in plans.items()},
        }
        for i, key in enumerate(keys)
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    from rlvr.budget import effective_gradient_ratio, effective_prompt_ratio

    believed = [row["posterior_mean"] if row["posterior_mean"] is not None else 0.5 for row in rows]
    click.echo(f"{len(keys)} problems, {total} rollouts a step; ratios expected if the posterior means were true")
    for name, counts in plans.items():
        click.echo(
            f"  {name:16s} groups {min(counts)} to {max(counts)},"
            f" effective gradient ratio {effective_gradient_ratio(counts, believed):.3f},"
            f" of problems {effective_prompt_ratio(counts, believed):.3f}"
        )
    shown = sorted(rows, key=lambda row: row["posterior_mean"] or 0.0)[:show]
    if shown:
        click.echo(f"\n{'problem':40s} {'seen':>5s} {'window':>7s} {'mean':>6s}  " + "  ".join(plans))
    for row in shown:
        window = "-" if row["window_rate"] is None else f"{row['window_rate']:.3f}"
        cells = "  ".join(f"{row[name]:>{len(name)}d}" for name in plans)
        click.echo(
            f"{row['problem_id'][:40]:40s} {row['rollouts_seen']:5d} {window:>7s}"
            f" {row['posterior_mean'] or 0:6.3f}  {cells}"
        )
    if len(rows) > len(shown) > 0:
        click.echo(f"... {len(rows) - len(shown)} more, hardest first (--show, --json)")


@plan.command()
@click.option(
    "--population",
    default="beta:0.5,3",
    show_default=True,
    help="beta:A,B, uniform, late, late-rare, or a HISTORY as for `rlvr plan budget`, whose rates are then the truth.",
)
@click.option("--problems", type=click.IntRange(min=2), default=1024, show_default=True, help="Size of the pool.")
@click.option("--steps", type=click.IntRange(min=1), default=60, show_default=True)
@click.option("--problems-per-step", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--rollouts", type=click.IntRange(min=2), default=8, show_default=True, help="Mean rollouts a problem.")
@click.option("--speed", type=float, default=0.5, show_default=True, help="How much a mixed group teaches; 0: nothing.")
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True)
@_POLICY
@_LOW
@_HIGH
@_NO_FALLBACK
def simulate(
    population: str,
    problems: int,
    steps: int,
    problems_per_step: int,
    rollouts: int,
    speed: float,
    seeds: int,
    names: tuple[str, ...],
    low: int,
    high: int,
    no_fallback: bool,
) -> None:
    """Training dynamics without a model: signal and pass rate over the steps, policy by policy, in seconds.

    signal, of problems: shares of the rollouts and of the problems in groups with passes and failures. The policy
    `true-rates` knows what the others estimate.
    """
    import numpy as np

    from rlvr.budget.simulate import TrueRates
    from rlvr.budget.simulate import simulate as run

    chosen = names or ("uniform", "knapsack-window", "knapsack-beta", "dynamic")
    policies: dict[str, AllocationPolicy | TrueRates] = {
        name: TrueRates(low, high) if name == "true-rates" else _policy(name, low, high, not no_fallback, False)
        for name in chosen
    }
    pools = _pools(population, problems, seeds)
    size = len(pools[0])
    marks = sorted({1, max(1, steps // 2), steps})
    lines = []
    for name, policy in policies.items():
        runs = [
            run(
                pool,
                policy,
                steps=steps,
                problems_per_step=problems_per_step,
                mean_rollouts=rollouts,
                speed=speed,
                seed=seed,
            )
            for seed, pool in enumerate(pools)
        ]
        cells = [f"{name:16s} {np.mean([found[-1].rollouts for found in runs]):9.0f}"]
        for m in marks:
            at = [found[m - 1] for found in runs]
            ratio, of_problems, passed = (
                np.mean([getattr(step, figure) for step in at])
                for figure in ("effective_gradient_ratio", "effective_prompt_ratio", "pass_rate")
            )
            cells.append(f"{m:6d} {ratio:7.3f} {of_problems:12.3f} {passed:6.3f}")
        lines.append("  ".join(cells))
    click.echo(
        f"{size} problems, {min(problems_per_step, size)} x {rollouts} rollouts a step, {seeds} seeds; mean over seeds"
    )
    click.echo(
        f"{'policy':16s} {'rollouts':>9s}" + f"  {'step':>6s} {'signal':>7s} of problems {'pass':>6s}" * len(marks)
    )
    click.echo("\n".join(lines))


def _pools(population: str, problems: int, seeds: int) -> list[FloatArray]:
    """Success rates of every seed's pool: drawn anew from a named distribution, or a history's."""
    import numpy as np

    from rlvr.budget.histories import KNOWN, read_history
    from rlvr.budget.simulate import population as draw

    path = Path(population)
    if not (path.exists() or "/" in population or path.suffix.startswith((".json", ".parquet"))):
        return [draw(population, problems, np.random.default_rng(seed)) for seed in range(seeds)]
    known = read_history(path)
    rates = []
    for key in known:
        posterior, window = known.posterior(key), known.window(key)
        assert posterior is not None
        rates.append(window if window is not None and known.rollouts(key) >= KNOWN else posterior.mean)
    return [np.array(rates)] * seeds


@plan.command()
@click.argument("history", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=None, help="A .jsonl or .parquet file. Default: print.")
def rates(history: Path, out: Path | None) -> None:
    """Export what a run knows of every problem: outcomes, both estimates, first and last step."""
    from rlvr.budget.histories import read_history

    if out is not None and out.suffix not in (".jsonl", ".parquet"):
        raise ValueError(f"{out}: name a .jsonl or a .parquet file")
    rows = read_history(history).export()
    if out is None or out.suffix != ".parquet":
        text = "".join(json.dumps(row) + "\n" for row in rows)
        if out is None:
            click.echo(text, nl=False)
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        out.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), out)
    click.echo(f"{out}: {len(rows)} problems")


def _policy(name: str, low: int, high: int, fallback: bool, tokens: bool) -> AllocationPolicy:
    from rlvr.budget import DynamicSampling, Knapsack, Uniform

    if name == "uniform":
        return Uniform()
    if name == "dynamic":
        return DynamicSampling()
    if name in ("knapsack-window", "knapsack-beta"):
        estimator: Any = name.removeprefix("knapsack-")
        return Knapsack(estimator, low, high, fallback=fallback, cost="tokens" if tokens else "rollouts")
    known = "uniform, knapsack-window, knapsack-beta, dynamic, or with simulate true-rates"
    raise ValueError(f"policy {name!r}: unknown; give {known}")
