"""Verdicts already given: an in-memory LRU, optionally backed by a SQLite file.

Only what would come out the same again is kept: accepted, wrong, compile and runtime errors. A time limit depends
on the machine's load, and the judge's own failures say nothing of the program.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from sandbox.cases import Limits, TestCase
from sandbox.verdicts import CaseResult, Judgement, Verdict

_KEEP = {Verdict.AC, Verdict.WA, Verdict.PE, Verdict.RE, Verdict.OLE, Verdict.CE, Verdict.SKIPPED}
_FORMAT = b"1"  # changes whenever a verdict could come out differently for the same key


def key_of(
    code: str,
    tests: Sequence[TestCase],
    language: str,
    version: str,
    limits: Limits,
    checker: str,
    stop: str,
    keep_output: bool,
) -> bytes:
    """32 bytes that agree exactly when a judgement must."""
    digest = hashlib.blake2b(_FORMAT, digest_size=32)
    for text in (code, language, version, repr(limits), checker, stop, str(keep_output)):
        _add(digest, text)
    for test in tests:
        _add(digest, test.input)
        _add(digest, test.output)
        _add(digest, "\0" if test.call is None else test.call)
    return digest.digest()


def _add(digest: hashlib.blake2b, text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    digest.update(struct.pack("<Q", len(data)))
    digest.update(data)


def cacheable(judgement: Judgement) -> bool:
    return judgement.verdict in _KEEP and all(case.verdict in _KEEP for case in judgement.cases)


class VerdictCache:
    """Maps keys to judgements; safe to use from several threads. `path` keeps them across processes."""

    def __init__(self, capacity: int = 50_000, path: str | Path | None = None) -> None:
        self.hits = 0
        self.misses = 0
        self._capacity = capacity
        self._entries: OrderedDict[bytes, Judgement] = OrderedDict()
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        if path is not None:
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._database.execute("pragma journal_mode=wal")
            self._database.execute("create table if not exists verdicts (key blob primary key, judgement text)")

    def get(self, key: bytes) -> Judgement | None:
        with self._lock:
            found = self._entries.get(key)
            if found is not None:
                self._entries.move_to_end(key)
            elif self._database is not None:
                row = self._database.execute("select judgement from verdicts where key = ?", (key,)).fetchone()
                found = _decode(row[0]) if row else None
            if found is None:
                self.misses += 1
            else:
                self.hits += 1
            return found

    def put(self, key: bytes, judgement: Judgement) -> None:
        if not cacheable(judgement):
            return
        with self._lock:
            self._entries[key] = judgement
            while len(self._entries) > self._capacity:
                self._entries.popitem(last=False)
            if self._database is not None:
                text = json.dumps(asdict(judgement))
                self._database.execute("insert or replace into verdicts values (?, ?)", (key, text))

    def close(self) -> None:
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None


def _decode(text: str) -> Judgement:
    fields = json.loads(text)
    cases = tuple(CaseResult(**{**case, "verdict": Verdict(case["verdict"])}) for case in fields["cases"])
    return Judgement(Verdict(fields["verdict"]), cases, fields["protection"], fields["message"])
