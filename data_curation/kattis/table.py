"""A verification as text for people and as data for programs."""

from __future__ import annotations

from typing import Any

from data_curation.kattis.verify import Row, Verification

_MARKS = {True: "ok", False: "MISMATCH", None: "-"}


def text(found: Verification) -> str:
    """The table of one package: a line for each submission, then what is wrong with the package as a whole."""
    package = found.package
    samples = sum(test.sample for test in package.tests)
    validator = f"{package.validator.language} validator" if package.validator else "default validator"
    if package.metadata.interactive:
        validator = f"interactive {validator}"
    lines = [
        f"{package.name}: {package.metadata.name!r}, {len(package.tests)} tests ({samples} samples), "
        f"time limit {found.time_limit_s:g} s ({found.time_limit_from}), {package.metadata.memory_mb} MiB, {validator}"
    ]
    if package.metadata.repaired:
        lines.append("  problem.yaml is no YAML as it stands (an unquoted colon?) and was read line by line")
    width = max([len(row.submission.name) for row in found.rows] + [10])
    lines.append(f"  {'submission':{width}s}  language    expected     verdict  tests     CPU s     MiB")
    for row in found.rows:
        tests = f"{row.passed}/{len(row.results)}"
        lines.append(
            f"  {row.submission.name:{width}s}  {row.submission.language or '?':10s}  {row.submission.expected:11s}  "
            f"{row.verdict:7s}  {tests:8s}  {row.slowest_s:5.2f}  {row.memory_mb:6.1f}  {_MARKS[row.as_expected]}"
            + (f"  {row.why}" if row.why and (row.as_expected is not True or row.verdict == "not run") else "")
        )
    lines += [f"  {complaint}" for complaint in found.complaints]
    return "\n".join(lines)


def data(found: Verification) -> dict[str, Any]:
    """The same as plain data."""
    package = found.package
    return {
        "package": str(package.folder),
        "name": package.metadata.name,
        "passed": found.passed,
        "tests": len(package.tests),
        "time_limit_s": found.time_limit_s,
        "time_limit_from": found.time_limit_from,
        "memory_mb": package.metadata.memory_mb,
        "complaints": found.complaints,
        "submissions": [_row(row) for row in found.rows],
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "submission": row.submission.name,
        "language": row.submission.language,
        "expected": row.submission.expected,
        "verdict": row.verdict,
        "as_expected": row.as_expected,
        "passed": row.passed,
        "run": len(row.results),
        "slowest_s": row.slowest_s,
        "memory_mb": row.memory_mb,
        "why": row.why,
        "tests": {
            name: {"verdict": case.verdict, "cpu_s": case.cpu_s, "memory_mb": case.memory_mb, "message": case.message}
            for name, case in row.results.items()
        },
    }
