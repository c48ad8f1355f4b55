"""The supervisor on real processes: a small HTTP server that dies, hangs or never starts."""

from __future__ import annotations

import os
import socket
import stat
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from rlvr.serving.access import server_token
from rlvr.serving.supervise import ServerFailed, Supervisor, Watch, healthy

SERVER = """
import http.server, os, sys, time
port, lives, how = int(sys.argv[1]), sys.argv[2], sys.argv[3]
with open(lives, "a") as file: file.write(str(os.getpid()) + "\\n")
life = len(open(lives).read().split())
print("life", life, flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    count = 0
    def log_message(self, *a): pass
    def do_GET(self):
        Handler.count += 1
        if life == 1 and Handler.count > 2:
            if how == "die": os._exit(3)
            if how == "hang": time.sleep(3600)
        self.send_response(200); self.end_headers(); self.wfile.write(b"ok")
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""
QUICK = Watch(start_within=60, check_every=0.2, unhealthy_after=2, answer_within=2.0, restarts=2, stop_within=5)


@pytest.fixture
def port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(condition: object, seconds: float = 90.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.mark.parametrize("how", ["die", "hang"])
def test_a_server_that_dies_or_hangs_is_started_again(tmp_path: Path, port: int, how: str) -> None:
    script, lives, said = tmp_path / "server.py", tmp_path / "lives", []
    script.write_text(SERVER)
    url = f"http://127.0.0.1:{port}/health"
    command = [sys.executable, str(script), str(port), str(lives), how]
    supervisor = Supervisor(command, url, log=tmp_path / "log", watch=QUICK, say=said.append)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    wait_until(lambda: lives.exists() and len(lives.read_text().split()) >= 2 and healthy(url, 1.0))
    assert urllib.request.urlopen(url, timeout=5).read() == b"ok"
    supervisor.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert any("ended with code 3" in line or "health checks" in line for line in said)
    for pid in lives.read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_a_server_that_cannot_start_is_given_up_with_its_last_words(tmp_path: Path, port: int) -> None:
    command = [sys.executable, "-c", "print('no such model'); raise SystemExit(7)"]
    supervisor = Supervisor(
        command, f"http://127.0.0.1:{port}/health", log=tmp_path / "log", watch=QUICK, say=lambda _: None
    )
    with pytest.raises(ServerFailed, match=r"ended with code 7; restarted 2 times already; .*no such model"):
        supervisor.run()
    assert supervisor.starts == 3


def test_the_token_is_made_once_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLVR_SERVE_TOKEN", raising=False)
    path = tmp_path / "token"
    token = server_token(path)
    assert len(token) >= 32
    assert server_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    monkeypatch.setenv("RLVR_SERVE_TOKEN", "given")
    assert server_token(path) == "given"
