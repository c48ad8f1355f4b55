"""A tiny configuration of every mixture-of-experts family transformers can build as a causal language model."""

from __future__ import annotations

from typing import Any

COMMON: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "expert_ffn_hidden_size": 32,
    "ffn_hidden_size": 96,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "index_n_heads": 4,
    "index_head_dim": 16,
    "index_topk": 512,
    "sliding_window": 64,
    "num_experts": 8,
    "num_local_experts": 8,
    "n_routed_experts": 8,
    "moe_num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "num_experts_per_token": 2,
    "top_k_experts": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
}

MLA = {"num_key_value_heads": 4, "head_dim": 8}

# family -> what its configuration needs beside COMMON
FAMILIES: dict[str, dict[str, Any]] = {
    "afmoe": {},
    "aria_text": {},
    "axk1": MLA,
    "axk2": MLA,
    "cohere2_moe": {},
    "deepseek_v2": MLA,
    "deepseek_v3": MLA | {"n_group": 4, "topk_group": 2},
    "deepseek_v32": MLA,
    "deepseek_v4": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention"] * 4,
        "mlp_layer_types": ["hash_moe", "moe", "moe", "moe"],
    },
    "dots1": {"n_shared_experts": 1, "num_key_value_heads": 4},
    "ernie4_5_moe": {},
    "exaone_moe": {},
    "flex_olmo": {},
    "gemma4_text": {"enable_moe_block": True, "vocab_size_per_layer_input": 320, "hidden_size_per_layer_input": 8},
    "glm4_moe": {},
    "glm4_moe_lite": MLA,
    "glm_moe_dsa": MLA,
    "gpt_oss": {},
    "granitemoe": {},
    "granitemoe_swa": {},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention", "mamba"],
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "mamba_d_state": 8,
        "mamba_chunk_size": 8,
    },
    "granitemoeshared": {"shared_intermediate_size": 32},
    "hunyuan_v1_moe": {},
    "hy_v3": {},
    "hy_v4": {},
    "inkling_text": {},
    "jamba": {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": MLA | {"linear_head_dim": 16, "linear_num_heads": 4},
    "laguna": {},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "full_attention"]},
    "llama4_text": {},
    "longcat_flash": {"num_key_value_heads": 4, "head_dim": 8, "num_layers": 2, "zero_expert_num": 4},
    "mellum": {},
    "mimo_v2_flash": {},
    "minimax": {},
    "minimax_m2": {},
    "minimax_m3_vl_text": {},
    "mixtral": {},
    "nemotron_h": {
        "ssm_state_size": 8,
        "chunk_size": 8,
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "moe_shared_expert_intermediate_size": 32,
    },
    "olmoe": {},
    "qwen2_moe": {},
    "qwen3_moe": {},
    "qwen3_next": {},
    "qwen3_5_moe_text": {},
    "solar_open": {},
    "zaya": {"num_experts_per_tok": 1},
}

REFUSED = {"phimoe": {}, "jetmoe": {}, "doge": {"is_moe": True}}


def tiny_config(family: str, **overrides: Any) -> Any:
    """The family's configuration at a few hundred thousand parameters: 8 experts of which 2 (zaya: 1)."""
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[family]
    known = kind().to_dict()
    aliases = getattr(kind, "attribute_map", {})
    values = {name: value for name, value in COMMON.items() if name in known or name in aliases}
    values |= FAMILIES.get(family, REFUSED.get(family, {})) | overrides
    layers = values.get("num_hidden_layers", 3)
    for name in ("layer_types", "mlp_layer_types"):
        if known.get(name) and name not in values:
            kinds = list(dict.fromkeys(known[name]))
            fill = "sparse" if name == "mlp_layer_types" else kinds[-1]
            values[name] = (kinds + [fill] * layers)[:layers]
    return kind(**values)
