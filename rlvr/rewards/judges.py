"""The judge a recipe asks for: in this process, behind a URL, or on the nodes of a Ray cluster."""

from __future__ import annotations

import os

import sandbox
from rlvr.config import JudgeSection
from sandbox.protocol import BatchJudge


def open_judge(section: JudgeSection, workers: int) -> BatchJudge:
    """A judge as `section` says, with `workers` processes where it runs here. ImportError names the missing extra."""
    if section.url is not None:
        try:
            from sandbox.service.client import JudgeClient, Patience
        except ModuleNotFoundError as error:
            raise ImportError(f"judge.url: {error.name} is missing: pip install 'rlvr[service]'") from None
        return JudgeClient(
            section.url,
            os.environ.get(section.token_variable),
            min_protection=section.min_protection,
            allow_unconfined=section.allow_unconfined,
            patience=Patience(lasting_s=section.patience_s),
        )
    if section.ray is not None:
        try:
            from sandbox.service.ray_judge import RayJudge
        except ModuleNotFoundError as error:
            raise ImportError(f"judge.ray: {error.name} is missing: pip install 'rlvr[ray]'") from None
        return RayJudge(
            section.ray,
            workers=section.workers,
            patience_s=section.patience_s,
            min_protection=section.min_protection,
            allow_unconfined=section.allow_unconfined,
        )
    return sandbox.Judge(
        workers=workers,
        min_protection=section.min_protection,
        allow_unconfined=section.allow_unconfined,
        cache=section.cache or True,
    )
