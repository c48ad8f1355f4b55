"""The judge survives the loss of its workers, its caller's impatience and its own end: every job is answered once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

import sandbox
from sandbox import Judge, Limits, Submission, TestCase, Verdict
from sandbox.execution.job import Facts
from sandbox.grading import Grading

SLEEPER = "import time\ntime.sleep(float(input()))\nprint(1)"
ADDER = "print(int(input()) + 1)"


@pytest.fixture(params=["namespaced", "confined"])
def own_judge(request: pytest.FixtureRequest, judge_at: Callable[[str], Judge]) -> Iterator[Judge]:
    """A judge of one worker that a test may damage."""
    judge_at(request.param)  # skips where the level is not to be had
    with Judge(workers=1, protection=request.param, cache=False, silence_s=4) as judge:
        assert judge.judge(ADDER, [TestCase("1", "2")]).accepted
        yield judge


def descendants(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def running(worker: int) -> bool:
    """Whether a worker has a run under way: more processes than the container's first and the warm one."""
    processes = descendants(worker)
    return len(processes) > 1 + any("bwrap" in process.name() for process in processes[:1])


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_worker_killed_in_mid_run_is_replaced_and_the_job_run_again(own_judge: Judge) -> None:
    victim = own_judge.worker_pids()[0]
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(own_judge.judge, SLEEPER, [TestCase("0.6", "1")])
        wait_for(lambda: running(victim))
        os.kill(victim, signal.SIGKILL)
        assert future.result(60).accepted
    assert own_judge.workers_replaced == 1


def test_a_job_that_loses_two_workers_is_an_infrastructure_error(own_judge: Judge) -> None:
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(own_judge.judge, SLEEPER, [TestCase("30", "1")])
        for _ in range(2):
            # busy: a worker that is starting forks as well
            wait_for(lambda: own_judge.statistics().busy and any(map(running, own_judge.worker_pids())))
            victim = own_judge.worker_pids()[0]
            os.kill(victim, signal.SIGKILL)
            wait_for(lambda victim=victim: victim not in own_judge.worker_pids())  # type: ignore[misc]
        judgement = future.result(60)
    assert judgement.verdict is Verdict.IE
    assert own_judge.judge(ADDER, [TestCase("1", "2")]).accepted


def test_a_stopped_worker_is_replaced(own_judge: Judge) -> None:
    victims = [process.pid for pid in own_judge.worker_pids() for process in descendants(pid)]
    with ThreadPoolExecutor(1) as thread:
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):  # a supervisor on its way out
                os.kill(pid, signal.SIGSTOP)
        assert thread.submit(own_judge.judge, ADDER, [TestCase("1", "2")]).result(60).accepted
    assert own_judge.workers_replaced == 1


