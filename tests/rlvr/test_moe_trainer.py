"""A mixture-of-experts policy in the real trainer: routes replayed, load counted, biases moved, runs resumed."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from test_grpo_trainer import recipe
from transformers import LlamaConfig, LlamaForCausalLM

import rlvr.training.engines as engines
from rlvr.commands.moe import moe as moe_commands
from rlvr.config import ModelSection, QuickstartRecipe, RecipeError, SFTRecipe, load_recipe
from rlvr.config.moe import MoESection
from rlvr.models import build_tiny_policy
from rlvr.moe.routes import RouteMismatch, Routes
from rlvr.moe.session import RoutingSession, routes_of, unpacked
from rlvr.moe.statistics import ExpertLoad
from rlvr.moe.training import policy_routing
from rlvr.rollouts.policy_engine import EngineFailure, Sampled
from rlvr.rollouts.records import read_records
from rlvr.rollouts.vllm_server import routes_of as server_routes
from rlvr.training.grpo import train_grpo
from rlvr.training.loading import load_policy
from rlvr.training.sft import train_sft
from rlvr.training.update import UpdateTrainer


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory, demonstrations: list[dict[str, str]]) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("experts")
    texts = [row["prompt"] + row["completion"] for row in demonstrations[:400]]
    size: dict[str, Any] = {"vocab_size": 400, "hidden": 32, "layers": 2, "heads": 2, "mlp": 64, "expert_mlp": 32}
    return {
        family: build_tiny_policy(texts, folder / family, family=family, experts=8, top_k=2, **size)
        for family in ("qwen3_moe", "glm4_moe")
    }


def short(model: Path, problems: Path, out: Path, moe: dict[str, Any], **grpo: Any) -> Any:
    settings = {"max_steps": 2, "updates_per_step": 2, "max_completion_length": 12, "learning_rate": 3e-2, **grpo}
    return recipe(model, problems, out, grpo=settings, moe=moe)


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every rollout carries a signal, whatever the judge says."""
    inner = UpdateTrainer._repack

    def signalled(self: Any) -> None:
        for batch in self._buffered_inputs:
            batch["advantages"] = torch.linspace(-1, 1, len(batch["advantages"]) + 1)[1:] + 0.01
        inner(self)

    monkeypatch.setattr(UpdateTrainer, "_repack", signalled)


@pytest.mark.parametrize("packed", [True, False])
def test_updates_replay_the_routes_the_rollouts_were_scored_with(
    experts: dict[str, Path],
    problems_file: Path,
    tmp_path: Path,
    gradients: None,
    monkeypatch: pytest.MonkeyPatch,
    packed: bool,
) -> None:
    seen: list[bool] = []
    inner = RoutingSession.before_update

    def watched(self: RoutingSession, batch: Any) -> None:
        inner(self, batch)
        with torch.no_grad():
            tokens = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
            mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
            armed = self.tap._armed
            assert armed is not None and armed.shape[:2] == tokens.shape
            self.tap.disarm()
            with self.tap.recording() as passes:
                self.tap.model(tokens, attention_mask=mask)
            same = (passes[0].sort(-1).values == armed.sort(-1).values).all(-1)[mask.bool()]
            seen.append(bool(same.all()))
        inner(self, batch)

    monkeypatch.setattr(RoutingSession, "before_update", watched)
    packing = {} if packed else {"pack_micro_batches": False, "skip_zero_signal": False}
    run = short(experts["qwen3_moe"], problems_file, tmp_path / "run", {"replay": "r2", "ranks": 2}, **packing)
    train_grpo(run)
    assert seen[0], "the first update is the sampling policy's own"
    assert not all(seen), "later updates would have routed otherwise"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(line["moe/replayed"] == 1.0 and line["moe/rank_skew"] >= 1 for line in lines)
    load = ExpertLoad.from_dict(json.loads((tmp_path / "run" / "expert_load.json").read_text()))
    assert load.counts["all"].shape == (2, 8)
    assert len(set(load.counts["all"].sum(axis=1))) == 1
    assert (load.counts["all"] == load.counts["advantage_up"] + load.counts["advantage_down"]).all()


