"""The serving planner: figures of the roofline, never over memory, monotone, and arguments vLLM accepts."""

from __future__ import annotations

import dataclasses
import json

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.commands.serve import serve
from rlvr.moe.facts import ModelFacts, inspect_model
from rlvr.rollouts.vllm_server import EXTENSION
from rlvr.serving.access import GUARD
from rlvr.serving.arguments import UnknownArgument, check_arguments, vllm_installed
from rlvr.serving.hardware import GIB, Hardware, parse_hardware
from rlvr.serving.plan import RESERVED, DoesNotFit, ServePlan, plan_serving
from rlvr.serving.roofline import Efficiency, StepModel, experts_touched, fitted
from rlvr.serving.start import environment, server_command

NAMES = ["qwen3-30b-a3b", "glm-4.5-air", "gpt-oss-20b", "mixtral-8x7b", "qwen2.5-coder-7b-instruct", "deepseek-v3"]


@pytest.fixture(scope="module")
def facts() -> dict[str, ModelFacts]:
    return {name: inspect_model(name) for name in NAMES}


def test_experts_touched_as_published() -> None:
    for experts, k, batches in (
        (64, 6, {1: 6.0, 4: 20.8, 8: 34.9, 16: 50.8, 32: 61.3}),
        (128, 8, {1: 8.0, 4: 29.1, 8: 51.6, 16: 82.4, 32: 111.8, 64: 125.9}),
        (256, 8, {1: 8.0, 4: 30.5, 8: 57.4, 16: 102, 32: 163, 64: 222}),
    ):
        for batch, expected in batches.items():
            assert experts_touched(experts, k, batch) == pytest.approx(expected, rel=5e-3)
    assert experts_touched(0, 0, 64) == 0


def test_decode_steps_of_a_30b_model_on_one_h200(facts: dict[str, ModelFacts]) -> None:
    model = StepModel(facts["qwen3-30b-a3b"], parse_hardware("H200"))
    milliseconds = [model.decode_step(batch, 4096) * 1e3 for batch in (1, 4, 16, 64, 256)]
    assert milliseconds == pytest.approx([1.69, 4.50, 12.0, 22.2, 42.6], rel=1e-2)
    assert model.token_time(1, 4096) / model.token_time(256, 4096) == pytest.approx(1689 / 166, rel=1e-2)


@given(batch=st.integers(1, 400), context=st.integers(16, 32768), name=st.sampled_from(NAMES))
@settings(max_examples=40, deadline=None)
def test_a_larger_batch_takes_longer_and_costs_less_a_token(
    facts: dict[str, ModelFacts], batch: int, context: int, name: str
) -> None:
    model = StepModel(facts[name], parse_hardware("8xH100"), tp=8)
    assert model.decode_step(batch + 1, context) >= model.decode_step(batch, context)
    assert model.token_time(batch + 1, context) <= model.token_time(batch, context) * (1 + 1e-9)
    assert model.decode_step(batch, context + 16) >= model.decode_step(batch, context)


def checked(plan: ServePlan) -> ServePlan:
    """The plan, after its promises: within memory, no more than wanted, EP divides the experts."""
    chosen, hardware = plan.chosen, plan.hardware
    utilization = plan.arguments["gpu_memory_utilization"]
    assert chosen.weights + RESERVED + chosen.kv_room <= hardware.device.memory * utilization + 1
    assert chosen.kv_room >= 0
    assert chosen.sequences * plan.mean_length <= max(chosen.kv_tokens, plan.mean_length) + 1
    assert chosen.layout.tp * chosen.layout.dp == hardware.count
    assert (chosen.sequences - 1) * chosen.layout.dp < plan.rollouts
    return plan


