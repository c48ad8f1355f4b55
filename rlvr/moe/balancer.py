"""The balancing controller in a Trainer: reads the counts of each update, moves the biases, knows when to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback

from rlvr.config.moe import BalanceSection
from rlvr.moe.balancing import bias_step, recentred
from rlvr.moe.session import RoutingSession
from rlvr.moe.statistics import ExpertLoad


class ExpertBalancer(TrainerCallback):
    """Moves the selection bias after every optimizer step (module docstring of `rlvr.moe.balancing`).

    A family with a bias of its own has that bias written in place, in the dtype it has, so checkpoints and weight sync
    carry it. Another family gets an injected one, which only the trainer applies: its sampler would route differently,
    so that is for supervised training, and for RL where replay follows the sampler. `state_dict` belongs in the
    checkpoint.
    """

    def __init__(
        self,
        session: RoutingSession,
        section: BalanceSection,
        *,
        probe: Callable[[], float] | None = None,
    ) -> None:
        self.session = session
        self.section = section
        self.probe = probe
        self.updates = 0
        self.drift = 0.0
        self.frozen = False
        self.injected: list[list[float]] | None = None

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.update()

    def update(self) -> dict[str, float]:
        """Moves the biases by one step of the rule and returns what was done; every process must call it."""
        session, section = self.session, self.section
        if section.rule == "off" or self.frozen:
            return {}
        if section.freeze_after is not None and self.updates >= section.freeze_after:
            self.frozen = True
            return {}
        counts = session.take_counts()
        if not counts.sum():
            return {}
        self.updates += 1
        rate = section.rate * min(1.0, self.updates / section.warmup_steps if section.warmup_steps else 1.0)
        before = self.biases()
        bias = recentred(before + bias_step(counts, section.rule, rate, self.updates))
        if section.clip is not None:
            bias = bias.clip(-section.clip, section.clip)
        measured = 0.0
        if section.kl_budget is not None and self.probe is not None:
            self.probe()
            self._apply(bias)
            measured = self.probe()
            self.drift += measured
            if self.drift > section.kl_budget:
                self._apply(before)
                self.frozen = True
        else:
            self._apply(bias)
        return {"moe/bias_max": float(np.abs(bias).max()), "moe/bias_drift": self.drift, "moe/bias_step_kl": measured}

    def biases(self) -> np.ndarray:
        """Returns the biases [MoE layers, experts] in force."""
        tap = self.session.tap
        own = [tap.own_bias(layer) for layer in tap.layers]
        if all(bias is not None for bias in own):
            return np.stack(
                [bias.detach().float().cpu().numpy().ravel()[: tap.experts] for bias in own if bias is not None]
            )
        if self.injected is not None:
            return np.array(self.injected)
        return np.zeros((len(tap.layers), tap.experts))

    def _apply(self, bias: np.ndarray) -> None:
        tap = self.session.tap
        if any(tap.own_bias(layer) is None for layer in tap.layers):
            self.injected = bias.tolist()
            self._inject(bias)
            return
        with torch.no_grad():
            for layer, values in zip(tap.layers, bias, strict=True):
                own = tap.own_bias(layer)
                assert own is not None
                flat = own.view(-1)
                flat[: len(values)] = torch.from_numpy(values).to(flat)

    def _inject(self, bias: np.ndarray) -> None:
        tap = self.session.tap
        padded = np.pad(bias, ((0, 0), (0, tap.classes - bias.shape[1])))
        tap.set_bias({layer: torch.from_numpy(row).float() for layer, row in zip(tap.layers, padded, strict=True)})

    def state_dict(self) -> dict[str, Any]:
        """Returns what a checkpoint keeps, as JSON types; biases of the model's own are in its weights."""
        return {"updates": self.updates, "drift": self.drift, "frozen": self.frozen, "injected": self.injected}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues where `state_dict` was taken; raises ValueError for another model's state."""
        injected = state["injected"]
        shape = (len(self.session.tap.layers), self.session.tap.experts)
        if injected is not None and np.array(injected).shape != shape:
            raise ValueError(
                f"the checkpoint's biases are of shape {np.array(injected).shape}, this model's of {shape}"
            )
        self.updates, self.drift, self.frozen = state["updates"], state["drift"], state["frozen"]
        self.injected = injected
        if injected is not None:
            self._inject(np.array(injected))


class DriftProbe:
    """Mean KL (nats a token) of the policy's next-token distribution from its own of the call before, on fixed tokens.

    The first call only remembers. Routes are free in it: what is measured is what the bias does to the sampler.
    """

    def __init__(self, session: RoutingSession, model: Any, tokens: torch.Tensor) -> None:
        self.session, self.model, self.tokens = session, model, tokens
        self._reference: torch.Tensor | None = None

    def __call__(self) -> float:
        training, armed = self.model.training, self.session.tap._armed
        self.session.tap.disarm()
        self.model.eval()
        with torch.no_grad():
            now = torch.log_softmax(self.model(self.tokens.to(self.model.device)).logits.float(), dim=-1)
        self.model.train(training)
        if armed is not None:
            self.session.tap.arm(armed)
        reference, self._reference = self._reference, now
        return 0.0 if reference is None else float((reference.exp() * (reference - now)).sum(-1).mean())


class ExpertLoadLog(TrainerCallback):
    """Adds the load of each logged window to the metrics, and keeps the run's own in `expert_load.json`."""

    def __init__(self, session: RoutingSession, write: Callable[[ExpertLoad], object] | None = None) -> None:
        self.session = session
        self.write = write

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        if logs is None or "train_runtime" in logs:
            return
        logs.update(self.session.take_metrics())
        if self.write is not None and state.is_world_process_zero:
            self.write(self.session.run_load)
