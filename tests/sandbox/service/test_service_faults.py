"""Services that die, restart, stop or are not there: every program is answered once, and nothing hangs."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest
from click.testing import CliRunner
from running_service import ADDING, PATIENT, ROOT, SUMS, TOKEN, Process, Running

from rlvr.cli import cli
from sandbox import Judgement, Submission, Verdict
from sandbox.service import client as service_client
from sandbox.service import jobs
from sandbox.service.client import JudgeClient, Patience, ServiceUnreachable
from sandbox.service.exchange import Exchange

SLEEPY = "import time; time.sleep(0.3); print(sum(map(int, input().split())))"


def batch(count: int) -> list[Submission]:
    return [Submission(f"{SLEEPY} # {number}", SUMS[:1], limits=PATIENT) for number in range(count)]


def collect(
    answers: Iterator[tuple[int, Judgement]], after: int, act: Callable[[], object]
) -> list[tuple[int, Verdict]]:
    """All answers; calls `act` once when `after` of them have come."""
    seen = []
    for index, judgement in answers:
        seen.append((index, judgement.verdict))
        if len(seen) == after:
            act()
    return seen


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def family(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def all_gone(processes: list[psutil.Process], within_s: float = 60.0) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=within_s)
    return not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_a_service_that_is_not_there_is_said_at_once() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ServiceUnreachable, match="no judge service answers"):
        JudgeClient(url, connect_s=0)
    with pytest.raises(ServiceUnreachable, match="not a URL"):
        JudgeClient("judge.example", connect_s=0)


def test_a_service_killed_for_good_costs_ie_for_the_rest_and_no_hang(start_service: Callable[..., Process]) -> None:
    process = start_service()
    with JudgeClient(process.url, TOKEN, concurrency=2, patience=Patience(lasting_s=2.0)) as client:
        seen = collect(client.as_completed(batch(12)), 3, process.end)
        assert sorted(index for index, _ in seen) == list(range(12))
        verdicts = [verdict for _, verdict in seen]
        assert set(verdicts) == {Verdict.AC, Verdict.IE}, "a lost connection must not look like a wrong answer"
        assert verdicts[:3] == [Verdict.AC] * 3
        assert client.infrastructure_errors == verdicts.count(Verdict.IE)


def test_a_service_killed_and_started_again_loses_nothing(start_service: Callable[..., Process]) -> None:
    port = free_port()
    process = start_service(port=port)
    again: list[threading.Timer] = []

    def restart() -> None:
        process.end()
        again.append(threading.Timer(1.0, lambda: start_service(port=port)))
        again[0].start()

    with JudgeClient(process.url, TOKEN, concurrency=2, patience=Patience(lasting_s=120.0)) as client:
        seen = collect(client.as_completed(batch(10)), 3, restart)
    again[0].join()
    assert sorted(index for index, _ in seen) == list(range(10))
    assert [verdict for _, verdict in seen] == [Verdict.AC] * 10


def test_one_outage_is_said_once_while_other_jobs_are_still_answered(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    inner = JudgeClient._send
    cut: list[str] = []
    broken, other_done = threading.Event(), threading.Event()

    def send(self: JudgeClient, exchange: Exchange, *rest: Any) -> Any:
        if not cut or (len(cut) == 1 and exchange.job == cut[0]):
            cut.append(exchange.job)
            if len(cut) == 2:
                broken.set()
                assert other_done.wait(120)
            raise httpx.ReadError("cut")
        return inner(self, exchange, *rest)

    monkeypatch.setattr(JudgeClient, "_send", send)
    with JudgeClient(running.url, TOKEN) as client, ThreadPoolExecutor(1) as thread:
        interrupted = thread.submit(client.judge, ADDING, SUMS)
        assert broken.wait(120)
        assert client.judge(ADDING, SUMS).verdict is Verdict.AC
        other_done.set()
        assert interrupted.result().verdict is Verdict.AC
        deadline = time.monotonic() + 60  # the answer is handed over before the log hears of it
        while "answers again" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
    said = [record.getMessage() for record in caplog.records if "judge service" in record.getMessage()]
    assert len(said) == 2 and "cut; asked again" in said[0] and "answers again" in said[1]


def test_many_programs_wait_for_a_service_that_hangs_as_long_as_one_does(
    start_service: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_client, "_SILENCE", httpx.Timeout(1.0, connect=10.0, pool=None))
    inner = JudgeClient._send
    sent: list[str] = []

    def send(self: JudgeClient, exchange: Exchange, *rest: Any) -> Any:
        sent.append(exchange.job)
        return inner(self, exchange, *rest)

    process = start_service()
    with JudgeClient(process.url, TOKEN, patience=Patience(lasting_s=1.5)) as client, ThreadPoolExecutor(4) as threads:
        assert client.judge(ADDING, SUMS).verdict is Verdict.AC
        monkeypatch.setattr(JudgeClient, "_send", send)
        process.popen.send_signal(signal.SIGSTOP)
        try:
            found = list(threads.map(lambda _: client.judge(ADDING, SUMS), range(24)))
        finally:
            process.popen.send_signal(signal.SIGCONT)
        assert {judgement.verdict for judgement in found} == {Verdict.IE}
        assert all("ReadTimeout" in judgement.message for judgement in found)
        assert len(sent) <= 12, "programs after the first four were to find out that patience had ended"
        client._outage.over()
        assert client.judge(ADDING, SUMS).verdict is Verdict.AC


def test_a_service_told_to_stop_answers_what_it_has_and_leaves_no_process(
    start_service: Callable[..., Process],
) -> None:
    process = start_service()
    with JudgeClient(process.url, TOKEN, concurrency=1, patience=Patience(lasting_s=0.0)) as client:
        workers: list[psutil.Process] = []

        def stop() -> None:
            workers.extend(family(process.popen.pid))
            process.popen.send_signal(signal.SIGTERM)

        seen = collect(client.as_completed(batch(6)), 1, stop)
    assert [verdict for _, verdict in sorted(seen)] == [Verdict.AC] * 6
    assert process.popen.wait(60) == 0
    assert workers and all_gone(workers)


def test_a_killed_service_leaves_no_worker(start_service: Callable[..., Process]) -> None:
    process = start_service()
    with JudgeClient(process.url, TOKEN) as client:
        assert client.judge(ADDING, SUMS, limits=PATIENT).accepted
    workers = family(process.popen.pid)
    assert workers
    process.popen.kill()
    assert all_gone(workers)


@pytest.mark.parametrize("how", ["left", "gone"])
def test_programs_nobody_waits_for_any_more_are_stopped_though_none_has_ended(
    running: Running, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_HEARTBEAT_S", 0.1)  # by whose next sign a connection learns that it was left
    endless = Submission("import time; time.sleep(100)", SUMS[:1], limits=PATIENT)
    with JudgeClient(running.url, TOKEN) as client:
        if how == "gone":  # without a word
            monkeypatch.setattr(jobs, "_ABANDONED_S", 0.2)
            monkeypatch.setattr(client._http, "delete", lambda _: None)
        for _ in client.as_completed([Submission(ADDING, SUMS, limits=PATIENT), endless]):
            break
        deadline = time.monotonic() + 60
        while running.service.jobs.open_submissions:
            assert time.monotonic() < deadline, "what nobody waits for still runs"
            time.sleep(0.02)
        assert client.judge(ADDING, SUMS, limits=PATIENT).accepted


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--host", "0.0.0.0"], "can be reached from other machines: give a token"),
        (["--problems", "builtin:nothing"], "nothing"),
        (["--token-file", "/dev/null"], "holds no token"),
    ],
)
def test_a_service_that_should_not_start_does_not(options: list[str], complaint: str) -> None:
    run = CliRunner().invoke(cli, ["sandbox", "serve", "--port", "0", *options], standalone_mode=False)
    assert complaint in str(run.exception) and len(str(run.exception).splitlines()) == 1, run.exception


def test_a_taken_port_is_said_in_one_line(protected: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-m", "rlvr.cli", "sandbox", "serve", "--port", str(taken.getsockname()[1])]
        run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert run.returncode == 1 and "cannot listen on 127.0.0.1" in run.stderr, run.stderr
