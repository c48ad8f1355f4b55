"""The HTML report: one file that needs no network and nothing beside it."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from rlvr.report.charts import Chart, training_charts
from rlvr.report.evaluation_charts import evaluation_chart, evaluation_verdicts
from rlvr.report.rollouts import encode, load_rollouts, pick
from rlvr.report.run_data import Run, load_run
from rlvr.report.summary import SuiteTable, costs, suite_tables, what_was_trained

_HERE = Path(__file__).parent


def render_report(run_dir: Path, out: Path | None = None, *, max_rollouts: int = 60_000) -> Path:
    """Path of the report written, `run_dir/report.html` by default; whole or not at all.

    `run_dir` is the folder of one training run or of a quickstart with its stages. What is absent is named on the
    page. Beyond `max_rollouts` the viewer holds an even sample, and says so. FileNotFoundError without the folder,
    ValueError when nothing of a run is in it.
    """
    if max_rollouts < 1:
        raise ValueError(f"max_rollouts must be at least 1, got {max_rollouts}")
    run = load_run(Path(run_dir))
    target = Path(out) if out is not None else run.folder / "report.html"
    page = _render(run, max_rollouts)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(target)
    return target


def _render(run: Run, max_rollouts: int) -> str:
    charts, absent = training_charts(run)
    tables = suite_tables(run)
    rollouts = load_rollouts(run.rollout_files, most=max_rollouts)
    index, chunks = encode(rollouts) if len(rollouts) else ("", [])
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["rate"] = lambda value: f"{100 * value:.1f}"
    return environment.get_template("page.html.j2").render(
        run=run,
        title=f"{run.name}: training report",
        sentence=what_was_trained(run),
        headlines=[headline for table in tables if (headline := _headline(table))],
        costs=costs(run),
        tables=tables,
        evaluation_charts=_evaluation_charts(run),
        charts=[_svg(chart) for chart in charts],
        absent=absent if run.segments else [],
        picks=pick(rollouts),
        rollouts=rollouts,
        index=index,
        chunks=chunks,
        details=_details(run),
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        css=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((_HERE / "viewer.js").read_text(encoding="utf-8")),
    )


def _evaluation_charts(run: Run) -> list[dict[str, Any]]:
    found = []
    for place, (suite, evaluations) in enumerate(run.suites.items()):
        rates = evaluation_chart(suite, evaluations, f"rates{place}")
        verdicts = evaluation_verdicts(suite, evaluations, f"outcomes{place}")
        found += [_svg(chart) for chart in (rates, verdicts) if chart is not None]
    return found


def _svg(chart: Chart) -> dict[str, Any]:
    return {"key": chart.key, "title": chart.title, "caption": chart.caption, "image": Markup(chart.image)}


def _headline(table: SuiteTable) -> dict[str, Any] | None:
    """First against last checkpoint of a suite, over all problems."""
    if not table.labels:
        return None
    first, last = table.labels[0], table.labels[-1]
    cards = []
    for metric in table.metrics:
        before, after = table.cell(first, metric), table.cell(last, metric)
        if after.estimate is not None:
            known = before.estimate if len(table.labels) > 1 else None
            cards.append({"metric": metric, "before": known, "after": after.estimate, "gain": after.gain})
    problems = next(row.problems for row in table.rows if row.difficulty == "all")
    return {"suite": table.suite, "first": first, "last": last, "cards": cards, "problems": problems,
            "samples": table.samples, "several": len(table.labels) > 1}  # fmt: skip


def _details(run: Run) -> list[tuple[str, str]]:
    """(title, text) of what lies folded at the end of the page."""
    found = []
    if run.config:
        found.append(("Resolved recipe", yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True, width=100)))
    if run.environment:
        found.append(("Environment", yaml.safe_dump(run.environment, sort_keys=False, allow_unicode=True, width=100)))
    if run.funnel is not None:
        found.append(("Curation funnel", yaml.safe_dump(run.funnel, sort_keys=False, allow_unicode=True, width=100)))
    for evaluation in run.evaluations:
        facts = evaluation.results.model_dump(mode="json", exclude={"results", "per_problem"})
        title = f"Evaluation of {evaluation.label} on {evaluation.suite}"
        found.append((title, yaml.safe_dump(facts, sort_keys=False, allow_unicode=True, width=100)))
    return found
