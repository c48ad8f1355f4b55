"""What the tests of published problems are worth: references they accept, wrong programs they let through.

    python benchmarks/test_suites.py SOURCE [SOURCE ...] [--limit 200] [--out outputs/test-suites]

SOURCE is a source as curation reads it. Each goes through curation's stages with strengthening on (a single accepted
program is trusted where that is all there is; large generated tests are left aside). The table has, for each source:
the share of accepted programs that pass, and of wrong ones that fail; the share of mutants the tests kill before and
after strengthening; the false-positive rate, which is the share of wrong programs that pass all tests. "Unseen" are
the mutants that had no say in which tests were added: theirs is the rate to quote. A killed run continues.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_curation import CurationConfig, curate
from data_curation.config import GenerateOptions, StrengthenOptions, VerifyOptions
from data_curation.steps import StepRecord


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--limit", type=int, default=200, help="problems of each source")
    parser.add_argument("--out", type=Path, default=Path("outputs/test-suites"))
    arguments = parser.parse_args()
    for number, source in enumerate(arguments.sources):
        config = CurationConfig(
            name=f"test suites of {source}",
            sources=(source,),
            limit=arguments.limit,
            planted=False,
            generate=GenerateOptions(enabled=False),
            verify=VerifyOptions(too_slow=False),
            strengthen=StrengthenOptions(enabled=True, agreeing=1),
        )
        result = curate(config, arguments.out / str(number))
        steps = {step.name: step for step in result.steps}
        print(json.dumps({"source": source} | measured(steps["load"], steps["verify"], steps["strengthen"]), indent=1))


def measured(load: StepRecord, verify: StepRecord, strengthen: StepRecord) -> dict[str, Any]:
    """Counts and rates of one source; rates over no program are None."""
    ran: Counter[str] = Counter()
    for row in verify.rows:
        ran.update({name: row[name] for name in ("accepted", "accepted_passed", "wrong", "wrong_rejected")})
    tried = [row for row in strengthen.rows if row["wrong"] + row["unseen"]]
    made = [row for row in tried if row["inputs_tried"]]
    return {
        "problems read": load.went_on,
        "problems with programs run": sum(bool(row["accepted"] + row["wrong"]) for row in verify.rows),
        "accepted programs": ran["accepted"],
        "true-positive rate": _rate(ran["accepted_passed"], ran["accepted"]),
        "labelled wrong programs": ran["wrong"],
        "true-negative rate": _rate(ran["wrong_rejected"], ran["wrong"]),
        "problems with wrong programs or mutants": len(tried),
        "all of them": killed(tried),
        "problems for which inputs were made": len(made),
        "of these": killed(made),
        "problems strengthened": sum(bool(row["added"]) for row in tried),
        "tests added": sum(row["added"] for row in tried),
        "passed over": dict(Counter(_kind(row["skipped"]) for row in strengthen.rows if row["skipped"]).most_common()),
    }


def killed(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """For choosing and for unseen wrong programs: how many, share killed and false-positive rate, before and after."""
    found: dict[str, Any] = {}
    for name, programs, prefix in (("choosing", "wrong", "accepted"), ("unseen", "unseen", "unseen_accepted")):
        count = sum(row[programs] for row in rows)
        passing = [sum(row[f"{prefix}_{when}"] for row in rows) for when in ("before", "after")]
        found[name] = {
            "programs": count,
            "killed before, after": [_rate(count - number, count) for number in passing],
            "false-positive rate before, after": [_rate(number, count) for number in passing],
        }
    return found


def _kind(reason: str) -> str:
    return reason.partition(":")[0]


def _rate(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


if __name__ == "__main__":
    main()
