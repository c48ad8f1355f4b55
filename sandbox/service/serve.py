"""Runs the service until it is told to stop."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI

TOKEN_VARIABLE = "RLVR_JUDGE_TOKEN"


def token_from(file: str | Path | None) -> str | None:
    """The token in `file`, or else in the environment; None where neither is. ValueError for an empty one."""
    if file is not None:
        token = Path(file).read_text(encoding="utf-8").strip()
        if not token:
            raise ValueError(f"{file}: holds no token")
        return token
    return os.environ.get(TOKEN_VARIABLE) or None


def require_token_beyond_loopback(host: str, token: str | None) -> None:
    """ValueError for a service without a token that others than this machine could reach."""
    if token is None and not _is_loopback(host):
        raise ValueError(
            f"--host {host} can be reached from other machines: give a token by --token-file or {TOKEN_VARIABLE}, "
            "or stay on 127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, announce: Callable[[str], object]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            scheme = "https" if self.config.is_ssl else "http"
            self._announce(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")


def run(
    app: FastAPI,
    host: str,
    port: int,
    *,
    grace_s: float = 30.0,
    certificate: str | None = None,
    key: str | None = None,
    announce: Callable[[str], object] = print,
) -> None:
    """Serves `app` until SIGTERM or SIGINT; then takes no more requests and gives running ones `grace_s` seconds.

    `announce` is given the URL once connections are accepted; port 0 takes a free one. OSError when the port is taken.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=max(1, round(grace_s)),
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from None
        listener.listen(2048)
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them once more when it has shut down
            signal.signal(number, lambda *_: None)
        _Server(config, announce).run(sockets=[listener])
