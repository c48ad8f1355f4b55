"""What a vLLM server answers, with a real model behind it and faults to order: no vLLM needed."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM


class PolicyServer:
    """Serves a checkpoint on a free port.

    `fault`: "stale" takes over no weights, "partial" loses one tensor, "full" has no memory for them. After `die_after`
    requests it answers with an error; after `hang_after` completions never come: with `silent` not a byte of anything,
    otherwise /health and /metrics go on.
    """

    def __init__(
        self, checkpoint: Path, fault: str | None = None, mode: str = "processed_logprobs", **config: Any
    ) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
        self.fault, self.mode, self.config = fault, mode, config  # the last: further parts of the vLLM config
        self.syncs = self.requests = self.arrived = self.tokens = 0
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

            def do_GET(self) -> None:
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
                with server._counting:
                    server.arrived += self.path == "/v1/completions"
                if server.hangs:
                    server._closed.wait()
                    return
                with server._lock:
                    if self.path == "/collective_rpc" and server.fault == "full":
                        self.answer({"error": "torch.OutOfMemoryError: CUDA out of memory"}, 500)
                    elif self.path == "/collective_rpc":
                        self.answer({"results": [server.load(body["args"][0])]})
                    elif self.path == "/v1/completions":
                        server.requests += 1
                        if server.die_after is not None and server.requests > server.die_after:
                            self.answer({"error": "EngineDeadError"}, 500)
                        else:
                            self.answer({"choices": [server.complete(body)]})
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

    def load(self, path: str) -> dict[str, int]:
        tensors = load_file(path)
        self.syncs += 1
        if self.fault == "partial":
            return {"tensors": len(tensors) - 1}
        if self.fault != "stale":
            self.model.load_state_dict(tensors, strict=False)  # a tied head is not in the file
            self.model.tie_weights()
        return {"tensors": len(tensors)}

    @torch.no_grad()
    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        torch.manual_seed(body["seed"] % 2**63)
        ids, tokens, logps = torch.tensor([body["prompt"]]), [], []
        cache = None
        while len(tokens) < body["max_tokens"]:
            out = self.model(input_ids=ids, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            row = (out.logits[0, -1] / body["temperature"]).log_softmax(-1)
            token = int(torch.multinomial(row.exp(), 1))
            tokens.append(token)
            self.tokens += 1
            logps.append(float(row[token]))
            if token in body["stop_token_ids"]:
                break
            ids = torch.tensor([[token]])
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
