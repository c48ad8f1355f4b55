"""The report of a curation run: one HTML file without outside references."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml

from data_curation.config import CurationConfig
from data_curation.schema import Problem
from data_curation.storage import save_bytes

EXAMPLES = 12  # rows shown of each table of single problems


def write_report(
    path: Path,
    config: CurationConfig,
    funnel: dict[str, Any],
    environment: dict[str, Any],
    dropped: Sequence[dict[str, Any]],
    verification: Sequence[dict[str, Any]],
    problems: Sequence[Problem],
) -> None:
    """Writes the report to `path`, replacing it in one move."""
    loader = jinja2.PackageLoader("data_curation", "templates")
    template = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "report.html.j2"
    )
    reasons = Counter((row["stage"], row["reason"]) for row in dropped)
    shown: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in dropped:
        shown.setdefault((row["stage"], row["reason"]), []).append(row)
    page = template.render(
        config=config,
        recipe=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False),
        funnel=funnel,
        environment=environment,
        largest=max([stage["in"] for stage in funnel["stages"]] + [1]),
        groups=[(stage, reason, count, shown[stage, reason][:EXAMPLES]) for (stage, reason), count in reasons.items()],
        weak=[row for row in verification if row["weaknesses"]],
        examples=EXAMPLES,
        test_counts=_test_counts(problems),
    )
    save_bytes(page.encode(), path)


def _test_counts(problems: Sequence[Problem]) -> list[tuple[str, int]]:
    """(range of tests per problem, number of problems), for a bar chart."""
    bounds = ((0, 0), (1, 2), (3, 4), (5, 9), (10, 19), (20, 49), (50, 10**9))
    return [
        (
            str(low) if low == high else f"{low} or more" if high == 10**9 else f"{low} to {high}",
            sum(low <= len(p.tests) <= high for p in problems),
        )
        for low, high in bounds
    ]
