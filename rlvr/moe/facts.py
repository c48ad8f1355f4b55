"""What a model is, from its configuration alone: sizes counted on the meta device, so no weight is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlvr.moe.families import SCORES, UNTAPPABLE, VLLM_OWN_LOADER
from rlvr.moe.layout import EXPERTS, UnknownRouter, expert_blocks, expert_parameters, layer_of, read, text_config

PRESETS = Path(__file__).parent / "presets"
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "fp8": 1}
# layer kinds that keep a state of fixed size instead of keys and values
STATEFUL = {"linear_attention", "mamba", "conv", "recurrent", "moe", "mlp"}


@dataclass(frozen=True)
class ModelFacts:
    """A decoder in numbers. Counts are of parameters; `dtype_bytes` turns them into bytes.

    `moe_layers` and `dense_layers` are absolute decoder indices. `kv_full` and `kv_windowed` are cache elements a token
    over all layers with full and with windowed attention. For a dense model `experts` is 0.
    """

    name: str
    model_type: str
    architecture: str
    layers: int
    hidden: int
    vocabulary: int
    max_positions: int
    dtype_bytes: int
    attention_heads: int
    kv_heads: int
    parameters: int
    active_parameters: int
    expert_parameters: int  # of all routed experts
    router_parameters: int
    shared_parameters: int  # of shared experts
    embedding_parameters: int  # input and output embeddings, once where tied
    buffers: int  # persistent, such as the router bias: in the checkpoint, not a parameter
    experts: int = 0
    top_k: int = 0
    groups: int = 1
    groups_chosen: int = 1
    shared_experts: int = 0
    moe_layers: tuple[int, ...] = ()
    dense_layers: tuple[int, ...] = ()
    score: str = "none"
    bias: str = "none"  # none | buffer | parameter
    normalised: bool | None = None  # top-k weights divided by their sum
    scale: float = 1.0
    kv_full: int = 0
    kv_windowed: int = 0
    window: int = 0
    stateful_layers: int = 0
    mla: bool = False
    vllm_names: str = ""
    tap: str = ""  # "" where the routing can be recorded and replayed, else why not
    traps: tuple[str, ...] = field(default_factory=tuple)

    @property
    def parameters_per_expert(self) -> int:
        """Parameters of one expert of one layer."""
        return self.expert_parameters // (self.experts * len(self.moe_layers)) if self.experts else 0

    @property
    def route_bytes_per_token(self) -> int:
        """Bytes of a token's routes as vLLM returns them: every layer, one byte an id up to 256 experts, else two."""
        return self.layers * self.top_k * (1 if self.experts <= 256 else 2) if self.experts else 0

    def kv_bytes_per_token(self, kv_dtype_bytes: int | None = None) -> int:
        """Bytes a token adds to the cache while it is within every window."""
        return (self.kv_full + self.kv_windowed) * (kv_dtype_bytes or self.kv_dtype_bytes)

    @property
    def kv_dtype_bytes(self) -> int:
        """Bytes of a cache element: the model's dtype; 2 where the weights are 8-bit."""
        return max(2, self.dtype_bytes)

    def kv_bytes(self, length: int, kv_dtype_bytes: int | None = None) -> int:
        """Bytes the cache of one sequence of `length` tokens takes."""
        windowed = min(length, self.window) if self.window else length
        return (self.kv_full * length + self.kv_windowed * windowed) * (kv_dtype_bytes or self.kv_dtype_bytes)

    def as_dict(self) -> dict[str, Any]:
        """Returns every field and derived figure, ready for JSON."""
        return asdict(self) | {
            "parameters_per_expert": self.parameters_per_expert,
            "route_bytes_per_token": self.route_bytes_per_token,
            "kv_bytes_per_token": self.kv_bytes_per_token(),
            "bytes": self.parameters * self.dtype_bytes,
            "active_bytes": self.active_parameters * self.dtype_bytes,
            "expert_bytes": self.expert_parameters * self.dtype_bytes,
        }


def inspect_model(name: str, *, trust_remote_code: bool = False) -> ModelFacts:
    """Returns the facts of a checkpoint folder, a config.json, a preset (`presets()`) or a hub id.

    Raises FileNotFoundError where none of these is there, ValueError where transformers cannot build the model.
    """
    raw, config = load_config(name, trust_remote_code=trust_remote_code)
    return facts_of(config, name=name, raw=raw)


def presets() -> list[str]:
    """Returns the names of the configurations that ship with the package."""
    return sorted(path.stem for path in PRESETS.glob("*.json"))


