"""Routes out of a vLLM engine in this process, for engines that cannot return them themselves (the CPU build).

Where vLLM returns routes (`enable_return_routed_experts`), use that: this hook serves one sequence at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlvr.moe.routes import RouteMismatch, Routes, RouteShape, checked


@dataclass(frozen=True)
class RoutedSample:
    """One completion: tokens, their log-probabilities, and the routes of all tokens but the last."""

    tokens: list[int]
    logps: list[float]
    routes: Routes


class RouteCapture:
    """Samples with an in-process `vllm.LLM` and keeps which experts each token was sent to.

    The engine must run one sequence at a time without prefix caching (`max_num_seqs=1`,
    `enable_prefix_caching=False`), so that rows arrive in token order. Raises RouteMismatch where it does not, or where
    no router can be hooked.
    """

    def __init__(self, llm: Any, shape: RouteShape) -> None:
        from vllm.model_executor.layers.fused_moe.router.base_router import BaseRouter
        from vllm.model_executor.layers.fused_moe.runner.moe_runner import MoERunner

        config = llm.llm_engine.vllm_config
        if config.scheduler_config.max_num_seqs != 1 or config.cache_config.enable_prefix_caching:
            raise RouteMismatch("capturing needs max_num_seqs=1 and enable_prefix_caching=False: rows would mix")
        self.llm, self.shape = llm, shape
        self._rows: dict[int, list[np.ndarray]] = {}
        for module in engine_model(llm).modules():
            if isinstance(module, MoERunner):
                if not isinstance(module.router, BaseRouter):
                    raise RouteMismatch(f"the engine's router {type(module.router).__name__} cannot be hooked")
                layer = len(self._rows)
                self._rows[layer] = []
                module.router.set_capture_fn(self._keep(layer))
        if len(self._rows) != len(shape.layers):
            raise RouteMismatch(f"the engine has {len(self._rows)} MoE layers, the model {len(shape.layers)}")

    def _keep(self, layer: int) -> Any:
        return lambda ids: self._rows[layer].append(ids.detach().to("cpu").numpy().copy())

    def sample(self, prompt_ids: Sequence[int], sampling: Mapping[str, Any]) -> RoutedSample:
        """Returns one completion of a prompt under vLLM's SamplingParams of these values."""
        from vllm import SamplingParams

        for rows in self._rows.values():
            rows.clear()
        request = {"prompt_token_ids": list(prompt_ids)}
        (answer,) = self.llm.generate([request], SamplingParams(**{**sampling, "logprobs": 0}), use_tqdm=False)
        output = answer.outputs[0]
        tokens = list(output.token_ids)
        logps = [entry[token].logprob for entry, token in zip(output.logprobs, tokens, strict=True)]
        length = len(prompt_ids) + len(tokens)
        layers = [np.concatenate(rows) for rows in self._rows.values()]
        if any(len(rows) < length - 1 for rows in layers):
            raise RouteMismatch(f"{len(layers[0])} rows of routes for a sequence of {length} tokens")
        # an engine that schedules ahead may have fed the last token too
        ids = np.stack([rows[: length - 1] for rows in layers], axis=1)
        return RoutedSample(tokens, logps, checked(ids, self.shape))


def engine_model(llm: Any) -> Any:
    """Returns the torch module of an in-process engine."""
    return llm.llm_engine.model_executor.driver_worker.model_runner.get_model()
