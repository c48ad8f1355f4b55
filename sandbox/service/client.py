"""The judge of a service, used as a local one is. `JudgeClient` for ordinary code, `AsyncJudgeClient` for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx

from sandbox.cases import Limits, TestCase
from sandbox.service import wire
from sandbox.service.exchange import (
    Done,
    Exchange,
    Patience,
    Pause,
    ServiceError,
    ServiceRefused,
    ServiceUnreachable,
    Upload,
    refusal,
)
from sandbox.service.sender import Sender
from sandbox.service.wire import Order, TestSet
from sandbox.submission import Submission
from sandbox.verdicts import Judgement, Verdict

__all__ = ["AsyncJudgeClient", "JudgeClient", "Patience", "ServiceError", "ServiceRefused", "ServiceUnreachable"]

_SILENCE = httpx.Timeout(30.0, connect=10.0, pool=None)  # a service sends a sign of life every few seconds


def silence(error: Exception) -> float:
    """Seconds of silence that a failure ended, 0 where the connection broke or none was made."""
    return (_SILENCE.read or 0.0) if isinstance(error, httpx.ReadTimeout) else 0.0


class JudgeClient(Sender):
    """Judges programs on a service. Thread-safe; a context manager.

    ServiceUnreachable when nothing answers at `url` within `connect_s`; ServiceRefused for a wrong token or a service
    below `min_protection`. Later failures of the service or the network are waited for (`patience`), then come out as
    IE; they are counted in `infrastructure_errors`, never taken for a wrong answer.
    """

    def __init__(self, url: str, token: str | None = None, *, connect_s: float = 30.0, **options: Any) -> None:
        super().__init__(url, token, **options)
        self.infrastructure_errors = 0
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self._concurrency)
        self._http = httpx.Client(base_url=self.url, headers=self._headers, timeout=_SILENCE, limits=limits)
        try:
            self.protection = self._meet(self._first_health(connect_s))
            self._try_token()
        except BaseException:
            self._http.close()
            raise

    def __enter__(self) -> JudgeClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def health(self) -> dict[str, Any]:
        """What the service says of itself: version, protection, languages, workers, limits."""
        response = self._http.get("/health")
        if response.status_code != 200:
            raise refusal(self.url, response.status_code, response.content)
        return dict(response.json())

    def judge(
        self,
        code: str,
        tests: Sequence[TestCase],
        *,
        language: str = "python",
        limits: Limits | None = None,
        checker: str = "tokens",
        input_file: str = "",
        output_file: str = "",
        interactor: str = "",
        stop: str = "first_failure",
        keep_output: bool = False,
    ) -> Judgement:
        """As `sandbox.Judge.judge`."""
        submission = Submission(code, tests, language, limits or Limits(), checker, input_file, output_file, interactor)
        return self.judge_batch([submission], stop=stop, keep_output=keep_output)[0]

    async def ajudge(self, code: str, tests: Sequence[TestCase], **options: Any) -> Judgement:
        """`judge` for asynchronous callers, in a thread; for many at once use AsyncJudgeClient."""
        return await asyncio.to_thread(lambda: self.judge(code, tests, **options))

    def judge_batch(
        self,
        submissions: Iterable[Submission],
        *,
        stop: str = "first_failure",
        progress: Callable[[int, int], object] | None = None,
        keep_output: bool = False,
    ) -> list[Judgement]:
        """As `sandbox.Judge.judge_batch`."""
        return self._in_order(self._orders(submissions), stop, keep_output, progress)

    def judge_named(
        self, name: str, codes: Iterable[str], *, language: str = "python", stop: str = "first_failure"
    ) -> list[Judgement]:
        """Judgements of `codes` on the test set the service holds under `name`: no test leaves the service."""
        return self._in_order([Order(name, code, language) for code in codes], stop, False, None)

    def put_tests(self, name: str, tests: TestSet) -> None:
        """Has the service hold `tests` under `name`."""
        self._put(name, wire.encode(tests))

    def as_completed(
        self, submissions: Iterable[Submission], *, stop: str = "first_failure", keep_output: bool = False
    ) -> Iterator[tuple[int, Judgement]]:
        """As `sandbox.Judge.as_completed`."""
        return self._answers(self._orders(submissions), stop, keep_output)

    def _in_order(
        self, orders: list[Order], stop: str, keep_output: bool, progress: Callable[[int, int], object] | None
    ) -> list[Judgement]:
        found: list[Judgement | None] = [None] * len(orders)
        for done, (index, judgement) in enumerate(self._answers(orders, stop, keep_output), 1):
            found[index] = judgement
            if progress is not None:
                progress(done, len(orders))
        return [judgement for judgement in found if judgement is not None]

    def _answers(self, orders: list[Order], stop: str, keep_output: bool) -> Iterator[tuple[int, Judgement]]:
        exchanges = self._exchanges(orders, stop, keep_output)
        if not exchanges:
            return
        news: queue.SimpleQueue[tuple[int, Judgement] | BaseException] = queue.SimpleQueue()
        over = threading.Event()

        def carry_out(exchange: Exchange) -> None:
            try:
                self._carry_out(exchange, news.put, over)
            except BaseException as error:
                news.put(error)
            finally:
                self._forget(exchange)

        threads = ThreadPoolExecutor(min(self._concurrency, len(exchanges)), thread_name_prefix="judge-client")
        try:
            for exchange in exchanges:
                threads.submit(carry_out, exchange)
            for _ in orders:
                answer = news.get()
                if isinstance(answer, BaseException):
                    raise answer
                self.infrastructure_errors += answer[1].verdict is Verdict.IE
                yield answer
        finally:
            over.set()
            threads.shutdown(wait=False, cancel_futures=True)

    def _carry_out(
        self, exchange: Exchange, emit: Callable[[tuple[int, Judgement]], None], over: threading.Event
    ) -> None:
        while not over.is_set():
            try:
                following: Pause | Upload | Done = exchange.hopeless() or self._send(exchange, emit, over)
                if isinstance(following, Upload):
                    for name in following.names:
                        self._put(name, self._body_of(name))
            except (httpx.TransportError, wire.WireError) as error:
                following = exchange.broken(f"{type(error).__name__}: {error}", silence(error))
            self._notice(exchange)
            if isinstance(following, Done):
                for answer in following.given_up:
                    emit(answer)
                return
            if isinstance(following, Pause):
                over.wait(following.seconds)
        with contextlib.suppress(httpx.HTTPError, RuntimeError):  # the client may be closed by now
            self._http.delete(f"/judge/{exchange.job}")

    def _send(
        self, exchange: Exchange, emit: Callable[[tuple[int, Judgement]], None], over: threading.Event
    ) -> Pause | Upload | Done:
        with self._http.stream("POST", "/judge", content=exchange.message()) as response:
            if response.status_code != 200:
                return exchange.refused(response.status_code, response.headers, response.read())
            for line in response.iter_lines():
                answer = exchange.hear(line)
                if answer is not None:
                    emit(answer)
                if over.is_set():
                    return Pause(0.0)
        return exchange.ended()

    def _put(self, name: str, body: bytes) -> None:
        response = self._http.put(f"/tests/{name}", content=body)
        if response.status_code not in (200, 201):
            raise refusal(self.url, response.status_code, response.content)

    def _first_health(self, connect_s: float) -> Any:
        deadline = time.monotonic() + connect_s
        while True:
            try:
                response = self._http.get("/health")
                if response.status_code == 200:
                    return response.json()
                reason: object = f"status {response.status_code}"
                if response.status_code not in (502, 503, 504):
                    raise refusal(self.url, response.status_code, response.content)
            except (httpx.TransportError, httpx.InvalidURL, ValueError) as error:
                reason = error
                if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
                    raise ServiceUnreachable(f"{self.url}: not a URL: {error}; as in http://127.0.0.1:8080") from None
            if time.monotonic() > deadline:
                raise ServiceUnreachable(f"{self.url}: no judge service answers: {reason}")
            time.sleep(0.5)

    def _try_token(self) -> None:
        response = self._http.get("/metrics")
        if response.status_code == 401:
            raise refusal(self.url, 401, b"")


class AsyncJudgeClient(Sender):
    """As `JudgeClient`, in an event loop: `async with AsyncJudgeClient(url, token) as judge:`."""

    protection = ""

    async def __aenter__(self) -> AsyncJudgeClient:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self._concurrency)
        self._http = httpx.AsyncClient(base_url=self.url, headers=self._headers, timeout=_SILENCE, limits=limits)
        try:
            response = await self._http.get("/health")
        except httpx.TransportError as error:
            await self._http.aclose()
            raise ServiceUnreachable(f"{self.url}: no judge service answers: {error}") from None
        try:
            if response.status_code != 200:
                raise refusal(self.url, response.status_code, response.content)
            self.protection = self._meet(response.json())
        except BaseException:
            await self._http.aclose()
            raise
        self._places = asyncio.Semaphore(self._concurrency)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def judge(
        self,
        code: str,
        tests: Sequence[TestCase],
        *,
        language: str = "python",
        limits: Limits | None = None,
        checker: str = "tokens",
        input_file: str = "",
        output_file: str = "",
        interactor: str = "",
        stop: str = "first_failure",
        keep_output: bool = False,
    ) -> Judgement:
        """As `sandbox.Judge.ajudge`."""
        submission = Submission(code, tests, language, limits or Limits(), checker, input_file, output_file, interactor)
        return (await self.judge_batch([submission], stop=stop, keep_output=keep_output))[0]

    async def judge_batch(
        self, submissions: Iterable[Submission], *, stop: str = "first_failure", keep_output: bool = False
    ) -> list[Judgement]:
        """Judgements in the order of `submissions`."""
        found: dict[int, Judgement] = {}
        async for index, judgement in self.as_completed(submissions, stop=stop, keep_output=keep_output):
            found[index] = judgement
        return [found[index] for index in sorted(found)]

    async def as_completed(
        self, submissions: Iterable[Submission], *, stop: str = "first_failure", keep_output: bool = False
    ) -> AsyncIterator[tuple[int, Judgement]]:
        """(index, judgement) pairs as they come."""
        orders = self._orders(submissions)
        news: asyncio.Queue[tuple[int, Judgement] | BaseException] = asyncio.Queue()

        async def carry_out(exchange: Exchange) -> None:
            try:
                async with self._places:
                    await self._carry_out(exchange, news)
            except Exception as error:
                news.put_nowait(error)
            finally:
                self._forget(exchange)

        exchanges = self._exchanges(orders, stop, keep_output)
        tasks = [asyncio.create_task(carry_out(each)) for each in exchanges]
        try:
            for _ in orders:
                answer = await news.get()
                if isinstance(answer, BaseException):
                    raise answer
                yield answer
        finally:
            for exchange, task in zip(exchanges, tasks, strict=True):
                if task.cancel() and exchange.begun:
                    with contextlib.suppress(httpx.HTTPError, RuntimeError):
                        await self._http.delete(f"/judge/{exchange.job}")

    async def _carry_out(self, exchange: Exchange, news: asyncio.Queue[tuple[int, Judgement] | BaseException]) -> None:
        while True:
            try:
                following: Pause | Upload | Done = exchange.hopeless() or await self._send(exchange, news)
                if isinstance(following, Upload):
                    for name in following.names:
                        response = await self._http.put(f"/tests/{name}", content=self._body_of(name))
                        if response.status_code not in (200, 201):
                            raise refusal(self.url, response.status_code, response.content)
            except (httpx.TransportError, wire.WireError) as error:
                following = exchange.broken(f"{type(error).__name__}: {error}", silence(error))
            self._notice(exchange)
            if isinstance(following, Done):
                for answer in following.given_up:
                    news.put_nowait(answer)
                return
            if isinstance(following, Pause):
                await asyncio.sleep(following.seconds)

    async def _send(
        self, exchange: Exchange, news: asyncio.Queue[tuple[int, Judgement] | BaseException]
    ) -> Pause | Upload | Done:
        async with self._http.stream("POST", "/judge", content=exchange.message()) as response:
            if response.status_code != 200:
                return exchange.refused(response.status_code, response.headers, await response.aread())
            async for line in response.aiter_lines():
                answer = exchange.hear(line)
                if answer is not None:
                    news.put_nowait(answer)
        return exchange.ended()