@given(
    name=st.sampled_from(NAMES),
    gib=st.integers(20, 300),
    count=st.sampled_from([1, 2, 4, 8]),
    context=st.integers(256, 32768),
    rollouts=st.integers(1, 2000),
    for_rl=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_never_over_memory_and_more_memory_never_hurts(
    facts: dict[str, ModelFacts], name: str, gib: int, count: int, context: int, rollouts: int, for_rl: bool
) -> None:
    device = dataclasses.replace(parse_hardware("H100").device, memory=gib * GIB)
    small = Hardware(device, count, count)
    large = dataclasses.replace(small, device=dataclasses.replace(device, memory=(gib + 20) * GIB))
    options = {"context": context, "rollouts": rollouts, "for_rl": for_rl}
    try:
        first = checked(plan_serving(facts[name], small, **options))
    except DoesNotFit as error:
        assert "\n" not in str(error)
        return
    second = checked(plan_serving(facts[name], large, **options))
    assert second.chosen.tokens_per_second >= first.chosen.tokens_per_second * (1 - 1e-9)
    pinned = plan_serving(facts[name], large, **options, tp=first.chosen.layout.tp)
    same = [p for p in (pinned.chosen, *pinned.others) if p.layout == first.chosen.layout]
    assert same[0].sequences >= first.chosen.sequences


def test_rl_plans_keep_what_training_needs(facts: dict[str, ModelFacts]) -> None:
    plan = plan_serving(facts["qwen3-30b-a3b"], parse_hardware("8xH100"), context=32768, rollouts=512, for_rl=True)
    arguments = plan.arguments
    assert arguments["enable_eplb"] is False
    assert arguments["moe_backend"] == "triton"
    assert arguments["enable_return_routed_experts"] is True
    assert arguments["enable_prefix_caching"] is True
    assert arguments["logprobs_mode"] == "processed_logprobs"
    assert arguments["weight_transfer_config"] == {"backend": "nccl"}
    assert "pipeline_parallel_size" not in arguments
    assert all(choice.reason for choice in plan.choices)
    plain = plan_serving(facts["qwen3-30b-a3b"], parse_hardware("8xH100"), context=32768, rollouts=512)
    assert "enable_return_routed_experts" not in plain.arguments
    assert "moe_backend" not in plain.arguments


def test_colocation_sleeps_deeper_only_where_nothing_is_lost(facts: dict[str, ModelFacts]) -> None:
    for name, level in (("qwen3-30b-a3b", 2), ("glm-4.5-air", 1)):
        plan = plan_serving(
            facts[name], parse_hardware("8xH200"), context=8192, rollouts=64, for_rl=True, colocate=True
        )
        assert {c.name: c.value for c in plan.choices}["sleep_level"] == level
        assert plan.arguments["gpu_memory_utilization"] == 0.45


def test_dense_models_have_no_expert_arguments(facts: dict[str, ModelFacts]) -> None:
    plan = plan_serving(
        facts["qwen2.5-coder-7b-instruct"], parse_hardware("4xA100"), context=8192, rollouts=64, for_rl=True
    )
    assert not {"enable_expert_parallel", "moe_backend", "enable_eplb", "all2all_backend"} & plan.arguments.keys()


def test_what_does_not_fit_says_what_would(facts: dict[str, ModelFacts]) -> None:
    with pytest.raises(DoesNotFit, match=r"deepseek-v3 does not fit 1xH100: weights 624\.9 GiB .* 16xH100 would do"):
        plan_serving(facts["deepseek-v3"], parse_hardware("H100"), context=8192, rollouts=8)
    with pytest.raises(ValueError, match="has 40960 positions"):
        plan_serving(facts["qwen3-30b-a3b"], parse_hardware("8xH100"), context=100_000, rollouts=8)
    with pytest.raises(DoesNotFit, match="power of two"):
        plan_serving(facts["qwen3-30b-a3b"], parse_hardware("8xH100"), context=4096, rollouts=8, tp=3)
    with pytest.raises(ValueError, match="mean length 4097: must lie between 1 and the context, 4096"):
        plan_serving(facts["qwen3-30b-a3b"], parse_hardware("8xH100"), context=4096, rollouts=8, mean_length=4097)


def test_a_server_for_rl_takes_weights_by_file_and_on_a_cpu_records_routes(facts: dict[str, ModelFacts]) -> None:
    plan = plan_serving(facts["qwen3-30b-a3b"], parse_hardware("CPU:256"), context=16384, rollouts=8, for_rl=True)
    assert plan.arguments["worker_extension_cls"] == EXTENSION
    assert plan.arguments["enable_prefix_caching"] is False and "enable_return_routed_experts" not in plan.arguments
    assert plan.arguments["enable_chunked_prefill"] is False and plan.arguments["max_num_batched_tokens"] >= 16384
    for options in ({}, {"for_rl": True}):
        dense = plan_serving(
            facts["qwen2.5-coder-7b-instruct"], parse_hardware("CPU:256"), context=2048, rollouts=8, **options
        )
        assert dense.arguments["enable_prefix_caching"] is True
        assert ("worker_extension_cls" in dense.arguments) == bool(options)
        assert dense.arguments.get("enable_chunked_prefill", True) == (not options)


@pytest.mark.parametrize("text", ["8xH900", "", "0xH100", "x", "8 x", "CPU:0"])
def test_unknown_hardware_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="hardware"):
        parse_hardware(text)


