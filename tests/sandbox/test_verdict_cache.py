"""The cache of verdicts: shared by processes, bounded, never holding what might come out differently."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sandbox
from sandbox import CaseResult, Judgement, Limits, Submission, TestCase, Verdict
from sandbox.execution import cache
from sandbox.execution.cache import CacheUnusable, VerdictCache, cacheable

ROOT = Path(__file__).resolve().parents[2]
ACCEPTED = Judgement(Verdict.AC, (CaseResult(Verdict.AC, 0.1, 0.2, 3.0),), "confined")


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def test_a_verdict_is_found_by_another_process(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "verdicts.sqlite"
    first = VerdictCache(path=path)
    first.put(key(1), ACCEPTED)
    code = f"""
from sandbox.execution.cache import VerdictCache
found = VerdictCache(path={str(path)!r}).get((1).to_bytes(32, "big"))
print(found.verdict, found.cases[0].memory_mb)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.split() == ["AC", "3.0"]
    first.close()


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.sqlite"
    code = f"""
import sys
from sandbox.execution.cache import VerdictCache
from sandbox import CaseResult, Judgement, Verdict
mine = int(sys.argv[1]) * 1000
with_path = VerdictCache(path={str(path)!r})
for number in range(200):
    with_path.put((mine + number).to_bytes(32, "big"), Judgement(Verdict.AC, (CaseResult(Verdict.AC),), "confined"))
with_path.close()
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, str(n)], cwd=ROOT) for n in range(3)]
    assert [writer.wait(120) for writer in writers] == [0, 0, 0]
    reader = VerdictCache(path=path)
    assert all(reader.get(key(n * 1000 + number)) == replace(ACCEPTED, cases=(CaseResult(Verdict.AC),))
               for n in range(3) for number in range(200))  # fmt: skip
    reader.close()


verdicts = st.sampled_from(Verdict)


@settings(max_examples=60, deadline=None)
@given(verdicts, st.lists(verdicts, max_size=4))
def test_what_load_or_the_judge_may_have_caused_is_never_kept(verdict: Verdict, cases: list[Verdict]) -> None:
    judgement = Judgement(verdict, tuple(CaseResult(case) for case in cases), "confined")
    unsure = {Verdict.TLE, Verdict.ILE, Verdict.MLE, Verdict.IE, Verdict.NO_CODE}
    assert cacheable(judgement) == (not unsure & {verdict, *cases})
    kept = VerdictCache()
    kept.put(key(1), judgement)
    assert (kept.get(key(1)) == judgement) == cacheable(judgement)


def test_a_verdict_of_another_version_of_the_judge_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def name() -> bytes:
        return cache.key_of(Submission("code", [TestCase("1", "2")]), "python 3", ("never", "False"))

    before = name()
    assert name() == before
    monkeypatch.setattr(cache, "JUDGE_VERSION", cache.JUDGE_VERSION + 1)
    assert name() != before


def test_the_file_stays_within_its_bound_and_keeps_the_latest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "verdicts.sqlite"
    bound = 400_000
    hour = iter(range(10**6))
    monkeypatch.setattr(cache, "_now", lambda: next(hour))
    large = replace(ACCEPTED, message="x" * 1000)
    kept = VerdictCache(capacity=1, path=path, max_bytes=bound)
    for number in range(2000):
        kept.put(key(number), large)
    kept.put(key(10**6), ACCEPTED)  # out of memory, so that what follows comes from the file
    found = [number for number in range(2000) if kept.get(key(number)) is not None]
    kept.close()
    assert 0 < len(found) < 1000 and found == list(range(found[0], 2000)), "those used last are kept"
    assert path.stat().st_size < 2 * bound


def test_a_file_that_is_no_cache_is_named_with_what_to_do(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to be taken for one\n" * 40)
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as database:
        database.execute("create table people (name text)")
    for path, complaint in ((text, "file is not a database"), (other, "a database of something else")):
        before = path.read_bytes()
        with pytest.raises(CacheUnusable) as unusable:
            VerdictCache(path=path)
        assert (
            complaint in str(unusable.value) and str(path) in str(unusable.value) and "delete it" in str(unusable.value)
        )
        assert path.read_bytes() == before
    with pytest.raises(CacheUnusable, match="not usable"):
        sandbox.Judge(workers=1, cache=text)


def test_a_file_damaged_while_in_use_costs_no_verdict(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "verdicts.sqlite"
    kept = VerdictCache(capacity=1, path=path)
    for number in range(2500):  # more than SQLite keeps in memory
        kept.put(key(number), replace(ACCEPTED, message="y" * 2000))
    kept.close()
    damaged = VerdictCache(capacity=1, path=path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))
    for number in range(300):
        assert damaged.get(key(number)) in (None, replace(ACCEPTED, message="y" * 2000))
    damaged.put(key(1), ACCEPTED)
    assert damaged.get(key(1)) == ACCEPTED
    assert "is no longer used" in caplog.text
    damaged.close()
    with pytest.raises(CacheUnusable):
        VerdictCache(path=path)


def test_a_known_verdict_is_not_judged_again(tmp_path: Path, judge: sandbox.Judge) -> None:
    path = tmp_path / "verdicts.sqlite"
    slow = "import time; time.sleep(0.2); print(input())"
    tests = [TestCase("1\n", "1\n")]
    for hits in (0, 1):
        with sandbox.Judge(workers=1, protection=judge.protection, cache=path) as kept:
            assert kept.judge(slow, tests).accepted
            statistics = kept.statistics()
            assert (statistics.cache_hits, bool(kept.worker_pids())) == (hits, not hits)
            kept.judge("while 1: pass", tests, limits=Limits(cpu_s=0.05, language_factors=False))
            assert kept.statistics().cache_hits == hits


def test_in_memory_judgements_of_many_tests_count_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_WEIGHT", 1000)
    small, large = (
        Judgement(Verdict.AC, (CaseResult(Verdict.AC),)),
        Judgement(Verdict.AC, (CaseResult(Verdict.AC),) * 99),
    )
    wordy = Judgement(Verdict.AC, (CaseResult(Verdict.AC, output="x" * 50_000),))
    held = VerdictCache()
    for number in range(40):
        held.put(key(number), large)
    assert [held.get(key(number)) is not None for number in range(40)] == [False] * 30 + [True] * 10
    for _ in range(500):  # put again, it counts once
        held.put(key(39), large)
    assert held.get(key(30)) == large
    for number in range(100, 600):
        held.put(key(number), small)
    assert all(held.get(key(number)) == small for number in range(100, 600))
    for number in range(3):
        held.put(key(1000 + number), wordy)
        held.put(key(2000 + number), replace(wordy, message="x"))
    assert sum(held.get(key(n)) is not None for n in (1000, 1001, 1002, 2000, 2001, 2002)) == 3
    huge = Judgement(Verdict.AC, (CaseResult(Verdict.AC),) * 2000)
    held.put(key(1), huge)
    assert held.get(key(1)) == huge and held.get(key(2002)) is None