def test_a_long_comparison_makes_no_worker_look_silent(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Grading._compare

    def thinking(self: Grading, test: TestCase, facts: Facts) -> str | None:
        if test.input == "0.5":
            time.sleep(8)
        return real(self, test, facts)

    monkeypatch.setattr(Grading, "_compare", thinking)
    with Judge(workers=2, protection=judge.protection, cache=False, silence_s=5) as own:
        programs = [Submission(SLEEPER, [TestCase(seconds, "1")], limits=Limits(wall_s=60)) for seconds in ("0.5", "9")]
        assert all(judgement.accepted for judgement in own.judge_batch(programs))
        assert own.workers_replaced == 0


def test_no_process_is_left_after_close(judge_at: Callable[[str], Judge]) -> None:
    level = judge_at("confined").protection
    judge = Judge(workers=2, protection=level, cache=False)
    with ThreadPoolExecutor(4) as threads:
        futures = [threads.submit(judge.judge, SLEEPER + f"#{n}", [TestCase("30", "1")]) for n in range(4)]
        wait_for(lambda: sum(running(pid) for pid in judge.worker_pids()) == 2)
        pids = [process.pid for pid in judge.worker_pids() for process in descendants(pid)]
        judge.close()
        assert {future.result(10).verdict for future in futures} == {Verdict.IE}
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    with pytest.raises(RuntimeError, match="closed"):
        judge.judge(ADDER, [TestCase("1", "2")])


def test_every_submission_of_a_batch_is_answered_in_order(judge: Judge) -> None:
    submissions = [Submission(ADDER, [TestCase(str(n), str(n + 1 + n % 2))]) for n in range(40)]
    seen: list[tuple[int, int]] = []
    found = judge.judge_batch(submissions, progress=lambda done, total: seen.append((done, total)))
    assert [j.accepted for j in found] == [n % 2 == 0 for n in range(40)]
    assert seen == [(n, 40) for n in range(1, 41)]


def test_equal_submissions_are_run_once(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    original = judge._pool.submit
    monkeypatch.setattr(judge._pool, "submit", lambda job: (started.append(job), original(job)))
    submission = Submission("import time\ntime.sleep(0.3)\nprint(1)", [TestCase("", "1")])
    assert all(j.accepted for j in judge.judge_batch([submission] * 32))
    assert len(started) == 1


def test_leaving_the_loop_early_stops_the_rest(own_judge: Judge) -> None:
    submissions = [Submission(SLEEPER + f"#{n}", [TestCase("0" if n == 0 else "30", "1")]) for n in range(6)]
    for index, judgement in own_judge.as_completed(submissions):
        assert (index, judgement.accepted) == (0, True)
        break
    assert own_judge.judge(ADDER, [TestCase("1", "2")]).accepted


def test_asynchronous_judging_and_its_cancellation(own_judge: Judge) -> None:
    async def scenario() -> None:
        results = await asyncio.gather(*(own_judge.ajudge(ADDER, [TestCase(str(n), str(n + 1))]) for n in range(5)))
        assert all(result.accepted for result in results)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(own_judge.ajudge(SLEEPER, [TestCase("30", "1")]), 0.3)
        assert (await own_judge.ajudge(ADDER, [TestCase("7", "8")])).accepted

    asyncio.run(scenario())


def test_many_threads_may_share_a_judge(judge: Judge) -> None:
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda n: judge.judge(ADDER, [TestCase(str(n), str(n + 1))]), range(64)))
    assert all(judgement.accepted for judgement in found)


def test_stop_rules(judge: Judge) -> None:
    tests = [TestCase("1", "2"), TestCase("1", "0"), TestCase("1", "2"), TestCase("1", "0"), TestCase("1", "2")]

    def verdicts(stop: str) -> str:
        return " ".join(case.verdict for case in judge.judge(ADDER, tests, stop=stop).cases)

    assert verdicts("first_failure") == "AC WA SKIPPED SKIPPED SKIPPED"
    assert verdicts("never") == "AC WA AC WA AC"
    assert verdicts("max_failures=2") == "AC WA AC WA SKIPPED"
    with pytest.raises(ValueError, match="first_failure"):
        judge.judge(ADDER, tests, stop="sometimes")


@pytest.mark.parametrize(
    ("options", "names"),
    [({"language": "cobol"}, "python"), ({"checker": "vibes"}, "tokens"), ({"stop": "maybe"}, "never")],
)
def test_unknown_names_are_refused_with_the_known_ones(judge: Judge, options: dict[str, str], names: str) -> None:
    with pytest.raises(ValueError, match=names):
        judge.judge(ADDER, [TestCase("1", "2")], **options)  # type: ignore[arg-type]


def test_a_batch_with_one_bad_submission_runs_nothing(judge: Judge) -> None:
    with pytest.raises(ValueError, match="no tests"):
        judge.judge_batch([Submission(ADDER, [TestCase("1", "2")]), Submission(ADDER, [])])


# A shell starts its background jobs with Ctrl-C ignored, and a test run may be one.
HEARS_CONTROL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"


