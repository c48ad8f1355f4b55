"""Engines that sample for the trainer: its own model, TRL's vLLM modes, or a vLLM server given weights by file."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from accelerate.utils import DistributedType
from trl import GRPOTrainer
from trl.models.utils import unwrap_model_for_generation

from rlvr.config import GRPORecipe
from rlvr.moe.layout import expert_blocks
from rlvr.moe.sync import checkpoint_tensors
from rlvr.rollouts.policy_engine import EngineFailure, Finished, PolicyEngine, Sampled
from rlvr.rollouts.sampling import sample
from rlvr.rollouts.vllm_extension import repack_embeddings
from rlvr.rollouts.vllm_server import VLLMFileServer

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)


class InProcess:
    """The trainer's own model through transformers' `generate`; its weights are always the policy's."""

    name = "transformers"
    corrects = False
    url: str | None = None

    def __init__(self, trainer: Any, recipe: GRPORecipe) -> None:
        self.trainer = trainer
        # sharded weights make every process step until the slowest is done, which only generate's own loop does
        self.fast = recipe.grpo.fast_sampling and trainer.accelerator.distributed_type not in SHARDED

    def sync(self, version: int) -> None:
        return None

    def sample(self, prompt_ids: Sequence[Sequence[int]], order: Sequence[int], finished: Finished | None) -> Sampled:
        trainer = self.trainer
        with (
            unwrap_model_for_generation(
                trainer.model_wrapped,
                trainer.accelerator,
                gather_deepspeed3_params=trainer.args.ds3_gather_for_generation,
                generation_kwargs=trainer.generation_kwargs,
                gradient_checkpointing_kwargs=trainer.args.gradient_checkpointing_kwargs,
            ) as model,
            torch.no_grad(),
            trainer._dist.summon_full_params(trainer.model_wrapped, recurse=False),
        ):
            tokens, logps = sample(
                model,
                prompt_ids,
                generation_config=trainer.generation_config,
                pad_token_id=trainer._tokenizer.pad_token_id,
                end_token_ids=trainer.eos_token_ids,
                fast=self.fast,
                finished=finished,
            )
        return Sampled(tokens, logps)


class ThroughTRL:
    """TRL's own engines: vLLM in the training processes or behind its server, transformers' continuous batching.

    On CPU TRL's weight sync fails for a vLLM in the process (its tensors are repacked there); it is replaced.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.corrects = trainer.use_vllm
        self.name = f"vLLM ({trainer.vllm_mode})" if trainer.use_vllm else "continuous batching"
        self.url: str | None = None
        if trainer.use_vllm and trainer.vllm_mode == "server":
            args = trainer.args
            self.url = args.vllm_server_base_url or f"http://{args.vllm_server_host}:{args.vllm_server_port}"
        elif trainer.use_vllm and trainer.accelerator.device.type == "cpu":
            trainer.vllm_generation.sync_weights = functools.partial(reload_on_cpu, trainer.vllm_generation)

    def sync(self, version: int) -> None:
        trainer = self.trainer
        if trainer.use_vllm and version != trainer._last_loaded_step:
            with self._named("taking over the weights"):
                trainer.vllm_generation.sync_weights()
            trainer._last_loaded_step = version

    def sample(self, prompt_ids: Sequence[Sequence[int]], order: Sequence[int], finished: Finished | None) -> Sampled:
        # rows are not equal strides of one prompt, so the server must not collapse them: one generation a row
        with self._named("sampling"):
            return Sampled(*GRPOTrainer._generate_single_turn(self.trainer, prompt_ids, None, {}, 1))

    @contextlib.contextmanager
    def _named(self, doing: str) -> Iterator[None]:
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise EngineFailure(
                f"{self.name}: out of memory while {doing} ({str(error).splitlines()[0]}); lower"
                " grpo.extra.vllm_gpu_memory_utilization, or set grpo.extra.vllm_enable_sleep_mode: true"
            ) from None
        except OSError as error:  # requests' ConnectionError among them
            raise EngineFailure(f"{self.name} {self.url or ''}: gone while {doing} ({error})") from None


def open_engine(trainer: Any, recipe: GRPORecipe) -> PolicyEngine:
    """Returns the engine the recipe asks for; EngineFailure where a server is not what is needed."""
    grpo = recipe.grpo
    if grpo.use_vllm and grpo.vllm_mode == "file":
        accelerator = trainer.accelerator
        engine = VLLMFileServer(
            grpo.vllm_url,
            weights=functools.partial(policy_weights, trainer),
            sampling={
                "max_tokens": grpo.max_completion_length,
                "temperature": grpo.temperature,
                "top_p": grpo.top_p,
                "top_k": grpo.top_k,
                "stop_token_ids": list(trainer.eos_token_ids),
                **(trainer.args.generation_kwargs or {}),
            },
            seed=recipe.seed,
            main=accelerator.is_main_process,
            wait=accelerator.wait_for_everyone,
            rank=accelerator.process_index,
        )
        trainer.use_vllm = True  # from here on TRL corrects for the difference of two engines
        return engine
    if trainer.use_vllm or trainer.use_transformers_continuous_batching:
        return ThroughTRL(trainer)
    return InProcess(trainer, recipe)


def policy_weights(trainer: Any) -> Mapping[str, torch.Tensor]:
    """The policy's tensors under their Hugging Face names; whole on the main process where they are sharded."""
    accelerator = trainer.accelerator
    if accelerator.distributed_type in SHARDED:
        return accelerator.get_state_dict(trainer.model_wrapped)
    policy = accelerator.unwrap_model(trainer.model_wrapped)
    if expert_blocks(policy):  # loaders want one tensor an expert, as in a checkpoint
        return dict(checkpoint_tensors(policy))
    return policy.state_dict()


def reload_on_cpu(generation: Any) -> None:
    """Gives TRL's in-process vLLM the trainer's weights on CPU, its packed output head too."""
    llm = generation.llm
    llm.collective_rpc("reload_weights", kwargs={"weights_iterator": list(generation._iter_named_params())})
    repack_embeddings(llm.llm_engine.model_executor.driver_worker.model_runner.get_model())
    llm.reset_prefix_cache()
