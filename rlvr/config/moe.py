"""Recipe section for mixture-of-experts policies; a dense model ignores it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from rlvr.config.load import Strict


class BalanceSection(Strict):
    """Auxiliary-loss-free balancing (arXiv 2408.15664). Off by default: in RL a moving bias moves the policy."""

    rule: Literal["off", "sign", "proportional", "inverse", "inverse_sqrt"] = "off"
    rate: float = Field(default=1e-3, gt=0)
    warmup_steps: int = Field(default=0, ge=0)  # updates over which the rate grows from 0
    freeze_after: int | None = Field(default=None, ge=0)  # updates after which the bias stays
    clip: float | None = Field(default=None, gt=0)  # greatest absolute bias
    kl_budget: float | None = Field(default=None, gt=0)  # stop once the bias alone has moved the policy this far (nats)


class MoESection(Strict):
    """How the routing of a mixture-of-experts policy is treated in training.

    `replay`: which experts the update's forward pass uses. r2: those the sampling policy chose when it scored the
    rollouts, so that several updates on one batch keep its routes. r3: those recorded while sampling. auto: r3 where
    the engine returns routes, else r2. off: as the router chooses.
    """

    replay: Literal["auto", "off", "r2", "r3"] = "auto"
    strict: bool = True  # a token without routes is an error; else its router chooses
    balance: BalanceSection = BalanceSection()
    aux_loss_coef: float = Field(default=0.0, ge=0)  # on recorded routes; 0 also where the checkpoint names its own
    freeze_router: bool = False
    log_load: bool = True
    ranks: int | None = Field(default=None, ge=1)  # report the skew of this many expert-parallel ranks
    keep_routes: bool = False  # in the rollout records, with tokens and log-probabilities

    @model_validator(mode="after")
    def _routes_to_keep(self) -> MoESection:
        if self.keep_routes and self.replay == "off":
            raise ValueError("moe.keep_routes: moe.replay is off, so no routes are recorded; set r2, r3 or auto")
        return self


class SupervisedMoESection(Strict):
    """How a mixture-of-experts model is balanced in supervised training, where no sampler has to agree.

    `balance`: by default the sign rule for families with a selection bias of their own, which checkpoints carry, and
    none for the others: the bias they are given exists in the trainer only, so what is served would route without it.
    """

    balance: BalanceSection | None = None
    log_load: bool = True
    ranks: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _no_budget(self) -> SupervisedMoESection:
        if self.balance is not None and self.balance.kl_budget is not None:
            raise ValueError(
                "moe.balance.kl_budget: holds a policy near its sampler; there is none in SFT, leave it out"
            )
        return self
