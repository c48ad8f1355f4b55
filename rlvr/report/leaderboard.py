"""leaderboard.html: evaluated models side by side, over training and problem by problem, in one file."""

from __future__ import annotations

import datetime
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from rlvr.evaluation import (
    Estimate,
    PairedDifference,
    Results,
    SampleRecord,
    SuiteMetrics,
    adjust,
    compare,
    difficulty_key,
    read_results,
    read_samples,
)
from rlvr.report import svg
from rlvr.report.drawing import legend
from rlvr.report.rollouts import packed

_HERE = Path(__file__).parent
_LONGEST = 20_000  # characters kept of one completion, prompt or program
_MOST = 40_000_000  # characters of completions on a page; beyond it only programs are kept
_WHOLE = 0.9  # a model with fewer of the problems (a subset, a file of some samples) is listed below the others
_PLACE = re.compile(r"(?:step|checkpoint)-0*(\d+)$")


@dataclass(frozen=True)
class Entry:
    """One model on one suite. `run` and `step` where it is a checkpoint of a run, else "" and None."""

    label: str
    suite: str
    folder: Path
    results: Results
    run: str
    step: int | None

    @property
    def metrics(self) -> SuiteMetrics:
        return self.results.results[self.suite]

    @property
    def main(self) -> Estimate:
        """avg@1; the smallest k where 1 was not measured."""
        return self.metrics.pass_at[min(self.metrics.pass_at)]


def find_entries(folders: Iterable[Path]) -> list[Entry]:
    """Every evaluated model and suite below `folders`. FileNotFoundError where there is none."""
    found: dict[Path, tuple[str, str, int | None, Results]] = {}
    for folder in folders:
        paths = [folder] if folder.is_file() else sorted(folder.glob("**/results.json"))
        for path in paths:
            results = read_results(path)
            found.setdefault(path.resolve(), (*_named(path.resolve().parent, results), results))
    if not found:
        raise FileNotFoundError(f"{', '.join(map(str, folders))}: no results.json there; `rlvr evaluate` writes them")
    entries = []
    for path, (name, run, step, results) in found.items():
        clash = sum(
            other[0] == name and set(other[3].results) & set(results.results) != set() for other in found.values()
        )
        model = path.parent.parent if path.parent.name in results.results else path.parent
        label = name if clash < 2 else f"{run or model.parent.name}/{name}"
        entries += [Entry(label, suite, path.parent, results, run, step) for suite in results.results]
    return _told_apart(entries)


def _told_apart(entries: list[Entry]) -> list[Entry]:
    """The entries, those of one label on one suite numbered: the page is keyed by labels."""
    seen: Counter[tuple[str, str]] = Counter()
    told = []
    for entry in entries:
        key = (entry.label, entry.suite)
        seen[key] += 1
        told.append(entry if seen[key] == 1 else replace(entry, label=f"{entry.label} ({seen[key]})"))
    return told


def _named(folder: Path, results: Results) -> tuple[str, str, int | None]:
    """(name, run, step) of the folder of a results.json, from where it lies: [RUN/evaluation/]NAME[/SUITE]."""
    parts = folder.parts
    place = max((i for i, part in enumerate(parts[:-1]) if part == "evaluation"), default=None)
    run = parts[place - 1] if place else ""
    if place is not None:
        name = parts[place + 1]
    else:
        name = folder.parent.name if folder.name in results.results else folder.name
    match = _PLACE.search(name)
    return name, run, int(match[1]) if match else None


