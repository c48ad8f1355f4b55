"""`rlvr moe`: what a mixture-of-experts model is, how its experts are loaded and placed, and where it disagrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from rlvr.config.load import RESOLVED, require_folder


@click.group()
def moe() -> None:
    """Look into mixture-of-experts models: facts, expert load, placement, mismatch."""


@moe.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
@click.option("--trust-remote-code", is_flag=True, help="Let a configuration bring its own code.")
def inspect(model: str, as_json: bool, trust_remote_code: bool) -> None:
    """Print what MODEL is, from its configuration alone.

    MODEL: a checkpoint folder, a config.json, a hub id, or a name that ships with the package, such as
    qwen3-30b-a3b. Sizes are counted on the meta device; no weight is read.
    """
    from rlvr.moe.facts import inspect_model

    facts = inspect_model(model, trust_remote_code=trust_remote_code)
    if not facts.experts:
        why = f": {facts.tap}" if facts.tap else ""
        raise ValueError(f"{model}: {facts.model_type} is a dense model, it has no routed experts{why}")
    click.echo(json.dumps(facts.as_dict(), indent=2) if as_json else _table(facts))


def _table(facts: Any) -> str:
    gib = 2**30
    size = facts.dtype_bytes
    groups = f", from {facts.groups_chosen} of {facts.groups} groups" if facts.groups > 1 else ""
    weights = (
        "" if facts.normalised is None else (", weights normalised" if facts.normalised else ", weights as scored")
    )
    scale = f", times {facts.scale:g}" if facts.scale != 1 else ""
    rows = [
        ("family", f"{facts.model_type} ({facts.architecture})"),
        ("layers", f"{facts.layers}, of which {len(facts.moe_layers)} MoE; dense: {_ranges(facts.dense_layers)}"),
        ("experts", f"{facts.experts}, {facts.top_k} a token{groups}; shared: {facts.shared_experts}"),
        ("router", f"{facts.score}{weights}{scale}; selection bias: {facts.bias}"),
        ("parameters", f"{facts.parameters:,} ({facts.parameters * size / gib:.2f} GiB)"),
        ("  active a token", f"{facts.active_parameters:,} ({facts.active_parameters * size / gib:.2f} GiB)"),
        ("  routed experts", f"{facts.expert_parameters:,}; one expert of one layer {facts.parameters_per_expert:,}"),
        ("  shared experts", f"{facts.shared_parameters:,}"),
        ("  embeddings", f"{facts.embedding_parameters:,}"),
        ("  buffers", f"{facts.buffers:,}"),
        ("KV cache", f"{facts.kv_bytes_per_token():,} bytes a token{' (latent)' if facts.mla else ''}"),
        ("routes", f"{facts.route_bytes_per_token:,} bytes a token"),
        ("vLLM names", facts.vllm_names),
        ("routing tap", facts.tap or "records and replays"),
    ]
    if facts.window:
        rows.insert(
            11, ("  windowed", f"{facts.kv_windowed * facts.kv_dtype_bytes:,} of these up to {facts.window} tokens")
        )
    lines = [f"{name:18s}{value}" for name, value in rows]
    return "\n".join([*lines, *(f"trap: {trap}" for trap in facts.traps)])


def _ranges(numbers: tuple[int, ...]) -> str:
    """2,3,4,7 as "2-4, 7"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts) or "none"


