"""The command and the environment of a vLLM server."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rlvr.serving.access import GUARD
from rlvr.serving.hardware import GIB, Hardware


def server_command(
    model: str, arguments: Mapping[str, Any], host: str, port: int, *, guarded: bool = False
) -> list[str]:
    """Returns the command line of vLLM's OpenAI server, by module: the console script needs the package named vllm,
    which the CPU build does not install. The access token goes by the environment, so no process list shows it;
    `guarded` asks for it on every route, not on vLLM's `/v1` alone."""
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    command += ["--host", host, "--port", str(port)]
    if guarded:
        command += ["--middleware", GUARD]
    for name, value in arguments.items():
        flag = name.replace("_", "-")
        if value is True:
            command.append(f"--{flag}")
        elif value is False:
            command.append(f"--no-{flag}")
        elif isinstance(value, dict | list):
            command += [f"--{flag}", json.dumps(value)]
        elif value is not None:
            command += [f"--{flag}", str(value)]
    return command


def environment(hardware: Hardware, token: str, *, for_rl: bool) -> dict[str, str]:
    """Returns the variables of the server: its token, no usage reports, and for RL the weight-update routes."""
    values = {"VLLM_API_KEY": token, "VLLM_NO_USAGE_STATS": "1"}
    if for_rl:
        values["VLLM_SERVER_DEV_MODE"] = "1"
    if hardware.device.name == "CPU":
        values |= {
            "VLLM_CPU_KVCACHE_SPACE": str(max(1, hardware.device.memory // GIB // 4)),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        }
    return values
