"""Runs inside a vLLM server: new weights from a file, in place. Imports nothing of the trainer's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


class WeightsFromFile:
    """A `--worker-extension-cls` of vLLM; its methods become callable by `/collective_rpc`."""

    model_runner: Any

    def load_policy(self, path: str) -> dict[str, int]:
        """Replaces the model's weights by those of a safetensors file; returns how many tensors it held."""
        from safetensors import safe_open

        count = 0

        def tensors() -> Iterator[tuple[str, Any]]:
            nonlocal count
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118 - not a mapping
                    count += 1
                    yield name, file.get_tensor(name)

        self.model_runner.reload_weights(weights_iterator=tensors())
        repack_embeddings(self.model_runner.get_model())
        return {"tensors": count}


def repack_embeddings(model: Any) -> None:
    """On CPU, makes anew the packed copy of a tied output head, which reloading leaves at the old weights."""
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    for module in model.modules():
        if isinstance(module, VocabParallelEmbedding) and module.quant_method is not None:
            module.quant_method.process_weights_after_loading(module)
