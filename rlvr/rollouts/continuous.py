"""Sampling by transformers' continuous batching: a paged cache, and rollouts that begin as others end."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import torch

from rlvr.rollouts.policy_engine import EngineFailure, Finished, Sampled

_SLICE_S = 1.0  # between two looks whether the generating thread lives
_AT_WORK = 0.05  # share of a slice in CPU time above which it is at work; waiting for it takes a hundredth of that


def sample_continuously(
    model: Any,
    prompt_ids: Sequence[Sequence[int]],
    order: Sequence[int],
    *,
    generation_config: Any,
    batching: Any,
    end_token_ids: Sequence[int],
    finished: Finished | None = None,
    patience_s: float = 45.0,
) -> Sampled:
    """One rollout a prompt, in the order of `prompt_ids`; `order` and `finished` as `PolicyEngine.sample` has them.

    batching: transformers' ContinuousBatchingConfig. On a CPU its cache is made as large as these rollouts need, where
    it does not say how large; the default takes a share of the machine's memory and clears it at every call. There are
    no log-probabilities with top-k or top-p, whose numbers are those of what they leave. Raises EngineFailure where a
    rollout fails, the generating thread ends, or this process has been idle for `patience_s` with rollouts to come.
    """
    limit = generation_config.max_new_tokens
    whole = not generation_config.top_k and (generation_config.top_p or 1.0) == 1.0
    batching = dataclasses.replace(batching, return_logprobs=whole)
    if model.device.type == "cpu" and batching.num_blocks is None:
        size = batching.block_size
        blocks = sum(-(-(len(ids) + limit) // size) for ids in prompt_ids)
        tokens = batching.max_batch_tokens or max(len(prompt_ids), min(sum(map(len, prompt_ids)), 2048))
        batching = dataclasses.replace(batching, num_blocks=blocks, max_batch_tokens=tokens)
    done: dict[int, Any] = {}
    manager = model.init_continuous_batching(generation_config=generation_config, continuous_batching_config=batching)
    try:
        with torch.no_grad():
            manager.warmup()
        for row in order:  # before the thread starts: which rollouts share a batch is then no matter of time
            manager.add_request(
                list(prompt_ids[row]), request_id=str(row), max_new_tokens=limit, eos_token_id=list(end_token_ids)
            )
        manager.start()
        idle, used = 0.0, time.process_time()
        while len(done) < len(prompt_ids):
            result = manager.get_result(timeout=_SLICE_S)
            before, used = used, time.process_time()  # of all threads: a thread that waits for ever uses none
            idle = idle + _SLICE_S if result is None and used - before < _AT_WORK * _SLICE_S else 0.0
            if idle >= patience_s:
                raise EngineFailure(
                    f"continuous batching: has hung for {patience_s:.0f} s with {len(done)} of {len(prompt_ids)}"
                    " rollouts done"
                )
            if result is None:
                if not manager.is_running():
                    raise EngineFailure(
                        f"continuous batching: its thread ended with {len(done)} of {len(prompt_ids)} rollouts done"
                        f" ({manager.background_thread_status.fatal_error or 'no reason given'})"
                    )
            elif result.error is not None:
                raise EngineFailure(f"continuous batching: a rollout failed ({result.error})")
            elif result.is_finished():
                done[int(result.request_id)] = result
                if finished is not None:
                    finished(int(result.request_id), result.generated_tokens)
    finally:
        manager.stop(block=True, timeout=5)
        manager.destroy()
    rows = [done[row] for row in range(len(prompt_ids))]
    return Sampled([row.generated_tokens for row in rows], [row.logprobs for row in rows] if whole else None)