def render_leaderboard(folders: Sequence[Path], out: Path) -> Path:
    """Path of the page written; whole or not at all. It loads nothing and needs no server."""
    entries = find_entries(folders)
    suites: dict[str, list[Entry]] = {}
    for entry in entries:
        suites.setdefault(entry.suite, []).append(entry)
    sections = [_section(number, name, members) for number, (name, members) in enumerate(sorted(suites.items()))]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["rate"] = lambda value: f"{round(100 * value, 1) + 0.0:.1f}"
    page = environment.get_template("leaderboard.html.j2").render(
        sections=sections,
        models=len({entry.label for entry in entries}),
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        css=Markup((_HERE / "page.css").read_text(encoding="utf-8") + (_HERE / "leaderboard.css").read_text("utf-8")),
        script=Markup((_HERE / "leaderboard.js").read_text(encoding="utf-8")),
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(out)
    return out


def _section(number: int, suite: str, entries: list[Entry]) -> dict[str, Any]:
    most = max(entry.metrics.problems for entry in entries)
    ranked = sorted(entries, key=lambda entry: (entry.metrics.problems < _WHOLE * most, -entry.main.value))
    behind = _against_best(ranked)
    ks = sorted({k for entry in entries for k in entry.metrics.pass_at})
    matrix, texts, clipped = _matrix(number, ranked)
    return {
        "number": number,
        "suite": suite,
        "ks": ks,
        "first": "pass@1" if all(entry.results.n_samples == 1 for entry in entries) else "avg@1",
        "rows": [
            {
                "entry": entry,
                "metrics": entry.metrics,
                "behind": behind.get(entry.label),
                "drawn": _drawn(entry),
                "part": entry.metrics.problems < most,
            }
            for entry in ranked
        ],
        "rated": any(entry.metrics.estimated_rating for entry in entries),
        "greedy": any(entry.metrics.greedy for entry in entries),
        "contaminated": {
            entry.label: f"{found} of {checked.get('suite_problems', most)}"
            for entry in entries
            if (found := (checked := entry.results.config.get("contamination") or {}).get("overlapping_problems"))
        },
        "apart": _other_problems(ranked),
        "graders": sorted({str(entry.results.config.get("grader", "")) for entry in entries} - {""}),
        "curve": _curve(suite, entries, f"curve{number}"),
        "matrix": matrix,
        "texts": texts,
        "clipped": clipped,
        "problems": most,
    }


def _drawn(entry: Entry) -> str:
    """How many samples a problem has, and how they were drawn, as far as that is known."""
    number, config = entry.results.n_samples, entry.results.config
    if config.get("samples") is not None or not config.get("sampling"):
        return str(number)
    temperature = config["sampling"]["temperature"]
    return f"{number}, greedy" if temperature == 0 else f"{number} at {temperature:g}"


def _in_order(name: str) -> list[tuple[int, str]]:
    """Sort key that puts humaneval/9 before humaneval/10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"[0-9]+|[^0-9]+", name)]


def _other_problems(ranked: Sequence[Entry]) -> dict[str, int]:
    """label -> problems in common with the best, of those who met others than it did."""
    sets = {entry.label: set(entry.results.per_problem.get(entry.suite, ())) for entry in ranked}
    best = sets[ranked[0].label]
    return {label: len(own & best) for label, own in sets.items() if own != best}


def _against_best(ranked: Sequence[Entry]) -> dict[str, tuple[PairedDifference, float]]:
    """label -> how far behind the best, with the p-value adjusted for the number of models."""
    best, *others = ranked
    pairs = []
    for entry in others:
        try:
            comparison = compare(best.results, entry.results, suite=best.suite)
        except ValueError:
            continue  # no problem in common
        name = f"pass@{min(best.metrics.pass_at)}"
        if name in comparison.differences["all"]:
            one = {"all": {name: comparison.differences["all"][name]}}
            pairs.append((entry.label, name, comparison, one))
    adjusted = adjust([replace(comparison, differences=one) for _, _, comparison, one in pairs])
    return {
        label: (one["all"][name], found.adjusted["all"][name])
        for (label, name, _, one), found in zip(pairs, adjusted, strict=True)
    }


def _curve(suite: str, entries: Sequence[Entry], key: str) -> Markup | None:
    """avg@1 over training steps with its interval, one line a run; None with fewer than two checkpoints of a run."""
    runs: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.step is not None:
            runs.setdefault(entry.run, []).append(entry)
    runs = {run: sorted(members, key=lambda e: e.step or 0) for run, members in runs.items() if len(members) > 1}
    if not runs:
        return None
    with svg.style():
        figure, (axes,) = svg.new_figure(height=2.6, width=9.0)
        for place, (run, members) in enumerate(runs.items()):
            color = svg.SERIES[place % len(svg.SERIES)]
            steps = [entry.step or 0 for entry in members]
            low, high = (np.array([entry.main.ci95[side] for entry in members]) for side in (0, 1))
            axes.fill_between(steps, low, high, color=color, alpha=0.18, lw=0)
            axes.plot(steps, [entry.main.value for entry in members], "o-", ms=4, color=color, label=run or suite)
        axes.set_xlabel("training step")
        axes.set_ylabel("avg@1")
        axes.set_ylim(bottom=0)
        legend(axes, len(runs))
        return Markup(svg.inline_svg(figure, key, f"avg@1 on {suite} over training"))


def _matrix(number: int, ranked: Sequence[Entry]) -> tuple[str, list[str], bool]:
    """(index, texts of each entry, whether completions were left out), packed for the page's script."""
    outcomes = [entry.results.per_problem[entry.suite] for entry in ranked]
    problems: dict[str, str] = {}
    for part in outcomes:
        for problem, outcome in part.items():
            problems.setdefault(problem, outcome.difficulty)
    shares = {
        problem: [
            None if problem not in part or not part[problem].samples
            else round(part[problem].passed / part[problem].samples, 4)
            for part in outcomes
        ]
        for problem in problems
    }  # fmt: skip

    def order(problem: str) -> tuple[Any, ...]:
        known = [share for share in shares[problem] if share is not None]
        return difficulty_key(problems[problem]), -float(np.mean(known)) if known else 1.0, _in_order(problem)

    names = sorted(problems, key=order)
    samples = [_samples(entry) for entry in ranked]
    clipped = sum(len(r.completion) for records in samples for r in records) > _MOST
    texts = []
    for records in samples:
        by_problem: dict[str, list[dict[str, Any]]] = {}
        for record in records:
            by_problem.setdefault(record.problem_id, []).append(_shown(record, clipped))
        texts.append(packed(by_problem))
    index = {
        "labels": [entry.label for entry in ranked],
        "problems": [[name, problems[name]] for name in names],
        "shares": [shares[name] for name in names],
        "number": number,
    }
    return packed(index), texts, clipped


def _samples(entry: Entry) -> list[SampleRecord]:
    path = entry.folder / "samples.jsonl"
    return read_samples(path) if path.is_file() else []


def _shown(record: SampleRecord, clipped: bool) -> dict[str, Any]:
    return {
        "sample": record.sample,
        "greedy": record.greedy,
        "verdict": record.verdict.value,
        "passed": record.passed,
        "tests": record.tests,
        "tokens": record.completion_tokens,
        "finish": record.finish_reason,
        "message": record.message[:2000],
        "program": record.program[:_LONGEST],
        "completion": "" if clipped else record.completion[:_LONGEST],
        "prompt": "" if clipped or record.sample or record.greedy else record.prompt[:_LONGEST],
    }