@moe.command()
@click.argument("load", type=click.Path(path_type=Path))
@click.option("--ranks", type=click.IntRange(min=1), required=True, help="Expert-parallel ranks (TP x DP).")
@click.option("--redundant", type=click.IntRange(min=0), default=0, help="Extra expert slots a layer.")
@click.option("--nodes", type=click.IntRange(min=1), default=1, help="Machines the ranks are spread over.")
@click.option("--kind", default="all", help="Which tokens' load: all, or a kind the file has.")
@click.option("--current", type=click.Path(path_type=Path), help="The map in use; small gains over it move nothing.")
@click.option("--threshold", type=click.FloatRange(min=0), default=0.02, help="A gain below this moves nothing.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the map, one list of experts a MoE layer.")
def place(
    load: Path,
    ranks: int,
    redundant: int,
    nodes: int,
    kind: str,
    current: Path | None,
    threshold: float,
    out: Path | None,
) -> None:
    """Plan which rank holds which experts from a recorded LOAD, and print what it would gain.

    LOAD: the expert_load.json a run writes. Advice for serving; moving experts during RL would corrupt weight updates.
    """
    from rlvr.moe.placement import heat_map, linear_placement, placement_of, plan_placement
    from rlvr.moe.statistics import ExpertLoad

    if out:
        _check_writable(out)
    window = ExpertLoad.from_dict(_read_json(load, "the expert_load.json of a run"), str(load))
    if kind not in window.counts:
        raise ValueError(f"{load}: no load of kind {kind!r}; it has {', '.join(sorted(window.counts)) or 'none'}")
    counts = window.counts[kind]
    if (counts < 0).any():
        raise ValueError(f"{load}: loads of kind {kind!r} below 0")
    held = None
    if current:
        held = placement_of(_read_json(current, "a map that --out wrote"), window.experts, ranks, str(current))
    plan = plan_placement(counts, ranks, redundant=redundant, nodes=nodes, current=held, threshold=threshold)
    before = held or linear_placement(len(counts), window.experts, ranks, redundant)
    names = [f"layer {layer}" for layer in window.layers]
    for title, placement in (("in use" if held else "in order", before), ("planned", plan)):
        skew = placement.skew(counts)
        click.echo(f"{title}: busiest rank over mean {skew.mean():.3f} on average, {skew.max():.3f} at worst")
        click.echo(heat_map(placement.rank_loads(counts), names))
    click.echo(f"{before.moved(plan)} expert copies move")
    if out:
        _write(out, json.dumps(plan.expert_map()))
        click.echo(out)