def test_measured_steps_calibrate_the_model(facts: dict[str, ModelFacts]) -> None:
    hardware = parse_hardware("H100")
    truth = StepModel(facts["qwen3-30b-a3b"], hardware, efficiency=Efficiency(bandwidth=0.55, overhead=3e-3))
    points = [(b, 2048, truth.decode_step(b, 2048)) for b in (1, 8, 32, 128)]
    found = fitted(StepModel(facts["qwen3-30b-a3b"], hardware), points)
    assert found.bandwidth == pytest.approx(0.55, rel=1e-3)
    assert found.overhead == pytest.approx(3e-3, rel=1e-3)
    assert found.flops == 0.5  # no step was bound by it
    with pytest.raises(ValueError, match="two batch sizes"):
        fitted(truth, points[:1])


def test_measured_steps_of_large_batches_give_the_share_of_arithmetic_too(facts: dict[str, ModelFacts]) -> None:
    hardware = parse_hardware("CPU:16")
    model = StepModel(facts["qwen2.5-coder-7b-instruct"], hardware)
    truth = dataclasses.replace(model, efficiency=Efficiency(bandwidth=0.4, flops=0.1, overhead=0.02))
    found = fitted(model, [(b, 256, truth.decode_step(b, 256)) for b in (1, 2, 32, 128)])
    assert found.bandwidth == pytest.approx(0.4, rel=1e-2) and found.flops == pytest.approx(0.1, rel=1e-2)
    unseen = dataclasses.replace(model, efficiency=found).decode_step(64, 300)
    assert unseen == pytest.approx(truth.decode_step(64, 300), rel=1e-2)


def test_the_command_explains_itself_and_prints_json() -> None:
    options = ["plan", "qwen3-30b-a3b", "--hardware", "8xH100", "--context", "32768", "--rollouts", "512", "--for-rl"]
    text = CliRunner().invoke(serve, options, catch_exceptions=False).output
    for word in ("tensor_parallel_size = ", "not measured", "vllm serve", "routing replay"):
        assert word in text
    values = json.loads(CliRunner().invoke(serve, [*options, "--json"], catch_exceptions=False).output)
    assert values["arguments"]["max_model_len"] == 32768
    assert set(values["arguments"]) <= set(values["reasons"])


def test_the_server_command_hides_the_token_and_opens_updates_for_rl_only() -> None:
    command = server_command(
        "m", {"max_num_seqs": 8, "enable_eplb": False, "enable_prefix_caching": True}, "127.0.0.1", 9
    )
    assert "--no-enable-eplb" in command
    assert "--enable-prefix-caching" in command
    values = environment(parse_hardware("CPU:8"), "secret", for_rl=False)
    assert values["VLLM_API_KEY"] == "secret"
    assert "secret" not in " ".join(command)
    assert "VLLM_SERVER_DEV_MODE" not in values
    assert environment(parse_hardware("H100"), "secret", for_rl=True)["VLLM_SERVER_DEV_MODE"] == "1"
    guarded = server_command("m", {}, "127.0.0.1", 8000, guarded=True)
    assert GUARD in guarded and GUARD not in server_command("m", {}, "127.0.0.1", 8000)
    assert values["VLLM_CPU_KVCACHE_SPACE"] == "2"


@pytest.mark.slow
@pytest.mark.skipif(not vllm_installed(), reason="vLLM is not installed: the arguments are not held against it")
def test_every_argument_is_known_to_the_installed_vllm(facts: dict[str, ModelFacts]) -> None:
    for name in NAMES[:4]:
        plan = plan_serving(facts[name], parse_hardware("8xH200"), context=8192, rollouts=64, for_rl=True)
        assert check_arguments(name, plan.arguments)
    with pytest.raises(UnknownArgument, match="no engine argument max_num_seq; did it become max_num_seqs"):
        check_arguments(NAMES[0], {"max_num_seq": 8})
