"""Runs inside a vLLM server: new weights from files, in place. Imports nothing of the trainer's."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any


class WeightsFromFile:
    """A `--worker-extension-cls` of vLLM; its methods become callable by `/collective_rpc`."""

    model_runner: Any
    _policy_version: int | None = None  # of the last files taken over; None: the weights the server was started with
    _recorder: Any = None

    def load_policy(self, folder: str) -> dict[str, Any]:
        """Replaces the model's weights by those of a folder's safetensors files.

        Returns how many `tensors` they held, their `version`, the elements of every of this worker's `parameters` as
        the loader sees them, and which of them were `loaded` (None where the loader does not say).
        """
        from safetensors import safe_open

        count = 0
        paths = sorted(Path(folder).glob("*.safetensors"))
        report: dict[str, Any] = {"parameters": {}, "loaded": None}

        def tensors() -> Iterator[tuple[str, Any]]:
            nonlocal count
            for path in paths:
                with safe_open(path, "pt") as file:
                    for name in file.keys():  # noqa: SIM118 - not a mapping
                        count += 1
                        yield name, file.get_tensor(name)

        model = self.model_runner.get_model()
        load = model.load_weights
        tied = bool(getattr(getattr(model, "config", None), "tie_word_embeddings", False))

        def watched(weights: Any) -> Any:
            # here, because kernels repack parameters once they are loaded, and some leave them empty
            report["parameters"] = {
                name: parameter.numel()
                for name, parameter in model.named_parameters()
                if not (tied and name.endswith("lm_head.weight"))  # its own parameter here, filled from the embedding
            }
            loaded = load(weights)
            if loaded is not None:
                report["loaded"] = sorted(_as_held(name, report["parameters"]) for name in loaded)
            return loaded

        repack_experts_anew(model)
        with safe_open(paths[0], "pt") as file:
            version = int((file.metadata() or {})["version"])
        self._policy_version = None  # until all of it is there
        model.load_weights = watched
        try:
            self.model_runner.reload_weights(weights_iterator=tensors())
        finally:
            del model.load_weights
        repack_embeddings(model)
        self._policy_version = version
        return {"tensors": count, "version": version, **report}

    def policy_version(self) -> dict[str, int | None]:
        """The `version` of the weights in force; None: those the server was started with."""
        return {"version": self._policy_version}  # vLLM's server turns whatever is no dictionary into a string

    def capture_routes(self, on: bool) -> dict[str, Any]:
        """Keeps the routes of every request from now on, or no more; `refused` says why this engine cannot."""
        from rlvr.moe.routes import RouteMismatch
        from rlvr.rollouts.vllm_routes import recorder_of

        if self._recorder is not None and not on:
            self._recorder.stop()
            self._recorder = None
        elif self._recorder is None and on:
            try:
                self._recorder = recorder_of(self.model_runner)
            except RouteMismatch as refused:
                return {"refused": str(refused)}
            self._recorder.start()
        return {"refused": None}

    def take_routes(self, request: str, length: int) -> dict[str, Any]:
        """The `routes` of a finished request of `length` tokens as vLLM sends them, once; or `missing`, the reason."""
        from rlvr.moe.routes import RouteMismatch
        from rlvr.rollouts.vllm_routes import as_text

        if self._recorder is None:
            return {"missing": "no routes are being recorded; was it restarted?"}
        try:
            return {"routes": as_text(self._recorder.take(request, length))}
        except RouteMismatch as missing:
            return {"missing": str(missing)}


def _as_held(name: str, parameters: Container[str]) -> str:
    """A name the loader reports as the engine holds it: fused experts lie one module deeper than vLLM's loaders say."""
    module, _, last = name.rpartition(".")
    inner = f"{module}.routed_experts.{last}"
    return inner if name not in parameters and inner in parameters else name


def repack_experts_anew(model: Any) -> None:
    """To be called before a reload: on CPU vLLM packs experts when it makes their kernel, and the kernel of an earlier
    load would take the new weights unpacked."""
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    for module in model.modules():
        method: Any = getattr(module, "quant_method", None)
        if getattr(method, "moe_kernel", None) is not None:
            method.moe_kernel = None


def repack_embeddings(model: Any) -> None:
    """On CPU, makes anew the packed copy of a tied output head, which reloading leaves at the old weights."""
    from vllm.model_executor.layers.vocab_parallel_embedding import VocabParallelEmbedding
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    for module in model.modules():
        if isinstance(module, VocabParallelEmbedding) and module.quant_method is not None:
            module.quant_method.process_weights_after_loading(module)
