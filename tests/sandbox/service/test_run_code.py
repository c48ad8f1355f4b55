"""`POST /run_code` as clients of SandboxFusion use it: same names, same meaning of each field."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import pytest
from running_service import TOKEN, Running

import sandbox

needs_cpp = pytest.mark.skipif(sandbox.languages.find("cpp").missing() is not None, reason="no g++ here")


@pytest.fixture
def run(running: Running):  # type: ignore[no-untyped-def]
    def call(code: str, language: str = "python", **fields: Any) -> dict[str, Any]:
        body = {"compile_timeout": 30, "run_timeout": 30, "code": code, "language": language, **fields}
        headers = {"Authorization": f"Bearer {TOKEN}"}
        response = httpx.post(f"{running.url}/run_code", json=body, headers=headers, timeout=200)
        assert response.status_code == 200, response.text
        return dict(response.json())

    return call


def as_a_trainer_reads_it(reply: dict[str, Any]) -> str:
    """The case analysis that trainers make of a reply."""
    compiled, ran = reply.get("compile_result"), reply.get("run_result")
    if reply["status"] == "SandboxError":
        return "sandbox_error"
    if reply["status"] == "Success":
        return "success"
    assert reply["status"] == "Failed"
    if compiled and compiled["status"] in ("Error", "TimeLimitExceeded"):
        return "compile_timeout"
    if compiled and compiled["return_code"] != 0:
        return "compile_error"
    assert ran is not None
    if ran["status"] == "TimeLimitExceeded":
        return "timeout"
    assert ran["status"] == "Finished" and ran["return_code"] != 0
    return "runtime_error"


def test_a_run_that_succeeds_has_the_known_reply(run) -> None:  # type: ignore[no-untyped-def]
    # every field a trainer sends, some of them null
    fields = {"stdin": "3 4\n", "memory_limit_MB": 1024, "files": {}, "fetch_files": [], "args": []}
    reply = run("print(sum(map(int, input().split())))", **fields)
    assert set(reply) == {"status", "message", "compile_result", "run_result", "executor_pod_name", "files"}
    assert reply["status"] == "Success" and reply["message"] == "" and reply["compile_result"] is None
    assert reply["files"] == {} and isinstance(reply["executor_pod_name"], str)
    seconds = reply["run_result"].pop("execution_time")
    assert 0 < seconds < 120
    assert reply["run_result"] == {"status": "Finished", "return_code": 0, "stdout": "7\n", "stderr": ""}


@pytest.mark.parametrize(
    ("code", "fields", "meaning", "return_code"),
    [
        ("print(", {}, "runtime_error", 1),
        ("import sys; print('x'); sys.exit(7)", {}, "runtime_error", 7),
        ("raise ValueError('no')", {"stdin": None}, "runtime_error", 1),
        ("import os; os.kill(os.getpid(), 11)", {}, "runtime_error", -11),
        ("while True: pass", {"run_timeout": 0.3}, "timeout", None),
        ("b = bytearray(400 << 20); b[::4096] = b'x' * len(b[::4096])", {"memory_limit_MB": 64}, "runtime_error", None),
    ],
)
def test_a_run_that_fails_says_how(run, code: str, fields: dict, meaning: str, return_code: int | None) -> None:  # type: ignore[no-untyped-def]
    reply = run(code, **fields)
    assert as_a_trainer_reads_it(reply) == meaning
    if return_code is not None or meaning == "timeout":
        assert reply["run_result"]["return_code"] == return_code


def test_an_exception_is_in_stderr(run) -> None:  # type: ignore[no-untyped-def]
    result = run("print('before')\nraise ValueError('no good')")["run_result"]
    assert result["stdout"] == "before\n" and "ValueError: no good" in result["stderr"]


@needs_cpp
def test_compiled_languages_have_a_compile_result(run) -> None:  # type: ignore[no-untyped-def]
    reply = run('#include <cstdio>\nint main() { int a; scanf("%d", &a); printf("%d", a * 2); }', "cpp", stdin="21")
    assert as_a_trainer_reads_it(reply) == "success" and reply["run_result"]["stdout"] == "42"
    assert reply["compile_result"]["status"] == "Finished" and reply["compile_result"]["return_code"] == 0
    broken = run("int main() { return x; }", "cpp")
    assert as_a_trainer_reads_it(broken) == "compile_error" and broken["run_result"] is None
    assert "x" in broken["compile_result"]["stderr"]


def test_large_output_is_not_cut(run) -> None:  # type: ignore[no-untyped-def]
    result = run("print('0123456789' * 1_600_000)")["run_result"]
    assert result["status"] == "Finished" and len(result["stdout"]) == 16_000_001


def test_output_without_end_is_stopped_and_said(run) -> None:  # type: ignore[no-untyped-def]
    reply = run("while True: print('x' * 1_000_000)")
    assert as_a_trainer_reads_it(reply) == "runtime_error"
    assert "printed more than 64 MiB" in reply["run_result"]["stderr"]


def test_files_lie_beside_the_program(run) -> None:  # type: ignore[no-untyped-def]
    files = {
        "data.bin": base64.b64encode(b"\0\xff").decode(),
        "tool.py": base64.b64encode(b"def f(): return 5").decode(),
    }
    code = "from __future__ import annotations\nimport tool\nprint(tool.f(), open('data.bin', 'rb').read(), __name__)"
    assert run(code, files={**files, "unset.txt": None})["run_result"]["stdout"] == "5 b'\\x00\\xff' __main__\n"


def test_a_file_the_program_leaves_is_fetched(run) -> None:  # type: ignore[no-untyped-def]
    code = "open('out.bin', 'wb').write(open('in.bin', 'rb').read()[::-1])"
    files = {"in.bin": base64.b64encode(b"\0abc").decode()}
    assert base64.b64decode(run(code, files=files, fetch_files=["out.bin"])["files"]["out.bin"]) == b"cba\0"
    assert run("print(1)", fetch_files=["out.bin"])["files"] == {}, "a file of the run before"


@needs_cpp
def test_files_lie_beside_compiled_programs_too(run) -> None:  # type: ignore[no-untyped-def]
    code = (
        "#include <fstream>\n#include <iostream>\n"
        'int main() { int a; std::ifstream("n.txt") >> a; std::cout << a + 1; }'
    )
    assert run(code, "cpp", files={"n.txt": base64.b64encode(b"41").decode()})["run_result"]["stdout"] == "42"


@pytest.mark.parametrize(
    ("language", "fields", "complaint"),
    [
        ("verilog", {}, "language 'verilog' is not run here"),
        ("python", {"fetch_files": ["a", "b"]}, "2 files are asked for, one is supported"),
        ("python", {"fetch_files": ["../x"]}, "file name '../x'"),
        ("python", {"files": {"../../etc/passwd": "eA=="}}, "file name '../../etc/passwd'"),
        ("python", {"files": {"a.txt": "not base64!"}}, "not base64"),
    ],
)
def test_what_is_not_served_is_the_sandboxes_error_not_the_programs(run, language, fields, complaint) -> None:  # type: ignore[no-untyped-def]
    reply = run("print(1)", language, **fields)
    assert as_a_trainer_reads_it(reply) == "sandbox_error" and complaint in reply["message"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"language": "python"}', b'{"code": "", "language": "python", "run_timeout": -1}', b"[]", b"", b"garbage",
        b"\xff\xfe", b'{"code": "", "language": "python", "run_timeout": NaN}',
        b'{"code": "\\ud800", "language": "python"}',
        b"[" * 100_000, b'{"code": ["print(1)"], "language": "python"}',
    ],
)  # fmt: skip
def test_a_request_that_does_not_fit_is_refused(running: Running, body: bytes) -> None:
    response = httpx.post(f"{running.url}/run_code", content=body, headers={"Authorization": f"Bearer {TOKEN}"})
    assert response.status_code == 422 and response.json()["detail"]


def test_a_failure_of_the_judge_is_a_sandbox_error(run, running: Running, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    broken = [sandbox.Execution(sandbox.Verdict.IE, message="the worker died")]
    monkeypatch.setattr(running.service.judge, "execute", lambda *_, **__: broken)
    reply = run("print(1)")
    assert reply["status"] == "SandboxError" and reply["message"] == "the worker died" and reply["run_result"] is None