def test_a_run_with_balancing_stopped_and_continued_ends_the_same(
    experts: dict[str, Path], problems_file: Path, tmp_path: Path, gradients: None
) -> None:
    moe = {"replay": "r2", "balance": {"rule": "sign", "rate": 0.01, "kl_budget": 10.0}}
    whole = short(experts["glm4_moe"], problems_file, tmp_path / "whole", moe, save_steps=1, save_total_limit=None)
    train_grpo(whole)
    first = short(experts["glm4_moe"], problems_file, tmp_path / "parts", moe, save_steps=1, save_total_limit=None)
    stopped = tmp_path / "parts"
    stopped.mkdir()
    for name in ("checkpoint-2", "environment.json", "metrics.jsonl"):
        (tmp_path / "whole" / name).rename(stopped / name)
    train_grpo(first)
    ours, theirs = (load_file(tmp_path / part / "final" / "model.safetensors") for part in ("parts", "whole"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    bias = next(value for name, value in theirs.items() if name.endswith("e_score_correction_bias"))
    assert bias.abs().max() > 0.005
    loads = [json.loads((tmp_path / part / "expert_load.json").read_text()) for part in ("parts", "whole")]
    assert loads[0] == loads[1]


@pytest.mark.parametrize(
    ("family", "moe", "message"),
    [
        (None, {"replay": "r2"}, r"moe\.replay: r2: llama is a dense model"),
        (None, {"balance": {"rule": "sign"}}, r"moe\.balance\.rule: sign: llama is a dense model"),
        ("glm4_moe", {"aux_loss_coef": 0.01}, r"moe\.aux_loss_coef: glm4_moe has a selection bias"),
    ],
)
def test_what_the_policy_cannot_give_is_one_line(
    experts: dict[str, Path],
    tiny_model: Path,
    problems_file: Path,
    tmp_path: Path,
    family: str | None,
    moe: dict[str, Any],
    message: str,
) -> None:
    model = experts[family] if family else tiny_model
    with pytest.raises(RecipeError, match=message):
        train_grpo(short(model, problems_file, tmp_path / "run", moe))


def test_the_own_auxiliary_loss_is_in_the_loss_and_checkpoints_coefficients_are_not(
    experts: dict[str, Path], problems_file: Path, tmp_path: Path, gradients: None
) -> None:
    finals = []
    for coefficient in (0.0, 0.5):
        out = tmp_path / str(coefficient)
        finals.append(train_grpo(short(experts["qwen3_moe"], problems_file, out, {"aux_loss_coef": coefficient})))
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        assert all("aux_loss" not in line for line in lines), "TRL's own"
        assert all(("moe/aux_loss" in line) is (coefficient > 0) for line in lines)
    ours, theirs = (load_file(final / "model.safetensors") for final in finals)
    assert any(not torch.equal(ours[name], theirs[name]) for name in ours if "gate.weight" in name)


def test_a_policy_whose_sft_had_an_auxiliary_loss_is_sampled_from(experts: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "sft"
    shutil.copytree(experts["qwen3_moe"], folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"output_router_logits": True}))
    model, _ = load_policy(ModelSection(name_or_path=str(folder)))
    tokens = model.generate(torch.tensor([[3, 4, 5]]), max_new_tokens=3, min_new_tokens=3)
    assert tokens.shape == (1, 6)


@pytest.mark.parametrize("keep", [False, True])
def test_routes_an_engine_returns_are_replayed_when_scoring_and_when_updating(
    experts: dict[str, Path],
    problems_file: Path,
    tmp_path: Path,
    gradients: None,
    monkeypatch: pytest.MonkeyPatch,
    keep: bool,
) -> None:
    """The engine says that each token went to the experts after those it went to, so replay cannot be a coincidence."""
    given: dict[bytes, np.ndarray] = {}
    inner = engines.InProcess.sample

    def routed(self: Any, prompt_ids: Any, order: Any, finished: Any) -> Sampled:
        done = inner(self, prompt_ids, order, finished)
        depth = self.trainer.routing.shape.depth
        rng = np.random.default_rng(len(given))
        routes = []
        for prompt, tokens in zip(prompt_ids, done.tokens, strict=True):
            whole = [*prompt, *tokens]
            ids = rng.permuted(np.tile(np.arange(8), (len(whole) - 1, depth, 1)), axis=-1)[..., :2].astype(np.uint8)
            ids[:, 0] = 0  # GLM's first layer is dense
            given[np.array(whole).tobytes()] = ids
            routes.append(ids)
        return Sampled(done.tokens, done.logps, routes)

    seen = {"scored": 0, "updated": 0}

    def checked(session: RoutingSession, batch: Any, what: str) -> None:
        tokens = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1).bool()
        routes = unpacked(routes_of(batch))
        for row, real, kept in zip(tokens, mask, routes, strict=True):
            sequence = row[real].numpy()
            expected = given[sequence.tobytes()]
            assert np.array_equal(kept[real][:-1].numpy(), expected[:, 1:]), what
            assert (kept[~real] == -1).all()
            seen[what] += 1

    before, scoring = RoutingSession.before_update, RoutingSession.scoring

    def updating(self: RoutingSession, batch: Any) -> None:
        checked(self, batch, "updated")
        before(self, batch)

    def scored(self: RoutingSession, batch: Any) -> Any:
        if not keep:  # else scored while TRL generates, which looks at no batch
            checked(self, batch, "scored")
        return scoring(self, batch)

    monkeypatch.setattr(engines.InProcess, "sample", routed)
    monkeypatch.setattr(RoutingSession, "before_update", updating)
    monkeypatch.setattr(RoutingSession, "scoring", scored)
    moe = {"replay": "r3", "keep_routes": keep}
    train_grpo(short(experts["glm4_moe"], problems_file, tmp_path / "run", moe, max_steps=1))
    assert seen["scored"] >= 24 * (not keep) and seen["updated"] >= 24
    rows = list(read_records(tmp_path / "run" / "rollouts" / "stage1"))
    assert len(rows) == 24
    if not keep:
        assert all(row["tokens"] is row["logps"] is row["routes"] is None for row in rows)
        return
    for row in rows:
        kept = Routes.from_bytes(row["routes"])
        assert kept.known.all() and kept.ids.dtype == np.uint8
        assert np.array_equal(kept.ids, given[np.array(row["tokens"]).tobytes()][:, 1:])
        assert len(row["logps"]) == row["completion_tokens"]


