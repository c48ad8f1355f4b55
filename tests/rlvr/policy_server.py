"""What a vLLM server answers, with a real model behind it and faults to order: no vLLM needed."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rlvr.moe.sync import engine_name
from rlvr.moe.tap import RoutingTap
from rlvr.rollouts.vllm_routes import as_text
from rlvr.serving.access import OPEN

Fault = Callable[[Iterable[tuple[str, torch.Tensor]]], Iterable[tuple[str, torch.Tensor]]]


class PolicyServer:
    """Serves a checkpoint on a free port.

    `fault`: "stale" takes over no weights, "partial" loses one tensor, "full" has no memory for them, "forgets" goes
    back to its first weights when it has sampled; or a function that yields the tensors it takes over, damaged. After
    `die_after` requests it answers with an error; after `hang_after` completions never come: with `silent` not a byte
    of anything, otherwise /health and /metrics go on. `token`: what requests must bring, as to a guarded server.
    `routes`: experts of its tokens are recorded as asked, or why they are not.
    """

    def __init__(
        self,
        checkpoint: Path,
        fault: str | Fault | None = None,
        mode: str = "processed_logprobs",
        token: str | None = None,
        routes: str | None = None,
        **config: Any,
    ) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self.fault, self.mode, self.config = fault, mode, config  # the last: further parts of the vLLM config
        self.checkpoint, self.token, self.refused = checkpoint, token, routes
        self.recording = False
        self.routes: dict[str, np.ndarray] = {}  # by request
        self.version: int | None = None
        self.syncs = self.requests = self.arrived = self.tokens = self.scored = 0
        self.die_after: int | None = None
        self.hang_after: int | None = None
        self.silent = False
        self._closed = threading.Event()
        self._lock, self._counting = threading.Lock(), threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self, body: Any, status: int = 200) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def unknown(self) -> bool:
                known = self.path in OPEN or server.token is None
                if known or self.headers["Authorization"] == f"Bearer {server.token}":
                    return False
                self.answer({"error": "Unauthorized"}, 401)
                return True

            def do_GET(self) -> None:
                if self.unknown():
                    return
                if server.silent and server.hangs:
                    server._closed.wait()
                elif self.path == "/metrics":
                    lines = [
                        f'vllm:{kind}_tokens_total{{engine="0"}} {server.tokens}.0' for kind in ("prompt", "generation")
                    ]
                    self.wfile.write(("HTTP/1.0 200 OK\r\n\r\n" + "\n".join(lines) + "\n").encode())
                elif self.path == "/v1/models":
                    self.answer({"data": [{"id": "policy"}]})
                elif self.path.startswith("/server_info"):
                    self.answer({"vllm_config": {"model_config": {"logprobs_mode": server.mode}, **server.config}})
                else:
                    self.answer({})

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"] or 0))
                body = json.loads(raw) if raw else None
                if self.unknown():
                    return
                with server._counting:
                    server.arrived += self.path == "/v1/completions" and "prompt_logprobs" not in body
                if server.hangs:
                    server._closed.wait()
                    return
                with server._lock:
                    if self.path == "/collective_rpc" and body["method"] == "policy_version":
                        held = None if server.fault == "forgets" else server.version
                        self.answer({"results": [{"version": held}]})
                    elif self.path == "/collective_rpc" and body["method"] == "capture_routes":
                        server.recording = server.refused is None
                        self.answer({"results": [{"refused": server.refused}]})
                    elif self.path == "/collective_rpc" and body["method"] == "take_routes":
                        self.answer({"results": [server.take_routes(*body["args"])]})
                    elif self.path == "/collective_rpc" and server.fault == "full":
                        self.answer({"error": "torch.OutOfMemoryError: CUDA out of memory"}, 500)
                    elif self.path == "/collective_rpc":
                        self.answer({"results": [server.load(body["args"][0])]})
                    elif self.path == "/v1/completions" and "prompt_logprobs" in body:
                        self.answer({"choices": [{"prompt_logprobs": server.score(body["prompt"])}]})
                    elif self.path == "/v1/completions":
                        server.requests += 1
                        if server.die_after is not None and server.requests > server.die_after:
                            self.answer({"error": "EngineDeadError"}, 500)
                        else:
                            name = f"cmpl-{server.requests}"
                            self.answer({"id": name, "choices": [server.complete(body, name)]})
                    else:
                        self.answer({})

            def log_message(self, *args: Any) -> None:
                return None

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def hangs(self) -> bool:
        return self.hang_after is not None and self.arrived >= self.hang_after

    def load(self, folder: str) -> dict[str, Any]:
        """What vLLM's worker does and answers: parameters stacked, experts joined."""
        paths = sorted(Path(folder).glob("*.safetensors"))
        tensors = {name: tensor for path in paths for name, tensor in load_file(path).items()}
        with safe_open(paths[0], "pt") as file:
            version = int(file.metadata()["version"])
        self.syncs += 1
        self.version = version
        if self.fault == "partial":
            return {"tensors": len(tensors) - 1, "version": version}
        parameters: dict[str, int] = {}
        for name, tensor in load_file(self.checkpoint / "model.safetensors").items():
            parameters[engine_name(name)] = parameters.get(engine_name(name), 0) + tensor.numel()
        loaded = sorted({engine_name(name) for name in tensors} & parameters.keys())
        if self.fault != "stale":
            sent = tensors.items()
            self.take(dict(self.fault(sent)) if callable(self.fault) else dict(sent))
        return {"tensors": len(tensors), "version": version, "parameters": parameters, "loaded": loaded}

    def take(self, tensors: dict[str, torch.Tensor]) -> None:
        """Loads by checkpoint names; what is not among them stays as it was when the server began."""
        with tempfile.TemporaryDirectory() as folder:
            shutil.copy(self.checkpoint / "config.json", folder)
            kept = {**load_file(self.checkpoint / "model.safetensors"), **tensors}
            save_file(kept, Path(folder) / "model.safetensors", metadata={"format": "pt"})
            self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    @torch.no_grad()
    def score(self, ids: list[int]) -> list[dict[str, Any] | None]:
        self.scored += 1
        logps = self.model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        rows = [{str(t): {"logprob": float(row[t])}} for t, row in zip(ids[1:], logps, strict=True)]
        return [None, *rows]

    def take_routes(self, request: str, length: int) -> dict[str, Any]:
        if request not in self.routes:
            return {"missing": f"request {request}: 0 sequences of that name were recorded, expected 1"}
        ids = self.routes.pop(request)[: length - 1]
        return {"routes": as_text(ids)}

    @torch.no_grad()
    def complete(self, body: dict[str, Any], name: str) -> dict[str, Any]:
        random = torch.Generator().manual_seed(body["seed"])
        ids, tokens, logps = torch.tensor([body["prompt"]]), [], []
        cache = None
        while len(tokens) < body["max_tokens"]:
            out = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            row = (out.logits[0, -1] / body["temperature"]).log_softmax(-1)
            token = int(torch.multinomial(row.exp(), 1, generator=random))
            tokens.append(token)
            self.tokens += 1
            logps.append(float(row[token]))
            if token in body["stop_token_ids"]:
                break
            ids = torch.tensor([[token]])
        if self.recording:
            with RoutingTap(self.model) as tap, tap.recording() as passes:
                self.model(torch.tensor([[*body["prompt"], *tokens]]))
            depth = self.model.config.num_hidden_layers
            whole = np.zeros((*passes[0].shape[1:2], depth, passes[0].shape[-1]), np.uint8)
            whole[:, list(tap.layers)] = passes[0][0].numpy()
            self.routes[name] = whole
        ended = tokens[-1] in body["stop_token_ids"]
        return {
            "token_ids": tokens,
            "logprobs": {"token_logprobs": logps},
            "finish_reason": "stop" if ended else "length",
        }

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
