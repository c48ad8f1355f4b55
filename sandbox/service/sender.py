"""What both clients of a service share: its facts, names of test sets, batches, news of an outage."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from sandbox.cases import TestCase
from sandbox.isolation import levels
from sandbox.service import wire
from sandbox.service.exchange import Exchange, Outage, Patience, ServiceRefused
from sandbox.service.wire import Order, TestSet
from sandbox.submission import Submission

logger = logging.getLogger(__name__)

PROTOCOL = 1
_BATCH = 32  # programs in one message: few enough that a lost message costs little
_BATCH_BYTES = 8 << 20
_KNOWN_TEST_SETS = 65_536


class Sender:
    """Holds no connection: that is what the clients differ in."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        min_protection: str = "confined",
        allow_unconfined: bool = False,
        concurrency: int = 8,
        patience: Patience | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._min_protection = min_protection
        self._allow_unconfined = allow_unconfined
        self._concurrency = concurrency
        self._patience = patience or Patience()
        self._names: OrderedDict[tuple[TestCase, ...], str] = OrderedDict()
        self._tests: dict[str, tuple[TestCase, ...]] = {}
        self._lock = threading.Lock()
        self._max_batch = _BATCH
        self._unanswered: set[str] = set()  # jobs whose latest message the service did not answer
        self._silent = False
        self._outage = Outage()

    def _notice(self, exchange: Exchange) -> None:
        """Says once when the service stops answering, and once when it answers every job again."""
        with self._lock:
            (self._unanswered.discard if exchange.trouble is None else self._unanswered.add)(exchange.job)
            before, now = self._silent, bool(self._unanswered)
            self._silent = now
        if now and not before:
            lasting = self._patience.lasting_s
            logger.warning("judge service %s: %s; asked again for up to %g s", self.url, exchange.trouble, lasting)
        elif before and not now:
            logger.warning("judge service %s: answers again", self.url)

    def _forget(self, exchange: Exchange) -> None:
        """A job that is over, answered or given up, no longer tells whether the service answers."""
        with self._lock:
            self._unanswered.discard(exchange.job)

    def _meet(self, health: Any) -> str:
        """The protection level of the service that sent `health`; ServiceRefused where it is not the one wanted."""
        if not isinstance(health, dict) or "protocol" not in health:
            raise ServiceRefused(f"{self.url}: is not a judge service")
        if health["protocol"] != PROTOCOL:
            raise ServiceRefused(
                f"{self.url}: speaks protocol {health['protocol']}, this client {PROTOCOL}: "
                "install the same version of rlvr on both sides"
            )
        level = str(health["protection"])
        order = list(levels.LEVELS)  # strongest first
        wanted = "limited" if self._allow_unconfined else self._min_protection
        if level not in order or order.index(level) > order.index(wanted):
            raise ServiceRefused(f"{self.url}: runs programs at level {level!r}, {self._min_protection!r} is demanded")
        self._max_batch = min(_BATCH, int(health["max_batch"]))
        return level

    def _name(self, tests: Sequence[TestCase]) -> str:
        key = tuple(tests)
        with self._lock:
            name = self._names.get(key)
            if name is None:
                name = self._names[key] = wire.name_of(wire.encode(TestSet(key)))
                self._tests[name] = key
                if len(self._names) > _KNOWN_TEST_SETS:
                    self._tests.pop(self._names.popitem(last=False)[1], None)
            else:
                self._names.move_to_end(key)
        return name

    def _body_of(self, name: str) -> bytes:
        tests = self._tests.get(name)
        if tests is None:
            raise ServiceRefused(f"{self.url}: holds no test set {name!r}")
        return wire.encode(TestSet(tests))

    def _orders(self, submissions: Iterable[Submission]) -> list[Order]:
        orders = []
        for submission in submissions:
            if not submission.tests:
                raise ValueError("no tests: a program cannot be judged on an empty list of tests")
            orders.append(Order.of(submission, self._name(submission.tests)))
        return orders

    def _exchanges(self, orders: list[Order], stop: str, keep_output: bool) -> list[Exchange]:
        # enough batches to keep all connections at work, none too large
        size = max(1, min(self._max_batch, -(-len(orders) // self._concurrency)))
        exchanges: list[Exchange] = []
        part: dict[int, Order] = {}
        bytes_in_part = 0
        tests = {
            index: len(self._tests[order.tests]) for index, order in enumerate(orders) if order.tests in self._tests
        }
        for index, order in enumerate(orders):
            if part and (len(part) >= size or bytes_in_part + len(order.code) > _BATCH_BYTES):
                exchanges.append(Exchange(self.url, part, stop, keep_output, self._patience, tests, self._outage))
                part, bytes_in_part = {}, 0
            part[index] = order
            bytes_in_part += len(order.code)
        if part:
            exchanges.append(Exchange(self.url, part, stop, keep_output, self._patience, tests, self._outage))
        return exchanges
