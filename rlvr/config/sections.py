"""Sections that several recipes share."""

from __future__ import annotations

import difflib
from typing import Literal

from pydantic import Field, field_validator, model_validator

from rlvr.config.load import Strict
from sandbox import languages

# Of transformers; those that follow a metric of an evaluation within training are left out, there is none.
LRSchedule = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt",
    "cosine_with_min_lr", "cosine_warmup_with_min_lr", "warmup_stable_decay",
]  # fmt: skip
ATTENTION = ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4")


class ModelSection(Strict):
    """Which policy: a local checkpoint folder, a name `rlvr models list` knows, or a hub id."""

    name_or_path: str
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    attn_implementation: str | None = None  # one of ATTENTION, or a repository of kernels on the hub
    trust_remote_code: bool = False
    revision: str | None = None

    @field_validator("attn_implementation")
    @classmethod
    def _known_attention(cls, name: str | None) -> str | None:
        if name is None or name in ATTENTION or "/" in name:
            return name
        close = difflib.get_close_matches(name, ATTENTION, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(ATTENTION)}, or owner/name of the hub"
        raise ValueError(f"unknown attention {name!r}; {hint}")


class DataSection(Strict):
    """Which problems: a file or folder `data_curation.load_problems` reads, in file order."""

    problems: str
    limit: int | None = Field(default=None, ge=1)
    difficulties: list[str] | None = None  # keep only these labels
    tags: list[str] | None = None  # keep only problems with one of these tags


class PromptSection(Strict):
    """How a problem becomes a prompt and a completion becomes a program.

    `plain`: the template's text, completion taken as the program. `chat`: one user message through the model's chat
    template, program taken from the last fenced code block.
    """

    style: Literal["plain", "chat"] = "chat"
    template: str | None = None  # fields: see data_curation.prompts.filled; None = the style's own
    system: str | None = None
    language: str = "python"

    @field_validator("template")
    @classmethod
    def _has_statement(cls, template: str | None) -> str | None:
        if template is not None and "{statement}" not in template and "{starter_code}" not in template:
            raise ValueError("the template must contain {statement} or {starter_code}")
        return template

    @model_validator(mode="after")
    def _system_has_a_place(self) -> PromptSection:
        if self.system is not None and self.style == "plain":
            raise ValueError("prompt.system is a message of style chat; with style plain put it into prompt.template")
        return self

    @field_validator("language")
    @classmethod
    def _known(cls, language: str) -> str:
        return languages.find(language).name


class JudgeSection(Strict):
    """How programs are judged: by workers of this process, or elsewhere where `url` or `ray` is given."""

    workers: int | None = Field(default=None, ge=1)  # for each process; None: the machine's cores shared out
    min_protection: Literal["namespaced", "confined", "limited"] = "confined"
    allow_unconfined: bool = False
    max_infrastructure_errors: float = Field(default=0.05, ge=0, le=1)  # share of a step above which the run stops
    cache: str | None = None  # SQLite file that keeps verdicts between runs
    url: str | None = None  # a judge service, http://host:8080
    token_variable: str = "RLVR_JUDGE_TOKEN"  # environment variable that holds its token
    patience_s: float = Field(default=45, ge=0)  # how long a service that does not answer is waited for, then IE
    ray: str | None = None  # address of a Ray cluster, "auto" for the one this machine belongs to

    @model_validator(mode="after")
    def _one_place(self) -> JudgeSection:
        if self.url is not None and self.ray is not None:
            raise ValueError("give `url` or `ray`, not both: programs are judged in one place")
        if self.cache is not None and (self.url is not None or self.ray is not None):
            raise ValueError(
                "`cache` is for judging in this process: a service has its own (rlvr sandbox serve --cache)"
            )
        return self


class TrackingSection(Strict):
    """Where metrics go besides the run's own metrics.jsonl."""

    report_to: list[Literal["tensorboard", "wandb", "trackio"]] = Field(default_factory=list)
    project: str = "rlvr"
    entity: str | None = None

    @field_validator("report_to", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        if value in (None, "none", "None"):
            return []
        return [value] if isinstance(value, str) else value
