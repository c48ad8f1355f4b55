"""The stages on a local Ray cluster of several nodes: the same files as on one machine."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from data_curation import CurationConfig, Problem, Solution, Test, curate, save_problems
from data_curation.cluster import ClusterUnreachable, RayData
from data_curation.outputs import CurationResult
from data_curation.schema import Generator
from data_curation.stages.result import Part, Result

ROOT = Path(__file__).resolve().parents[2]
SMALL_STORE = 80 << 20
NAMES = ("farm", "bank", "garden")
OPERATIONS = {"sum": "a + b", "difference": "a - b", "product": "a * b", "larger": "max(a, b)", "smaller": "min(a, b)"}


def raw_problems() -> list[Problem]:
    problems = []
    for name in NAMES:
        for word, expression in OPERATIONS.items():
            code = f"a, b = map(int, input().split())\nprint({expression})\n"
            other = f"x = input().split()\na = int(x[0])\nb = int(x[1])\nprint({expression})\n"
            wrong = "a, b = map(int, input().split())\nprint(a)\n"
            tests = [Test(input=f"{a} {b}\n", output=f"{eval(expression)}\n") for a, b in ((7, 0), (5, 2))]
            problems.append(
                Problem(
                    id=f"{name}-{word}",
                    statement=f"<p>At the {name} two integers a and b stand on the board of the {name} keeper.</p>"
                    f"<p>Print the {word} of the two integers, as everybody at the {name} would write it down.</p>",
                    tests=tests,
                    generator=Generator(code="print(input())", arguments=["3 9", "8 8"]) if word == "sum" else None,
                    solutions=[
                        Solution(code=code),
                        Solution(code=other),
                        Solution(code=wrong, verdict="wrong_answer"),
                        *([Solution(code="print(0)")] if name == "bank" and word == "larger" else []),
                    ],
                    tags=["fresh"],
                )
            )
    problems.append(problems[0].model_copy(update={"id": "copy", "statement": problems[0].statement.upper()}))
    problems.append(problems[1].model_copy(update={"id": "empty", "tests": [], "generator": None}))
    return problems


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))  # for the tasks
    cluster = started()
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def started(attempts: int = 4) -> Cluster:
    """A head and two nodes; Ray gives a node 30 seconds to start, which a busy machine may need more than once."""
    cluster = Cluster()
    try:
        # a head without CPUs: it holds the driver, the work is done elsewhere
        cluster.add_node(num_cpus=0, object_store_memory=SMALL_STORE)
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=SMALL_STORE)
        cluster.wait_for_nodes()
    except Exception as error:
        cluster.shutdown()
        if attempts == 1 or "timed out" not in str(error):
            raise
        return started(attempts - 1)
    return cluster


def recipe(tmp_path: Path) -> CurationConfig:
    raw, evaluation = tmp_path / "raw.jsonl", tmp_path / "evaluation.jsonl"
    problems = raw_problems()
    save_problems(problems, raw)
    save_problems(problems[-3:-2], evaluation)
    return CurationConfig(
        sources=(str(raw),),
        decontaminate={"against": (str(evaluation),)},
        strengthen={"enabled": True, "mutants": 4, "inputs": 6},
        filter={"samples_in_statement": False},
    )


def same_files(there: CurationResult, here: CurationResult) -> None:
    assert {(stage, dropped.reason) for stage, dropped in there.dropped} == {
        ("filter", "no tests"),
        ("deduplicate", "same statement"),
        ("decontaminate", "in an evaluation set"),
        ("verify", "accepted solution fails"),
    }
    strengthened = next(step for step in there.steps if step.name == "strengthen")
    assert strengthened.figures["wrong programs that chose"] > 0
    files = sorted(path.relative_to(here.out) for path in here.out.glob("*.parquet") if path.stem != "speeds")
    assert len(files) >= 8
    for name in (*files, Path("funnel.json")):
        assert (there.out / name).read_bytes() == (here.out / name).read_bytes(), name


class Wire:
    """Machines at the end of a wire: functions, parts and results are bytes on the way."""

    def map(self, function: Callable[[Part], Result], parts: Iterable[Part]) -> Iterator[Result]:
        sent = pickle.dumps(function)
        for part in parts:
            yield pickle.loads(pickle.dumps(pickle.loads(sent)(pickle.loads(pickle.dumps(part)))))


def test_parts_computed_elsewhere_give_the_bytes_of_one_machine(tmp_path: Path) -> None:
    config = recipe(tmp_path)
    there = curate(config, tmp_path / "there", show_progress=False, machines=Wire())
    same_files(there, curate(config, tmp_path / "here", show_progress=False))


@pytest.mark.slow
def test_a_cluster_gives_the_bytes_of_one_machine(cluster: Cluster, tmp_path: Path) -> None:
    config = recipe(tmp_path)
    with RayData(cluster.address) as machines:
        there = curate(config, tmp_path / "there", show_progress=False, machines=machines)

        def square(number: int) -> tuple[int, str]:
            return number * number, ray.get_runtime_context().get_node_id()

        squares = machines.map(square, range(40))
        numbers, nodes = zip(*squares, strict=True)
    assert numbers == tuple(n * n for n in range(40)) and len(set(nodes)) == 2, "in order, and both nodes worked"
    same_files(there, curate(config, tmp_path / "here", show_progress=False))


def test_no_cluster_at_the_address_is_one_line() -> None:
    with pytest.raises(ClusterUnreachable, match=r"no Ray cluster at '127\.0\.0\.1:1'"):
        RayData("127.0.0.1:1")
