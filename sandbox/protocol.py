"""What callers need of a judge, whether it runs in this process, behind HTTP or on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from sandbox.submission import Submission
from sandbox.verdicts import Judgement


class BatchJudge(Protocol):
    """Satisfied by `sandbox.Judge`, `sandbox.service.client.JudgeClient` and `sandbox.service.ray_judge.RayJudge`.

    Each submission is answered exactly once; a failure of the judge, its transport or its machine is an answer with
    verdict IE, never one that blames the program.
    """

    @property
    def protection(self) -> str:
        """The protection level programs run at."""

    def judge_batch(
        self,
        submissions: Iterable[Submission],
        *,
        stop: str = "first_failure",
        progress: Callable[[int, int], object] | None = None,
        keep_output: bool = False,
    ) -> list[Judgement]:
        """Judgements in the order of `submissions`."""

    def as_completed(
        self, submissions: Iterable[Submission], *, stop: str = "first_failure", keep_output: bool = False
    ) -> Iterator[tuple[int, Judgement]]:
        """(index, judgement) pairs as they come."""

    def close(self) -> None:
        """Gives back what the judge holds."""
