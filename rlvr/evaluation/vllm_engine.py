"""vLLM in this process as a generation engine for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlvr.config import EvaluationRecipe
from rlvr.models import resolve_model
from rlvr.rollouts.engine import Completion, Sampling


class VLLMEngine:
    """Draws completions with vLLM's `LLM`, which batches by itself. ImportError saying what to install without vLLM."""

    def __init__(self, recipe: EvaluationRecipe) -> None:
        try:
            from vllm import LLM
        except ImportError:
            raise ImportError(
                "engine: vllm is not installed; pip install 'rlvr[vllm]', or engine=transformers"
            ) from None
        section = recipe.model
        assert section is not None
        self.model = LLM(
            model=str(resolve_model(section.name_or_path)),
            dtype=section.dtype,
            revision=section.revision,
            trust_remote_code=section.trust_remote_code,
            seed=recipe.seed,
        )

    def generate(self, prompts: Sequence[Any], sampling: Sampling, seed: int) -> list[Completion]:
        """Returns completions in the order of `prompts`; the seed of each row is its own."""
        from vllm import SamplingParams

        parameters = [
            SamplingParams(
                max_tokens=sampling.max_completion_length,
                temperature=sampling.temperature,
                top_p=sampling.top_p if sampling.temperature > 0 else 1.0,
                top_k=sampling.top_k or -1,
                seed=(seed * 1_000_003 + row) % 2**63,
            )
            for row in range(len(prompts))
        ]
        texts = [
            prompt
            if isinstance(prompt, str)
            else self.model.get_tokenizer().apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
            for prompt in prompts
        ]
        outputs = [answer.outputs[0] for answer in self.model.generate(texts, parameters, use_tqdm=False)]
        return [
            Completion(output.text, len(output.token_ids), "length" if output.finish_reason == "length" else "stop")
            for output in outputs
        ]
