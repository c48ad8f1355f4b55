"""Routes out of a vLLM engine that cannot return them itself: its CPU build.

Where vLLM returns routes (`enable_return_routed_experts`), use that. Elsewhere `RouteRecorder` sits in the worker,
hears what every router of the model chooses and keeps it by request and position, however the scheduler batches:
prompts in parts, many sequences a step, sequences preempted and computed anew.
"""

from __future__ import annotations

import base64
import io
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlvr.moe.routes import RouteMismatch, Routes, RouteShape, from_engine


@dataclass
class Recorded:
    """Experts [positions, decoder layers, k] of one request; dense layers and positions not `known` are zero."""

    ids: np.ndarray
    known: np.ndarray


@dataclass
class RouteRecorder:
    """Keeps the routes of what a model runner executes, from `start` to `stop`.

    `layers`: the routers of the model by absolute decoder index. `positions`: the longest sequence. Of requests that
    ended and that nobody took, the newest `untaken` stay. `trouble` is what made a step unreadable, if any did.
    """

    runner: Any
    routers: Mapping[int, Any]
    depth: int
    positions: int
    untaken: int = 1024
    trouble: str | None = None
    _rows: dict[int, list[np.ndarray]] = field(default_factory=dict)
    _kept: dict[str, Recorded] = field(default_factory=dict)
    _ended: deque[str] = field(default_factory=deque)

    def start(self) -> None:
        """Hears every router and sees every step from now on."""
        for layer, router in self.routers.items():
            router.set_capture_fn(self._hear(layer))
        self._execute = self.runner.execute_model
        self.runner.execute_model = self._execute_and_keep

    def stop(self) -> None:
        """Leaves the engine as it was."""
        for router in self.routers.values():
            router.set_capture_fn(None)
        self.runner.execute_model = self._execute

    def take(self, request: str, length: int) -> np.ndarray:
        """Returns [length - 1, decoder layers, k] of a request of `length` tokens, and forgets it.

        Raises RouteMismatch where it was not seen, or not whole.
        """
        if self.trouble is not None:
            raise RouteMismatch(self.trouble)
        held = [name for name in self._kept if name == request or name.startswith(f"{request}-")]
        if len(held) != 1:
            raise RouteMismatch(f"request {request}: {len(held)} sequences of that name were recorded, expected 1")
        recorded = self._kept.pop(held[0])
        missing = int((~recorded.known[: length - 1]).sum())
        if missing:
            raise RouteMismatch(
                f"request {request}: {missing} of {length - 1} tokens have no routes; were they taken from a cache?"
            )
        return recorded.ids[: length - 1]

    def _hear(self, layer: int) -> Any:
        rows = self._rows[layer] = []
        return lambda ids: rows.append(ids.detach().to("cpu").numpy().copy())

    def _execute_and_keep(self, scheduled: Any, *arguments: Any, **named: Any) -> Any:
        for rows in self._rows.values():
            rows.clear()
        answer = self._execute(scheduled, *arguments, **named)
        for request in scheduled.finished_req_ids:
            if request in self._kept:
                self._ended.append(request)
        while len(self._ended) > self.untaken:
            self._kept.pop(self._ended.popleft(), None)
        if scheduled.total_num_scheduled_tokens and self.trouble is None:
            self._keep(scheduled)
        return answer

    def _keep(self, scheduled: Any) -> None:
        order = list(self.runner.input_batch.req_ids)  # as the step just executed stood in its batch
        counts = [scheduled.num_scheduled_tokens[request] for request in order]
        total = sum(counts)
        by_layer = {layer: np.concatenate(rows) if rows else np.empty((0, 0)) for layer, rows in self._rows.items()}
        for layer, ids in by_layer.items():
            if len(ids) < total:  # more are padding
                self.trouble = f"a step of {total} tokens, of which {len(ids)} passed the router of layer {layer}"
                return
        positions = np.asarray(self.runner.positions[:total])
        first = 0
        for request, count in zip(order, counts, strict=True):
            part = slice(first, first + count)
            first += count
            recorded = self._kept.get(request)
            if recorded is None:
                top_k = next(iter(by_layer.values())).shape[1]
                shape = (self.positions, self.depth, top_k)
                experts = max(router.global_num_experts for router in self.routers.values())
                small = np.uint8 if experts <= 256 else np.uint16
                recorded = self._kept[request] = Recorded(np.zeros(shape, small), np.zeros(self.positions, bool))
            for layer, ids in by_layer.items():
                recorded.ids[positions[part], layer] = ids[part]
            recorded.known[positions[part]] = True


