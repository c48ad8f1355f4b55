"""What a client sends, and what it does about each reply: the rules without the sockets.

Only failures that say nothing of the program are tried again: broken connections, a busy or restarting service, and
IE. When patience ends they become IE; a refusal (wrong token, bad request) is an error at once.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sandbox.service import wire
from sandbox.service.wire import Answer, Batch, Order
from sandbox.verdicts import Judgement, Verdict

_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 15.0
_BUSY = (502, 503, 504)
_UPLOADS = 3  # a service that forgets test sets between two messages is too small for the batch


class ServiceError(RuntimeError):
    """The service cannot be used as asked; the message is one line that says what to mend."""


class ServiceUnreachable(ServiceError):
    """Nothing answers at the service's address."""


class ServiceRefused(ServiceError):
    """The service will not do this, however often it is asked: a wrong token, an unknown language, too large."""


@dataclass(frozen=True, slots=True)
class Patience:
    """`lasting_s`: how long failures without any answer in between are borne. `infrastructure`: further tries for
    programs the service answered with IE. `queue_s`: how long a batch waits for a place in a full queue."""

    lasting_s: float = 120.0
    infrastructure: int = 2
    queue_s: float = 1800.0


class Outage:
    """Since when no job of a client has heard anything of its service; one for all of them."""

    _FRESH_S = 15.0

    def __init__(self) -> None:
        self.since: float | None = None
        self.reason = ""
        self._latest = 0.0

    def failed(self, reason: str, silent_s: float) -> float:
        """For how long there has been nothing, now that one more try has failed after `silent_s` of silence."""
        self._latest = time.monotonic()
        self.reason = reason
        since = self.since = self._latest - silent_s if self.since is None else self.since
        return self._latest - since

    def over(self) -> None:
        self.since = None

    def is_final(self, lasting_s: float) -> bool:
        """Whether patience has ended and the latest try is so fresh that another would wait for nothing."""
        since, now = self.since, time.monotonic()
        return since is not None and now - since >= lasting_s and now - self._latest < self._FRESH_S


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so long, then send again."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Upload:
    """Put these test sets, then send again."""

    names: Sequence[str]


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing is left to send. `given_up` are answers in place of those that never came."""

    given_up: Sequence[tuple[int, Judgement]] = ()


Next = Pause | Upload | Done


@dataclass(eq=False)
class Exchange:
    """One batch until every program of it is answered. `orders` and `tests`, the numbers of tests where they are
    known, go by their index in the caller's list."""

    url: str
    orders: Mapping[int, Order]
    stop: str
    keep_output: bool
    patience: Patience
    tests: Mapping[int, int] = field(default_factory=dict)
    outage: Outage = field(default_factory=Outage)
    job: str = field(default_factory=lambda: uuid.uuid4().hex)
    trouble: str | None = None  # why the service could not answer last, until it does
    _sent: list[int] = field(default_factory=list)
    _answered: set[int] = field(default_factory=set)
    _failed: dict[int, Judgement] = field(default_factory=dict)  # answered with IE in this round
    _rounds: int = 0
    _pauses: int = 0
    _uploads: int = 0
    _failing_since: float | None = None
    _queueing_since: float | None = None

    @property
    def begun(self) -> bool:
        """Whether the service may know of it."""
        return bool(self._sent)

    def message(self) -> bytes:
        """The body of `POST /judge`. The same one, under the same name, until it has been answered in full."""
        if not self._sent:
            self._sent = [index for index in self.orders if index not in self._answered]
        orders = tuple(self.orders[index] for index in self._sent)
        return wire.encode(Batch(self.job, orders, self.stop, self.keep_output))

    def hear(self, line: str) -> tuple[int, Judgement] | None:
        """The answer in a line of the reply, with the caller's index; None for a heartbeat or one already known."""
        self.outage.over()
        if not line.strip():
            return None
        answer = wire.decode(Answer, line)
        if not 0 <= answer.index < len(self._sent):
            raise wire.WireError(f"answer to submission {answer.index} of {len(self._sent)}")
        index = self._sent[answer.index]
        _require_whole(answer.judgement, self.tests.get(index))
        self._failing_since, self._queueing_since, self._pauses, self.trouble = None, None, 0, None
        if index in self._answered:
            return None
        if answer.judgement.verdict is Verdict.IE and self._rounds < self.patience.infrastructure:
            self._failed[index] = answer.judgement
            return None
        self._answered.add(index)
        return index, answer.judgement

    def ended(self) -> Next:
        """What to do when a reply has come to its end."""
        if any(index not in self._answered and index not in self._failed for index in self._sent):
            return self.broken("the reply ended early")
        if not self._failed:
            return Done()
        self._failed.clear()
        self._rounds += 1
        self.job, self._sent = uuid.uuid4().hex, []
        return self._pause()

    def refused(self, status: int, headers: Mapping[str, str], body: bytes) -> Next:
        """What to do about a status other than 200. ServiceRefused when asking again is of no use."""
        if status == 429:
            now = time.monotonic()
            self._queueing_since = self._queueing_since or now
            if now - self._queueing_since < self.patience.queue_s:
                return Pause(_seconds(headers.get("retry-after"), 1.0))
            return self._give_up(f"its queue was full for {self.patience.queue_s:g} s")
        if status in _BUSY:
            return self.broken(f"status {status}")
        unknown = _unknown_tests(body) if status == 404 else []
        if unknown:
            self._uploads += 1
            if self._uploads > _UPLOADS:
                raise ServiceRefused(f"{self.url}: drops test sets before they are used: give it more --max-tests-mb")
            return Upload(unknown)
        raise refusal(self.url, status, body)

    def broken(self, reason: object, silent_s: float = 0.0) -> Next:
        """What to do when the connection failed, `silent_s` after the last sign of life, or no answer was possible.

        Patience is counted for this job and for all jobs of the client together: a thousand of them wait for a service
        that is gone as long as one does.
        """
        now = time.monotonic()
        self.trouble = str(reason)
        if self._failing_since is None:
            self._failing_since = now - silent_s
        lasting = max(now - self._failing_since, self.outage.failed(self.trouble, silent_s))
        if lasting < self.patience.lasting_s:
            return self._pause()
        return self._give_up(reason)

    def hopeless(self) -> Done | None:
        """What to answer without sending anything, where other jobs have just waited in vain; None: send it."""
        return self._give_up(self.outage.reason) if self.outage.is_final(self.patience.lasting_s) else None

    def _give_up(self, reason: object) -> Done:
        message = f"judge service {self.url}: {reason}"
        lost = [index for index in self.orders if index not in self._answered]
        self._answered.update(lost)
        return Done([(index, self._failed.get(index) or Judgement(Verdict.IE, (), "", message)) for index in lost])

    def _pause(self) -> Pause:
        seconds = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2**self._pauses)
        self._pauses += 1
        return Pause(seconds * random.uniform(0.5, 1.0))


def _require_whole(judgement: Judgement, tests: int | None) -> None:
    """WireError for an acceptance that fewer results than tests, or other results, stand behind."""
    cases = judgement.cases
    if judgement.accepted and (
        not cases or len(cases) != (tests or len(cases)) or any(case.verdict is not Verdict.AC for case in cases)
    ):
        raise wire.WireError(f"accepted with {judgement.passed} of {tests or len(cases)} tests passed")


def refusal(url: str, status: int, body: bytes) -> ServiceRefused:
    """The error for a status that another try would not change."""
    if status == 401:
        return ServiceRefused(f"{url}: the token is missing or wrong")
    try:
        said = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return ServiceRefused(f"{url}: status {status}; is this a judge service?")
    return ServiceRefused(f"{url}: {said}")


def _unknown_tests(body: bytes) -> list[str]:
    try:
        return [str(name) for name in json.loads(body)["unknown_tests"]]
    except (ValueError, KeyError, TypeError):
        return []


def _seconds(text: str | None, default: float) -> float:
    try:
        return min(60.0, max(0.1, float(text or default)))
    except ValueError:
        return default
