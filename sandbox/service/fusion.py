"""`POST /run_code` as SandboxFusion answers it: one program, one input, nothing compared.

What clients of SandboxFusion know (bytedance/SandboxFusion, sandbox/server/sandbox_api.py) keeps its names and meaning;
`limits_of`, `files_of` and `reply_to` say where the two differ.
"""

from __future__ import annotations

import base64
import binascii
import os
import signal
import socket
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from sandbox import languages
from sandbox.cases import Limits
from sandbox.submission import Execution
from sandbox.verdicts import Verdict

# SandboxFusion's names for the languages that exist here too; our own names are taken as well.
_LANGUAGES = {"python": "python", "cpp": "cpp", "nodejs": "javascript", "go": "go", "java": "java", "rust": "rust"}


class RunCodeRequest(BaseModel):
    """The request, with SandboxFusion's defaults. `args` is for its pytest runs and ignored."""

    compile_timeout: float = Field(10, gt=0)
    run_timeout: float = Field(10, gt=0)
    memory_limit_MB: int = -1
    code: str
    stdin: str | None = None
    language: str
    files: dict[str, str | None] = Field(default_factory=dict)
    fetch_files: list[str] = Field(default_factory=list)
    args: list[str] = Field(default_factory=list)


class CommandRunResult(BaseModel):
    status: Literal["Finished", "Error", "TimeLimitExceeded"]
    execution_time: float | None = None
    return_code: int | None = None
    stdout: str | None = None
    stderr: str | None = None


class RunCodeResponse(BaseModel):
    status: Literal["Success", "Failed", "SandboxError"]
    message: str = ""
    compile_result: CommandRunResult | None = None
    run_result: CommandRunResult | None = None
    executor_pod_name: str | None = Field(default_factory=lambda: os.environ.get("MY_POD_NAME") or socket.gethostname())
    files: dict[str, str] = Field(default_factory=dict)


class CannotRun(ValueError):
    """A request that this service cannot serve; the message says why and what is possible."""


def language_of(request: RunCodeRequest) -> languages.Language:
    """The language asked for. CannotRun when it is not known or its toolchain is missing."""
    try:
        language = languages.find(_LANGUAGES.get(request.language, request.language))
    except ValueError:
        raise CannotRun(f"language {request.language!r} is not run here: {', '.join(languages.names())} are") from None
    remedy = language.missing()
    if remedy is not None:
        raise CannotRun(f"language {request.language!r} cannot be used here: {remedy}")
    return language


def limits_of(request: RunCodeRequest, max_run_s: float, max_memory_mb: int, max_output_mb: float) -> Limits:
    """`run_timeout` limits CPU time as well as wall time, so that a busy machine costs no one a result."""
    seconds = min(request.run_timeout, max_run_s)
    memory = request.memory_limit_MB if request.memory_limit_MB > 0 else max_memory_mb
    return Limits(
        cpu_s=seconds,
        wall_s=seconds,
        memory_mb=min(memory, max_memory_mb),
        output_mb=max_output_mb,
        language_factors=False,
    )


def files_of(request: RunCodeRequest) -> dict[str, bytes]:
    """The contents of `files`, which lie beside the program. No folders, and at most one of `fetch_files`."""
    if len(request.fetch_files) > 1:
        raise CannotRun(f"fetch_files: {len(request.fetch_files)} files are asked for, one is supported")
    files: dict[str, bytes] = {}
    for name, data in request.files.items():
        if data is None:
            continue
        try:
            files[name] = base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            raise CannotRun(f"file {name!r}: the content is not base64") from None
    return files


def source_of(request: RunCodeRequest, language: languages.Language) -> str:
    """The program; Python that brings modules of its own is told to look for them."""
    if language.name in ("python", "pypy") and any(name.endswith(".py") for name in request.files):
        return _BESIDE_MODULES.format(source=request.code)
    return request.code


_BESIDE_MODULES = """
import sys
sys.path.insert(0, "")
del sys
exec(compile({source!r}, "solution.py", "exec"))
"""


def reply_to(execution: Execution, language: languages.Language, fetched: Sequence[str] = ()) -> RunCodeResponse:
    """The reply. A run stopped for memory or output counts as one that failed by itself, as it does there."""
    if execution.verdict is Verdict.IE:
        return RunCodeResponse(status="SandboxError", message=execution.message or "the judge failed")
    compiled = CommandRunResult(status="Finished", return_code=0, stdout="", stderr="") if language.compiled else None
    if execution.verdict in (Verdict.CE, Verdict.NO_CODE):
        failed = CommandRunResult(status="Finished", return_code=1, stdout="", stderr=execution.message)
        if language.compiled:
            return RunCodeResponse(status="Failed", compile_result=failed)
        return RunCodeResponse(status="Failed", run_result=failed)
    run = CommandRunResult(
        status="TimeLimitExceeded" if execution.verdict in (Verdict.TLE, Verdict.ILE) else "Finished",
        execution_time=execution.wall_s,
        stdout=execution.stdout.decode("utf-8", "replace"),
        stderr=execution.stderr.decode("utf-8", "replace"),
    )
    if run.status == "Finished":
        run.return_code = execution.exit_code
        if execution.verdict in (Verdict.MLE, Verdict.OLE) or (execution.verdict is Verdict.RE and not run.return_code):
            run.return_code = run.return_code or -int(signal.SIGKILL)  # the judge stopped it
            run.stderr = f"{run.stderr}{execution.message}\n"
    succeeded = run.status == "Finished" and run.return_code == 0
    files = {name: base64.b64encode(execution.collected).decode() for name in fetched if execution.collected}
    return RunCodeResponse(
        status="Success" if succeeded else "Failed", compile_result=compiled, run_result=run, files=files
    )
