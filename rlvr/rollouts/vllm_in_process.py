"""vLLM in the training processes, as TRL starts it: rollouts told of as they end, weights taken over as one reload."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from rlvr.rollouts.policy_engine import Finished
from rlvr.rollouts.vllm_extension import repack_embeddings, repack_experts_anew


@contextlib.contextmanager
def generates_as_they_end(
    generation: Any, order: Sequence[int], finished: Finished | None, device: torch.device
) -> Iterator[None]:
    """Within, the engine of TRL's `generation` asks for its prompts in `order` and calls `finished(row, tokens)` for
    each that has ended; what it returns is in the prompts' order, as ever.

    vLLM's own loop is silent until all have ended, starts them as they come, and draws from the process's random state,
    whatever else has drawn from it. Here numbers follow from the next one of that state, which is one draw further
    behind. Processes that share an engine (tensor parallelism) all ask for the rows of all, in one order and with one
    seed, and each hears of its own. Every one of them must enter.
    """
    llm = generation.llm
    first, rows, seed = _shared(generation, list(order))

    def generate(prompts: Sequence[Any], sampling_params: Any, use_tqdm: bool = False) -> list[Any]:
        from vllm.sampling_params import RequestOutputKind

        engine = llm.llm_engine
        sampling_params.output_kind = RequestOutputKind.FINAL_ONLY
        done: dict[int, Any] = {}
        try:
            for row in rows:
                engine.add_request(str(row), prompts[row], sampling_params)
            while engine.has_unfinished_requests():
                for output in engine.step():
                    if output.finished:
                        row = int(output.request_id)
                        done[row] = output
                        if finished is not None and first <= row < first + len(order):
                            finished(row - first, list(output.outputs[0].token_ids))
        except BaseException:  # the engine outlives this call: what is left would come back in the next
            engine.abort_request([str(row) for row in rows if row not in done])
            raise
        return [done[row] for row in range(len(prompts))]

    llm.generate = generate
    try:
        with random_numbers_kept(device):
            torch.manual_seed(seed)
            yield
    finally:
        del llm.generate  # the class's own again


def _shared(generation: Any, order: list[int]) -> tuple[int, list[int], int]:
    """First row of this process among those of the engine, the order of all of them, and a seed."""
    seed = int(torch.randint(2**62, ()))
    if generation.tensor_parallel_size == 1:
        return 0, order, seed
    group = generation.tp_group
    said: list[Any] = [None] * generation.tensor_parallel_size
    torch.distributed.all_gather_object(said, (order, seed), group=group)
    orders = [rows for rows, _ in said]  # each as long: a process's share of the step
    merged = [rank * len(order) + row for rows in zip(*orders, strict=True) for rank, row in enumerate(rows)]
    return torch.distributed.get_rank(group=group) * len(order), merged, said[0][1]


@contextlib.contextmanager
def random_numbers_kept(device: torch.device) -> Iterator[None]:
    """Leaves torch's random state as it was."""
    with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
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
