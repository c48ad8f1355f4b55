"""A server that speaks enough of the OpenAI protocol to be evaluated, and fails in the ways real ones do."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, str]
Answer = Callable[[dict[str, Any], int], Reply]  # (request, its number from 0) -> status and body


def completion(text: str, finish_reason: str = "stop", tokens: int = 7) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    return 200, json.dumps({"choices": [choice], "usage": {"completion_tokens": tokens}})


@contextmanager
def serving(answer: Answer, port: int = 0) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """(address, requests so far) of a running server; port 0 takes any that is free."""
    requests: list[dict[str, Any]] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(requests)
                requests.append(body | {"path": self.path, "key": self.headers.get("Authorization")})
            status, text = answer(body, number)
            if status == 0:  # the connection just dies
                self.connection.close()
                return
            payload = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", requests
    finally:
        server.shutdown()
        server.server_close()
