"""Recipe of an evaluation, and the definition of a suite."""

from __future__ import annotations

import datetime
import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from rlvr.config.load import Strict
from rlvr.config.sections import DataSection, JudgeSection, ModelSection, PromptSection


class SamplingSection(Strict):
    """How samples are drawn: `n` at `temperature` for pass@k (0: greedy), plus one greedy sample."""

    n: int = Field(default=8, ge=1)
    k: list[int] = Field(default_factory=lambda: [1, 8])
    temperature: float = Field(default=1.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    top_k: int = Field(default=0, ge=0)
    max_completion_length: int = Field(default=512, ge=1)
    greedy: bool = True
    batch_size: int = Field(default=64, ge=1)
    threads: int | None = Field(default=None, ge=1)  # transformers on CPU: the other cores judge meanwhile

    @field_validator("k")
    @classmethod
    def _positive(cls, k: list[int]) -> list[int]:
        if not k or min(k) < 1:
            raise ValueError("k lists the k of pass@k: whole numbers from 1 on")
        return sorted(set(k))

    def check(self, name: str = "sampling") -> None:
        """ValueError where pass@k is asked for with fewer than k samples."""
        if max(self.k) > self.n:
            raise ValueError(
                f"{name}.k: pass@{max(self.k)} needs {name}.n >= {max(self.k)}, and {name}.n is {self.n}; "
                f"raise {name}.n or leave {max(self.k)} out of {name}.k"
            )


class EndpointSection(Strict):
    """An OpenAI-compatible server. The key is read from the environment and written nowhere."""

    url: str  # up to and with /v1
    model: str
    name: str | None = None  # what tells it from other servers, where its address may change; default: the address
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = Field(default=16, ge=1)
    tries: int = Field(default=10, ge=1)  # of one request, with pauses that grow to a minute: three minutes in all
    timeout_s: float = Field(default=600.0, gt=0)
    extra: dict[str, Any] = Field(default_factory=dict)  # further fields of every request

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port beyond 65535
            fits = False
        if not fits or re.search(r"\s", url):
            raise ValueError(f"an address such as http://127.0.0.1:8000/v1, got {url!r}")
        return url.rstrip("/")


class Exclusion(Strict):
    """A problem left out of a suite, and why."""

    id: str
    reason: str


class LimitsSection(Strict):
    """Limits that replace those of the problems."""

    cpu_s: float | None = Field(default=None, gt=0)
    memory_mb: int | None = Field(default=None, ge=16)


class EvaluationData(DataSection):
    """Problems of an evaluation: a source, less what lies outside the window of dates or is excluded by name."""

    after: datetime.date | None = None  # contest dates, both ends included
    before: datetime.date | None = None
    exclude: list[Exclusion] = Field(default_factory=list)
    expected: int | None = Field(default=None, ge=1)  # number of problems; another number is an error

    @model_validator(mode="after")
    def _ordered(self) -> EvaluationData:
        if self.after and self.before and self.after > self.before:
            raise ValueError(f"data.after ({self.after}) lies behind data.before ({self.before})")
        return self


class SuiteDefinition(Strict):
    """A suite as a file: everything of an evaluation but what is evaluated. `{data}` in data.problems is the user's."""

    suite: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    description: str
    column: str = ""  # heading in tables
    data: EvaluationData
    prompt: PromptSection = PromptSection()
    sampling: SamplingSection = SamplingSection()
    limits: LimitsSection = LimitsSection()
    grader: str | None = None
    published: dict[str, dict[str, float]] = Field(default_factory=dict)  # model -> metric -> value; printed beside


class SuiteGroup(Strict):
    """Several suites that are run together."""

    description: str
    suites: list[str] = Field(min_length=1)


REFERENCES = "references"  # as EvaluationRecipe.samples: the suite's own solutions


class EvaluationRecipe(Strict):
    """`rlvr evaluate`: one model, endpoint or file of samples on one suite of problems."""

    suite: str
    output_dir: str = Field(min_length=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    model: ModelSection | None = None
    engine: Literal["transformers", "vllm"] = "transformers"
    engine_options: dict[str, Any] = Field(default_factory=dict)  # arguments of vllm.LLM: tensor_parallel_size ...
    endpoint: EndpointSection | None = None
    samples: str | None = None  # a file of samples made elsewhere, or "references": grade only
    data: EvaluationData
    prompt: PromptSection = PromptSection()
    sampling: SamplingSection = SamplingSection()
    limits: LimitsSection = LimitsSection()
    judge: JudgeSection = JudgeSection()
    grader: str | None = None  # refuse to grade with another version of the judge's rules
    trained_on: list[str] = Field(default_factory=list)  # runs or problem sources to check for contamination
    data_cutoff: datetime.date | None = None  # last date in the base model's training data

    @model_validator(mode="after")
    def _one_target(self) -> EvaluationRecipe:
        given = [name for name in ("model", "endpoint", "samples") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of model, endpoint and samples to be evaluated (got {' and '.join(given) or 'none'})"
            )
        if self.engine_options and self.engine != "vllm":
            raise ValueError("engine_options are those of engine=vllm; transformers takes none")
        if self.samples is None:  # a file's own number of samples decides what can be said of it
            self.sampling.check()
        return self

    @property
    def target(self) -> str:
        """What is evaluated, in one name."""
        if self.model is not None:
            return self.model.name_or_path
        return self.endpoint.model if self.endpoint is not None else str(self.samples)


class EvaluationSchedule(Strict):
    """Evaluation during training: `suite` every `every` steps, the best checkpoint by `metric` kept under `best`."""

    suite: str
    data: str | None = None  # what {data} in the suite stands for
    every: int = Field(default=50, ge=1)  # in steps
    metric: str = "pass@1"
    at_start: bool = True
    limit: int | None = Field(default=None, ge=1)  # only the first problems of the suite
    keep_best: bool = True
    sampling: dict[str, Any] = Field(default_factory=dict)  # replaces values of the suite's sampling
    prompt: dict[str, Any] = Field(default_factory=dict)  # and of its prompt
