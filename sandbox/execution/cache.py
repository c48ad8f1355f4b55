"""Verdicts already given: an in-memory LRU, optionally backed by a SQLite file that processes share.

Only what would come out the same again is kept: accepted, wrong, compile and runtime errors. A time limit depends
on the machine's load, and the judge's own failures say nothing of the program.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import sqlite3
import struct
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sandbox.cases import Limits, TestCase
from sandbox.verdicts import CaseResult, Judgement, Verdict

JUDGE_VERSION = 5  # raised whenever a verdict could come out differently for the same program, tests and limits

_log = logging.getLogger("sandbox")
T = TypeVar("T")
_KEEP = {Verdict.AC, Verdict.WA, Verdict.PE, Verdict.RE, Verdict.OLE, Verdict.CE, Verdict.SKIPPED}
_DECIDES_NOTHING = {"weight", "name"}  # fields of a test that no verdict depends on
_APPLICATION = 0x524C5652  # marks our SQLite files
_BUSY_S = 2.0
_WEIGHT = 500_000  # of the verdicts in memory, about 100 MB; see `_weight`
_LOOK_EVERY = 256  # stored verdicts between two looks at the file's size


class CacheUnusable(ValueError):
    """The file named as verdict cache cannot be one; the message says why and what to do."""


class _Judged(Protocol):
    """The fields of a submission that a verdict depends on."""

    @property
    def code(self) -> str: ...
    @property
    def tests(self) -> Sequence[TestCase]: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def checker(self) -> str: ...
    @property
    def input_file(self) -> str: ...
    @property
    def output_file(self) -> str: ...
    @property
    def interactor(self) -> str: ...


def key_of(submission: _Judged, language: str, circumstances: Sequence[str]) -> bytes:
    """32 bytes that agree exactly when a judgement must.

    `language` is its name and version; `circumstances` are the stop rule and whatever else decides.
    """
    digest = hashlib.blake2b(str(JUDGE_VERSION).encode(), digest_size=32)
    texts = [submission.code, language, repr(submission.limits), submission.checker]
    texts += [submission.input_file, submission.output_file, submission.interactor, str(len(circumstances))]
    for text in (*texts, *circumstances):
        _add(digest, text)
    digest.update(_digest_of_tests(submission.tests))
    return digest.digest()


_RECENT_TESTS = 16
_recent: OrderedDict[tuple[int, ...], tuple[tuple[TestCase, ...], bytes]] = OrderedDict()
_recent_lock = threading.Lock()


def _digest_of_tests(tests: Sequence[TestCase]) -> bytes:
    """32 bytes; remembered for the test sets used last, since every rollout of a problem brings the same ones."""
    identity = tuple(map(id, tests))
    with _recent_lock:
        known = _recent.get(identity)
        if known is not None:
            _recent.move_to_end(identity)
            return known[1]
    digest = hashlib.blake2b(digest_size=32)
    for test in tests:
        for name in _DECISIVE:
            value = getattr(test, name)
            _add(digest, value if type(value) is str else f"\0{value!r}")
    with _recent_lock:  # the tests are kept as well: their numbers must not come to mean others
        _recent[identity] = (tuple(tests), digest.digest())
        while len(_recent) > _RECENT_TESTS:
            _recent.popitem(last=False)
    return digest.digest()


_DECISIVE = tuple(field.name for field in dataclasses.fields(TestCase) if field.name not in _DECIDES_NOTHING)


def _add(digest: hashlib.blake2b, text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    digest.update(struct.pack("<Q", len(data)))
    digest.update(data)


def cacheable(judgement: Judgement) -> bool:
    return judgement.verdict in _KEEP and all(case.verdict in _KEEP for case in judgement.cases)


class VerdictCache:
    """Maps keys to judgements; safe to use from several threads. In memory are the latest `capacity`, fewer where they
    are of many tests. `path` keeps them across processes, several of which may use it at once; beyond `max_bytes` the
    verdicts unused for longest are dropped.

    A file that turns out bad on the way is no longer used, with a warning: judging goes on without it.
    """

    def __init__(self, capacity: int = 50_000, path: str | Path | None = None, max_bytes: int = 1 << 30) -> None:
        self.hits = 0
        self.misses = 0
        self._capacity = capacity
        self._weight = 0
        self._entries: OrderedDict[bytes, Judgement] = OrderedDict()
        self._lock = threading.Lock()
        self._file = None if path is None else _File(Path(path), max_bytes)

    def get(self, key: bytes) -> Judgement | None:
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            elif self._file is not None:
                found = self._file.get(key)
            if found is None:
                self.misses += 1
            else:
                self.hits += 1
            return found

    def put(self, key: bytes, judgement: Judgement) -> None:
        if not cacheable(judgement):
            return
        with self._lock:
            self._weight -= _weight(self._entries.pop(key, None))
            self._entries[key] = judgement
            self._weight += _weight(judgement)
            while len(self._entries) > self._capacity or (self._weight > _WEIGHT and len(self._entries) > 1):
                self._weight -= _weight(self._entries.popitem(last=False)[1])
            if self._file is not None:
                self._file.put(key, judgement)

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


def _weight(judgement: Judgement | None) -> int:
    """What a judgement takes in memory, in results of tests: some 200 bytes each."""
    if judgement is None:
        return 0
    return 1 + len(judgement.cases) + sum(len(case.output) // 200 for case in judgement.cases if case.output)


class _File:
    """The SQLite file. CacheUnusable when it cannot be opened as one of ours."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._stored = 0
        self._database: sqlite3.Connection | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=30, check_same_thread=False, isolation_level=None)
            self._prepare(self._database)
        except (sqlite3.Error, OSError) as error:
            if self._database is not None:
                self._database.close()
            raise CacheUnusable(
                f"{path}: not usable as verdict cache ({error}); delete it or name another file"
            ) from None

    def _prepare(self, database: sqlite3.Connection) -> None:
        database.execute("begin")  # one view of the file: another process may be making it just now
        application = database.execute("pragma application_id").fetchone()[0]
        tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
        database.execute("commit")
        if tables and application != _APPLICATION:
            raise sqlite3.DatabaseError("it is a database of something else")
        database.execute("pragma journal_mode=wal")
        database.execute("pragma synchronous=normal")
        database.execute("begin immediate")  # of several processes that start at once, one makes the table
        database.execute(f"pragma application_id={_APPLICATION}")
        database.execute(
            "create table if not exists verdicts (key blob primary key, version integer, used integer, judgement text)"
        )
        database.execute("create index if not exists by_use on verdicts (version, used)")
        database.execute("commit")
        damage = database.execute("pragma quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise sqlite3.DatabaseError(f"damaged: {damage}")
        database.execute(f"pragma busy_timeout={int(1000 * _BUSY_S)}")

    def get(self, key: bytes) -> Judgement | None:
        def read(database: sqlite3.Connection) -> Judgement | None:
            row = database.execute("select judgement, used from verdicts where key = ?", (key,)).fetchone()
            if row is None:
                return None
            if _now() - row[1] > 1:
                database.execute("update verdicts set used = ? where key = ?", (_now(), key))
            return _decode(row[0])

        return self._do(read)

    def put(self, key: bytes, judgement: Judgement) -> None:
        def write(database: sqlite3.Connection) -> None:
            row = (key, JUDGE_VERSION, _now(), json.dumps(asdict(judgement)))
            database.execute("insert or replace into verdicts values (?, ?, ?, ?)", row)
            self._stored += 1
            if self._stored % _LOOK_EVERY == 0:
                self._shrink(database)

        self._do(write)

    def _shrink(self, database: sqlite3.Connection) -> None:
        """Drops verdicts, those of other versions of the judge first, until a tenth of the room is free."""
        while self._used_bytes(database) > self._max_bytes:
            rows = database.execute("select count(*) from verdicts").fetchone()[0]
            database.execute(
                "delete from verdicts where key in (select key from verdicts order by version = ? , used limit ?)",
                (JUDGE_VERSION, max(1, rows // 10)),
            )

    @staticmethod
    def _used_bytes(database: sqlite3.Connection) -> int:
        pages, free, size = (
            database.execute(f"pragma {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _do(self, action: Callable[[sqlite3.Connection], T]) -> T | None:
        if self._database is None:
            return None
        try:
            return action(self._database)
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                return None  # another process is writing: this verdict is judged, or stored, another time
            self._give_up(error)
        except (sqlite3.DatabaseError, ValueError, KeyError, TypeError) as error:
            self._give_up(error)
        return None

    def _give_up(self, error: Exception) -> None:
        _log.warning("verdict cache %s is no longer used: %s; delete it if it is damaged", self._path, error)
        self.close()

    def close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            with contextlib.suppress(sqlite3.Error):
                database.close()


def _now() -> int:
    return int(time.time()) // 3600  # hours: fine enough to tell old from new, coarse enough to be written seldom


def _decode(text: str) -> Judgement:
    fields: dict[str, Any] = json.loads(text)
    cases = tuple(CaseResult(**{**case, "verdict": Verdict(case["verdict"])}) for case in fields["cases"])
    return Judgement(**{**fields, "verdict": Verdict(fields["verdict"]), "cases": cases})
