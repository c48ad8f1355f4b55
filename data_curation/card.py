"""The dataset card: what is in a published data set, under which licences, and what was checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jinja2
import yaml

from data_curation.config import CurationConfig

# spellings of sources -> identifiers of the hub
_LICENCES = {
    "apache-2.0": "apache-2.0",
    "mit": "mit",
    "cc-by-4.0": "cc-by-4.0",
    "cc by 4.0": "cc-by-4.0",
    "cc-by-sa-4.0": "cc-by-sa-4.0",
    "cc0-1.0": "cc0-1.0",
    "bsd-3-clause": "bsd-3-clause",
}
NOT_STATED = "not stated"


def dataset_card(config: CurationConfig, funnel: dict[str, Any], contamination: Sequence[dict[str, Any]]) -> str:
    """The card as Markdown with the front matter that tells `datasets` which files are which split."""
    loader = jinja2.PackageLoader("data_curation", "templates")
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    sides = funnel["problems"]
    splits = [split for split, side in (("train", "train"), ("test", "heldout")) if sides[side]["count"]]
    licences = sorted({*sides["train"]["by_license"], *sides["heldout"]["by_license"]})
    matter = {
        "license": _licence(licences),
        "pretty_name": config.name,
        "task_categories": ["text-generation"],
        "tags": ["code", "competitive-programming", "reinforcement-learning"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*"} for split in splits],
            }
        ],
    }
    stages = {stage["stage"]: stage for stage in funnel["stages"]}
    by_set: dict[str, int] = {}
    for row in contamination:
        by_set[row["evaluation_set"]] = by_set.get(row["evaluation_set"], 0) + 1
    return environment.get_template("card.md.j2").render(
        matter=yaml.safe_dump(matter, sort_keys=False).strip(),
        config=config,
        funnel=funnel,
        licences=licences,
        sources=sorted({*sides["train"]["by_source"], *sides["heldout"]["by_source"]}),
        decontaminated=stages.get("decontaminate"),
        verified=stages.get("verify", {}).get("figures", {}),
        by_set=by_set,
        recipe=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False).strip(),
    )


def _licence(found: Sequence[str]) -> str:
    """The hub's identifier where all problems share a licence it knows, else "other"."""
    known = {_LICENCES.get(licence.casefold(), "other") for licence in found}
    return known.pop() if len(known) == 1 else "other"
