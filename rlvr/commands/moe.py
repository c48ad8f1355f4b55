"""`rlvr moe`: what a mixture-of-experts model is, how its experts are loaded and placed, and where it disagrees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


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

    window = ExpertLoad.from_dict(_read_json(load), str(load))
    if kind not in window.counts:
        raise ValueError(f"{load}: no load of kind {kind!r}; it has {', '.join(sorted(window.counts)) or 'none'}")
    counts = window.counts[kind]
    held = placement_of(_read_json(current), window.experts, ranks, str(current)) if current else None
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


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text + "\n")
    temporary.replace(path)
