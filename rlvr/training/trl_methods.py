"""The private methods of TRL that the trainer builds on, held against the installed release."""

from __future__ import annotations

import inspect

from trl import GRPOTrainer

# The private methods our subclasses override or call. TRL may change them in any release: fail at import, by name.
_SIGNATURES = {
    "_generate_and_score_completions": ["self", "inputs"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_generate_single_turn": [
        "self",
        "prompt_ids",
        "images",
        "multimodal_fields",
        "num_generations",
        "has_tool_images",
    ],
    "_prepare_inputs": ["self", "generation_batch"],
    "_compute_loss": ["self", "model", "inputs"],
    "_get_per_token_logps_and_entropies": [
        "self",
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
        "compute_entropy",
        "compute_aux_loss",
        "pixel_values",
        "image_grid_thw",
        "num_images",
        "pixel_attention_mask",
        "spatial_shapes",
        "num_tiles",
        "image_sizes",
        "token_type_ids",
        "mm_token_type_ids",
        "image_position_ids",
    ],
    "_get_grad_norm": ["self", "model", "grad_norm"],
    "_load_from_checkpoint": ["self", "resume_from_checkpoint", "model"],
    "_save_checkpoint": ["self", "model", "trial"],
    "_get_output_dir": ["self", "trial"],
}


def check_trl() -> None:
    """Raises ImportError where the installed TRL is not one the trainer was written for."""
    for name, expected in _SIGNATURES.items():
        method = getattr(GRPOTrainer, name, None)
        found = list(inspect.signature(method).parameters) if method else None
        if found != expected:
            import trl

            raise ImportError(
                f"trl {trl.__version__}: GRPOTrainer.{name} has parameters {found}, expected {expected};"
                " install a version in the range of pyproject.toml (pip install 'rlvr[train]')"
            )
