"""The files a recipe names beside its sources: read whole before a run begins, so that it is never refused half-way."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from data_curation.config import CurationConfig
from data_curation.schema import Problem
from data_curation.sources import check_source, iter_problems, local_files
from data_curation.stages.pass_rates import check_samples
from data_curation.steps import file_hash


def faults_of_inputs(config: CurationConfig, *, ask_hub: bool = False) -> Iterator[Exception]:
    """What would stop a run of this recipe hours later, one error a fault.

    Sources must be there; their rows are the run's own matter, which counts the bad ones. Evaluation sets and samples
    are read to the end: a row passed over there would be contamination, or a rate, that nobody sees. Sets of the hub
    are left alone unless `ask_hub`.
    """
    for source in config.sources:
        try:
            check_source(source)
        except (ValueError, FileNotFoundError) as error:
            yield error
    for source in config.decontaminate.against:
        try:
            check_source(source)
            if ask_hub or local_files(source):
                evaluation_set(source)
        except (ValueError, FileNotFoundError) as error:
            yield error
    if config.difficulty.samples is not None:
        try:
            check_samples(config.difficulty.samples)
        except (ValueError, FileNotFoundError) as error:
            yield error


def evaluation_set(source: str) -> tuple[Problem, ...]:
    """Id, title and statement of every problem of an evaluation set; read once while its files stay the same.

    RowError for a row that cannot be read, ValueError for a set without problems.
    """
    return _read(source, source_state(source))


@lru_cache(maxsize=32)
def _read(source: str, state: str) -> tuple[Problem, ...]:
    problems = tuple(Problem(id=p.id, title=p.title, statement=p.statement) for p in iter_problems(source))
    if not problems:
        raise ValueError(f"{source}: an evaluation set without problems")
    return problems


def source_state(source: str) -> str:
    """What a source holds, as a hash of its files' bytes; for a hub data set its name."""
    return f"{source}\n" + "".join(f"{file.name} {file_hash(file)}\n" for file in local_files(source))
