"""From a model's facts and the hardware to engine arguments, each with the reason it was chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rlvr.moe.facts import ModelFacts
from rlvr.rollouts.vllm_server import EXTENSION
from rlvr.serving.hardware import GIB, Hardware
from rlvr.serving.roofline import ASSUMED, Efficiency, StepModel

RESERVED = 2 * GIB  # activations, graphs, the allocator's slack, on every device
MOST_SEQUENCES = 1024  # of one replica; vLLM captures no graphs beyond
BATCHED_TOKENS = 8192


class DoesNotFit(ValueError):
    """No layout holds the model; one line with what is needed and what there is."""


@dataclass(frozen=True)
class Layout:
    """How a model lies on the devices: `dp` replicas of attention over `tp` devices each, experts over `ep` ranks."""

    tp: int
    dp: int
    ep: int  # 1 = every replica holds all experts, split over its TP group

    def __str__(self) -> str:
        return f"TP {self.tp} x DP {self.dp}{f', EP {self.ep}' if self.ep > 1 else ''}"


@dataclass(frozen=True)
class Prediction:
    """What a layout would do; bytes a device, seconds, tokens a second of all devices."""

    layout: Layout
    weights: int
    kv_room: int
    kv_tokens: int  # of one replica
    sequences: int  # running at once in one replica
    full_length_sequences: int  # of those, how many fit at full context without preemption
    step: float
    tokens_per_second: float
    prefill: float  # of one prompt of an eighth of the context


@dataclass(frozen=True)
class Choice:
    """One engine argument: its name in vLLM, its value and why."""

    name: str
    value: Any
    reason: str


@dataclass(frozen=True)
class ServePlan:
    """Engine arguments for a model on given hardware."""

    model: str
    hardware: Hardware
    context: int
    rollouts: int
    mean_length: int
    for_rl: bool
    chosen: Prediction
    others: tuple[Prediction, ...]
    choices: tuple[Choice, ...]
    notes: tuple[str, ...] = field(default_factory=tuple)

    @property
    def arguments(self) -> dict[str, Any]:
        """Returns the engine arguments by name."""
        return {choice.name: choice.value for choice in self.choices if choice.name != "sleep_level"}

    @property
    def total_sequences(self) -> int:
        """Sequences running at once on all devices."""
        return self.chosen.sequences * self.chosen.layout.dp

    def command_line(self) -> list[str]:
        """Returns the arguments as `vllm serve` options."""
        options = ["--model", self.model]
        for name, value in self.arguments.items():
            flag = "--" + name.replace("_", "-")
            if value is True:
                options.append(flag)
            elif value is False:
                options.append(f"--no-{name.replace('_', '-')}")
            elif value is not None:
                options += [flag, _text(value)]
        return options

    def as_dict(self) -> dict[str, Any]:
        """Returns the plan for JSON."""
        return {
            "model": self.model,
            "hardware": str(self.hardware),
            "context": self.context,
            "rollouts": self.rollouts,
            "mean_length": self.mean_length,
            "for_rl": self.for_rl,
            "arguments": self.arguments,
            "reasons": {choice.name: choice.reason for choice in self.choices},
            "predicted": asdict(self.chosen) | {"total_sequences": self.total_sequences},
            "alternatives": [asdict(other) for other in self.others],
            "notes": list(self.notes),
        }


def _text(value: Any) -> str:
    import json

    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def layouts(facts: ModelFacts, hardware: Hardware) -> Iterator[Layout]:
    """Yields every layout the engine accepts: TP a power of two inside a machine that divides the heads and the
    devices, the rest DP, with and without EP where its ranks divide the experts."""
    tp = 1
    while tp <= min(hardware.count, hardware.per_node):
        if hardware.count % tp == 0 and facts.attention_heads % tp == 0:
            dp = hardware.count // tp
            yield Layout(tp, dp, 1)
            if facts.experts and hardware.count > 1 and facts.experts % hardware.count == 0:
                yield Layout(tp, dp, hardware.count)
        tp *= 2


def kv_bytes_per_device(facts: ModelFacts, tp: int, length: int, kv_dtype_bytes: int) -> float:
    """Bytes a sequence of `length` tokens takes on each device of its TP group: heads are split as far as there are
    any, a latent cache (MLA) is copied to every device."""
    split = 1 if facts.mla else min(tp, facts.kv_heads)
    return facts.kv_bytes(length, kv_dtype_bytes) / split


def predict(
    facts: ModelFacts,
    hardware: Hardware,
    layout: Layout,
    *,
    context: int,
    mean_length: int,
    rollouts: int,
    weight_bytes: int,
    kv_dtype_bytes: int,
    utilization: float,
    skew: float = 1.0,
    efficiency: Efficiency = ASSUMED,
) -> Prediction | None:
    """Returns what `layout` would do, None where the weights or one sequence of full length do not fit."""
    spread = layout.ep if layout.ep > 1 else layout.tp
    weights = (facts.parameters - facts.expert_parameters) * weight_bytes / layout.tp
    weights += facts.expert_parameters * weight_bytes / spread
    room = hardware.device.memory * utilization - RESERVED - weights
    one = kv_bytes_per_device(facts, layout.tp, context, kv_dtype_bytes)
    if room < one or (one == 0 and room < 0):
        return None
    per_mean = kv_bytes_per_device(facts, layout.tp, mean_length, kv_dtype_bytes)
    wanted = -(-rollouts // layout.dp)
    fits = int(room // per_mean) if per_mean else MOST_SEQUENCES
    sequences = max(1, min(wanted, fits, MOST_SEQUENCES))
    model = StepModel(facts, hardware, layout.tp, layout.ep, skew, weight_bytes, kv_dtype_bytes, efficiency)
    step = model.decode_step(sequences, mean_length)
    kv_a_token = kv_bytes_per_device(facts, layout.tp, mean_length, kv_dtype_bytes) / mean_length
    return Prediction(
        layout=layout,
        weights=int(weights),
        kv_room=int(room),
        kv_tokens=int(room / kv_a_token) if kv_a_token else 0,
        sequences=sequences,
        full_length_sequences=min(sequences, int(room // one)) if one else sequences,
        step=step,
        tokens_per_second=layout.dp * sequences / step,
        prefill=model.prefill(max(1, context // 8)),
    )


def plan_serving(
    facts: ModelFacts,
    hardware: Hardware,
    *,
    context: int,
    rollouts: int,
    mean_length: int | None = None,
    for_rl: bool = False,
    colocate: bool = False,
    fp8_cache: bool = False,
    utilization: float | None = None,
    tp: int | None = None,
    skew: float = 1.0,
    efficiency: Efficiency = ASSUMED,
) -> ServePlan:
    """Returns the layout of greatest predicted throughput for `rollouts` sequences at once, and its arguments.

    `mean_length` (default: half the context) is what the running sequences hold on average; the engine preempts, it
    does not overflow, when they turn out longer. `colocate` leaves room for a trainer on the same devices. In a given
    layout more memory never lowers the number of sequences, and over all layouts never the throughput. Raises
    DoesNotFit, and ValueError for a context the model does not have.
    """
    if facts.max_positions and context > facts.max_positions:
        raise ValueError(f"context {context}: {facts.name} has {facts.max_positions} positions")
    if context < 1 or rollouts < 1:
        raise ValueError("context and rollouts must be at least 1")
    if mean_length is not None and not 1 <= mean_length <= context:
        raise ValueError(f"mean length {mean_length}: must lie between 1 and the context, {context}")
    mean_length = mean_length or max(1, context // 2)
    if utilization is None:
        utilization = 0.45 if colocate else 0.9
    weight_bytes = facts.dtype_bytes
    kv_dtype_bytes = 1 if fp8_cache else facts.kv_dtype_bytes
    options: dict[str, Any] = {
        "context": context,
        "mean_length": mean_length,
        "rollouts": rollouts,
        "weight_bytes": weight_bytes,
        "kv_dtype_bytes": kv_dtype_bytes,
        "utilization": utilization,
        "skew": skew,
        "efficiency": efficiency,
    }
    candidates = [layout for layout in layouts(facts, hardware) if tp is None or layout.tp == tp]
    if not candidates:
        raise DoesNotFit(f"TP {tp}: must be a power of two that divides {hardware.count} devices and the heads")
    found = [p for layout in candidates if (p := predict(facts, hardware, layout, **options)) is not None]
    if not found:
        raise DoesNotFit(_why_not(facts, hardware, options))
    found.sort(key=lambda p: (-round(p.tokens_per_second, 6), p.layout.tp, p.layout.ep))
    chosen, others = found[0], tuple(found[1:])
    choices = tuple(_choices(facts, hardware, chosen, others, options, for_rl, colocate, fp8_cache))
    notes = tuple(_notes(facts, hardware, chosen, options, for_rl))
    return ServePlan(facts.name, hardware, context, rollouts, mean_length, for_rl, chosen, others, choices, notes)


def _why_not(facts: ModelFacts, hardware: Hardware, options: dict[str, Any]) -> str:
    weights = facts.parameters * options["weight_bytes"]
    cache = facts.kv_bytes(options["context"], options["kv_dtype_bytes"])
    usable = hardware.device.memory * options["utilization"] - RESERVED
    message = (
        f"{facts.name} does not fit {hardware}: weights {weights / GIB:.1f} GiB and a sequence of {options['context']}"
        f" tokens {cache / GIB:.2f} GiB, usable {max(0.0, usable) * hardware.count / GIB:.1f} GiB"
    )
    for count in (2, 4, 8, 16, 32, 64, 128):
        if count <= hardware.count:
            continue
        larger = replace(hardware, count=count, per_node=min(8, count))
        if any(predict(facts, larger, layout, **options) for layout in layouts(facts, larger)):
            return f"{message}; {larger} would do"
    return message


def _choices(
    facts: ModelFacts,
    hardware: Hardware,
    chosen: Prediction,
    others: tuple[Prediction, ...],
    options: dict[str, Any],
    for_rl: bool,
    colocate: bool,
    fp8_cache: bool,
) -> Iterator[Choice]:
    layout, device = chosen.layout, hardware.device
    rival = f"; next best {others[0].layout}: {others[0].tokens_per_second:,.0f} tokens/s" if others else ""
    yield Choice(
        "tensor_parallel_size", layout.tp, f"{chosen.tokens_per_second:,.0f} tokens/s predicted with {layout}{rival}"
    )
    if layout.dp > 1:
        kind = "of one engine" if layout.ep > 1 else "each an engine with all weights"
        yield Choice("data_parallel_size", layout.dp, f"{layout.dp} replicas, {kind}")
    if layout.ep > 1:
        share = facts.experts // layout.ep
        saved = facts.expert_parameters * facts.dtype_bytes * (1 / layout.tp - 1 / layout.ep) / GIB
        yield Choice(
            "enable_expert_parallel",
            True,
            f"{share} of {facts.experts} experts a device: {saved:.1f} GiB a device less than a copy in every replica",
        )
        backend, why = _all_to_all(hardware)
        yield Choice("all2all_backend", backend, why)
    yield Choice(
        "dtype", "auto" if facts.dtype_bytes < 4 else "float32", f"{facts.dtype_bytes} bytes a weight, as stored"
    )
    if fp8_cache:
        yield Choice("kv_cache_dtype", "fp8", "asked for: half the cache; changes the policy, correct for it in RL")
    yield Choice(
        "gpu_memory_utilization",
        options["utilization"],
        f"{chosen.weights / GIB:.1f} GiB weights + {RESERVED / GIB:.0f} GiB reserve + {chosen.kv_room / GIB:.1f} GiB"
        f" cache ({chosen.kv_tokens:,} tokens a replica) on {device.memory / GIB:.0f} GiB"
        + ("; the rest is the trainer's" if colocate else ""),
    )
    yield Choice("max_model_len", options["context"], "the context asked for")
    limit = "what is wanted" if chosen.sequences * layout.dp >= options["rollouts"] else "what the cache holds"
    if chosen.sequences == MOST_SEQUENCES:
        limit = "the engine's limit"
    yield Choice(
        "max_num_seqs",
        chosen.sequences,
        f"{limit}, at {options['mean_length']} tokens on average; {chosen.full_length_sequences} of them at full length"
        " without preemption",
    )
    batched = max(BATCHED_TOKENS, chosen.sequences)
    on_cpu = device.name == "CPU"
    if for_rl and on_cpu:
        why = "a prompt read in parts ends vLLM's CPU engine where requests have seeds, as rollouts have"
        yield Choice("enable_chunked_prefill", False, why)
        yield Choice("max_num_batched_tokens", max(batched, options["context"]), "the longest prompt in one piece")
    else:
        why = "prefill in chunks, so decoding does not stall behind long prompts"
        yield Choice("max_num_batched_tokens", batched, why)
    if for_rl and on_cpu and facts.experts and not facts.tap:
        why = "routes are recorded in the worker, whose routers do not see a cached prompt again"
        yield Choice("enable_prefix_caching", False, why)
    else:
        why = "rollouts of one problem share their prompt; route return needs it too"
        yield Choice("enable_prefix_caching", True, why)
    if facts.experts:
        if for_rl and device.capability:
            yield Choice("moe_backend", "triton", "keeps the checkpoint's weight layout, so updates in place are safe")
        if for_rl:
            yield Choice("enable_eplb", False, "experts moved by the engine would take the updates of other experts")
    if not for_rl:
        return
    if not colocate:
        yield Choice("worker_extension_cls", EXTENSION, "takes weights by file, records routes (grpo.vllm_mode: file)")
    yield Choice("logprobs_mode", "processed_logprobs", "the trainer compares with the distribution that was sampled")
    if facts.experts:
        returns, why = _returns_routes(facts, hardware)
        if returns:
            yield Choice("enable_return_routed_experts", True, why)
    if device.capability:
        if colocate:
            yield Choice("enable_sleep_mode", True, "the trainer needs the memory between rollouts")
            level, why = _sleep_level(facts)
            yield Choice("sleep_level", level, why)
        else:
            yield Choice("weight_transfer_config", {"backend": "nccl"}, "weights come over NCCL after each step")
    yield Choice("generation_config", "vllm", "no sampling defaults of the checkpoint behind the trainer's back")


def _all_to_all(hardware: Hardware) -> tuple[str, str]:
    if hardware.nodes > 1:
        return "deepep_high_throughput", "several machines: DeepEP's dispatch (needs the deep_ep package)"
    return "allgather_reducescatter", "one machine: needs no further package, and links inside it are fast"


def _returns_routes(facts: ModelFacts, hardware: Hardware) -> tuple[bool, str]:
    if facts.tap:
        return False, f"not returned: {facts.tap}"
    if hardware.device.name == "CPU":
        return False, "not returned by the CPU engine; recorded in its worker for moe.replay r3 (grpo.vllm_mode: file)"
    return True, f"routing replay (R3): {facts.route_bytes_per_token} bytes a token; PP is 1 and prefix caching on"


def _sleep_level(facts: ModelFacts) -> tuple[int, str]:
    if facts.bias != "none":
        return 1, "the router bias is no parameter of the trainer's; level 2 would lose it wherever a sync forgets it"
    return 2, "every weight is sent again before the next rollouts, so none needs to be kept"


def _notes(
    facts: ModelFacts, hardware: Hardware, chosen: Prediction, options: dict[str, Any], for_rl: bool
) -> Iterator[str]:
    yield "predicted by a roofline at assumed efficiencies, not measured; `fitted` takes measured steps instead"
    if chosen.sequences * chosen.layout.dp < options["rollouts"]:
        waves = -(-options["rollouts"] // (chosen.sequences * chosen.layout.dp))
        yield f"{options['rollouts']} rollouts run in about {waves} waves"
    if chosen.layout.dp > 1:
        yield "data parallelism needs the server (`rlvr serve start`); the in-process engine refuses it"
    if facts.experts and for_rl:
        returns, why = _returns_routes(facts, hardware)
        if returns:
            size = facts.route_bytes_per_token * options["mean_length"] * options["rollouts"] / GIB
            yield f"routes of {options['rollouts']} rollouts: {size:.2f} GiB"
        else:
            yield f"routes {why}"
    if facts.stateful_layers:
        yield f"{facts.stateful_layers} layers keep a state of fixed size a sequence, not counted here"
    yield from (trap for trap in facts.traps if "vLLM" in trap)
