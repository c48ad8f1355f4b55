"""The experts that rollouts took, from the engine to the update and into the records."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from trl import GRPOTrainer

from rlvr.moe.routes import Routes, aligned, from_engine
from rlvr.moe.session import COMPLETION_ROUTES, PROMPT_ROUTES, ROUTES, RoutingSession, routes_of, small, unpacked
from rlvr.rollouts.policy_engine import Sampled
from rlvr.rollouts.records import RolloutRecord

logger = logging.getLogger(__name__)


class KeepsRoutes(GRPOTrainer):
    """A GRPOTrainer that carries the routes of a mixture-of-experts policy beside its rollouts."""

    accelerator: Any
    routing: RoutingSession | None = None

    def __init__(self, **kwargs: Any) -> None:
        self._told_of_no_routes = False
        self._sampled_routes: list[tuple[int, Routes]] = []  # (prompt tokens, routes) of the engine's rollouts
        self._scored_routes: torch.Tensor | None = None  # recorded while TRL scored what was sampled
        super().__init__(**kwargs)

    def _keep_routes(self, prompt_ids: Sequence[Sequence[int]], done: Sampled) -> None:
        """Takes the routes an engine returned with its rollouts, after a look whether they can be theirs."""
        self._sampled_routes = []
        routing = self.routing
        if routing is None or done.routes is None or routing.section.replay not in ("auto", "r3"):
            return
        for prompt, tokens, array in zip(prompt_ids, done.tokens, done.routes, strict=True):
            routes = from_engine(array, routing.shape, len(prompt) + len(tokens))
            self._sampled_routes.append((len(prompt), routes))

    def _sampled_as(self, prompt_width: int, width: int) -> dict[str, Any]:
        """The engine's routes for rows padded to these widths, as an entry of a micro-batch; none without them."""
        if not self._sampled_routes or self.routing is None:
            return {}
        prompts = [prompt for prompt, _ in self._sampled_routes]
        routes = [routes for _, routes in self._sampled_routes]
        shape, strict = self.routing.shape, self.routing.section.strict
        lengths = [part.start + len(part) + 1 for part in routes]
        whole = aligned(routes, prompts, lengths, prompt_width=prompt_width, width=width, shape=shape, strict=strict)
        return {ROUTES: small(torch.from_numpy(whole), self.routing.tap.classes).to(self.accelerator.device)}

    def _with_routes(self, output: dict[str, Any]) -> dict[str, Any]:
        """Puts the routes recorded while TRL scored into its output, halved as prompts and completions are."""
        width = output["prompt_ids"].shape[1]
        routes, self._scored_routes = self._scored_routes, None
        if routes is None:
            routes = self._sampled_as(width, width + output["completion_ids"].shape[1]).get(ROUTES)
        self._sampled_routes = []
        if routes is not None:
            output[PROMPT_ROUTES], output[COMPLETION_ROUTES] = routes[:, :width], routes[:, width:]
        return output

    def _record_routes(self, output: Mapping[str, Any], records: Sequence[RolloutRecord]) -> None:
        """Puts tokens, log-probabilities and routes into the records of these rollouts, where they are to be kept."""
        routes = routes_of(output)
        if self.routing is None or not self.routing.section.keep_routes:
            return
        if routes is None:
            if not self._told_of_no_routes:
                logger.warning(
                    "moe.keep_routes: this engine returns no routes and moe.replay %s records none while scoring, so"
                    " the rollout records hold none; set moe.replay to auto or r2",
                    self.routing.section.replay,
                )
            self._told_of_no_routes = True
            return
        tokens = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
        written = output["completion_mask"].bool()
        real = torch.cat([output["prompt_mask"].bool(), written], dim=1)
        logps = output.get("sampling_per_token_logps", output.get("old_per_token_logps"))
        for row, record in enumerate(records):
            if not written[row].any():  # masked because it was cut off
                continue
            ids = unpacked(routes[row][real[row].to(routes.device)])[:-1].cpu().numpy()
            known = np.asarray((ids >= 0).all(axis=(1, 2)))
            kept = Routes(ids.clip(0).astype(self.routing.shape.dtype), known)
            record.tokens, record.routes = tokens[row][real[row]].tolist(), kept.to_bytes()
            record.logps = None if logps is None else logps[row][written[row]].tolist()
