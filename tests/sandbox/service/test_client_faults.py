"""A service that talks nonsense, is always busy, or breaks off: IE or an error, never a verdict."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from sandbox import TestCase, Verdict
from sandbox.service.client import JudgeClient, Patience, ServiceError, ServiceRefused, ServiceUnreachable

HEALTH = {"status": "ok", "protocol": 1, "protection": "namespaced", "max_batch": 100}
TESTS = [TestCase("1", "1"), TestCase("2", "2")]
HASTY = Patience(lasting_s=0.5, infrastructure=1, queue_s=0.5)
CASE = {"verdict": "AC"}


def answer(**judgement: object) -> bytes:
    return json.dumps({"index": 0, "judgement": {"protection": "namespaced", **judgement}}).encode() + b"\n"


RIGHT = answer(verdict="AC", cases=[CASE, CASE])


@pytest.fixture
def service() -> Iterator[Callable[..., str]]:
    """A server that answers POST /judge with one (status, body) after the other, the last one for ever."""
    servers: list[ThreadingHTTPServer] = []

    def start(*replies: tuple[int, bytes], health: object = HEALTH) -> str:
        left = list(replies)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply(200, json.dumps(health).encode() if not isinstance(health, bytes) else health)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                status, body = left.pop(0) if len(left) > 1 else left[0]
                if status:
                    self.reply(status, body)

            def do_DELETE(self) -> None:
                self.reply(204, b"")

            do_PUT = do_POST

            def reply(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Retry-After", "0.1")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


NONSENSE = {
    "no connection": (0, b""),
    "not JSON": (200, b"<html>welcome</html>\n"),
    "not a judgement": (200, b'{"index": 0, "judgement": "AC"}\n'),
    "an unknown verdict": (200, answer(verdict="OK", cases=[CASE, CASE])),
    "an answer to nobody": (200, RIGHT.replace(b'"index": 0', b'"index": 7')),
    "nothing": (200, b""),
    "half a line": (200, RIGHT[:30]),
    "a busy gateway": (503, b"try later"),
    "a full queue": (429, b""),
    "accepted without results": (200, answer(verdict="AC")),
    "accepted with fewer results than tests": (200, answer(verdict="AC", cases=[CASE])),
    "accepted with more results than tests": (200, answer(verdict="AC", cases=[CASE] * 3)),
    "accepted with a test that failed": (200, answer(verdict="AC", cases=[CASE, {"verdict": "WA"}])),
}


@pytest.mark.parametrize("reply", NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_is_an_infrastructure_error_in_the_end(service: Callable[..., str], reply: tuple[int, bytes]) -> None:
    with JudgeClient(service(reply), patience=HASTY) as client:
        found = client.judge("print(1)", TESTS)
        assert found.verdict is Verdict.IE and client.url in found.message
        assert client.infrastructure_errors == 1


@pytest.mark.parametrize("reply", NONSENSE.values(), ids=NONSENSE.keys())
def test_a_service_that_recovers_is_believed(service: Callable[..., str], reply: tuple[int, bytes]) -> None:
    with JudgeClient(service(reply, (200, RIGHT)), patience=Patience(lasting_s=60.0)) as client:
        assert client.judge("print(1)", TESTS).accepted
        assert client.infrastructure_errors == 0


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        ((401, b""), "the token is missing or wrong"),
        ((422, b'{"error": "submissions[0]: unknown checker"}'), "unknown checker"),
        ((500, b"Internal Server Error"), "status 500; is this a judge service"),
        ((404, b"no such page"), "status 404; is this a judge service"),
        ((404, b'{"unknown_tests": ["never sent"]}'), "holds no test set 'never sent'"),
    ],
)
def test_what_asking_again_would_not_mend_is_an_error_at_once(
    service: Callable[..., str], reply: tuple[int, bytes], complaint: str
) -> None:
    with JudgeClient(service(reply), patience=Patience(lasting_s=600.0)) as client:
        with pytest.raises(ServiceRefused, match=complaint.replace("[", r"\[")) as refused:
            client.judge("print(1)", TESTS)
        assert client.url in str(refused.value) and len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("health", "kind", "complaint"),
    [
        (b"<html>", ServiceUnreachable, "no judge service answers"),
        ([], ServiceRefused, "is not a judge service"),
        ({"status": "ok"}, ServiceRefused, "is not a judge service"),
        ({**HEALTH, "protocol": 2}, ServiceRefused, "speaks protocol 2, this client 1"),
        ({**HEALTH, "protection": "limited"}, ServiceRefused, "level 'limited', 'confined' is demanded"),
        ({**HEALTH, "protection": "total"}, ServiceRefused, "level 'total'"),
    ],
)
def test_a_service_that_is_none_is_refused_before_anything_is_sent(
    service: Callable[..., str], health: object, kind: type[ServiceError], complaint: str
) -> None:
    with pytest.raises(kind, match=complaint):
        JudgeClient(service((200, RIGHT), health=health), connect_s=0)
