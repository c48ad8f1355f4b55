"""Judging over HTTP: the same verdicts as here, once each, with the answers staying on the server."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import httpx
import pytest
from running_service import ADDING, PATIENT, SUMS, TOKEN, Running, serving

from sandbox import Limits, Submission, TestCase, Verdict
from sandbox.isolation import groups
from sandbox.service import wire
from sandbox.service.app import Settings
from sandbox.service.client import AsyncJudgeClient, JudgeClient, Patience, ServiceRefused
from sandbox.service.testsets import TestSets
from sandbox.service.wire import Batch, Order, TestSet

BEARER = {"Authorization": f"Bearer {TOKEN}"}
SLOW = "import time; time.sleep(1.5); print(sum(map(int, input().split())))"
MIXED = [
    (ADDING, Verdict.AC),
    ("print(3)", Verdict.WA),
    ("print(1 / 0)", Verdict.RE),
    ("print(", Verdict.CE),
    ("", Verdict.NO_CODE),
    ("while True: pass", Verdict.TLE),
]


def submissions(codes: list[str], limits: Limits = PATIENT) -> list[Submission]:
    return [Submission(code, SUMS, limits=limits) for code in codes]


def batch(job: str, *codes: str, tests: str = "sums") -> bytes:
    return wire.encode(Batch(job, tuple(Order(tests, code) for code in codes)))


def answers(response: httpx.Response) -> dict[int, dict]:
    assert response.status_code == 200, response.text
    lines = [json.loads(line) for line in response.text.splitlines() if line]
    assert len({line["index"] for line in lines}) == len(lines), "an answer came twice"
    return {line["index"]: line["judgement"] for line in lines}


def test_verdicts_over_http_are_those_of_a_local_judge(running: Running) -> None:
    quick = Limits(cpu_s=0.3, wall_s=120.0, language_factors=False)
    with JudgeClient(running.url, TOKEN) as client:
        found = client.judge_batch(submissions([code for code, _ in MIXED], quick))
        local = running.service.judge.judge_batch(submissions([code for code, _ in MIXED], quick))
        assert client.infrastructure_errors == 0
        assert client.protection == running.service.judge.protection
    assert [judgement.verdict for judgement in found] == [verdict for _, verdict in MIXED]
    assert [(j.verdict, j.passed, len(j.cases), j.protection) for j in found] == [
        (j.verdict, j.passed, len(j.cases), j.protection) for j in local
    ]


def test_as_completed_answers_every_program_once(running: Running) -> None:
    with JudgeClient(running.url, TOKEN, concurrency=3) as client:
        seen = list(client.as_completed(submissions([f"{ADDING}  # {n}" for n in range(70)])))
    assert sorted(index for index, _ in seen) == list(range(70))
    assert all(judgement.accepted for _, judgement in seen)


def test_test_sets_travel_once(running: Running) -> None:
    tests = [TestCase("", "unheard of\n")]
    with JudgeClient(running.url, TOKEN) as client:
        before = len(running.service.test_sets)
        for code in ("print('unheard of')", "print()"):
            client.judge(code, tests, limits=PATIENT)
        assert len(running.service.test_sets) == before + 1
        with JudgeClient(running.url, TOKEN) as another:
            assert another.judge("print('unheard', 'of')", tests, limits=PATIENT).accepted
        assert len(running.service.test_sets) == before + 1


def test_a_program_is_judged_on_tests_that_never_leave_the_server(running: Running) -> None:
    with JudgeClient(running.url, TOKEN) as client:
        right, wrong = client.judge_named("sums", [ADDING, "print(3)"])
        assert (right.verdict, wrong.verdict) == (Verdict.AC, Verdict.WA)
        with pytest.raises(ServiceRefused, match="holds no test set 'nothing'"):
            client.judge_named("nothing", [ADDING])
    reply = httpx.post(f"{running.url}/judge", content=batch("names-only", "print(3)"), headers=BEARER)
    assert "6" not in json.dumps(answers(reply)[0]["message"]), "the reply tells the expected output"


def test_bytes_that_are_not_utf8_arrive_as_they_are(running: Running) -> None:
    tests = [TestCase("\udcff\udc80\n", "\udc80\udcff\n")]
    code = "import sys; b = sys.stdin.buffer.read().strip(); sys.stdout.buffer.write(b[::-1])"
    with JudgeClient(running.url, TOKEN) as client:
        assert client.judge(code, tests, limits=PATIENT).accepted


def test_a_batch_sent_twice_is_run_once(running: Running) -> None:
    def judged() -> float:
        text = httpx.get(f"{running.url}/metrics", headers=BEARER).text
        return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("rlvr_judge_verdicts_total"))

    before = judged()
    message = batch("sent-twice", SLOW, ADDING)
    replies: list[dict] = []

    def send() -> None:
        replies.append(answers(httpx.post(f"{running.url}/judge", content=message, headers=BEARER, timeout=120)))

    together = [threading.Thread(target=send) for _ in range(2)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    send()  # and once more when it has ended
    assert len(replies) == 3 and replies[0] == replies[1] == replies[2]
    assert judged() == before + 2


def test_a_job_name_stands_for_one_batch(running: Running) -> None:
    assert answers(httpx.post(f"{running.url}/judge", content=batch("mine", ADDING), headers=BEARER))
    other = httpx.post(f"{running.url}/judge", content=batch("mine", "print()"), headers=BEARER)
    assert other.status_code == 409 and "another batch" in other.json()["error"]


def test_a_full_queue_says_when_to_come_back_and_the_client_does(protected: None) -> None:
    with serving(Settings(max_queue=2)) as small:
        with JudgeClient(small.url, concurrency=4) as client:
            assert client.health()["max_batch"] == 2
            too_many = httpx.put(f"{small.url}/tests/sums", content=wire.encode(TestSet(tuple(SUMS), PATIENT)))
            assert too_many.status_code == 201
            refusal = httpx.post(f"{small.url}/judge", content=batch("large", ADDING, ADDING, ADDING))
            assert refusal.status_code == 413 and "at most 2 submissions" in refusal.json()["error"]
            filling = threading.Thread(
                target=lambda: httpx.post(f"{small.url}/judge", content=batch("full", SLOW, SLOW), timeout=120)
            )
            filling.start()
            while small.service.jobs.open_submissions < 2 and filling.is_alive():
                time.sleep(0.01)
            busy = httpx.post(f"{small.url}/judge", content=batch("later", ADDING))
            assert busy.status_code == 429 and int(busy.headers["retry-after"]) >= 1
            assert httpx.post(f"{small.url}/run_code", json={"code": "", "language": "python"}).status_code == 429
            found = client.judge_batch(submissions([f"{ADDING} # {n}" for n in range(6)]))
            assert [judgement.verdict for judgement in found] == [Verdict.AC] * 6
            filling.join()
        assert small.service.jobs.open_submissions == 0


def test_without_the_token_nobody_gets_in(running: Running) -> None:
    for headers in ({}, {"Authorization": "Bearer nearly"}, {"Authorization": "Basic !!"}, {"Authorization": TOKEN}):
        for method, path in (("POST", "/judge"), ("POST", "/run_code"), ("GET", "/metrics"), ("PUT", "/tests/x")):
            assert httpx.request(method, running.url + path, headers=headers).status_code == 401
    assert httpx.get(f"{running.url}/health").json()["token"] is True
    with pytest.raises(ServiceRefused, match="token is missing or wrong"):
        JudgeClient(running.url, "wrong")
    with pytest.raises(ServiceRefused, match="token is missing or wrong"):
        asyncio.run(_judge_all(running.url, "wrong"))


def test_the_token_may_be_the_password_of_the_url(running: Running) -> None:
    url = running.url.replace("http://", f"http://judge:{TOKEN}@")
    assert httpx.post(f"{url}/run_code", json={"code": "print(1)", "language": "python"}).json()["status"] == "Success"


async def _judge_all(url: str, token: str) -> list[Verdict]:
    async with AsyncJudgeClient(url, token, concurrency=2) as client:
        one = await client.judge(ADDING, SUMS, limits=PATIENT)
        many = await client.judge_batch(submissions([ADDING, "print(3)", "print("] * 12))
        return [one.verdict, *(judgement.verdict for judgement in many)]


def test_the_asynchronous_client_gives_the_same_verdicts(running: Running) -> None:
    found = asyncio.run(_judge_all(running.url, TOKEN))
    assert found == [Verdict.AC, *([Verdict.AC, Verdict.WA, Verdict.CE] * 12)]


@pytest.mark.parametrize(
    ("submission", "complaint"),
    [
        (Submission(ADDING, SUMS, "cobol"), "unknown language 'cobol'"),
        (Submission(ADDING, SUMS, checker="vibes"), "unknown checker 'vibes'"),
        (Submission(ADDING, SUMS, limits=Limits(cpu_s=-1)), "cpu_s=-1"),
    ],
)
def test_what_cannot_be_judged_is_an_error_not_a_verdict(
    running: Running, submission: Submission, complaint: str
) -> None:
    with JudgeClient(running.url, TOKEN) as client, pytest.raises(ServiceRefused) as refused:
        client.judge_batch([submission])
    assert complaint in str(refused.value) and running.url in str(refused.value)


def test_no_tests_is_an_error_before_anything_is_sent(running: Running) -> None:
    with JudgeClient(running.url, TOKEN) as client, pytest.raises(ValueError, match="no tests"):
        client.judge(ADDING, [])


def test_what_is_too_large_is_refused_with_the_limit(protected: None) -> None:
    with serving(Settings(max_body_mb=1)) as small, JudgeClient(small.url) as client:
        with pytest.raises(ServiceRefused, match="larger than 1 MiB"):
            client.judge(ADDING, [TestCase("1" * (2 << 20), "1\n")])
        with pytest.raises(ServiceRefused, match="larger than 1 MiB"):
            client.judge(ADDING + "#" * (2 << 20), SUMS)
        assert client.judge(ADDING, SUMS, limits=PATIENT).accepted


def test_test_sets_dropped_for_lack_of_room_are_sent_again(protected: None) -> None:
    with serving(Settings(max_tests_mb=1)) as small, JudgeClient(small.url, concurrency=1) as client:
        sets = [[TestCase(f"{n} {'0 ' * 300_000}", f"{n}\n")] for n in range(1, 4)]
        for _ in range(2):
            for tests in sets:
                assert client.judge(ADDING, tests, limits=PATIENT).accepted
        assert small.service.test_sets.size_bytes <= 1 << 20
        assert len(small.service.test_sets) < len(sets)


def test_a_test_set_name_is_not_given_to_other_tests(running: Running) -> None:
    with JudgeClient(running.url, TOKEN) as client:
        client.put_tests("once", TestSet(tuple(SUMS)))
        client.put_tests("once", TestSet(tuple(SUMS)))
        with pytest.raises(ServiceRefused, match="holds other tests"):
            client.put_tests("once", TestSet((TestCase("", "other"),)))
        with pytest.raises(ServiceRefused, match="cannot be replaced"):
            client.put_tests("sums", TestSet((TestCase("", "other"),)))
        with pytest.raises(ServiceRefused, match="no tests"):
            client.put_tests("empty", TestSet(()))
        with pytest.raises(ServiceRefused, match="digest"):
            client.put_tests(wire.HASHED + "0" * 64, TestSet(tuple(SUMS)))


def test_metrics_tell_what_happened(running: Running) -> None:
    def value(name: str) -> float:
        text = httpx.get(f"{running.url}/metrics", headers=BEARER).text
        return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))

    names = ['rlvr_judge_verdicts_total{verdict="WA"}', 'rlvr_judge_timeouts_total{limit="cpu"}']
    before = [value(name) for name in names]
    with JudgeClient(running.url, TOKEN) as client:
        client.judge("print(3)", SUMS, limits=PATIENT)
        client.judge("while 1: pass", SUMS, limits=Limits(cpu_s=0.1, wall_s=120, language_factors=False))
    assert [value(name) for name in names] == [number + 1 for number in before]
    assert 0 < value("rlvr_judge_latency_p50_seconds") <= value("rlvr_judge_latency_p99_seconds")
    assert value(f'rlvr_judge_protection{{level="{running.service.judge.protection}"}}') == 1
    assert value("rlvr_judge_queue_depth") == 0 and 0 <= value("rlvr_judge_utilisation") <= 1
    for name in ("infrastructure_error_rate", "workers_replaced", "cache_hits", "workers"):
        assert value(f"rlvr_judge_{name}") >= 0


def test_health_tells_what_control_groups_hold(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with JudgeClient(running.url, TOKEN) as client:
        assert client.judge(ADDING, SUMS, limits=PATIENT).accepted
        said, found = client.health()["control_groups"], groups.find()
        if found.place is None:
            assert said == {"limits": [], "reason": found.reason} and said["reason"]
        else:
            assert said["limits"] == ["memory", "processes"] and said["version"] == found.place.version
            assert said["workers_held"] == said["workers_started"] >= 1 and not said["reason"]
        monkeypatch.setattr(running.service.judge, "control_groups", groups.Found(None, "turned off"))
        assert client.health()["control_groups"] == {"limits": [], "reason": "turned off"}
        monkeypatch.setattr(running.service.judge, "control_groups", groups.Found(groups.Place(2, ("/x",)), ""))
        for worker in running.service.judge._pool._workers:
            monkeypatch.setattr(worker, "group", None)
        said = client.health()["control_groups"]
        assert said["workers_held"] == 0 and said["reason"] == "not every worker could enter its group"


def test_problems_that_cannot_be_judged_are_named_at_the_start_and_not_held(running: Running) -> None:
    held = TestSets()
    good, bad = TestSet(tuple(SUMS)), TestSet(tuple(SUMS), checker="testlib:#include <testlib.h>")
    held.keep("good", good)
    held.keep("bad", bad)
    refused = held.refuse_kept(running.service.check_tests)
    assert list(refused) == ["bad"] and "testlib.h" in refused["bad"]
    assert held.find(["good"]) == {"good": good} and len(held) == 1


def test_ie_is_tried_again_and_never_becomes_a_wrong_answer(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    judge = running.service.judge
    real, calls = type(judge).as_completed, []

    def failing(submissions, **options):  # type: ignore[no-untyped-def]
        calls.append(len(submissions))
        for index, judgement in real(judge, submissions, **options):
            broken = type(judgement)(Verdict.IE, (), judgement.protection, "the worker died")
            fails = len(calls) <= failures and submissions[index].code.endswith(" 1")
            yield index, broken if fails else judgement

    monkeypatch.setattr(judge, "as_completed", failing)
    for failures, expected, sent in ((1, Verdict.AC, [3, 1]), (9, Verdict.IE, [3, 1, 1])):
        calls.clear()
        with JudgeClient(running.url, TOKEN, concurrency=1, patience=Patience(infrastructure=2)) as client:
            found = client.judge_batch(submissions([f"{ADDING} # {failures} {n}" for n in range(3)]))
            assert [judgement.verdict for judgement in found] == [Verdict.AC, expected, Verdict.AC]
            assert client.infrastructure_errors == (expected is Verdict.IE)
        assert calls == sent


def test_a_judge_that_breaks_inside_the_service_gives_ie_for_what_it_did_not_answer(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = running.service.judge
    real = type(judge).as_completed

    def breaking(submissions, **options):  # type: ignore[no-untyped-def]
        yield from real(judge, submissions[:1], **options)
        raise RuntimeError("out of luck")

    monkeypatch.setattr(judge, "as_completed", breaking)
    with JudgeClient(running.url, TOKEN, concurrency=1, patience=Patience(infrastructure=0)) as client:
        found = client.judge_batch(submissions([ADDING, f"{ADDING} # 2"]))
    assert [judgement.verdict for judgement in found] == [Verdict.AC, Verdict.IE]
    assert "out of luck" in found[1].message
    assert running.service.jobs.open_submissions == 0
