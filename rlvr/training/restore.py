"""Weights of experts back from a checkpoint of a run."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForCausalLM, Trainer

from rlvr.moe.layout import expert_blocks


class RestoresExperts(Trainer):
    """A Trainer that resumes mixture-of-experts models.

    A checkpoint has one tensor an expert, the model in memory one for all of them. transformers' Trainer loads by name
    and passes over names it does not find, so experts would stay at the values the run began with.
    """

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        policy: Any = self.model if model is None else model
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if sharded or not expert_blocks(policy):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        kept: Any = AutoModelForCausalLM.from_pretrained(resume_from_checkpoint, dtype=policy.dtype)
        policy.load_state_dict(kept.state_dict())