@moe.command()
@click.argument("model")
@click.option("--sampler", help="Checkpoint that sampled; default: MODEL itself, in --sampler-dtype.")
@click.option("--texts", type=click.Path(path_type=Path), required=True, help="A run's folder, or a text file.")
@click.option("--sampler-dtype", type=click.Choice(["bfloat16", "float16", "float32"]), default="bfloat16")
@click.option("--trainer-dtype", type=click.Choice(["bfloat16", "float16", "float32"]), default="float32")
@click.option("--limit", type=click.IntRange(min=1), default=64, show_default=True, help="Texts at most.")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def diagnose(
    model: str, sampler: str | None, texts: Path, sampler_dtype: str, trainer_dtype: str, limit: int, as_json: bool
) -> None:
    """Say why sampler and trainer disagree: routing, weights or dtype, each with and without replay.

    MODEL: the checkpoint folder being trained. The KL is that of the sampler from the trainer, in nats a token. A run
    with moe.keep_routes is also held against what its engine did ("run"): choose the checkpoint that sampled.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rlvr.moe.mismatch import Diagnosis, batches_of, diagnose_run
    from rlvr.moe.mismatch import diagnose as compare

    found = _texts(texts, limit)
    recorded, temperature = _recorded(texts, limit)
    tokenizer = AutoTokenizer.from_pretrained(_folder(model))
    trainer: Any = AutoModelForCausalLM.from_pretrained(_folder(model), dtype=torch.float32)
    other: Any = AutoModelForCausalLM.from_pretrained(_folder(sampler), dtype=torch.float32) if sampler else trainer
    result = compare(
        other,
        trainer,
        list(batches_of(tokenizer, found)),
        sampler_dtype=getattr(torch, sampler_dtype),
        trainer_dtype=getattr(torch, trainer_dtype),
    )
    if recorded and sampler is None:
        run = diagnose_run(trainer, recorded, trainer_dtype=getattr(torch, trainer_dtype), temperature=temperature)
        result = Diagnosis(result.layers, (run, *result.comparisons), result.routing)
    if as_json:
        click.echo(json.dumps(result.as_dict(), indent=2))
        return
    for row in result.comparisons:
        click.echo(f"{row.cause}: {row.free.tokens:,} tokens; replay removes {row.routing_share:.0%} of the KL")
        for title, gap in (("free", row.free), ("replayed", row.replayed)):
            click.echo(
                f"  {title:9s} k3 {gap.k3:.2e}  k1 {gap.k1:+.2e}  largest gap {gap.max_gap:.3f}  tokens above a factor"
                f" of 2: {gap.extreme:.2%}"
            )
        worst = min(zip(row.free.same_experts, result.layers, strict=True))
        mean = sum(row.free.same_experts) / len(row.free.same_experts)
        click.echo(f"  same experts: {mean:.2%} of tokens on average, {worst[0]:.2%} in layer {worst[1]}, the worst")
    click.echo("how the sampler routes these texts")
    click.echo("layer  MaxVio  entropy  dead  most often together")
    for layer in result.routing:
        pair = "one expert a token"
        if layer.pair:
            pair = f"{layer.pair[0]} and {layer.pair[1]}: {layer.together:.1%} of tokens"
            pair += f", {layer.over_chance:.1f} times chance"
        click.echo(
            f"{layer.layer:5d}  {layer.max_violation:6.2f}  {layer.load_entropy:7.3f}  {layer.dead_experts:4d}  {pair}"
        )


@moe.command()
@click.argument("model")
@click.option("--texts", type=click.Path(path_type=Path), required=True, help="A run's folder, or a text file.")
@click.option("--link", type=click.FloatRange(min=0, min_open=True), default=25.0, show_default=True, help="GB/s.")
@click.option("--limit", type=click.IntRange(min=1), default=32, show_default=True, help="Texts at most.")
def cache(model: str, texts: Path, link: float, limit: int) -> None:
    """Say what keeping only some of MODEL's experts on the device would cost, from the routes of real texts.

    The first half of the tokens teaches the predictor of the prefetch, the second half is simulated. A simulation of
    one sequence at a time: a batch touches more experts a step.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rlvr.moe.cache import NextLayer, Policy, simulate_cache
    from rlvr.moe.facts import inspect_model
    from rlvr.moe.mismatch import batches_of, routes_of_texts

    facts = inspect_model(model)
    policy: Any = AutoModelForCausalLM.from_pretrained(_folder(model), dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(_folder(model))
    routes = routes_of_texts(policy, list(batches_of(tokenizer, _texts(texts, limit))))
    half = len(routes) // 2
    predictor = NextLayer(routes[:half], facts.experts)
    expert = facts.parameters_per_expert * facts.dtype_bytes
    click.echo(f"{len(routes) - half:,} tokens simulated; {expert / 2**20:.2f} MiB an expert; link {link:g} GB/s")
    click.echo("resident  policy  prefetch  hit rate  MiB a token  ms a token stalled")
    for share in (0.25, 0.5, 0.75):
        capacity = max(facts.top_k, round(facts.experts * share))
        kinds: tuple[Policy, ...] = ("lru", "lfu")
        for kind in kinds:
            for ahead in (None, predictor):
                found = simulate_cache(routes[half:], facts.experts, capacity, policy=kind, predictor=ahead)
                click.echo(
                    f"{capacity:3d}/{facts.experts:<4d}  {kind:6s}  {'next' if ahead else 'none':8s}"
                    f"  {found.hit_rate:7.1%}  {found.traffic(expert) / 2**20:11.2f}"
                    f"  {1e3 * found.stall_seconds(expert, link * 1e9):8.3f}"
                )


def _folder(model: str) -> str:
    if not (Path(model) / "config.json").is_file():
        raise FileNotFoundError(f"{model}: not a checkpoint folder (no config.json in it)")
    return model


def _texts(path: Path, limit: int) -> list[str]:
    """Prompts with their completions from a run's rollouts, or the paragraphs of a text file."""
    from rlvr.rollouts.records import read_records

    if path.is_file():
        try:
            text = path.read_text()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: not a text file: {error}") from None
        found = [part.strip() for part in text.split("\n\n") if part.strip()]
    elif path.is_dir():
        folders = sorted({file.parent for file in path.rglob("step-*.parquet")})
        found = [f"{row['prompt']}{row['completion']}" for folder in folders for row in read_records(folder)]
    else:
        raise FileNotFoundError(f"{path}: neither a run's folder nor a text file")
    if not found:
        raise ValueError(f"{path}: no rollouts and no text in it")
    step = max(1, len(found) // limit)
    return found[::step][:limit]


def _recorded(path: Path, limit: int) -> tuple[list[dict[str, Any]], float]:
    """The newest rollouts of a run that kept their routes, `limit` at most, and the temperature of its sampling."""
    import yaml

    from rlvr.rollouts.records import read_records

    if not path.is_dir():
        return [], 1.0
    rows: list[dict[str, Any]] = []
    for folder in sorted({file.parent for file in path.rglob("step-*.parquet")}):
        rows += [row for row in read_records(folder) if row.get("routes") is not None]
    config = path / RESOLVED
    values = yaml.safe_load(config.read_text()) if config.is_file() else {}
    return rows[-limit:], float(values.get("grpo", {}).get("temperature", 1.0))


def _read_json(path: Path, what: str) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected {what}")
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from None


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise FileExistsError(f"{path}: a folder; expected the name of a file")
    require_folder("--out", path.parent)


def _write(path: Path, text: str) -> None:
    _check_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text + "\n")
    temporary.replace(path)
