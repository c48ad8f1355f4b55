"""Engines that sample for the trainer: its own model, TRL's vLLM modes, or a vLLM server given weights by file."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from accelerate.utils import DistributedType, is_peft_model, set_seed
from trl import GRPOTrainer
from trl.models.utils import unwrap_model_for_generation

from rlvr.config import GRPORecipe, RecipeError
from rlvr.moe.layout import expert_blocks
from rlvr.rollouts.continuous import sample_continuously
from rlvr.rollouts.policy_engine import EngineFailure, Finished, PolicyEngine, Sampled
from rlvr.rollouts.sampling import sample, torch_threads
from rlvr.rollouts.vllm_in_process import generates_as_they_end, random_numbers_kept, reload_in_process
from rlvr.rollouts.vllm_server import VLLMFileServer
from rlvr.training.lora import merged_tensors
from rlvr.training.policy_weights import as_in_checkpoints, policy_weights, shards_weights, weights_size


class InProcess:
    """The trainer's own model through transformers' `generate`; its weights are always the policy's."""

    name = "transformers"
    corrects = False
    url: str | None = None

    def __init__(self, trainer: Any, recipe: GRPORecipe) -> None:
        self.trainer = trainer
        # sharded weights make every process step until the slowest is done, which only generate's own loop does
        self.fast = recipe.grpo.fast_sampling and not shards_weights(trainer.accelerator)
        self.threads = recipe.grpo.sampling_threads

    def sync(self, version: int) -> bool:
        return False

    def score(self, tokens: torch.Tensor) -> torch.Tensor | None:
        return None

    def sample(self, prompt_ids: Sequence[Sequence[int]], order: Sequence[int], finished: Finished | None) -> Sampled:
        trainer = self.trainer
        with self._policy() as model, torch_threads(self.threads):
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

    @contextlib.contextmanager
    def _policy(self) -> Iterator[Any]:
        """The policy's model as it can generate: unwrapped, whole, without its adapter's shell."""
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
            yield model.get_base_model() if is_peft_model(model) else model  # adapters sit in its layers


class ContinuousBatching(InProcess):
    """The trainer's own model through transformers' continuous batching.

    Not through TRL's call of it, which with `bf16` leaves the trained weights rounded to bfloat16, drops
    log-probabilities and passes over rollouts that failed.
    """

    name = "continuous batching"

    def sample(self, prompt_ids: Sequence[Sequence[int]], order: Sequence[int], finished: Finished | None) -> Sampled:
        trainer = self.trainer
        training = trainer.model.training
        with self._policy() as model, torch_threads(self.threads):
            try:
                return sample_continuously(
                    model,
                    prompt_ids,
                    order,
                    generation_config=trainer.generation_config,
                    batching=trainer.continuous_batching_config,
                    end_token_ids=trainer.eos_token_ids,
                    finished=finished,
                )
            finally:
                model.train(training)


