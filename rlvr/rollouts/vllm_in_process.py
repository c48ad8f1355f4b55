"""vLLM in the training processes, as TRL starts it: rollouts told of as they end, weights taken over as one reload."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from rlvr.rollouts.policy_engine import Finished
from rlvr.rollouts.vllm_extension import repack_embeddings, repack_experts_anew


@contextlib.contextmanager
def generates_as_they_end(llm: Any, order: Sequence[int], finished: Finished | None) -> Iterator[None]:
    """Within, `llm.generate` asks for its prompts in `order` and calls `finished(row, tokens)` for each that has ended.

    What it returns is in the prompts' order, as ever. vLLM's own loop is silent until all have ended, and starts them
    as they come.
    """

    def generate(prompts: Sequence[Any], sampling_params: Any, use_tqdm: bool = False) -> list[Any]:
        from vllm.sampling_params import RequestOutputKind

        engine = llm.llm_engine
        sampling_params.output_kind = RequestOutputKind.FINAL_ONLY
        done: dict[int, Any] = {}
        try:
            for row in order:
                engine.add_request(str(row), prompts[row], sampling_params)
            while engine.has_unfinished_requests():
                for output in engine.step():
                    if output.finished:
                        done[int(output.request_id)] = output
                        if finished is not None:
                            finished(int(output.request_id), list(output.outputs[0].token_ids))
        except BaseException:  # the engine outlives this call: what is left would come back in the next
            engine.abort_request([str(row) for row in order if row not in done])
            raise
        return [done[row] for row in range(len(prompts))]

    llm.generate = generate
    try:
        yield
    finally:
        del llm.generate  # the class's own again


@contextlib.contextmanager
def random_numbers_kept(device: torch.device) -> Iterator[None]:
    """Leaves torch's random state as it was: vLLM draws from the process's own, whatever it is asked."""
    with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
        yield


@contextlib.contextmanager
def random_numbers_by_seed(device: torch.device) -> Iterator[None]:
    """Within, random numbers follow from the next one of the process; behind, its state is one draw further."""
    seed = int(torch.randint(2**62, ()))
    with random_numbers_kept(device):
        torch.manual_seed(seed)
        yield


def reload_in_process(generation: Any) -> None:
    """Gives TRL's in-process vLLM the trainer's weights as one reload; on CPU its packed output head too."""
    llm = generation.llm
    if generation.enable_sleep_mode:
        torch.cuda.empty_cache()
        llm.wake_up(tags=["weights"])
        generation._llm_weights_sleeping = False
    model = llm.llm_engine.model_executor.driver_worker.model_runner.get_model()
    repack_experts_anew(model)
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": generation._iter_named_params()})
    repack_embeddings(model)
    llm.reset_prefix_cache()