def load_config(name: str, *, trust_remote_code: bool = False) -> tuple[dict[str, Any], Any]:
    """Returns (the values as written, the transformers configuration) of a model."""
    path = Path(name)
    preset = PRESETS / f"{path.name.lower()}.json"
    if path.is_dir():
        path = path / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: missing; {name} is not a checkpoint folder")
    elif not path.is_file() and preset.is_file():
        path = preset
    if path.is_file():
        try:
            raw = json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: not valid JSON: {error}") from None
        if not isinstance(raw, dict) or "model_type" not in raw:
            raise ValueError(f"{path}: no model_type, so not a model's configuration")
        return raw, _config_from(raw, str(path), trust_remote_code)
    from transformers import AutoConfig

    from rlvr.models import ModelUnavailable, resolve_model

    try:
        config = AutoConfig.from_pretrained(resolve_model(name), trust_remote_code=trust_remote_code)
    except (OSError, ValueError, ModelUnavailable) as error:
        reason = str(error).splitlines()[0]
        raise FileNotFoundError(
            f"{name}: neither a config.json nor one of {', '.join(presets())}, and no model to load: {reason}"
        ) from None
    return config.to_dict(), config


def _config_from(raw: Mapping[str, Any], where: str, trust_remote_code: bool) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = raw["model_type"]
    if kind not in CONFIG_MAPPING:
        if trust_remote_code and Path(where).name == "config.json":
            return AutoConfig.from_pretrained(str(Path(where).parent), trust_remote_code=True)
        raise ValueError(f"{where}: model_type {kind!r} is not known to the installed transformers")
    values = {name: value for name, value in raw.items() if name not in ("model_type", "transformers_version")}
    try:
        return CONFIG_MAPPING[kind].from_dict(values)
    except (TypeError, ValueError, KeyError, StrictDataclassError) as error:
        raise ValueError(f"{where}: not a {kind} configuration: {' '.join(str(error).split())}") from None