def recorder_of(runner: Any) -> RouteRecorder:
    """Returns the recorder of a worker's model runner; RouteMismatch with the reason where its routes cannot be had."""
    from vllm.model_executor.layers.fused_moe.router.base_router import BaseRouter
    from vllm.model_executor.layers.fused_moe.runner.moe_runner import MoERunner
    from vllm.model_executor.models.utils import extract_layer_index
    from vllm.platforms import current_platform

    config = runner.vllm_config
    parallel = config.parallel_config
    if not current_platform.is_cpu():  # captured graphs run no Python, so nothing would be heard
        raise RouteMismatch("recording routes is for vLLM's CPU build; start it with --enable-return-routed-experts")
    if config.cache_config.enable_prefix_caching:
        raise RouteMismatch(
            "it runs with prefix caching, so the router does not see cached prompts again; start it with"
            " --no-enable-prefix-caching"
        )
    if parallel.pipeline_parallel_size > 1 or parallel.data_parallel_size > 1:
        raise RouteMismatch("it spreads layers or sequences over several workers; routes are recorded with TP only")
    if config.speculative_config is not None:
        raise RouteMismatch("it decodes speculatively; routes of refused drafts would be kept")
    routers: dict[int, Any] = {}
    for name, module in runner.get_model().named_modules():
        if isinstance(module, MoERunner):
            if not isinstance(module.router, BaseRouter) or module.routed_experts.quant_method.is_monolithic:
                raise RouteMismatch(f"{name}: {type(module.router).__name__} cannot be hooked")
            routers[extract_layer_index(name)] = module.router
    if not routers:
        raise RouteMismatch("it serves a dense model, which has no routes")
    depth = config.model_config.hf_text_config.num_hidden_layers
    return RouteRecorder(runner, routers, depth, config.model_config.max_model_len)


def as_text(routes: np.ndarray) -> str:
    """Returns routes as vLLM sends them: an npy file in base64."""
    stream = io.BytesIO()
    np.save(stream, routes, allow_pickle=False)
    return base64.b64encode(stream.getvalue()).decode()


@dataclass(frozen=True)
class RoutedSample:
    """One completion: tokens, their log-probabilities, and the routes of all tokens but the last."""

    tokens: list[int]
    logps: list[float]
    routes: Routes


def sample_with_routes(
    llm: Any, shape: RouteShape, prompts: Sequence[Sequence[int]], samplings: Sequence[Mapping[str, Any]]
) -> list[RoutedSample]:
    """Returns a completion of each prompt by an in-process `vllm.LLM`, under vLLM's SamplingParams of these values."""
    from vllm import SamplingParams

    recorder = recorder_of(llm.llm_engine.model_executor.driver_worker.model_runner)
    recorder.start()
    try:
        answers = llm.generate(
            [{"prompt_token_ids": list(ids)} for ids in prompts],
            [SamplingParams(**{**sampling, "logprobs": 0}) for sampling in samplings],
            use_tqdm=False,
        )
        found = []
        for ids, answer in zip(prompts, answers, strict=True):
            output = answer.outputs[0]
            tokens = list(output.token_ids)
            logps = [entry[token].logprob for entry, token in zip(output.logprobs, tokens, strict=True)]
            length = len(ids) + len(tokens)
            routes = from_engine(recorder.take(answer.request_id, length), shape, length)
            found.append(RoutedSample(tokens, logps, routes))
        return found
    finally:
        recorder.stop()


def engine_model(llm: Any) -> Any:
    """Returns the torch module of an in-process engine."""
    return llm.llm_engine.model_executor.driver_worker.model_runner.get_model()
