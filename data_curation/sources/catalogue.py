"""The public layouts we read: how a row of each is recognised, which files of a data set hold rows, who reads them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from data_curation.schema import Problem
from data_curation.sources import (
    apps,
    code_contests,
    codeforces,
    codejam,
    humaneval,
    leetcode,
    livecodebench,
    mbpp,
    published,
    reasoning,
    verifiable,
)
from data_curation.sources.files import given
from data_curation.sources.places import Place, find_place, part_of
from data_curation.sources.rows import RejectedRows, RowError, convert, problem_from_row
from data_curation.sources.tables import is_table, rows_of
from data_curation.sources.units import day

Reader = Callable[[Mapping[str, Any], int], Problem]
Options = Mapping[str, str]
WINDOW = ("after", "before")  # options every format takes: contest dates, both ends included


@dataclass(frozen=True)
class Format:
    """One published layout. `columns` are those that tell it from the others; `read` makes a problem of a row."""

    columns: frozenset[str]
    read: Reader
    hub: str = ""  # the data set this layout comes from
    part: str = ""  # what is read of a folder or a hub repository if the source names no part
    choose: Callable[[list[str], str], list[str]] = part_of
    options: tuple[str, ...] = ()
    bind: Callable[[Place, Options], Reader] | None = None  # a reader that needs the place or options

    def reader(self, place: Place, options: Options) -> Reader:
        """The reader for rows of a data set at `place`."""
        return self.bind(place, options) if self.bind else self.read


FORMATS: dict[str, Format] = {
    "livecodebench": Format(
        livecodebench.COLUMNS,
        livecodebench.livecodebench_problem,
        hub="livecodebench/code_generation_lite",
        choose=livecodebench.release_files,
    ),
    "apps": Format(apps.COLUMNS, apps.apps_problem, hub="codeparrot/apps", part="train"),
    "taco": Format(apps.TACO_COLUMNS, apps.taco_problem, hub="BAAI/TACO", part="train"),
    "code-contests": Format(
        code_contests.COLUMNS, code_contests.code_contests_problem, hub="deepmind/code_contests", part="train"
    ),
    "code-contests-plus": Format(
        code_contests.PLUS_COLUMNS,
        code_contests.code_contests_plus_problem,
        hub="ByteDance-Seed/Code-Contests-Plus",
        part="ccplus_1x",
    ),
    "codeforces": Format(
        codeforces.COLUMNS,
        codeforces.codeforces_problem,
        hub="open-r1/codeforces",
        part="data/train",
        choose=codeforces.problem_files,
        options=("tests", "generated", "submissions"),
        bind=codeforces.bind,
    ),
    "verifiable": Format(
        verifiable.COLUMNS, verifiable.verifiable_problem, hub="PrimeIntellect/verifiable-coding-problems", part="train"
    ),
    "deepcoder": Format(
        verifiable.DEEPCODER_COLUMNS,
        verifiable.deepcoder_problem,
        hub="agentica-org/DeepCoder-Preview-Dataset",
        part="train",
    ),
    "skywork": Format(
        verifiable.SKYWORK_COLUMNS, verifiable.skywork_problem, hub="Skywork/Skywork-OR1-RL-Data", part="code"
    ),
    "leetcode": Format(leetcode.COLUMNS, leetcode.leetcode_problem, hub="newfacade/LeetCodeDataset", part="train"),
    "leetcode-contest": Format(leetcode.CONTEST_COLUMNS, leetcode.contest_problem),
    "humaneval": Format(humaneval.COLUMNS, humaneval.humaneval_problem, hub="openai/openai_humaneval", part="test"),
    "mbpp": Format(mbpp.COLUMNS, mbpp.mbpp_problem, hub="google-research-datasets/mbpp", part="full"),
    "codejam": Format(codejam.COLUMNS, codejam.codejam_problem),
    "dataset": Format(
        published.COLUMNS,
        published.dataset_problem,
        part="train",
        choose=published.data_files,
        bind=published.bind,
    ),
    "trl": Format(published.TRL_COLUMNS, published.trl_problem),
    "skyrl": Format(published.SKYRL_COLUMNS, published.skyrl_problem),
    "opencodereasoning": Format(reasoning.COLUMNS, reasoning.reasoning_problem, hub="nvidia/OpenCodeReasoning"),
}


@dataclass(frozen=True)
class Source:
    """A source as it was named: "FORMAT:PLACE", with "@PART" and "?after=2024-08-01&before=..." behind it if wanted."""

    name: str
    format: str  # "" if the layout is to be told by the columns
    place: Place
    part: str = ""
    options: Options = field(default_factory=dict)

    def files(self) -> list[str]:
        """The names of the data files to be read, in order. ValueError if there are none."""
        names = self.place.names()
        if self.place.root is not None and self.place.root.is_file():
            return names
        layout = FORMATS.get(self.format)
        choose = layout.choose if layout else part_of
        chosen = choose(names, self.part or (layout.part if layout else ""))
        if not chosen and not self.part:
            chosen = choose(names, "")
        if not chosen:
            wanted = f" of {self.part}" if self.part else ""
            some = ", ".join(filter(is_table, names[:200])) or "none"
            raise ValueError(f"{self.name}: no data files{wanted} there; it has {some[:200]}")
        return chosen


def find_source(name: str) -> Source | None:
    """The source that `name` describes; None if it has no known format, is no data file and no data set we know.

    FileNotFoundError if the place is not there, ValueError for an option the format does not take.
    """
    kind, colon, where = name.partition(":")
    known = _of_hub(name)
    if known:
        kind, where = known, name
    elif not colon or kind not in FORMATS:
        path = name.partition("?")[0]
        if not is_table(path) or (colon and re.fullmatch(r"[\w-]+", kind) and not Path(path).exists()):
            return None
        kind, where = "", name
    if not where:
        return None
    where, options = _with_options(name, where, kind)
    try:
        return Source(name, kind, find_place(where), "", options)
    except FileNotFoundError:
        head, at, part = where.rpartition("@")
        if not at:
            raise
        return Source(name, kind, find_place(head), part, options)


def read_source(source: Source, rejected: RejectedRows | None = None) -> Iterator[Problem]:
    """The problems of a source as a stream, file after file."""
    low, high = (day(source.options.get(end), end) for end in WINDOW)
    for file in source.files():
        path = source.place.file(file)
        rows = rows_of(path)
        first = next(rows, None)
        if first is None:
            continue
        layout = FORMATS[source.format] if source.format else detect(first[1])
        reader = None if layout is None else layout.reader(source.place, source.options)
        shown = path if source.place.root is not None else f"{source.place.name}/{file}"
        for problem in convert(chain([first], rows), partial(_problem, reader, layout, shown), shown, rejected):
            if (low or high) and problem.date is None:
                undated = RowError(shown, None, f"{problem.id} has no date, but a window of dates is asked for")
                if rejected is None:
                    raise undated
                rejected.errors.append(undated)
            elif problem.date is None or (low or problem.date) <= problem.date <= (high or problem.date):
                yield problem


def detect(row: Any) -> Format | None:
    """The format whose columns a row has; the one with most columns if several fit; None for none."""
    if not isinstance(row, Mapping):
        return None
    found = [layout for layout in FORMATS.values() if layout.columns <= row.keys()]
    return max(found, key=lambda layout: len(layout.columns), default=None)


def folder_source(folder: str) -> Source | None:
    """A local folder with data files as a source whose layouts are told by the columns; None if it has none."""
    source = Source(folder, "", find_place(folder))
    return source if any(map(is_table, source.place.names())) else None


def _of_hub(name: str) -> str:
    """The format whose data set on the hub a bare name such as "codeparrot/apps@test" is; "" for none."""
    bare = name.partition("?")[0].partition("@")[0]
    return next((key for key, layout in FORMATS.items() if layout.hub and layout.hub == bare), "")


def hub_reader(row: Mapping[str, Any], place: Place) -> Reader | None:
    """The reader for rows like `row` of a hub data set that is streamed; None for no known layout."""
    layout = detect(row)
    return None if layout is None else layout.reader(place, {})


def _problem(reader: Reader | None, layout: Format | None, file: Any, value: Any, row: int | None) -> Problem:
    if reader is None or layout is None:
        return problem_from_row(file, row, given(value))
    if not isinstance(value, Mapping):
        raise RowError(file, row, f"expected an object, got {type(value).__name__}")
    missing = sorted(layout.columns - value.keys())
    if missing:
        name = next(key for key, other in FORMATS.items() if other is layout)
        raise RowError(file, row, f"`{missing[0]}` is missing; {name} rows have {', '.join(sorted(layout.columns))}")
    return reader(value, row or 1)


def _with_options(name: str, where: str, kind: str) -> tuple[str, Options]:
    head, mark, tail = where.rpartition("?")
    if not mark or "=" not in tail:
        return where, {}
    options = dict(pair.partition("=")[::2] for pair in tail.split("&"))
    known = [*WINDOW, *(FORMATS[kind].options if kind else ())]
    for key, value in options.items():
        if key not in known:
            raise ValueError(f"{name}: unknown option `{key}`; known: {', '.join(known)}")
        if key in WINDOW:
            try:
                datetime.date.fromisoformat(value)
            except ValueError:
                raise ValueError(f"{name}: `{key}` must be a date such as 2024-08-01, got {value!r}") from None
    return head, options
