"""`rlvr arena`: the books of arena learning, which choose what SFT is taught."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from data_curation.arena import Arena

_PATH = click.Path(path_type=Path)


@click.group()
def arena() -> None:
    """Keep for SFT what the model fails at: train on one fold, predict the next, keep its failures (DRIVE, 4.3).

    \b
    rlvr arena new outputs/x/train.parquet --folds 5 --out arena.json
    rlvr sft --config sft.yaml arena.books=arena.json arena.teach=training_ids      # what was kept of the last fold
    rlvr arena next arena.json --problems outputs/x/train.parquet --out fold.parquet
    rlvr evaluate --suite problems --data fold.parquet --model runs/NAME/final --out fold
    rlvr arena record arena.json --samples fold/samples.jsonl                       # and on to the next fold
    rlvr sft --config sft.yaml arena.books=arena.json arena.teach=hard_ids          # hard ones twice
    """


@arena.command()
@click.argument("source")
@click.option("--folds", type=click.IntRange(min=2), default=5, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=_PATH, required=True, help="The books to write (JSON).")
def new(source: str, folds: int, seed: int, out: Path) -> None:
    """Cut the problems of SOURCE into folds; no family is cut."""
    from data_curation import iter_problems
    from data_curation.arena import Arena

    if out.exists():
        raise ValueError(f"{out}: is there already, and may hold predictions; remove it or name another file")
    books = Arena.of({problem.id: problem.family for problem in iter_problems(source)}, folds, seed)
    books.save(out)
    click.echo(_state(books))


@arena.command("next")
@click.argument("books", type=_PATH)
@click.option("--problems", required=True, help="The problems the books were made of.")
@click.option("--out", type=_PATH, required=True, help="The file to write: .parquet, .jsonl or .jsonl.gz.")
def next_fold(books: Path, problems: str, out: Path) -> None:
    """Write the problems of the fold that is to be predicted."""
    from data_curation import iter_problems
    from data_curation.arena import Arena
    from data_curation.storage import save_problems

    found = Arena.load(books)
    if found.is_finished:
        raise ValueError(f"{books}: all folds have been predicted; teach arena.teach=hard_ids")
    wanted = set(found.ids_to_predict())
    fold = [problem for problem in iter_problems(problems) if problem.id in wanted]
    if len(fold) < len(wanted):
        lost = min(wanted - {problem.id for problem in fold})
        raise ValueError(f"{problems}: lacks {len(wanted) - len(fold)} problems of the fold, for example {lost}")
    save_problems(fold, out)
    click.echo(f"{out}: fold {found.round + 2} of {len(found.folds)}, {len(fold)} problems to predict")


@arena.command()
@click.argument("books", type=_PATH)
@click.option("--samples", type=_PATH, required=True, help="samples.jsonl of `rlvr evaluate`, or rows of counts.")
@click.option(
    "--pass-rate",
    type=click.FloatRange(min=0, min_open=True, max=1),
    default=0.5,
    show_default=True,
    help="A problem passes from this share of right samples on; our choice.",
)
def record(books: Path, samples: Path, pass_rate: float) -> None:
    """Note the predictions of the fold; its failures are what is kept."""
    from data_curation.arena import Arena
    from data_curation.stages.pass_rates import graded_rates

    found = Arena.load(books)
    rates = graded_rates(samples)
    found.record({name: rate.mean >= pass_rate for name, rate in rates.items() if rate.samples})
    found.save(books)
    click.echo(_state(found))


@arena.command()
@click.argument("books", type=_PATH)
def show(books: Path) -> None:
    """Folds, what was kept of each, and what comes next."""
    from data_curation.arena import Arena

    click.echo(_state(Arena.load(books)))


def _state(books: Arena) -> str:
    lines = [
        f"fold {number} of {len(books.folds)}: {len(fold)} problems"
        + (f", {len(books.kept[number - 1])} kept" if number <= len(books.kept) else ", to be predicted")
        for number, fold in enumerate(books.folds, 1)
    ]
    lines.append(
        f"{len(books.hard_ids())} problems for SFT so far, {len(books.hard_ids(keep_first=False))} of them hard"
    )
    return "\n".join(lines)
