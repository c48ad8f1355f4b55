"""Two results side by side, paired problem by problem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rlvr.evaluation.records import ProblemOutcome
from rlvr.evaluation.results import Results
from rlvr.evaluation.statistics import PairedDifference, by_difficulty, holm, paired_difference, pass_at_k_values


@dataclass(frozen=True, slots=True)
class Comparison:
    """`differences[difficulty][metric]`, difficulty "all" first; only problems that both results hold."""

    suite: str
    checkpoint_a: str
    checkpoint_b: str
    problems: int
    only_a: int  # problems that b lacks
    only_b: int
    differences: dict[str, dict[str, PairedDifference]]
    adjusted: dict[str, dict[str, float]] = field(default_factory=dict)  # p-values by Holm over all differences shown
    graders: tuple[str, ...] = ()  # versions of the judge, where they differ

    def __str__(self) -> str:
        lines = [f"{self.suite}: {self.checkpoint_a or 'a'} -> {self.checkpoint_b or 'b'}, {self.problems} problems"]
        if self.only_a or self.only_b:
            lines.append(f"  left out: {self.only_a} problems only in the first, {self.only_b} only in the second")
        if self.graders:
            lines.append(f"  graded by different judges ({', '.join(self.graders)}): --regrade, then compare again")
        for level, metrics in self.differences.items():
            for name, d in metrics.items():
                lines.append(
                    f"  {level:>8} {name:<8} {d.mean_a:.3f} -> {d.mean_b:.3f}  {d.difference:+.3f} "
                    f"[{d.ci95[0]:+.3f}, {d.ci95[1]:+.3f}]  p={d.p_value:.2g}{self._holm(level, name)}"
                    f"  ({d.problems} problems)"
                )
        return "\n".join(lines)

    def _holm(self, level: str, name: str) -> str:
        value = self.adjusted.get(level, {}).get(name)
        return "" if value is None else f" (Holm {value:.2g}{', real at 5%' if value < 0.05 else ''})"


def adjust(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with the p-values of all their differences adjusted together (Holm)."""
    places = [
        (number, level, name)
        for number, comparison in enumerate(comparisons)
        for level, metrics in comparison.differences.items()
        for name in metrics
    ]
    values = holm([comparisons[number].differences[level][name].p_value for number, level, name in places])
    adjusted: list[dict[str, dict[str, float]]] = [{} for _ in comparisons]
    for (number, level, name), value in zip(places, values, strict=True):
        adjusted[number].setdefault(level, {})[name] = value
    return [replace(comparison, adjusted=found) for comparison, found in zip(comparisons, adjusted, strict=True)]


def compare(results_a: Results, results_b: Results, *, suite: str | None = None) -> Comparison:
    """What `results_b` gained over `results_a`, paired by problem. ValueError when nothing can be paired.

    Greedy results are 0 or 1, where the sign-flip test is McNemar's exact test. p-values are also adjusted for the
    number of differences shown; across several comparisons, use `adjust`.
    """
    shared = [name for name in results_a.per_problem if name in results_b.per_problem]
    if suite is None and len(shared) > 1:
        raise ValueError(f"both results hold several suites, name one of {', '.join(shared)}")
    chosen = suite if suite is not None else (shared[0] if shared else None)
    if chosen is None or chosen not in shared:
        raise ValueError(
            f"suite {chosen or '(any)'} is not in both results: {', '.join(results_a.per_problem) or 'none'} "
            f"against {', '.join(results_b.per_problem) or 'none'}"
        )
    first, second = results_a.per_problem[chosen], results_b.per_problem[chosen]
    common = [problem for problem in first if problem in second]
    if not common:
        raise ValueError(f"suite {chosen!r}: the two results have no problem in common, so they cannot be compared")
    ks = sorted(set(results_a.results[chosen].pass_at) & set(results_b.results[chosen].pass_at))
    levels: dict[str, list[str]] = {"all": common}
    parts = by_difficulty((first[problem].difficulty for problem in common), common)
    if len(parts) > 1:
        levels |= parts
    graders = sorted({str(results.config.get("grader") or "unnamed") for results in (results_a, results_b)})
    comparison = Comparison(
        suite=chosen,
        checkpoint_a=results_a.checkpoint,
        checkpoint_b=results_b.checkpoint,
        problems=len(common),
        only_a=len(first) - len(common),
        only_b=len(second) - len(common),
        differences={level: _differences(first, second, ids, ks) for level, ids in levels.items()},
        graders=tuple(graders) if len(graders) > 1 else (),
    )
    return adjust([comparison])[0]


def _differences(
    first: Mapping[str, ProblemOutcome], second: Mapping[str, ProblemOutcome], ids: Sequence[str], ks: Sequence[int]
) -> dict[str, PairedDifference]:
    found = {}
    for k in ks:
        both = [i for i in ids if min(first[i].samples, second[i].samples) >= k]
        if both:
            a, b = (
                pass_at_k_values([part[i].passed for i in both], [part[i].samples for i in both], k)
                for part in (first, second)
            )
            found[f"pass@{k}"] = paired_difference(a, b)
    both = [i for i in ids if first[i].greedy is not None and second[i].greedy is not None]
    if both:
        found["greedy"] = paired_difference(
            [float(first[i].greedy or 0) for i in both], [float(second[i].greedy or 0) for i in both]
        )
    return found
