"""`CurationConfig`: everything a curation run depends on, as typed data."""

from __future__ import annotations

import datetime
import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from sandbox import languages

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Depths = Annotated[tuple[Annotated[int, Field(ge=0, le=8)], ...], Field(min_length=1)]


def _folder_name(name: str) -> str:
    if not name.strip() or "/" in name or name in (".", ".."):
        raise ValueError(f"a name for a folder, without / (got {name!r})")
    return name


FolderName = Annotated[str, AfterValidator(_folder_name)]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PipelineOptions(_Options):
    """How many problems of the generated family, at which depths (cycled through), over which operations."""

    vocabulary: Literal["full", "core"] = "full"
    stage1: Count = 960
    stage1_depths: Depths = (1, 2, 3)
    stage2: Count = 960
    stage2_depths: Depths = (2, 3, 3, 3)
    heldout: Count = 360
    heldout_depths: Depths = (1, 2, 3)
    heldout_hard: Count = 100  # at `heldout_hard_depths`, deeper than any training problem
    heldout_hard_depths: Depths = (4,)


class SftOptions(_Options):
    """What goes into the SFT corpus."""

    demonstrations: Count = 16_000  # noisy programs of the generated family; used when a built-in source is curated
    demonstration_depths: Depths = (0, 1, 1, 2, 2, 3)
    noise: Annotated[float, Field(ge=0, le=1.5)] = 1.0  # scales how often a line of a demonstration is wrong
    reference_solutions: bool = False  # also the accepted solutions of training problems
    template: str = (
        "{statement}\n# program\n"  # the prompt; may also hold {starter_code}. RL must ask in the same words
    )


class NormaliseOptions(_Options):
    """No options yet; the class keeps the stages alike."""


class FilterOptions(_Options):
    """What a problem needs to be worth a look."""

    minimum_tests: Annotated[int, Field(ge=1)] = 1  # generated tests count
    minimum_statement_words: Annotated[int, Field(ge=1)] = 5
    samples_in_statement: bool = True  # a statement that does not show its sample inputs has been cut
    require_solution: bool = False  # drop problems without an accepted solution
    # what to do with a statement that has this fault: "drop" the problem, "mark" it with a tag, or "keep" it as it is
    images: Literal["drop", "mark", "keep"] = "mark"  # a picture was in it
    truncated: Literal["drop", "mark", "keep"] = "drop"  # it breaks off
    foreign: Literal["drop", "mark", "keep"] = "drop"  # it is not in English
    interactive: Literal["drop", "mark", "keep"] = "drop"  # it asks for a conversation and there is no interactor
    many_answers: Literal["drop", "mark", "keep"] = "drop"  # several outputs are right and the checker takes one
    licenses: tuple[str, ...] | None = None  # licences that are allowed (beginning of the name); None: any


class GenerateOptions(_Options):
    """Running problems' own test generators."""

    enabled: bool = True  # false leaves generators aside, for a quick run: no large tests, slow solutions not caught
    maximum_input_mb: Annotated[float, Field(gt=0)] = 16.0


class DeduplicateOptions(_Options):
    """When two statements are the same problem (5-word shingles)."""

    candidate_jaccard: Share = 0.5  # from here on, solutions decide where both problems have one
    text_jaccard: Share = 0.6  # from here on, the text alone decides where solutions cannot
    related_jaccard: Share = 0.3  # from here on, the same title or the same tests decide where solutions cannot


class DecontaminateOptions(_Options):
    """Which evaluation sets must not be among the problems, and from when on a problem is too new."""

    against: tuple[str, ...] = ()  # evaluation sets, as `sources`
    words: Annotated[int, Field(ge=1, le=16)] = 5  # n of the n-grams
    coverage: Share = 0.3  # shared weight over the weight of the evaluation statement
    title_coverage: Share = 0.05  # the same where the titles are equal
    action: Literal["drop", "mark"] = "drop"  # "mark" keeps the problem with a tag contaminated:SET
    published_before: datetime.date | None = None  # drop problems of that day and later
    drop_undated: bool = False  # with published_before: drop problems without a date too