def run_script(script: str, send: signal.Signals | None = None) -> tuple[int, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HEARS_CONTROL_C + textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    if send is not None:
        assert process.stdout.readline() == "running\n"
        time.sleep(0.5)
        process.send_signal(send)
    text = process.stdout.read()
    return process.wait(60), text


SCRIPT = """
    import psutil, sandbox, threading, time
    from sandbox import TestCase, Submission
    sandbox.judge("print(1)", [TestCase("", "1")])
    def report():
        while len(psutil.Process().children(recursive=True)) < 3: time.sleep(0.01)
        print("running", flush=True)
    threading.Thread(target=report).start()
    try:
        sandbox.judge_batch([Submission(f"import time\\ntime.sleep(60)#{n}", [TestCase("", "1")]) for n in range(8)])
    except KeyboardInterrupt:
        pids = psutil.Process().children(recursive=True)
        print("interrupted", sandbox.judge("print(2)", [TestCase("", "2")]).verdict, flush=True)
"""


def test_control_c_ends_the_wait_at_once_and_the_judge_lives_on() -> None:
    code, text = run_script(SCRIPT, signal.SIGINT)
    assert (code, text.strip()) == (0, "interrupted AC")


def test_workers_die_with_a_killed_caller() -> None:
    script = """
        import sandbox, sys, time
        sandbox.judge("print(1)", [sandbox.TestCase("", "1")])
        print(*sandbox.judge.__globals__["default_judge"]().worker_pids(), flush=True)
        sandbox.judge("import time; time.sleep(60)", [sandbox.TestCase("", "1")])
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert pids
    wait_for(lambda: any(running(child.pid) for child in psutil.Process(process.pid).children()))
    everyone = [p.pid for p in descendants(process.pid)[1:]]
    process.kill()
    process.wait()
    process.stdout.close()
    wait_for(lambda: not any(_alive(pid) for pid in everyone))


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_forked_child_of_the_caller_gets_a_judge_of_its_own() -> None:
    code, text = run_script("""
        import os, sandbox
        from sandbox import TestCase
        print(sandbox.judge("print(1)", [TestCase("", "1")]).verdict, flush=True)
        pid = os.fork()
        if pid == 0:
            print(sandbox.judge("print(2)", [TestCase("", "2")]).verdict, flush=True)
            sandbox.configure()
            os._exit(0)
        os.waitpid(pid, 0)
        print(sandbox.judge("print(3)", [TestCase("", "3")]).verdict, flush=True)
    """)
    assert (code, text.split()) == (0, ["AC"] * 3)


def test_a_caller_with_many_threads_is_not_forked(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    forked = []
    os.register_at_fork(before=lambda: forked.append(1))
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(20)]
    for thread in threads:
        thread.start()
    try:
        with Judge(workers=1, protection=judge.protection, cache=False) as own:
            assert own.judge(ADDER, [TestCase("1", "2")]).accepted
    finally:
        stop.set()
    assert not forked


def test_verdicts_are_cached_only_when_they_would_come_out_the_same(judge: Judge, tmp_path: object) -> None:
    path = f"{tmp_path}/verdicts.sqlite"
    fast = Limits(cpu_s=0.05)
    for attempt in range(2):
        with Judge(workers=1, protection=judge.protection, cache=path) as own:
            assert own.cache is not None
            verdicts = [
                own.judge(code, [TestCase("1", "2")], limits=fast).verdict
                for code in (ADDER, "print(3)", "print(", "while True: pass")
            ]
            assert verdicts == [Verdict.AC, Verdict.WA, Verdict.CE, Verdict.TLE]
            assert own.cache.hits == (3 if attempt else 0)


def test_too_little_protection_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from sandbox.isolation import levels

    monkeypatch.setattr(levels, "probe", lambda level: levels.Probe(level, "not on this machine", {}))
    with pytest.raises(sandbox.ProtectionUnavailable, match="not on this machine"):
        Judge()
    with pytest.raises(ValueError, match="allow_unconfined"):
        Judge(min_protection="limited")
    with pytest.raises(ValueError, match="namespaced"):
        Judge(min_protection="total")
