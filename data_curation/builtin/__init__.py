"""The problem set that ships with the package: our own statements, tests and solutions."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from data_curation.builtin.pipelines import pipeline_demonstrations, pipeline_problems
from data_curation.builtin.planted import planted_problems
from data_curation.config import PipelineOptions, SftOptions
from data_curation.schema import Problem
from data_curation.sources.files import read_yaml_folder

CONTEST = Path(__file__).parent / "contest"
PARTS = ("contest", "pipelines", "planted")


def problems(
    part: str = "",
    *,
    options: PipelineOptions | None = None,
    sft: SftOptions | None = None,
    seed: int = 0,
    planted: bool = True,
) -> list[Problem]:
    """The built-in set or one part of it; "" is all parts. ValueError for an unknown part."""
    check_part(part)
    contest = contest_problems() if part != "pipelines" else []
    pool = pipeline_pool(options, sft, seed) if part != "contest" else []
    if part in ("contest", "pipelines"):
        return contest or pool
    extra = planted_problems(contest, pool, seed) if planted else []
    return extra if part == "planted" else [*contest, *pool, *extra]


def check_part(part: str) -> None:
    """ValueError for a name that is no part of the built-in set; "" is all of it."""
    if part not in ("", *PARTS):
        raise ValueError(f"builtin:{part}: unknown part; known: {', '.join(PARTS)}")


def contest_problems() -> list[Problem]:
    """The contest problems, in the order of their names."""
    return list(read_yaml_folder(CONTEST))


def pipeline_pool(
    options: PipelineOptions | None = None, sft: SftOptions | None = None, seed: int = 0
) -> list[Problem]:
    """The pools of the generated family, tagged stage1, stage2 and heldout.

    No program is in two pools, and no statement of the SFT demonstrations (same `sft` and `seed`) is in any.
    """
    options, sft = options or PipelineOptions(), sft or SftOptions()
    statements = {row["statement"] for row in demonstrations(sft, seed, options.vocabulary)}
    programs: set[str] = set()
    pool: list[Problem] = []
    for count, depths, split, tags in (
        (options.stage1, options.stage1_depths, "train", ["stage1"]),
        (options.stage2, options.stage2_depths, "train", ["stage2"]),
        (options.heldout, options.heldout_depths, "heldout", ["heldout"]),
        (options.heldout_hard, options.heldout_hard_depths, "heldout", ["heldout", "hard"]),
    ):
        drawn = pipeline_problems(
            count,
            depths,
            seed,
            split="train" if split == "train" else "heldout",
            exclude_statements=statements,
            exclude_programs=programs,
            tags=[*tags, f"split:{split}"],
            vocabulary=options.vocabulary,
        )
        pool += drawn
        statements.update(problem.statement for problem in drawn)
        programs.update(problem.solutions[0].code for problem in drawn)
    return pool


def demonstrations(sft: SftOptions | None = None, seed: int = 0, vocabulary: str = "full") -> list[dict[str, Any]]:
    """The noisy SFT corpus of the generated family; rows as `pipeline_demonstrations` gives them."""
    sft = sft or SftOptions()
    return list(_demonstrations(sft.demonstrations, sft.demonstration_depths, seed, vocabulary, sft.noise))


@lru_cache(maxsize=1)  # the pool and the SFT corpus of one run need the same demonstrations
def _demonstrations(
    count: int, depths: tuple[int, ...], seed: int, vocabulary: str, noise: float
) -> tuple[dict[str, Any], ...]:
    return tuple(pipeline_demonstrations(count, depths, seed, vocabulary=vocabulary, noise=noise))
