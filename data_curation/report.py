"""The report of a curation run: one HTML file without outside references."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from data_curation.config import CurationConfig
from data_curation.excerpts import duplicate_pairs, excerpt, texts_of
from data_curation.facts import Fact
from data_curation.families import unit_hash
from data_curation.schema import Problem
from data_curation.storage import save_bytes

EXAMPLES = 12  # rows shown of each table of single problems
PAIRS = 6  # duplicates shown side by side
KEPT = 6  # kept problems shown whole
_LEVELS = ("introductory", "easy", "interview", "medium", "medium_hard", "hard", "competition", "very_hard", "unrated")
Bars = list[tuple[str, int, int]]  # (label, training problems, held-out problems)


def write_report(
    path: Path,
    config: CurationConfig,
    funnel: dict[str, Any],
    environment: dict[str, Any],
    dropped: Sequence[dict[str, Any]],
    verification: Sequence[dict[str, Any]],
    facts: Sequence[Fact],
    problems: Sequence[Problem],
    contamination: Sequence[dict[str, Any]] = (),
    stages: Path | None = None,
) -> None:
    """Writes the report to `path`, replacing it in one move. `stages` is where the run keeps the stages' outputs."""
    loader = jinja2.PackageLoader("data_curation", "templates")
    template = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "report.html.j2"
    )
    texts = _dropped_texts(dropped, [stage["stage"] for stage in funnel["stages"]], stages)
    reasons = Counter((row["stage"], row["reason"]) for row in dropped)
    shown: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in dropped:
        examples = shown.setdefault((row["stage"], row["reason"]), [])
        if len(examples) < EXAMPLES:
            text = texts.get(row["stage"], {}).get(row["id"])
            examples.append(
                {**row, "title": text["title"] if text else "", "text": excerpt(text["statement"]) if text else ""}
            )
    copies = _of(dropped, "deduplicate")
    page = template.render(
        config=config,
        recipe=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False),
        funnel=funnel,
        environment=environment,
        largest=max([stage["in"] for stage in funnel["stages"]] + [1]),
        groups=[(stage, reason, count, shown[stage, reason]) for (stage, reason), count in reasons.items()],
        pairs=duplicate_pairs(copies, texts.get("deduplicate", {}), PAIRS),
        copies=len(copies),
        contamination=contamination,
        weak=[row for row in verification if row["weaknesses"]],
        wrong_run=sum(row["wrong"] for row in verification),
        kept=_kept(problems),
        examples=EXAMPLES,
        charts=charts(facts),
        undated=sum(fact.date is None for fact in facts),
    )
    save_bytes(page.encode(), path)


def _of(rows: Iterable[dict[str, Any]], stage: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["stage"] == stage]


def _dropped_texts(
    dropped: Sequence[dict[str, Any]], names: Sequence[str], stages: Path | None
) -> dict[str, dict[str, dict[str, str]]]:
    """stage -> id -> text, of the dropped problems that are shown and of what was kept instead of them."""
    found = {}
    for number, name in enumerate(names):
        if stages is None or number == 0:  # rows that could not be read never were problems
            continue
        rows = _of(dropped, name)
        wanted = {row["id"] for row in _first_of_each_reason(rows)} | {
            identity for row in rows if row["kept_instead"] for identity in (row["id"], row["kept_instead"])
        }
        found[name] = texts_of(stages / f"{number - 1}-{names[number - 1]}", wanted)
    return found


def _first_of_each_reason(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    counts: Counter[str] = Counter()
    first = []
    for row in rows:
        counts[row["reason"]] += 1
        if counts[row["reason"]] <= EXAMPLES:
            first.append(row)
    return first


def _kept(problems: Iterable[Problem]) -> list[tuple[Problem, str]]:
    """A few kept problems, the same in every run: those whose ids hash lowest."""
    chosen = heapq.nsmallest(KEPT, problems, key=lambda problem: unit_hash(f"shown {problem.id}"))
    return [(problem, excerpt(problem.statement)) for problem in chosen]


def charts(facts: Sequence[Fact]) -> list[tuple[str, Bars]]:
    """(title, bars) of the histograms that have something to tell: difficulty, rating, date, sizes."""
    years = {fact.date.year for fact in facts if fact.date}
    by_month = len(years) <= 2
    found = [
        ("Difficulty", _counted(facts, lambda fact: fact.difficulty or "not stated", key=_level)),
        (
            "Rating",
            _ranged(facts, lambda fact: fact.rating, (0, 800, 1000, 1200, 1400, 1600, 1800, 2000, 2400, 2800, 3200)),
        ),
        (
            "Contest month" if by_month else "Contest year",
            _counted(facts, lambda fact: fact.date.strftime("%Y-%m" if by_month else "%Y") if fact.date else None),
        ),
        ("Tests per problem", _ranged(facts, lambda fact: fact.tests, (0, 1, 2, 3, 5, 10, 20, 50, 100))),
        ("Words in the statement", _ranged(facts, lambda fact: fact.words, (0, 25, 50, 100, 200, 300, 500, 1000))),
        ("Size of all tests, kB", _ranged(facts, lambda fact: fact.kilobytes, (0, 1, 2, 11, 101, 1001, 10_001))),
        ("Known solutions", _ranged(facts, lambda fact: fact.solutions, (0, 1, 2, 5, 10, 20))),
    ]
    return [(title, bars) for title, bars in found if bars]


def _level(label: str) -> tuple[int, str]:
    """Numbers in order, then known names from easy to hard, then the others by name."""
    if label.isdecimal():
        return int(label), ""
    return (1000 + _LEVELS.index(label), "") if label in _LEVELS else (2000, label)


def _counted(
    facts: Sequence[Fact],
    value: Callable[[Fact], str | None],
    key: Callable[[str], Any] = lambda label: label,
) -> Bars:
    sides: dict[str, list[int]] = {}
    for fact in facts:
        label = value(fact)
        if label is not None:
            sides.setdefault(label, [0, 0])[fact.heldout] += 1
    return [(label, *sides[label]) for label in sorted(sides, key=key)]  # type: ignore[misc]


def _ranged(facts: Sequence[Fact], value: Callable[[Fact], float | None], bounds: Sequence[int]) -> Bars:
    """Counts between successive bounds; the last bound has no end. Empty ranges at both ends are left out."""
    counts = [[0, 0] for _ in bounds]
    for fact in facts:
        found = value(fact)
        if found is not None:
            place = max((n for n, low in enumerate(bounds) if found >= low), default=0)
            counts[place][fact.heldout] += 1
    used = [n for n, pair in enumerate(counts) if sum(pair)]
    if not used:
        return []
    labels = [_range_label(bounds, n) for n in range(len(bounds))]
    return [(labels[n], counts[n][0], counts[n][1]) for n in range(used[0], used[-1] + 1)]


def _range_label(bounds: Sequence[int], place: int) -> str:
    low = bounds[place]
    if place + 1 == len(bounds):
        return f"{low:,} or more"
    high = bounds[place + 1] - 1
    return f"{low:,}" if high <= low else f"{low:,} to {high:,}"
