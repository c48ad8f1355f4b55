"""vLLM in this process as a sampler: every sample is a request with its own seed, reported as soon as it ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rlvr.config import EvaluationRecipe, RecipeError
from rlvr.evaluation.engine_guard import guard_engine
from rlvr.evaluation.generate import NO_ROOM, Answered, no_room
from rlvr.models import resolve_model
from rlvr.rollouts.prompts import chat_text


class EngineFailure(RuntimeError):
    """The engine ended on its own; what was drawn is on disk. Exit code 1."""

    exit_code = 1


class VLLMSampler:
    """Draws with vLLM's engine, which batches by itself; what it cannot take at once waits in its queue.

    ImportError saying what to install without vLLM; RecipeError for engine options it does not know; EngineFailure
    where the engine dies on the way.
    """

    draws_together = False

    def __init__(self, recipe: EvaluationRecipe) -> None:
        try:
            from vllm import LLM
        except ImportError:
            raise ImportError(
                "engine: vllm is not installed; pip install 'rlvr[vllm]', or engine=transformers"
            ) from None
        section = recipe.model
        assert section is not None
        guard_engine()
        try:
            self.model = LLM(
                model=str(resolve_model(section.name_or_path)),
                dtype=section.dtype,
                revision=section.revision,
                trust_remote_code=section.trust_remote_code,
                seed=recipe.seed,
                **recipe.engine_options,
            )
        except TypeError as error:
            raise RecipeError(f"engine_options: not those of vllm.LLM: {error}") from None
        self.tokenizer = self.model.get_tokenizer()
        self.sampling = recipe.sampling

    def draw(self, prompts: Sequence[Any], greedy: bool, seeds: Sequence[int], answered: Answered) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        section, engine = self.sampling, self.model.llm_engine
        encoded = [self._encode(prompt) for prompt in prompts]
        context = engine.model_config.max_model_len
        rows: dict[str, int] = {}
        for row, (ids, seed) in enumerate(zip(encoded, seeds, strict=True)):
            if len(ids) >= context:
                answered(row, no_room(len(ids), context, "raise engine_options.max_model_len"), 0, NO_ROOM)
                continue
            parameters = SamplingParams(
                max_tokens=section.max_completion_length,
                temperature=0.0 if greedy else section.temperature,
                top_p=1.0 if greedy or section.temperature == 0 else section.top_p,
                top_k=0 if greedy or section.temperature == 0 else section.top_k,
                seed=seed,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            name = f"{row}-{seed}"
            rows[name] = row
            engine.add_request(name, {"prompt_token_ids": ids}, parameters)
        with _woken_by_its_death(engine):
            while engine.has_unfinished_requests():
                for output in self._step():
                    if output.finished:
                        found = output.outputs[0]
                        reason = "length" if found.finish_reason == "length" else "stop"
                        answered(rows[output.request_id], found.text, len(found.token_ids), reason)

    def _step(self) -> list[Any]:
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            return list(self.model.llm_engine.step())
        except EngineDeadError as error:
            raise EngineFailure(
                f"vLLM's engine died ({' '.join(str(error).split())}); its last lines above say why. What was drawn is "
                "kept and the same command continues. Of a timeout: a CPU that also does other work needs a larger "
                "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS (300 s)"
            ) from None

    def _encode(self, prompt: Any) -> list[int]:
        """Token ids; a chat template writes its own special tokens, so none is added to its text."""
        if isinstance(prompt, str):
            return list(self.tokenizer(text=prompt)["input_ids"])
        return list(self.tokenizer(text=chat_text(prompt, self.tokenizer), add_special_tokens=False)["input_ids"])


@contextmanager
def _woken_by_its_death(engine: Any) -> Iterator[None]:
    """Ends a step that waits for an engine which was killed: vLLM 0.31 marks its client dead and lets it wait on.

    Clients without that mark and queue, such as that of an engine in this process, are left alone.
    """
    client: Any = getattr(engine, "engine_core", None)
    resources: Any = getattr(client, "resources", None)
    queue: Any = getattr(client, "outputs_queue", None)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            if resources.engine_dead:
                queue.put_nowait(RuntimeError("the engine's process is gone"))
                return

    if hasattr(resources, "engine_dead") and hasattr(queue, "put_nowait"):
        threading.Thread(target=watch, name="engine-death", daemon=True).start()
    try:
        yield
    finally:
        over.set()
