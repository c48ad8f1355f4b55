"""Mixture-of-experts policies in a training run: what the trainer is given, and what its checkpoints keep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from rlvr.config import RecipeError
from rlvr.config.moe import BalanceSection, MoESection, SupervisedMoESection
from rlvr.moe.balancer import DriftProbe, ExpertBalancer, ExpertLoadLog
from rlvr.moe.layout import UnknownRouter, expert_blocks, text_config
from rlvr.moe.session import RoutingSession
from rlvr.moe.statistics import ExpertLoad, all_reduced

LOAD_FILE = "expert_load.json"


class PolicyRouting:
    """The routing session of a run, its balancer and its logs; `state_dict` belongs in every checkpoint."""

    def __init__(
        self, model: Any, section: MoESection, *, updates_per_rollout: int, probe: torch.Tensor | None = None
    ) -> None:
        self.session = RoutingSession(model, section, updates_per_rollout=updates_per_rollout)
        self.balancer: ExpertBalancer | None = None
        if section.balance.rule != "off":
            drift = DriftProbe(self.session, model, probe) if probe is not None else None
            self.balancer = ExpertBalancer(self.session, section.balance, probe=drift)

    def callbacks(self, folder: Path) -> list[TrainerCallback]:
        """Returns the callbacks of the run, to stand before those that read its logs; load goes to
        `folder/expert_load.json`."""
        log = ExpertLoadLog(self.session, lambda load: write_load(load, folder))
        return [log] if self.balancer is None else [self.balancer, log]

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps, as JSON types."""
        balancer = None if self.balancer is None else self.balancer.state_dict()
        return {"moe": {"load": self.session.run_load.as_dict(), "balancer": balancer}}

    def settled_state(self) -> dict[str, Any]:
        """Returns `state_dict` with what was counted since the last log line; every process must call it."""
        state, session = self.state_dict(), self.session
        session.flush()
        state["moe"]["load"] = session.run_load.merge(all_reduced(session.load)).as_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from a checkpoint's state; one without routing leaves everything at its start."""
        kept = state.get("moe")
        if kept is None:
            return
        self.session.run_load = ExpertLoad.from_dict(kept["load"], "checkpoint")
        if self.balancer is not None and kept["balancer"] is not None:
            self.balancer.load_state_dict(kept["balancer"])


def policy_routing(
    model: Any, section: MoESection, *, updates_per_rollout: int, probe: torch.Tensor | None = None
) -> PolicyRouting | None:
    """Returns the routing of a mixture-of-experts policy, None for a dense one and where it cannot be tapped.

    Raises RecipeError where the section insists (replay r2 or r3, balancing, an auxiliary loss, routes in the records)
    on what the model cannot give.
    """
    insists = [
        name
        for name, wanted in (
            (f"moe.replay: {section.replay}", section.replay in ("r2", "r3")),
            (f"moe.balance.rule: {section.balance.rule}", section.balance.rule != "off"),
            ("moe.aux_loss_coef", section.aux_loss_coef > 0),
            ("moe.freeze_router", section.freeze_router),
            ("moe.keep_routes", section.keep_routes),
        )
        if wanted
    ]
    kind = text_config(model.config).model_type
    try:
        if not expert_blocks(model):
            raise UnknownRouter(f"{kind} is a dense model, it has no routed experts")
        if section.aux_loss_coef and any(block.bias_name for block in expert_blocks(model)):
            raise RecipeError(f"moe.aux_loss_coef: {kind} has a selection bias; balance it with moe.balance instead")
        return PolicyRouting(model, section, updates_per_rollout=updates_per_rollout, probe=probe)
    except UnknownRouter as error:
        if insists:
            raise RecipeError(f"{insists[0]}: {error}") from None
        return None


def supervised_routing(model: Any, section: SupervisedMoESection) -> PolicyRouting | None:
    """Returns the routing of a model in supervised training: load counted, balance as the section says, no replay.

    None and RecipeError as of `policy_routing`.
    """
    balance = section.balance
    if balance is None:
        blocks = expert_blocks(model)
        own = bool(blocks) and all(block.bias_name for block in blocks)
        balance = BalanceSection(rule="sign" if own else "off")
    whole = MoESection(replay="off", balance=balance, log_load=section.log_load, ranks=section.ranks)
    return policy_routing(model, whole, updates_per_rollout=1)


def probe_tokens(tokenizer: Any, prompts: Sequence[Any], *, rows: int = 4, most: int = 128) -> torch.Tensor:
    """Returns int64 [rows, tokens] of the first prompts, cut to the shortest: what bias drift is measured on."""
    found = []
    for prompt in prompts[:rows]:
        text = (
            prompt
            if isinstance(prompt, str)
            else tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        )
        found.append(tokenizer(text=text)["input_ids"][:most])
    width = min(map(len, found))
    return torch.tensor([ids[:width] for ids in found])


def write_load(load: ExpertLoad, folder: Path) -> Path:
    """Writes the load of a run to `folder/expert_load.json`, whole or not at all."""
    path = folder / LOAD_FILE
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(load.as_dict()))
    temporary.replace(path)
    return path
