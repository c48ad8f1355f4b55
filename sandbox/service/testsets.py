"""The test sets a service holds, so that expected outputs stay where programs are judged."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable

from sandbox.service import wire
from sandbox.service.wire import TestSet, WireError


class UnknownTestSets(KeyError):
    """Test sets the service does not hold, or no longer; `names` are to be sent again."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = sorted(set(names))
        super().__init__(", ".join(self.names))


class NameTaken(ValueError):
    """Another test set has this name."""


class TestSets:
    """Test sets by name. Those put over HTTP are dropped, least recently used first, beyond `capacity_bytes`;
    those of `keep` stay. Thread-safe."""

    __test__ = False  # not a pytest class

    def __init__(self, capacity_bytes: int = 4 << 30) -> None:
        self._capacity = capacity_bytes
        self._held: OrderedDict[str, tuple[TestSet, int, str]] = OrderedDict()
        self._kept: dict[str, TestSet] = {}
        self._lock = threading.Lock()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._held) + len(self._kept)

    def keep(self, name: str, tests: TestSet) -> None:
        """Holds `tests` for as long as the service runs."""
        self._kept[name] = tests

    def refuse_kept(self, check: Callable[[TestSet], None]) -> dict[str, str]:
        """Drops the test sets of `keep` for which `check` raises ValueError; the reasons, by name."""
        refused: dict[str, str] = {}
        for name, tests in list(self._kept.items()):
            try:
                check(tests)
            except ValueError as error:
                del self._kept[name]
                refused[name] = str(error)
        return refused

    def put(self, name: str, body: bytes, check: Callable[[TestSet], None]) -> bool:
        """Holds the encoded test set under `name`; whether it is new. WireError for a bad one, one that `check` raises
        ValueError for, or a digest that is not its own; NameTaken when the name stands for other tests."""
        wire.check_name("test set", name)
        digest = wire.name_of(body)
        if name.startswith(wire.HASHED) and name != digest:
            raise WireError(f"test set {name}: the body's digest is {digest}")
        if name in self._kept:
            raise NameTaken(f"test set {name!r} was given at the service's start and cannot be replaced")
        with self._lock:
            known = self._held.get(name)
            if known is not None:
                if known[2] == digest:
                    self._held.move_to_end(name)
                    return False
                raise NameTaken(f"test set {name!r} holds other tests: choose another name")
        tests = wire.decode(TestSet, body)
        if not tests.tests:
            raise WireError(f"test set {name!r} has no tests")
        try:
            check(tests)
        except ValueError as error:
            raise WireError(f"test set {name!r}: {error}") from None
        with self._lock:
            self._held[name] = (tests, len(body), digest)
            self.size_bytes += len(body)
            while self.size_bytes > self._capacity and len(self._held) > 1:
                _, (_, size, _) = self._held.popitem(last=False)
                self.size_bytes -= size
        return True

    def find(self, names: Iterable[str]) -> dict[str, TestSet]:
        """The test sets called `names`. UnknownTestSets naming every one that is not held."""
        found: dict[str, TestSet] = {}
        missing: list[str] = []
        with self._lock:
            for name in dict.fromkeys(names):
                if name in self._kept:
                    found[name] = self._kept[name]
                elif name in self._held:
                    self._held.move_to_end(name)
                    found[name] = self._held[name][0]
                else:
                    missing.append(name)
        if missing:
            raise UnknownTestSets(missing)
        return found
