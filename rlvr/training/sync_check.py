"""After weights are handed over: do engine and trainer still agree on a few fixed tokens?"""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import broadcast_object_list

from rlvr.config.grpo import SyncSection
from rlvr.moe.sync import SyncCanary, SyncRefused, canary_due
from rlvr.rollouts.policy_engine import EngineFailure, PolicyEngine


class SyncCheck:
    """Hands the policy to an engine and checks the hand-over on a probe, as often as the recipe says.

    The bound is `sync.canary_bound`, and tightened to five times the difference the engine shows before the first
    hand-over, where it loaded the policy's checkpoint by itself. Every process calls it; all of them get the same
    answer.
    """

    def __init__(self, trainer: Any, section: SyncSection, probe: torch.Tensor | None) -> None:
        self.trainer = trainer
        self.section = section
        self.canary = None if probe is None or probe.shape[1] < 2 else SyncCanary(probe, section.canary_bound)
        self.syncs = 0

    def __call__(self, engine: PolicyEngine, version: int) -> float | None:
        """Returns the probe's gap in nats a token where one was measured; raises SyncRefused above the bound and
        EngineFailure where the engine cannot take the weights over."""
        first = self.syncs == 0
        if first and self._due(1):
            loaded = self._gap(engine)
            if self.canary is not None and loaded is not None:
                self.canary.calibrate(loaded)
        if not engine.sync(version):
            return None
        self.syncs += 1
        if self.canary is None or not self._due(self.syncs):
            return None
        gap = self._gap(engine)
        return None if gap is None else self.canary.check(gap, version)

    def _due(self, sync: int) -> bool:
        return canary_due(sync, first=self.section.canary_first, every=self.section.canary_every)

    def _gap(self, engine: PolicyEngine) -> float | None:
        if self.canary is None or not engine.corrects:
            return None
        accelerator = self.trainer.accelerator
        expected = self.canary.expected(accelerator.unwrap_model(self.trainer.model_wrapped))
        shared = engine.url is not None  # one engine for all processes, or one in each
        answer: list[float | str | None] = [None]
        if accelerator.is_main_process or not shared:
            try:
                scored = engine.score(self.canary.tokens)
                answer = [None if scored is None else self.canary.gap(expected, scored)]
            except (EngineFailure, SyncRefused) as error:
                answer = [str(error)]
        if shared:
            broadcast_object_list(answer, from_process=0)
        elif isinstance(answer[0], float):
            answer = [accelerator.gather(torch.tensor([answer[0]], device=accelerator.device)).max().item()]
        (found,) = answer
        if isinstance(found, str):
            raise EngineFailure(found)
        return found
