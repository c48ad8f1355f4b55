"""Whatever is sent to the service is answered by one clear line, and the service goes on judging."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from running_service import ADDING, TOKEN, Running

BEARER = {"Authorization": f"Bearer {TOKEN}"}
ORDER = {"tests": "sums", "code": ADDING}


def batch(job: Any = "one", **order: Any) -> bytes:
    return json.dumps({"job": job, "submissions": [ORDER | order]}).encode()


def limits(text: str) -> bytes:
    return b'{"job": "x", "submissions": [{"tests": "sums", "code": "1", "limits": {%s}}]}' % text.encode()


BATCHES = [
    (b"", "not JSON"),
    (b"{}", "'job' is missing"),
    (b"null", "expected an object"),
    (b"[]", "expected an object"),
    (b"\xff\xfe\x00", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b"1" * 5000, "not JSON"),
    (b'{"job": "x"}', "'submissions' is missing"),
    (b'{"job": "x", "submissions": []}', "at least one"),
    (b'{"job": "x", "submissions": {}}', "expected a list"),
    (b'{"job": "x", "submissions": [null]}', "submissions[0]: expected an object"),
    (batch(""), "job ''"),
    (batch("n" * 100_000), "printable"),
    (batch("a\0b"), "printable"),
    (batch(7), "job: expected a string"),
    (batch(code=7), "submissions[0].code"),
    (batch(language="\0"), "unknown language"),
    (batch(checker=""), "unknown checker"),
    (batch(input_file="\0"), "file name"),
    (batch(input_file="../answer"), "file name"),
    (batch(more=1), "unknown key 'more'"),
    (limits('"cpu_s": -1'), "cpu_s=-1.0"),
    (limits('"cpu_s": 1e300'), "at most"),
    (limits('"cpu_s": NaN'), "cpu_s=nan"),
    (limits('"wall_s": 1e999'), "wall_s=inf"),
    (limits('"memory_mb": 1' + "0" * 400), "memory_mb=1000"),
    (limits('"memory_mb": true'), "expected an integer"),
    (limits('"output_mb": 1e300'), "output_mb=1e+300"),
]


def one_line(response: httpx.Response, status: int, words: str) -> None:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert words in error
    assert "\n" not in error


@pytest.mark.parametrize(("body", "words"), BATCHES, ids=[str(number) for number in range(len(BATCHES))])
def test_a_batch_that_makes_no_sense_is_refused(running: Running, body: bytes, words: str) -> None:
    one_line(httpx.post(f"{running.url}/judge", content=body, headers=BEARER), 422, words)


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("new", b"", "not JSON"),
        ("new", b"null", "expected an object"),
        ("new", b'{"tests": []}', "has no tests"),
        ("new", b'{"tests": [7]}', "tests[0]"),
        ("new", b'{"tests": [{"input": 7}]}', "tests[0].input"),
        ("new", b"\xff", "not JSON"),
        ("%00", b'{"tests": [{}]}', "printable"),
        ("n" * 5000, b'{"tests": [{}]}', "printable"),
        ("sha256-", b'{"tests": [{}]}', "digest"),
        # what every program judged on them would be refused for
        ("new", b'{"tests": [{}], "limits": {"cpu_s": -1}}', "limits: cpu_s=-1.0 must be a positive number"),
        ("new", b'{"tests": [{}], "limits": {"wall_s": 1e300}}', "limits: wall_s=1e+300"),
        ("new", b'{"tests": [{}], "limits": {"memory_mb": 0}}', "limits: memory_mb=0"),
        ("new", b'{"tests": [{}], "limits": {"memory_mb": 1.5}}', "limits.memory_mb: expected an integer"),
        ("new", b'{"tests": [{}], "limits": {"output_mb": NaN}}', "limits: output_mb=nan"),
        ("new", b'{"tests": [{}], "checker": "nearly"}', "unknown checker 'nearly'"),
        ("new", b'{"tests": [{}], "checker": "floats:2"}', "tolerance"),
        ("new", b'{"tests": [{}], "checker": "python:if"}', "does not compile"),
        ("new", b'{"tests": [{}], "checker": "testlib:int main(){}"}', "testlib.h"),
        ("new", b'{"tests": [{}], "interactor": "somebody"}', "unknown interactor 'somebody'"),
        ("new", b'{"tests": [{}], "interactor": "python:1", "input_file": "a"}', "interactive"),
        ("new", b'{"tests": [{}], "input_file": "../a"}', "file name '../a'"),
        ("new", b'{"tests": [{"call": "f("}]}', "test 1: call is no Python expression"),
        ("new", b'{"tests": [{}, {"input": "[", "call": "f()"}]}', "test 2: input is no JSON list"),
        ("new", b'{"tests": [{"output": "\\ud83d"}]}', "test 1: output holds U+D83D"),
    ],
)
def test_a_test_set_that_makes_no_sense_is_refused(running: Running, name: str, body: bytes, words: str) -> None:
    one_line(httpx.put(f"{running.url}/tests/{name}", content=body, headers=BEARER), 422, words)


@pytest.mark.parametrize(
    "bad",
    [b"", b"null", b"[]", b"\xff", b"{}", b'{"code": 7, "language": "python"}']
    + [b'{"code": "1", "language": "python", "run_timeout": %s}' % text for text in (b"-1", b"NaN", b'"x"')]
    + [b'{"code": "1", "language": "python", "files": {"a": 7}}'],
)
def test_a_program_that_makes_no_sense_is_refused(running: Running, bad: bytes) -> None:
    response = httpx.post(f"{running.url}/run_code", content=bad, headers=BEARER)
    assert response.status_code == 422
    assert response.json()["detail"]  # as SandboxFusion says it


@pytest.mark.parametrize(
    "more",
    [
        {"run_timeout": 1e300},
        {"memory_limit_MB": 10**30},
        {"memory_limit_MB": 1},
        {"files": {"": "YQ=="}},
        {"files": {"a\0": "YQ=="}},
        {"files": {"n" * 300: "YQ=="}},
        {"files": {"..": "YQ=="}},
        {"files": {".": "YQ=="}},
        {"files": {"a": "!"}},
        {"fetch_files": ["\0"]},
        {"fetch_files": [".."]},
        {"language": "\0"},
        {"code": "\0"},
        {"stdin": "\0"},
    ],
)
def test_an_odd_program_costs_no_worker(running: Running, more: dict[str, Any]) -> None:
    before = running.service.judge.workers_replaced
    asked = {"code": "print(1)", "language": "python"} | more
    response = httpx.post(f"{running.url}/run_code", json=asked, headers=BEARER, timeout=120)
    assert response.status_code == 200
    assert response.json()["status"] in ("Success", "Failed", "SandboxError")
    assert running.service.judge.workers_replaced == before


@pytest.mark.parametrize(
    "given",
    ["", "Bearer", "Bearer wrong", "Bearer \xe9", "Basic ///", "Basic \xff", "Basic " + "A" * 10_000, "Digest x"],
)
def test_a_token_that_is_none_is_401(running: Running, given: str) -> None:
    for method, path in (("GET", "/metrics"), ("POST", "/judge"), ("PUT", "/tests/a"), ("POST", "/run_code")):
        response = httpx.request(method, running.url + path, headers={b"Authorization": given.encode("latin-1")})
        assert response.status_code == 401, (method, path)


def test_after_all_that_it_judges_on(running: Running) -> None:
    response = httpx.post(f"{running.url}/judge", content=batch("after all that"), headers=BEARER, timeout=120)
    assert json.loads(response.text.splitlines()[0])["judgement"]["verdict"] == "AC"
