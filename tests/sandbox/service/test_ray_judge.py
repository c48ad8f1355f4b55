"""Judging on a local cluster of several Ray nodes, one of which dies in the middle of a batch."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import ray
from ray.cluster_utils import Cluster
from running_service import ADDING, PATIENT, ROOT, SUMS

from sandbox import Submission, TestCase, Verdict
from sandbox.service.ray_judge import ClusterUnusable, RayJudge

pytestmark = pytest.mark.slow
SLEEPY = "import time; time.sleep(0.1); print(sum(map(int, input().split())))"
SMALL_STORE = 80 << 20


@pytest.fixture(scope="module")
def cluster(protected: None) -> Iterator[Cluster]:
    """A head without CPUs: it holds the driver, programs run elsewhere. A test that adds nodes takes them away."""
    paths = [str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))  # for the actors
        environment.setenv("RAY_raylet_start_wait_time_s", "120")
        # looked at more often than by default, so that a dead node is known for dead sooner
        head = {"num_cpus": 0, "object_store_memory": SMALL_STORE, "_system_config": {"health_check_period_ms": 500}}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def test_a_cluster_that_cannot_judge_says_why(cluster: Cluster) -> None:
    with pytest.raises(ClusterUnusable, match="no node of the Ray cluster can judge"):
        RayJudge(cluster.address, workers=1, start_s=0.5)


def test_a_cluster_judges_and_a_node_that_dies_loses_nothing(cluster: Cluster) -> None:
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=SMALL_STORE) for _ in range(2)]
    cluster.wait_for_nodes()
    with RayJudge(cluster.address, workers=1) as judge:
        mixed = [ADDING, "print(3)", "print(1 / 0)", "print(", ""]
        found = judge.judge_batch([Submission(code, SUMS, limits=PATIENT) for code in mixed])
        assert [judgement.verdict for judgement in found] == [
            Verdict.AC, Verdict.WA, Verdict.RE, Verdict.CE, Verdict.NO_CODE,
        ]  # fmt: skip
        assert judge.protection in ("namespaced", "confined") and found[0].protection == judge.protection
        with pytest.raises(ValueError, match="unknown language"):
            judge.judge_batch([Submission(ADDING, SUMS, "cobol")])
        with pytest.raises(ValueError, match="no tests"):
            judge.judge_batch([Submission(ADDING, [])])

        count = 64  # both nodes hold all they are given at once when one of them dies
        seen: list[tuple[int, Verdict]] = []
        submissions = [Submission(f"{SLEEPY} # {n}", [TestCase(f"{n} 1\n", f"{n + 1}\n")]) for n in range(count)]
        for index, judgement in judge.as_completed(submissions):
            seen.append((index, judgement.verdict))
            if len(seen) == 1:
                victim = next(node for node in nodes if node.node_id in judge.nodes)
                cluster.remove_node(victim, allow_graceful=False)
        assert sorted(index for index, _ in seen) == list(range(count)), "every program is answered, once"
        assert {verdict for _, verdict in seen} == {Verdict.AC}
        assert judge.nodes_lost == 1 and victim.node_id not in judge.nodes

        cluster.remove_node(next(node for node in nodes if node is not victim), allow_graceful=False)
        judge._patience_s = 3.0
        lost = judge.judge_batch(submissions[:3])
        assert [judgement.verdict for judgement in lost] == [Verdict.IE] * 3, "no node is not a wrong answer"
        assert judge.infrastructure_errors == 3
