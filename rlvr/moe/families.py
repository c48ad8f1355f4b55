"""What the configuration of a family does not say: how it scores experts, and how vLLM's loader names them."""

from __future__ import annotations

# softmax: probabilities over all experts, then top-k. topk_softmax: top-k of the logits, softmax over the chosen.
# sigmoid: independent scores. Families not named here report "unknown".
SCORES: dict[str, str] = {
    **dict.fromkeys(
        [
            "cohere2_moe",
            "deepseek_v2",
            "dbrx",
            "ernie4_5_moe",
            "flex_olmo",
            "hunyuan_v1_moe",
            "jamba",
            "longcat_flash",
            "mellum",
            "minimax",
            "mixtral",
            "olmoe",
            "qwen2_moe",
            "qwen3_moe",
            "qwen3_next",
            "qwen3_5_moe_text",
            "qwen4_exp_text",
            "zaya",
            "gemma4_text",
        ],
        "softmax",
    ),
    **dict.fromkeys(
        ["aria_text", "gpt_oss", "granitemoe", "granitemoe_swa", "granitemoehybrid", "granitemoeshared"], "topk_softmax"
    ),
    **dict.fromkeys(
        [
            "afmoe",
            "axk1",
            "axk2",
            "deepseek_v3",
            "deepseek_v32",
            "dots1",
            "exaone_moe",
            "glm4_moe",
            "glm4_moe_lite",
            "glm_moe_dsa",
            "hy_v3",
            "hy_v4",
            "kimi_linear",
            "laguna",
            "lfm2_moe",
            "llama4_text",
            "mimo_v2_flash",
            "minimax_m2",
            "minimax_m3_vl_text",
            "nemotron_h",
            "solar_open",
            "inkling_text",
        ],
        "sigmoid",
    ),
    "deepseek_v4": "sqrt_softplus",
}

# Families whose router cannot be tapped, each with the reason a user is told.
UNTAPPABLE: dict[str, str] = {
    "phimoe": "its router (sparsemixer) picks each expert by its own masked maximum and makes no top-k call",
    "jetmoe": "it routes twice in a layer (attention and MLP), so a layer has no single set of experts",
    "doge": "it retrieves experts by product keys, not by a top-k over a list of experts",
}

# vLLM model files that load experts by their own code: one tensor an expert (experts.N.gate_proj ...); fused names
# fail.
VLLM_OWN_LOADER: dict[str, str] = {
    "deepseek_v2": "deepseek_v2",
    "deepseek_v3": "deepseek_v2",
    "deepseek_v32": "deepseek_v2",
    "glm_moe_dsa": "deepseek_v2",
    "glm4_moe_lite": "glm4_moe_lite",
    "gpt_oss": "gpt_oss",
    "llama4_text": "llama4",
    "hy_v3": "hy_v3",
    "longcat_flash": "longcat_flash",
    "mimo_v2_flash": "mimo_v2",
    "nemotron_h": "nemotron_h",
}