def test_a_run_that_kept_its_routes_is_held_against_what_sampled_it(
    experts: dict[str, Path], problems_file: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    train_grpo(short(experts["glm4_moe"], problems_file, run, {"keep_routes": True}, max_steps=1, temperature=0.8))
    options = ["--texts", str(run), "--json"]
    found = CliRunner().invoke(moe_commands, ["diagnose", str(experts["glm4_moe"]), *options], catch_exceptions=False)
    first = json.loads(found.stdout)["comparisons"][0]
    assert first["cause"] == "run" and first["free"]["same_experts"] == [1.0] and first["free"]["k3"] < 1e-9
    assert first["replayed"]["max_gap"] < 1e-4 and first["free"]["tokens"] > 24
    other = CliRunner().invoke(moe_commands, ["diagnose", str(experts["qwen3_moe"]), *options])
    assert isinstance(other.exception, RouteMismatch) and "another model's" in str(other.exception)
    with pytest.raises(ValueError, match=r"moe\.keep_routes: moe\.replay is off"):
        short(experts["glm4_moe"], problems_file, run, {"keep_routes": True, "replay": "off"})


def test_routes_that_nothing_records_are_refused_or_said_to_be_missing(
    experts: dict[str, Path], problems_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=r"moe\.keep_routes: llama is a dense model"):
        policy_routing(
            LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1)),
            MoESection(keep_routes=True),
            updates_per_rollout=1,
        )
    with pytest.raises(ValueError, match=r"moe\.keep_routes: model\.family llama has no experts"):
        load_recipe(
            QuickstartRecipe, Path(__file__).parents[2] / "configs" / "quickstart.yaml", ("moe.keep_routes=true",)
        )
    moe = {"replay": "r3", "strict": False, "keep_routes": True}
    with caplog.at_level("WARNING"):
        train_grpo(short(experts["glm4_moe"], problems_file, tmp_path / "run", moe, max_steps=2))
    told = [record.message for record in caplog.records if "moe.keep_routes" in record.message]
    assert len(told) == 1 and "the rollout records hold none" in told[0]