class ThroughTRL:
    """TRL's own engines: vLLM in the training processes or behind its server.

    A vLLM in the process tells of rollouts as they end and draws as the run's random state says. Three things are
    replaced in TRL's weight sync. Adapters are merged beside the policy, not in it. Experts go under checkpoint names,
    one tensor an expert, with the router biases, which are no parameters. And a vLLM in the process takes them as one
    reload: tensor by tensor fails on CPU, where tensors are repacked, and mangles experts elsewhere.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.corrects = True
        self.name = f"vLLM ({trainer.vllm_mode})"
        self.url: str | None = None
        generation, policy = trainer.vllm_generation, trainer.accelerator.unwrap_model(trainer.model)
        if trainer.vllm_mode == "colocate":
            set_seed(trainer.args.seed, device_specific=True)  # again: vLLM set this process's seeds to its own
        experts = expert_blocks(policy)
        if is_peft_model(policy):
            generation._iter_named_params = functools.partial(merged_tensors, policy)
        if experts:
            generation._iter_named_params = functools.partial(as_in_checkpoints, trainer, generation._iter_named_params)
        if trainer.vllm_mode == "server":
            args = trainer.args
            self.url = args.vllm_server_base_url or f"http://{args.vllm_server_host}:{args.vllm_server_port}"
        elif experts or trainer.accelerator.device.type == "cpu":
            generation.sync_weights = functools.partial(reload_in_process, generation)

    def sync(self, version: int) -> bool:
        trainer = self.trainer
        if version == trainer._last_loaded_step:
            return False
        with self._named("taking over the weights"):
            trainer.vllm_generation.sync_weights()
        trainer._last_loaded_step = version
        return True

    def score(self, tokens: torch.Tensor) -> torch.Tensor | None:
        """As the protocol says; TRL's server has no way to score given tokens, and a sleeping engine has no weights."""
        trainer = self.trainer
        if trainer.vllm_mode == "server":
            return None
        generation = trainer.vllm_generation
        if generation.enable_sleep_mode and generation._llm_weights_sleeping:
            return None
        from vllm import SamplingParams

        if generation.enable_sleep_mode:
            generation.llm.wake_up(tags=["kv_cache"])
        sampling = SamplingParams(max_tokens=1, temperature=1.0, prompt_logprobs=0)
        prompts = [{"prompt_token_ids": ids} for ids in tokens.tolist()]
        with random_numbers_kept(trainer.accelerator.device):
            answers = generation.llm.generate(prompts, sampling, use_tqdm=False)
        return torch.tensor(
            [
                [entry[token].logprob for token, entry in zip(ids[1:], answer.prompt_logprobs[1:], strict=True)]
                for ids, answer in zip(tokens.tolist(), answers, strict=True)
            ]
        )

    def sample(self, prompt_ids: Sequence[Sequence[int]], order: Sequence[int], finished: Finished | None) -> Sampled:
        trainer, generation = self.trainer, self.trainer.vllm_generation
        with self._named("sampling"), contextlib.ExitStack() as within:
            if trainer.vllm_mode == "colocate":
                within.enter_context(generates_as_they_end(generation, order, finished, trainer.accelerator.device))
            # rows are not equal strides of one prompt, so the server must not collapse them: one generation a row
            return Sampled(*GRPOTrainer._generate_single_turn(trainer, prompt_ids, None, {}, 1))

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
        if accelerator.distributed_type == DistributedType.FSDP and not accelerator.is_fsdp2:
            raise RecipeError("grpo.vllm_mode: file needs fsdp_version: 2 in the file for accelerate")
        engine = VLLMFileServer(
            grpo.vllm_url,
            weights=functools.partial(policy_weights, trainer),
            size=functools.partial(weights_size, trainer),
            sampling={
                "max_tokens": grpo.max_completion_length,
                "temperature": grpo.temperature,
                "top_p": grpo.top_p,
                "top_k": grpo.top_k,
                "stop_token_ids": list(trainer.eos_token_ids),
                **(trainer.args.generation_kwargs or {}),
            },
            main=accelerator.is_main_process,
            wait=accelerator.wait_for_everyone,
            routes=_use_of_routes(trainer),
            token_file=grpo.vllm_token_file,
        )
        trainer.use_vllm = True  # from here on TRL corrects for the difference of two engines
        return engine
    if trainer.use_vllm:
        return ThroughTRL(trainer)
    if not trainer.use_transformers_continuous_batching:
        return InProcess(trainer, recipe)
    if shards_weights(trainer.accelerator):
        raise RecipeError(
            "grpo.extra.use_transformers_continuous_batching needs every process to hold the whole model: its processes"
            " step apart, and sharded weights (FSDP, ZeRO-3) are gathered by all together; leave it out, or use vLLM"
        )
    return ContinuousBatching(trainer, recipe)


def _use_of_routes(trainer: Any) -> Literal["unused", "wanted", "needed"]:
    """What the policy's replay asks of its engine."""
    if trainer.routing is None or trainer.routing.section.replay not in ("auto", "r3"):
        return "unused"
    section = trainer.routing.section
    return "needed" if section.replay == "r3" and section.strict else "wanted"
