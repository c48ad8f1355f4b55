"""Who may talk to a server: its token, and the guard that asks for it.

vLLM asks for its key on `/v1` only. A server for training has routes beside it that load weights and run methods of its
workers, so `TokenForEverything` stands before all of them.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

GUARD = "rlvr.serving.access.TokenForEverything"
OPEN = ("/health", "/ping", "/metrics")  # what a watch asks


def server_token(path: Path | None = None) -> str:
    """Returns the access token: RLVR_SERVE_TOKEN, else what `path` holds, else a new one kept there for its owner.

    Raises ValueError where the file is empty.
    """
    if os.environ.get("RLVR_SERVE_TOKEN") or (path is not None and path.is_file()):
        return str(known_token(path))
    token = secrets.token_urlsafe(32)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(token + "\n")
    return token


def known_token(path: Path | None) -> str | None:
    """Returns RLVR_SERVE_TOKEN, else what `path` holds; None where neither is given. Raises ValueError for a file that
    is not there, or holds none."""
    if given := os.environ.get("RLVR_SERVE_TOKEN"):
        return given
    if path is None:
        return None
    try:
        token = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no text"
        raise ValueError(f"token file {path}: {reason}; expected the token of the server") from None
    if not token or not token.isascii() or len(token.split()) != 1:
        raise ValueError(f"token file {path}: expected one token, without spaces")
    return token


class TokenForEverything:
    """ASGI middleware (vLLM's `--middleware`): 401 for every request without the bearer token in VLLM_API_KEY, but on
    `OPEN`."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app
        self.expected = f"Bearer {os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Passes a request on, or refuses it."""
        if scope["type"] not in ("http", "websocket") or scope["path"] in OPEN:
            await self.app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        if secrets.compare_digest(given, self.expected):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            body = b'{"error": "Unauthorized"}'
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": body})