def meta_model(config: Any) -> Any:
    """Returns the causal language model of a configuration on the meta device: shapes without memory."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        config = text_config(config)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{config.model_type}: transformers has no causal language model of this type")
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config)
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{config.model_type}: transformers cannot build this configuration: {reason}") from None


def facts_of(config: Any, *, name: str = "", raw: Mapping[str, Any] | None = None) -> ModelFacts:
    """Returns the facts of a transformers configuration; `raw` is config.json as written, for the traps in it."""
    model = meta_model(config)
    inner = text_config(model.config)
    raw = config.to_dict() if raw is None else raw
    parameters = {id(p): p for p in model.parameters()}
    total = sum(p.numel() for p in parameters.values())
    persistent = {n: t for n, t in model.state_dict(keep_vars=True).items() if id(t) not in parameters}
    kind = inner.model_type
    untappable = UNTAPPABLE.get(kind, "")
    try:
        blocks = expert_blocks(model)
    except UnknownRouter as error:
        blocks, untappable = [], untappable or str(error)
    experts = read(inner, EXPERTS) or 0
    per_layer = [sum(p.numel() for _, p in expert_parameters(block)) for block in blocks]
    routed = sum(per_layer)
    top_k = blocks[0].top_k if blocks else 0
    shared = [p.numel() for n, p in model.named_parameters() if "shared_expert" in n or ".shared_mlp." in n]
    embeddings = {id(m.weight): m.weight for m in (model.get_input_embeddings(), model.get_output_embeddings()) if m}
    layers = sorted({layer for n, _ in model.named_parameters() if (layer := layer_of(n)) is not None})
    moe_layers = tuple(block.layer for block in blocks)
    cache = _cache(model, inner)
    facts = ModelFacts(
        name=name or kind,
        model_type=kind,
        architecture=type(model).__name__,
        layers=len(layers),
        hidden=inner.hidden_size,
        vocabulary=inner.vocab_size,
        max_positions=getattr(inner, "max_position_embeddings", 0) or 0,
        dtype_bytes=_dtype_bytes(raw, config),
        attention_heads=inner.num_attention_heads,
        kv_heads=getattr(inner, "num_key_value_heads", None) or inner.num_attention_heads,
        parameters=total,
        active_parameters=total - (routed - routed * top_k // experts if blocks else 0),
        expert_parameters=routed,
        router_parameters=sum(_router_parameters(block) for block in blocks),
        shared_parameters=sum(shared) if blocks else 0,
        embedding_parameters=sum(p.numel() for p in embeddings.values()),
        buffers=sum(t.numel() for t in persistent.values()),
        experts=experts if blocks else 0,
        top_k=top_k,
        groups=getattr(inner, "n_group", None) or getattr(inner, "num_expert_group", None) or 1,
        groups_chosen=getattr(inner, "topk_group", None) or 1,
        shared_experts=_shared_experts(inner, bool(shared)) if blocks else 0,
        moe_layers=moe_layers,
        dense_layers=tuple(layer for layer in layers if layer not in moe_layers),
        score=SCORES.get(kind, "unknown") if blocks else "none",
        bias=next((block.bias_kind for block in blocks if block.bias_kind != "none"), "none"),
        normalised=next(
            (bool(v) for n in ("norm_topk_prob", "moe_renormalize") if (v := getattr(inner, n, None)) is not None), None
        ),
        scale=float(getattr(inner, "routed_scaling_factor", None) or 1.0),
        vllm_names=_vllm_names(kind) if blocks else "",
        tap=untappable,
        **cache,
    )
    return _with_traps(facts, raw, config)


def _router_parameters(block: Any) -> int:
    routed = {id(p) for _, p in expert_parameters(block)}
    return sum(
        p.numel()
        for n, p in block.block.named_parameters()
        if id(p) not in routed and (n.startswith(("gate.", "router.", "moe_gate.")) or n.endswith("expert_bias"))
    )


def _shared_experts(config: Any, present: bool) -> int:
    for name in ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert"):
        value = getattr(config, name, None)
        if isinstance(value, list):
            value = value[0] if value else None
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    return int(present)


def _dtype_bytes(raw: Mapping[str, Any], config: Any) -> int:
    quantised = raw.get("quantization_config") or {}
    if isinstance(quantised, Mapping) and quantised.get("quant_method") == "fp8":
        return 1
    name = str(raw.get("dtype") or raw.get("torch_dtype") or getattr(config, "dtype", None) or "bfloat16")
    return BYTES.get(name.removeprefix("torch."), 2)


def _cache(model: Any, config: Any) -> dict[str, Any]:
    """Cache elements a token by kind of layer, read from the projections where a layer has them."""
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or []
    window = getattr(config, "sliding_window", None) or 0
    if getattr(config, "use_sliding_window", True) is False:
        window = 0
    latent: int = getattr(config, "kv_lora_rank", None) or 0
    rope = getattr(config, "qk_rope_head_dim", None) or 0
    widths: dict[int, int] = {}
    for name, module in model.named_modules():
        layer = layer_of(name)
        if layer is None:
            continue
        last = name.rpartition(".")[2]
        if last in ("k_proj", "v_proj") and hasattr(module, "weight"):
            widths[layer] = widths.get(layer, 0) + module.weight.shape[0]
        elif last in ("kv_a_proj_with_mqa", "kv_a_proj") and latent:
            widths[layer] = latent + rope
    mla = bool(latent) and any(width == latent + rope for width in widths.values())
    if mla:  # families with an indexer also have projections of other names; the latent is what is cached
        widths = {layer: latent + rope for layer, width in widths.items() if width >= latent}
    full = windowed = stateful = 0
    for layer, width in widths.items():
        kind = kinds[layer] if layer < len(kinds) else "full_attention"
        if kind in STATEFUL:
            stateful += 1
        elif (window and kind in ("sliding_attention", "chunked_attention")) or (window and not kinds and not mla):
            windowed += width
        else:
            full += width
    stateful += sum(1 for layer, kind in enumerate(kinds) if kind in STATEFUL - {"moe", "mlp"} and layer not in widths)
    return {
        "kv_full": full,
        "kv_windowed": windowed,
        "window": window if windowed else 0,
        "stateful_layers": stateful,
        "mla": mla,
    }


def _vllm_names(kind: str) -> str:
    if kind in VLLM_OWN_LOADER:
        return f"checkpoint names, one tensor an expert (loader of vLLM's {VLLM_OWN_LOADER[kind]}.py)"
    return "checkpoint names; fused experts.gate_up_proj / experts.down_proj too (vLLM's generic loader)"


def _with_traps(facts: ModelFacts, raw: Mapping[str, Any], config: Any) -> ModelFacts:
    traps = []
    inner = text_config(config)
    if not facts.experts:
        if facts.tap:
            traps.append(f"routing cannot be recorded or replayed: {facts.tap}")
        return ModelFacts(**(asdict(facts) | {"traps": tuple(traps)}))
    if facts.tap:
        traps.append(f"routing cannot be recorded or replayed: {facts.tap}")
    if facts.model_type in ("deepseek_v3", "deepseek_v32") and raw.get("topk_method") != "noaux_tc":
        traps.append(
            'config.json lacks "topk_method": "noaux_tc" (transformers does not write it): vLLM then makes no router'
            " bias and loading fails with a KeyError; add it"
        )
    if facts.bias == "buffer":
        traps.append(
            "the router bias is a persistent buffer: named_parameters() misses it, so a weight sync of parameters alone"
            " leaves the sampler a stale bias"
        )
    if facts.model_type in VLLM_OWN_LOADER:
        traps.append("vLLM's loader refuses fused expert names: send checkpoint names (rlvr's weight sync does)")
    if (getattr(inner, "router_aux_loss_coef", 0) or 0) > 0 and hasattr(inner, "output_router_logits"):
        traps.append(
            f"router_aux_loss_coef is {inner.router_aux_loss_coef:g}: TRL adds that auxiliary loss in RL unless it is"
            " set to 0; it is computed from raw logits, so it ignores bias, groups and replayed routes"
        )
    if facts.stateful_layers:
        traps.append(
            f"{facts.stateful_layers} layers keep a state of fixed size a sequence, not counted in the KV cache"
        )
    if facts.score == "unknown":
        traps.append("the score function of this family is not on record")
    if facts.shared_experts == 0 and facts.shared_parameters:
        traps.append("there are shared expert weights although the configuration names none")
    return ModelFacts(**(asdict(facts) | {"traps": tuple(traps)}))
