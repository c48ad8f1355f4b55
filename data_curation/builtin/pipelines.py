"""The generated family: "read a list, change it in a few steps, print something" in unlimited supply.

A statement is an opening, `depth` list steps and one printing step; a program is two reading lines and one line a
step. A problem's family is its sequence of operation names, and families are split by hash, so that held-out
problems ask for sequences that no demonstration and no training problem contains. Everything is a function of the
seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from data_curation.builtin.operations import VOCABULARIES, Operation, Vocabulary, evaluator
from data_curation.families import is_heldout
from data_curation.schema import Problem, Solution, Test

OPENINGS = (
    "Read n and a list of n integers.",
    "The input holds n and then n integers.",
    "You are given n integers.",
)
JOINS = ("Then", "Next", "Afterwards")
READING_LINES = ("n=int(input())", "a=list(map(int,input().split()))")
TESTS = 10
DROP_RATE = SWAP_RATE = 0.04
ATTEMPTS_PER_PROBLEM = 2000
VALUE_RANGES = ((-12, 12), (-30, 30), (0, 12), (-9, -1))

Step = tuple[str, bool]  # expression over `a`, does it print


@dataclass(frozen=True)
class Pipeline:
    """One draw from the family: operations with their constants, and the statement that asks for them."""

    operations: tuple[Operation, ...]
    constants: tuple[int | None, ...]
    statement: str

    @property
    def family(self) -> str:
        return " > ".join(operation.name for operation in self.operations)

    @property
    def problem_id(self) -> str:
        return "pipelines-" + hashlib.sha256(self.statement.encode()).hexdigest()[:12]

    def right_steps(self) -> list[Step]:
        return [
            (_with_constant(operation.right, k), operation.prints)
            for operation, k in zip(self.operations, self.constants, strict=True)
        ]

    def wrong_steps(self, index: int) -> list[Step]:
        """The wrong forms of step `index`."""
        operation, k = self.operations[index], self.constants[index]
        return [(_with_constant(wrong, k), operation.prints) for wrong in operation.wrong]


def pipeline_problems(
    count: int,
    depths: Sequence[int],
    seed: int,
    *,
    split: Literal["train", "heldout"] | None,
    exclude_statements: Collection[str] = frozenset(),
    exclude_programs: Collection[str] = frozenset(),
    tags: Sequence[str] = (),
    vocabulary: str = "full",
) -> list[Problem]:
    """`count` problems whose depths go through `depths` in turn; no statement and no program occurs twice.

    A draw is rejected if its tests show fewer than three different outputs (two for YES/NO), if the tests do not
    notice one of its list lines missing, or if they accept all wrong forms. ValueError when a depth is exhausted.
    """
    _check_depths(depths)
    random = Random(f"problems {seed} {split} {tuple(depths)}")
    statements, programs = set(exclude_statements), set(exclude_programs)
    problems: list[Problem] = []
    for index in range(count):
        depth = depths[index % len(depths)]
        for _ in range(ATTEMPTS_PER_PROBLEM):
            pipeline = _draw(random, depth, VOCABULARIES[vocabulary])
            if split is not None and is_heldout(pipeline.family) != (split == "heldout"):
                continue
            program = program_text(pipeline.right_steps())
            if pipeline.statement in statements or program in programs:
                continue
            problem = _problem(random, pipeline, program, depth, tags)
            if problem is not None:
                statements.add(problem.statement)
                programs.add(program)
                problems.append(problem)
                break
        else:
            raise ValueError(
                f"pipelines: no new problem of depth {depth} in {ATTEMPTS_PER_PROBLEM} draws after "
                f"{len(problems)} of {count}; ask for fewer or for more depths"
            )
    return problems


def pipeline_demonstrations(
    count: int, depths: Sequence[int], seed: int, *, vocabulary: str = "full", noise: float = 1.0
) -> list[dict[str, Any]]:
    """`count` statements with programs of mixed quality, like scraped submissions, never of a held-out family.

    Each is a dict with `problem_id`, `statement`, `program`, `family` and `passes` (whether the program is right on
    ten tests). Statements may repeat: few of depth 0 exist. `noise` scales every operation's bug rate.
    """
    _check_depths(depths)
    random = Random(f"demonstrations {seed} {tuple(depths)}")
    demonstrations: list[dict[str, Any]] = []
    for index in range(count):
        pipeline = _draw_training(random, depths[index % len(depths)], VOCABULARIES[vocabulary])
        right = pipeline.right_steps()
        steps = _noisy(random, pipeline, right, noise)
        passes = steps == right or _same_output(_inputs(random, pipeline), steps, right)
        demonstrations.append(
            {
                "problem_id": pipeline.problem_id,
                "statement": pipeline.statement,
                "program": program_text(steps),
                "family": pipeline.family,
                "passes": passes,
            }
        )
    return demonstrations


def program_text(steps: Sequence[Step]) -> str:
    """The Python program of these steps: reading lines, then one line a step."""
    lines = [f"print({expression})" if prints else f"a={expression}" for expression, prints in steps]
    return "\n".join((*READING_LINES, *lines))


def run_steps(steps: Sequence[Step], numbers: list[int]) -> str | None:
    """What the program of these steps prints for the list, or None if it raises."""
    values, printed = numbers, ""
    try:
        for expression, prints in steps:
            result = evaluator(expression, prints)(values)
            if prints:
                printed = result
            else:
                values = result
    except Exception:  # the wrong forms raise what any wrong program may raise; that is their outcome
        return None
    return printed


def _check_depths(depths: Sequence[int]) -> None:
    if not depths or min(depths) < 0:
        raise ValueError(f"pipelines: depths must be a non-empty list of numbers >= 0, got {list(depths)}")


def _with_constant(text: str, k: int | None) -> str:
    return text if k is None else text.replace("{k}", str(k))


def _draw(random: Random, depth: int, vocabulary: Vocabulary) -> Pipeline:
    operations = [_pick(random, vocabulary.steps) for _ in range(depth)]
    operations.append(_pick(random, vocabulary.prints))
    constants = tuple(_pick(random, op.constants) if op.constants else None for op in operations)
    sentences = [_pick(random, OPENINGS)]
    for position, (operation, k) in enumerate(zip(operations, constants, strict=True)):
        phrase = _with_constant(_pick(random, operation.phrasings), k)
        joined = f"{_pick(random, JOINS)} {phrase}." if position else f"{phrase[0].upper()}{phrase[1:]}."
        sentences.append(joined)
    return Pipeline(tuple(operations), constants, " ".join(sentences))


def _draw_training(random: Random, depth: int, vocabulary: Vocabulary) -> Pipeline:
    for _ in range(ATTEMPTS_PER_PROBLEM):
        pipeline = _draw(random, depth, vocabulary)
        if not is_heldout(pipeline.family):
            return pipeline
    raise ValueError(f"pipelines: every family of depth {depth} drawn is held out")


def _pick(random: Random, choices: Sequence[Any]) -> Any:
    # several times faster than random.choice, and these draws are most of the generator's time
    return choices[int(random.random() * len(choices))]


def _inputs(random: Random, pipeline: Pipeline) -> list[list[int]]:
    """Ten lists: two short ones, then eight of 4 to 10 values; every third holds the constants, a 0 and a repeat."""
    constants = [k for k in pipeline.constants if k is not None]
    inputs = []
    for index in range(TESTS):
        size = 1 + int(random.random() * 2) if index < 2 else 4 + int(random.random() * 7)
        low, high = _pick(random, VALUE_RANGES)
        width = high - low + 1
        numbers = [low + int(random.random() * width) for _ in range(size)]
        if index % 3 == 2:
            for planted in (*constants, 0, numbers[0]):
                numbers[int(random.random() * size)] = planted
        inputs.append(numbers)
    return inputs


def _same_output(inputs: list[list[int]], steps: Sequence[Step], right: Sequence[Step]) -> bool:
    return all(run_steps(steps, numbers) == run_steps(right, numbers) for numbers in inputs)


def _problem(random: Random, pipeline: Pipeline, program: str, depth: int, tags: Sequence[str]) -> Problem | None:
    """The problem of this draw, or None if its tests would be too weak."""
    inputs, right = _inputs(random, pipeline), pipeline.right_steps()
    outputs = [run_steps(right, numbers) for numbers in inputs]
    if len(set(outputs)) < (2 if pipeline.operations[-1].yes_no else 3):
        return None
    for index in range(depth):
        shorter = [*right[:index], *right[index + 1 :]]
        if _accepts(inputs, outputs, shorter):
            return None
    wrong = [
        Solution(code=program_text(steps), verdict="wrong_answer", note=f"wrong form of {name}")
        for name, steps in _wrong_programs(random, pipeline, right)
        if not _accepts(inputs, outputs, steps)
    ][:2]
    if not wrong:
        return None
    return Problem(
        id=pipeline.problem_id,
        title=f"List pipeline {pipeline.problem_id[-6:]}",
        statement=pipeline.statement,
        tests=[
            Test(input=f"{len(numbers)}\n{' '.join(map(str, numbers))}\n", output=f"{output}\n")
            for numbers, output in zip(inputs, outputs, strict=True)
        ],
        cpu_s=1.0,
        solutions=[Solution(code=program, note="generated"), *wrong],
        family=pipeline.family,
        difficulty=f"depth {depth}",
        tags=["pipelines", *tags],
        source="builtin:pipelines",
        license="Apache-2.0",
    )


def _accepts(inputs: list[list[int]], outputs: list[str | None], steps: Sequence[Step]) -> bool:
    return all(run_steps(steps, numbers) == output for numbers, output in zip(inputs, outputs, strict=True))


def _wrong_programs(random: Random, pipeline: Pipeline, right: list[Step]) -> Iterator[tuple[str, list[Step]]]:
    """Right programs with one line in a wrong form, each line at most once, in random order."""
    order = list(range(len(right)))
    random.shuffle(order)
    for index in order:
        yield (
            pipeline.operations[index].name,
            [*right[:index], _pick(random, pipeline.wrong_steps(index)), *right[index + 1 :]],
        )


def _noisy(random: Random, pipeline: Pipeline, right: list[Step], noise: float) -> list[Step]:
    steps = list(right)
    for index, operation in enumerate(pipeline.operations):
        if random.random() < noise * operation.bug_rate:
            steps[index] = _pick(random, pipeline.wrong_steps(index))
    if random.random() < DROP_RATE:
        del steps[int(random.random() * len(steps))]
    if random.random() < SWAP_RATE and len(steps) > 1:
        first = int(random.random() * (len(steps) - 1))
        steps[first], steps[first + 1] = steps[first + 1], steps[first]
    return steps
