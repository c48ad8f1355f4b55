"""The judge as an HTTP service."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import ValidationError

from sandbox import languages
from sandbox.execution import cache
from sandbox.judge import Judge, Statistics
from sandbox.languages import ToolchainMissing
from sandbox.service import fusion, wire
from sandbox.service.jobs import BatchTooLarge, JobConflict, Jobs, QueueFull
from sandbox.service.metrics import Metrics
from sandbox.service.testsets import NameTaken, TestSets, UnknownTestSets
from sandbox.service.wire import Answer, Batch, Order, TestSet, WireError
from sandbox.submission import Execution
from sandbox.verdicts import Verdict

PROTOCOL = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """What a service accepts. `token` None lets everyone in who can reach it."""

    token: str | None = None
    max_queue: int = 4096  # submissions accepted and not yet answered
    max_body_mb: int = 256
    max_tests_mb: int = 4096  # of test sets put over HTTP; the least recently used go first
    max_run_s: float = 120.0  # the limits of /run_code, which states none of its own or too high ones
    max_memory_mb: int = 4096
    max_output_mb: float = 64.0


class Refusal(Exception):
    """A request answered with a status other than 200 and one line of text."""

    def __init__(self, status: int, error: str, headers: dict[str, str] | None = None) -> None:
        self.status, self.headers = status, headers
        super().__init__(error)


class Service:
    """What the routes share."""

    def __init__(self, judge: Judge, settings: Settings, test_sets: TestSets) -> None:
        self.judge = judge
        self.settings = settings
        self.test_sets = test_sets
        self.metrics = Metrics()
        self.jobs = Jobs(judge, self.metrics, settings.max_queue)
        self.metrics.watch(judge.statistics, lambda: self.jobs.open_submissions, judge.protection)
        self._threads = ThreadPoolExecutor(256, thread_name_prefix="service-run")

    async def body(self, request: Request) -> bytes:
        """The request's body. Refusal 413 beyond the limit, before it has all been read."""
        limit = self.settings.max_body_mb << 20
        announced = request.headers.get("content-length", "0")
        if not (announced.isascii() and announced.isdecimal()):
            raise Refusal(400, f"Content-Length: expected a number, got {announced[:60]!r}")
        parts, size = [], 0
        async for part in request.stream():
            parts.append(part)
            size += len(part)
            if size > limit or int(announced) > limit:
                raise Refusal(413, f"the body is larger than {self.settings.max_body_mb} MiB (see --max-body-mb)")
        return b"".join(parts)

    async def put_tests(self, name: str, request: Request) -> Response:
        body = await self.body(request)
        new = await asyncio.to_thread(self.test_sets.put, name, body, self.check_tests)
        return JSONResponse({"name": name}, status_code=201 if new else 200)

    def check_tests(self, held: TestSet) -> None:
        """ValueError for tests that no program could be judged on as they are held."""
        try:
            self.judge.check(Order("", "").submission(held))
        except ToolchainMissing as error:
            raise ValueError(str(error)) from None

    async def judge_batch(self, request: Request) -> Response:
        body = await self.body(request)
        digest, batch = await asyncio.to_thread(lambda: (hashlib.sha256(body).hexdigest(), wire.decode(Batch, body)))
        batch.check()
        job = self.jobs.known(batch.job, digest)
        if job is None:
            held = self.test_sets.find(order.tests for order in batch.submissions)
            submissions = [order.submission(held[order.tests]) for order in batch.submissions]
            for number, submission in enumerate(submissions):
                try:
                    self.judge.check(submission, batch.stop)
                except (ValueError, ToolchainMissing) as error:
                    raise Refusal(422, f"submissions[{number}]: {error}") from None
            job = self.jobs.start(batch.job, digest, submissions, batch.stop, batch.keep_output)

        async def lines() -> AsyncIterator[bytes]:
            async for answer in job.follow():
                yield b"\n" if answer is None else wire.encode(Answer(*answer)) + b"\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    async def give_up(self, job: str) -> Response:
        self.jobs.give_up(job)
        return Response(status_code=204)

    async def run_code(self, request: Request) -> Response:
        try:
            asked = fusion.RunCodeRequest.model_validate_json(await self.body(request))
        except ValidationError as error:
            # without what was sent: it may be what JSON has no form for
            detail = error.errors(include_url=False, include_context=False, include_input=False)
            return JSONResponse({"detail": detail}, status_code=422)
        self.jobs.reserve(1)
        started = time.monotonic()
        execution = Execution(Verdict.IE)
        try:
            language = fusion.language_of(asked)
            execution = await self._execute(asked, language)
            reply = fusion.reply_to(execution, language, asked.fetch_files)
        except (fusion.CannotRun, ValueError) as error:
            reply = fusion.RunCodeResponse(status="SandboxError", message=str(error))
        finally:
            self.jobs.release(1)
        self.metrics.executed(execution, time.monotonic() - started, reply.status)
        return JSONResponse(reply.model_dump())

    async def _execute(self, asked: fusion.RunCodeRequest, language: languages.Language) -> Execution:
        settings = self.settings
        limits = fusion.limits_of(asked, settings.max_run_s, settings.max_memory_mb, settings.max_output_mb)
        source, files = fusion.source_of(asked, language), fusion.files_of(asked)
        options: dict[str, Any] = {"limits": limits, "files": files, "collect": "".join(asked.fetch_files)}

        def run() -> Execution:
            return self.judge.execute(source, [asked.stdin or ""], language=language.name, **options)[0]

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    async def health(self, request: Request) -> Response:
        statistics = self.judge.statistics()
        return JSONResponse(
            {
                "status": "ok",
                "version": metadata.version("rlvr"),
                "protocol": PROTOCOL,
                "judge": cache.JUDGE_VERSION,
                "protection": self.judge.protection,
                "languages": {name: remedy is None for name, remedy in languages.available().items()},
                "workers": statistics.workers,
                "control_groups": _groups_in_force(self.judge, statistics),
                "max_batch": self.settings.max_queue,
                "max_body_mb": self.settings.max_body_mb,
                "queue": self.jobs.open_submissions,
                "test_sets": len(self.test_sets),
                "token": self.settings.token is not None,
            }
        )

    async def telemetry(self, request: Request) -> Response:
        text = await asyncio.to_thread(self.metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    def close(self) -> None:
        self.jobs.close()
        self.judge.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


def create_app(judge: Judge, settings: Settings | None = None, test_sets: TestSets | None = None) -> FastAPI:
    """The service around `judge`, which it closes at its end."""
    settings = settings or Settings()
    service = Service(judge, settings, test_sets or TestSets(settings.max_tests_mb << 20))

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(title="rlvr judge", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.service = service

    async def admit(request: Request) -> None:
        if not _admitted(request, settings.token):
            service.metrics.unauthorised.inc()
            raise Refusal(401, "the token is missing or wrong", {"WWW-Authenticate": 'Bearer realm="rlvr judge"'})

    @app.exception_handler(Refusal)
    async def refuse(_: Request, refusal: Refusal) -> Response:
        return JSONResponse({"error": str(refusal)}, refusal.status, refusal.headers)

    @app.exception_handler(QueueFull)
    async def full(_: Request, error: QueueFull) -> Response:
        return JSONResponse({"error": str(error)}, 429, {"Retry-After": str(error.retry_after_s)})

    @app.exception_handler(UnknownTestSets)
    async def unknown(_: Request, error: UnknownTestSets) -> Response:
        return JSONResponse({"error": "test sets the service does not hold", "unknown_tests": error.names}, 404)

    for kind, status in ((WireError, 422), (NameTaken, 409), (JobConflict, 409), (BatchTooLarge, 413)):
        app.add_exception_handler(kind, _plain_error(status))
    app.add_api_route("/health", service.health, methods=["GET"])
    for method, path, answer in (
        ("GET", "/metrics", service.telemetry),
        ("POST", "/judge", service.judge_batch),
        ("DELETE", "/judge/{job}", service.give_up),
        ("PUT", "/tests/{name}", service.put_tests),
        ("POST", "/run_code", service.run_code),
    ):
        app.add_api_route(path, answer, methods=[method], dependencies=[Depends(admit)])
    return app


def _groups_in_force(judge: Judge, statistics: Statistics) -> dict[str, Any]:
    """What control groups limit, for how many of the workers started; `reason` where there are none."""
    place, reason = judge.control_groups.place, judge.control_groups.reason
    if place is None:
        return {"limits": [], "reason": reason}
    if statistics.in_groups < statistics.started:
        reason = "not every worker could enter its group"
    said = {"limits": ["memory", "processes"], "version": place.version, "reason": reason}
    return said | {"workers_started": statistics.started, "workers_held": statistics.in_groups}


def _plain_error(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, status)

    return answer


def _admitted(request: Request, token: str | None) -> bool:
    """Whether the request bears the token, or names it as the password of a URL such as http://judge:TOKEN@host."""
    if token is None:
        return True
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given.strip()).decode("utf-8").partition(":")[2]
        except ValueError:  # no base64, or no text in it
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.strip().encode(), token.encode())
