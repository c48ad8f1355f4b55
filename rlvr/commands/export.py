"""`rlvr export`: problems in the layout of another trainer."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("layout", type=click.Choice(["trl", "verl", "skyrl"]))
@click.argument("source")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The parquet file to write.")
@click.option("--split", default="train", show_default=True, help="What `extra_info.split` says.")
@click.option("--limit", type=click.IntRange(min=1), default=None, help="Only that many problems.")
@click.option("--template", default=None, help="Prompt, with {statement}, {starter_code} and {language}.")
@click.option("--system", default="", help="System message before the prompt.")
@click.option(
    "--own-reward",
    is_flag=True,
    help="verl, skyrl: write whole problems, to be judged by rlvr.rewards.external, and leave none out.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be written and left out, and write nothing.")
def export(
    layout: str,
    source: str,
    out: Path,
    split: str,
    limit: int | None,
    template: str | None,
    system: str,
    own_reward: bool,
    dry_run: bool,
) -> None:
    """Write the problems of SOURCE for another trainer: TRL, verl or SkyRL.

    SOURCE is a file or data set as curation takes it, for example outputs/mbpp/train.parquet. Without --own-reward,
    problems that the trainer's own reward would judge wrongly (checkers, files, interaction) are left out and counted.
    """
    from data_curation import load_problems
    from data_curation.config import OutputOptions
    from data_curation.exports import export_rows, write_export

    if out.is_dir():
        raise ValueError(f"--out {out}: a folder; name the parquet file to write")
    problems = load_problems(source, limit=limit)
    if template is not None and "{statement}" not in template:
        raise ValueError("--template must contain {statement}")
    options = OutputOptions(template=template, system=system)
    write = export_rows if dry_run else write_export
    result = write(layout, problems, out, options, split=split, own_reward=own_reward)
    if not result.rows:
        if not dry_run:
            out.unlink()
        raise ValueError(f"nothing to write: {'; '.join(str(result).splitlines())} (--own-reward leaves none out)")
    click.echo(result)