class VerifyOptions(_Options):
    """Which labelled solutions are run on the tests."""

    too_slow: bool = True  # run solutions labelled time_limit_exceeded; each costs the whole time limit
    languages: tuple[str, ...] | None = None  # run only solutions in these languages; None: all that can run here
    pipelines: Share = 1.0  # share of the generated family that is run; its outputs are right by construction
    repeat: bool = True  # run accepted solutions that draw random numbers, read clocks or are in C once more
    repair: bool = True  # where accepted solutions fail, try a wider limit or a more lenient checker
    limit_stretch: Annotated[float, Field(gt=1)] = 5.0  # how much wider the limit of that trial is
    limit_margin: Annotated[float, Field(ge=1)] = 2.0  # a new limit over the slowest accepted run
    maximum_tests: Annotated[int, Field(ge=1)] = 200  # a problem with more tests is thinned
    maximum_tests_mb: Annotated[float, Field(gt=0)] = 64.0  # input and output of a problem's tests together
    drop_unverified: bool = False  # drop problems that have no accepted solution to run
    drop_weak: bool = False  # drop problems whose tests accept a solution labelled wrong

    @field_validator("languages")
    @classmethod
    def _known(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if names is None else tuple(languages.find(name).name for name in names)


class StrengthenOptions(_Options):
    """Adding tests that catch wrong programs which the tests at hand let through."""

    enabled: bool = False  # costs several runs of some dozens of programs for every problem
    mutants: Annotated[int, Field(ge=2)] = 24  # wrong programs made from an accepted one, for every problem
    inputs: Annotated[int, Field(ge=1)] = 40  # new inputs tried for every problem
    maximum_added: Annotated[int, Field(ge=1)] = 8  # tests added to a problem
    agreeing: Annotated[int, Field(ge=1)] = 2  # accepted programs that must give the same output; 1: trust a single one
    cpu_budget_s: Annotated[float, Field(gt=0)] = 120.0  # of a problem's programs; one that needs more is passed over
    seed: int = 0


class DifficultyOptions(_Options):
    """Where difficulty comes from: the source's label or rating, or measured pass rates."""

    samples: Path | None = None  # JSONL: {"problem_id", "passed", "samples"}, or {"problem_id", "program"} to be judged
    policy: dict[str, Any] | None = None  # sampled by `rlvr curate`: model or endpoint, engine, prompt, sampling, seed
    rollouts: Annotated[int, Field(ge=1)] = 8  # programs asked of the policy for every problem, where one is passed in
    minimum_samples: Annotated[int, Field(ge=1)] = 4
    credible: Annotated[float, Field(gt=0, lt=1)] = 0.9  # mass of the interval of a pass rate
    drop_always_solved: bool = True  # only with samples: such groups give no signal; false marks them
    drop_never_solved: bool = False  # false marks them
    relabel: bool = False  # replace the source's label by one from the pass rate

    @model_validator(mode="after")
    def _one_origin(self) -> DifficultyOptions:
        if self.samples is not None and self.policy is not None:
            raise ValueError("difficulty: give samples or a policy to sample from, not both")
        return self


class SplitOptions(_Options):
    """Which share of families is held out. A source's own split (tags split:train, split:heldout) comes first."""

    heldout: Share = 0.2
    heldout_from: datetime.date | None = None  # problems of that day and later are held out, with their families


class SelectOptions(_Options):
    """Which training problems the RL stages get, as tags stage1 and stage2; null leaves the tags alone."""

    stage1: Annotated[int, Field(ge=1)] | None = None  # problems, spread evenly over difficulty
    stage1_bins: Annotated[int, Field(ge=1)] = 10
    stage2: Annotated[int, Field(ge=1)] | None = None  # problems, the hardest
    stage2_maximum_rate: Share = 1.0  # a problem with a higher measured pass rate is not hard
    disjoint: bool = True  # no problem is in both
    seed: int = 0


class OutputOptions(_Options):
    """The published data set: how a problem becomes a chat prompt, where tests stand, which other layouts to write."""

    template: str | None = None  # fields {statement}, {starter_code}, {language}; None: data_curation.prompts
    system: str = ""  # a system message before it
    language: str = "python"
    inline_tests_kb: Count = 1024  # larger tests of a problem stand in a file of their own
    exports: tuple[Literal["trl", "verl", "skyrl"], ...] = ()


class CurationConfig(_Options):
    """A curation recipe. `sources` are names as `load_problems` takes them."""

    name: FolderName = "curation"
    sources: Annotated[tuple[str, ...], Field(min_length=1)] = ("builtin",)
    seed: int = 0
    limit: Annotated[int, Field(ge=1)] | None = None  # problems per source, for a quick look
    maximum_rejected_rows: Count | None = None  # stop if more rows cannot be read; None: never
    pipelines: PipelineOptions = PipelineOptions()
    planted: bool = True  # plant known duplicates and broken problems in "builtin"
    normalise: NormaliseOptions = NormaliseOptions()
    filter: FilterOptions = FilterOptions()
    generate: GenerateOptions = GenerateOptions()
    deduplicate: DeduplicateOptions = DeduplicateOptions()
    decontaminate: DecontaminateOptions = DecontaminateOptions()
    verify: VerifyOptions = VerifyOptions()
    strengthen: StrengthenOptions = StrengthenOptions()
    difficulty: DifficultyOptions = DifficultyOptions()
    split: SplitOptions = SplitOptions()
    select: SelectOptions = SelectOptions()
    sft: SftOptions = SftOptions()
    outputs: OutputOptions = OutputOptions()


class ConfigError(ValueError):
    """A recipe that cannot be used; the message is one line that names file, key and remedy."""


def load_config(path: str | Path, **changes: Any) -> CurationConfig:
    """The recipe in a YAML file, with top-level keys replaced by `changes`. ConfigError or FileNotFoundError."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such recipe")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(values).__name__}")
    try:
        return CurationConfig.model_validate({**values, **changes})
    except ValidationError as error:
        raise ConfigError(f"{path}: {_fault(error)}") from None


def _fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _keys_beside(fault["loc"])
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        return f"unknown key `{key}`; " + (f"did you mean `{near[0]}`?" if near else f"known: {', '.join(known)}")
    return f"`{key}`: {fault['msg'][0].lower()}{fault['msg'][1:]}, got {fault['input']!r}"


def _keys_beside(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = CurationConfig
    for part in location[:-1]:
        annotation = model.model_fields[str(part)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)