def test_routes_of_another_length_end_the_run_in_one_line(
    experts: dict[str, Path], problems_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = engines.InProcess.sample

    def short_routes(self: Any, prompt_ids: Any, order: Any, finished: Any) -> Sampled:
        done = inner(self, prompt_ids, order, finished)
        return Sampled(done.tokens, done.logps, [np.ones((3, 2, 2), dtype=np.uint8) for _ in done.tokens])

    monkeypatch.setattr(engines.InProcess, "sample", short_routes)
    with pytest.raises(RouteMismatch, match=r"routes of 3 tokens for a sequence of \d+: expected"):
        train_grpo(short(experts["glm4_moe"], problems_file, tmp_path / "run", {"replay": "r3"}, max_steps=1))


def test_what_a_server_sends_as_routes_is_read_or_refused() -> None:
    ids = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    stream = io.BytesIO()
    np.save(stream, ids)
    assert np.array_equal(server_routes(base64.b64encode(stream.getvalue()).decode()), ids)
    assert server_routes(None) is None
    for nonsense in ("%%%", base64.b64encode(b"text").decode()):
        with pytest.raises(EngineFailure, match="not an npy file"):
            server_routes(nonsense)


def supervised(model: Path, rows: Path, out: Path, **sections: Any) -> SFTRecipe:
    sft = {"max_steps": 6, "learning_rate": 1e-3, "max_length": 96, "logging_steps": 2, "save_steps": 3}
    given = {"name": "sft", "output_dir": str(out), "model": {"name_or_path": str(model)}, "data": str(rows)}
    return SFTRecipe.model_validate({**given, "limit": 64, "sft": sft, **sections})


def bias_of(folder: Path) -> torch.Tensor:
    tensors = load_file(folder / "model.safetensors")
    return torch.stack([t for name, t in sorted(tensors.items()) if name.endswith("e_score_correction_bias")])


def test_sft_balances_a_family_with_a_bias_of_its_own_and_continues_where_it_stopped(
    experts: dict[str, Path], demonstrations_file: Path, tmp_path: Path
) -> None:
    whole = train_sft(supervised(experts["glm4_moe"], demonstrations_file, tmp_path / "whole"))
    moved = bias_of(whole) - bias_of(experts["glm4_moe"])
    assert 0 < moved.abs().max() <= 6 * 1e-3 * 2, "six steps of 0.001, recentred"
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert [line["moe/max_violation_batch"] > 0 for line in lines[:3]] == [True] * 3
    load = ExpertLoad.from_dict(json.loads((tmp_path / "whole" / "expert_load.json").read_text()))
    (tmp_path / "parts").mkdir()
    for name in ("checkpoint-3", "environment.json", "metrics.jsonl"):
        (tmp_path / "whole" / name).rename(tmp_path / "parts" / name)
    parts = train_sft(supervised(experts["glm4_moe"], demonstrations_file, tmp_path / "parts"))
    assert torch.equal(bias_of(parts), bias_of(whole))
    again = ExpertLoad.from_dict(json.loads((tmp_path / "parts" / "expert_load.json").read_text()))
    assert (again.counts["all"] == load.counts["all"]).all()


def test_sft_leaves_other_families_as_they_are_unless_asked(
    experts: dict[str, Path], tiny_model: Path, demonstrations_file: Path, tmp_path: Path
) -> None:
    for name, rule, injected in (("default", {}, None), ("asked", {"moe": {"balance": {"rule": "sign"}}}, 8)):
        out = tmp_path / name
        train_sft(supervised(experts["qwen3_moe"], demonstrations_file, out, **rule))
        kept = json.loads((out / "checkpoint-6" / "rlvr_state.json").read_text())["moe"]["balancer"]
        assert (kept and len(kept["injected"][0])) == injected
    with pytest.raises(RecipeError, match=r"moe\.balance\.rule: sign: llama is a dense model"):
        train_sft(supervised(tiny_model, demonstrations_file, tmp_path / "dense", moe={"balance": {"rule": "sign"}}))
    with pytest.raises(ValueError, match="kl_budget: holds a policy near its sampler"):
        supervised(tiny_model, demonstrations_file, tmp_path, moe={"balance": {"rule": "sign", "kl_budget": 1.0}})
