"""Expert load against brute force, and routes through storage and padding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr.moe.routes import RouteMismatch, Routes, RouteShape, aligned, checked, from_engine
from rlvr.moe.session import count, count_pairs, fed_tokens
from rlvr.moe.statistics import (
    ExpertLoad,
    agreement,
    coactivation,
    dead_experts,
    layer_routing,
    load_entropy,
    max_violation,
    over_chance,
    pair_layers,
    rank_skew,
)

ROOT = Path(__file__).resolve().parents[2]
SHAPE = RouteShape(experts=8, top_k=2, layers=(1, 2, 4), depth=5)


def random_ids(seed: int, tokens: int, shape: RouteShape = SHAPE) -> np.ndarray:
    generator = np.random.default_rng(seed)
    scores = generator.random((tokens, len(shape.layers), shape.experts))
    return np.argsort(-scores, axis=-1)[..., : shape.top_k]


@given(seed=st.integers(0, 1000), rows=st.integers(1, 4), length=st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_counts_equal_brute_force_over_valid_tokens(seed: int, rows: int, length: int) -> None:
    generator = np.random.default_rng(seed)
    ids = random_ids(seed, rows * length).reshape(rows, length, 3, 2)
    mask = generator.random((rows, length)) < 0.7
    counts = count(torch.from_numpy(ids), torch.from_numpy(mask), 8)
    brute: Counter[tuple[int, int]] = Counter()
    pairs: Counter[tuple[int, int, int]] = Counter()
    for row in range(rows):
        for token in range(length):
            if mask[row, token]:
                for layer in range(3):
                    chosen = ids[row, token, layer].tolist()
                    brute.update((layer, e) for e in chosen)
                    pairs.update((layer, a, b) for a in chosen for b in chosen)
    assert all(counts[layer, e] == brute[layer, e] for layer in range(3) for e in range(8))
    assert counts.sum() == mask.sum() * 3 * 2
    both = coactivation(ids[mask], 8)
    assert np.array_equal(np.diagonal(both, axis1=1, axis2=2), counts)
    assert all(both[key] == count for key, count in pairs.items())
    assert both.sum() == sum(pairs.values())


def test_padding_and_last_tokens_do_not_count() -> None:
    mask = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]])
    assert fed_tokens(torch.from_numpy(mask)).tolist() == [
        [False, False, True, True, False],
        [True, True, False, False, False],
        [False] * 5,
        [False] * 5,
    ]


def test_the_pair_that_goes_together_is_found_and_chance_is_what_the_loads_give() -> None:
    tokens = 60_000
    free = np.stack([random_ids(3, tokens)[:, 0], np.tile([2, 5], (tokens, 1)), np.full((tokens, 2), -1)], axis=1)
    chance, fixed = layer_routing(free, 8, (1, 4, 6))  # a layer without known tokens is left out
    assert chance.layer == 1 and chance.tokens == tokens
    assert chance.over_chance == pytest.approx(1.0, abs=0.1) and chance.together == pytest.approx(1 / 28, rel=0.1)
    assert (fixed.layer, fixed.pair, fixed.together, fixed.over_chance) == (4, (2, 5), 1.0, 1.0)
    assert fixed.dead_experts == 6 and fixed.max_violation == 3.0
    bound = np.where(np.arange(tokens)[:, None] % 2 == 0, [0, 1], random_ids(4, tokens)[:, 0])[:, None]
    assert layer_routing(bound, 8, (0,))[0].pair == (0, 1)
    assert layer_routing(bound, 8, (0,))[0].over_chance > 1.3
    assert layer_routing(bound[..., :1], 8, (0,))[0].pair is None


def test_figures_at_the_extremes() -> None:
    even, one = np.full((1, 8), 5), np.eye(8, dtype=int)[:1] * 40
    assert max_violation(even).tolist() == [0.0]
    assert max_violation(one).tolist() == [7.0]
    assert load_entropy(even)[0] == pytest.approx(1.0)
    assert load_entropy(one)[0] == pytest.approx(0.0)
    assert dead_experts(one).tolist() == [7]
    assert rank_skew(one, 4).tolist() == [4.0]
    assert np.isnan(max_violation(np.zeros((1, 8)))).all()
    with pytest.raises(ValueError, match="3 ranks do not divide 8 experts"):
        rank_skew(even, 3)


@given(st.lists(st.integers(0, 10_000), min_size=3, max_size=3))
@settings(max_examples=20, deadline=None)
def test_merging_windows_is_associative_and_order_free(seeds: list[int]) -> None:
    loads = []
    for number, seed in enumerate(seeds):
        load = ExpertLoad(SHAPE.layers, 8)
        ids = torch.from_numpy(random_ids(seed, 20))[None]
        load.add(count(ids, torch.ones(1, 20, dtype=torch.bool), 8), ["all", f"kind{number % 2}"])
        loads.append(load)
    a, b, c = loads
    left, right, swapped = a.merge(b).merge(c), a.merge(b.merge(c)), c.merge(a).merge(b)
    for other in (right, swapped):
        assert left.metrics() == pytest.approx(other.metrics())
    assert left.counts["all"].sum() == 3 * 20 * 3 * 2
    assert left.batches == 3
    assert ExpertLoad.from_dict(json.loads(json.dumps(left.as_dict()))).metrics() == pytest.approx(left.metrics())


def test_batch_and_window_violation_differ_where_batches_oscillate() -> None:
    load = ExpertLoad((0,), 2)
    load.add(np.array([[10, 0]]))
    load.add(np.array([[0, 10]]))
    figures = load.metrics(ranks=2)
    assert figures["moe/max_violation_window"] == 0.0
    assert figures["moe/max_violation_batch"] == 1.0
    assert figures["moe/rank_skew"] == 1.0


def test_a_load_of_another_model_is_refused() -> None:
    load = ExpertLoad(SHAPE.layers, 8)
    with pytest.raises(ValueError, match="another model"):
        load.add(np.zeros((3, 16), dtype=int))
    with pytest.raises(ValueError, match="different models"):
        load.merge(ExpertLoad((0,), 8))
    with pytest.raises(ValueError, match=r"load\.json: not an expert load: 'layers' is missing"):
        ExpertLoad.from_dict({}, "load.json")


def test_agreement_ignores_order_and_unknown_tokens() -> None:
    left = np.array([[[0, 1]], [[2, 3]], [[4, 5]]])
    right = np.array([[[1, 0]], [[2, 4]], [[-1, -1]]])
    assert agreement(left, right).tolist() == [0.5]


@given(seed=st.integers(0, 1000), tokens=st.integers(0, 12), experts=st.sampled_from([8, 256, 300]))
@settings(max_examples=30, deadline=None)
def test_routes_survive_storage_in_one_or_two_bytes(seed: int, tokens: int, experts: int) -> None:
    shape = RouteShape(experts, 2, (0, 3), 4)
    routes = checked(random_ids(seed, tokens, shape), shape, start=2)
    again = Routes.from_bytes(routes.to_bytes())
    assert again.ids.dtype == (np.uint8 if experts <= 256 else np.uint16)
    assert np.array_equal(again.ids, routes.ids)
    assert np.array_equal(again.known, routes.known)
    assert again.start == 2


def engine_array(tokens: int, seed: int = 0) -> np.ndarray:
    array = np.zeros((tokens, SHAPE.depth, SHAPE.top_k), dtype=np.uint8)
    array[:, list(SHAPE.layers)] = random_ids(seed, tokens)
    return array


def test_engine_routes_lose_the_dense_layers_and_mark_missing_rows() -> None:
    array = engine_array(6)
    array[2] = 0
    routes = from_engine(array, SHAPE, length=7)
    assert routes.ids.shape == (6, 3, 2)
    assert routes.known.tolist() == [True, True, False, True, True, True]


@pytest.mark.parametrize(
    ("array", "length", "message"),
    [
        (engine_array(6), 9, "routes of 6 tokens for a sequence of 9: expected 8"),
        (engine_array(6)[:, :4], 7, "this model's are"),
        (np.full((6, 5, 2), 9), 7, "expert 9, this model has 8"),
        (np.ones((6, 5, 2), dtype=int), 7, "routed twice to one expert in layer 1"),
        (b"", 7, "this model's are"),
    ],
)
def test_engine_routes_that_do_not_fit_are_refused(array: np.ndarray, length: int, message: str) -> None:
    with pytest.raises(RouteMismatch, match=message):
        from_engine(array, SHAPE, length)
    with pytest.raises(RouteMismatch, match="not a block of routes"):
        Routes.from_bytes(b"something else")


def test_a_choice_of_one_expert_may_be_expert_zero() -> None:
    shape = RouteShape(4, 1, (0,), 1)
    assert from_engine(np.zeros((3, 1, 1), dtype=np.uint8), shape, 4).known.all()


def test_batches_are_aligned_with_left_padded_prompts() -> None:
    first = from_engine(engine_array(4, 1), SHAPE, length=5)  # prompt 3, completion 2
    second = from_engine(engine_array(3, 2), SHAPE, length=4)  # prompt 1, completion 3
    batch = aligned([first, second], [3, 1], [5, 4], prompt_width=3, width=6, shape=SHAPE)
    assert np.array_equal(batch[0, :4], first.ids)
    assert (batch[0, 4:] == -1).all()
    assert (batch[1, :2] == -1).all()
    assert np.array_equal(batch[1, 2:5], second.ids)
    assert (batch[1, 5:] == -1).all()


def test_strict_alignment_insists_and_lenient_leaves_to_the_router() -> None:
    array = engine_array(4)
    array[0] = 0
    partial = from_engine(array, SHAPE, length=5)
    options = {"prompt_lengths": [3], "lengths": [5], "prompt_width": 3, "width": 5, "shape": SHAPE}
    with pytest.raises(RouteMismatch, match="1 tokens have no routes"):
        aligned([partial], **options)
    with pytest.raises(RouteMismatch, match="has no routes"):
        aligned([None], **options)
    lenient = aligned([partial], **options, strict=False)
    assert (lenient[0, 0] == -1).all()
    assert (lenient[0, 1:4] >= 0).all()
    assert (aligned([None], **options, strict=False) == -1).all()
    with pytest.raises(RouteMismatch, match="routes end at token 4, the sequence has 6"):
        aligned([partial], **(options | {"lengths": [6]}), strict=False)


TWO_RANKS = """
import sys, numpy as np, torch.distributed as dist
from rlvr.moe.statistics import ExpertLoad, all_reduced
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
load = ExpertLoad((0, 1), 4)
load.add(np.arange(8).reshape(2, 4) * (rank + 1), ["all", "rank" + str(rank)])
merged = all_reduced(load)
assert (merged.counts["all"] == np.arange(8).reshape(2, 4) * 3).all()
assert merged.batches == 2 and set(merged.counts) == {"all", "rank0", "rank1"}
print("merged", rank, flush=True)
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_loads_of_two_processes_add_up(tmp_path: Path) -> None:
    script = tmp_path / "two_ranks.py"
    script.write_text(TWO_RANKS)
    command = [sys.executable, str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "meet")], env=environment, stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=240)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    assert [output.strip() for output in outputs] == ["merged 0", "merged 1"]


def test_pairs_over_chance_find_the_set_and_merge_in_any_order() -> None:
    rng = np.random.default_rng(1)
    even = np.argsort(rng.random((4000, 8)))[:, :2]
    sets = rng.integers(0, 4, 4000)[:, None] * 2 + np.array([0, 1])  # 0 with 1, 2 with 3, ...
    chance = over_chance(coactivation(even[:, None], 8)[0])
    assert np.isnan(np.diagonal(chance)).all() and np.nanmax(abs(chance - 1)) < 0.25
    tied = over_chance(coactivation(sets[:, None], 8)[0])
    assert tied[0, 1] > 5 and tied[0, 2] == 0
    unused = over_chance(coactivation(np.array([[[0, 1]]]), 4)[0])
    assert np.isnan(unused[2]).all()
    first, second = ExpertLoad((3,), 8), ExpertLoad((3,), 8)
    for load, routes in ((first, even), (second, sets)):
        valid = torch.ones(1, len(routes), dtype=torch.bool)
        together = count_pairs(torch.from_numpy(routes)[None], valid, 8)
        assert (together == coactivation(routes[:, None], 8)[0]).all()
        load.add_pairs(3, together)
    both = first.merge(second)
    assert (both.pairs[3] == second.merge(first).pairs[3]).all()
    assert (both.pairs[3] == first.pairs[3] + second.pairs[3]).all()
    assert (ExpertLoad.from_dict(json.loads(json.dumps(both.as_dict()))).pairs[3] == both.pairs[3]).all()
    with pytest.raises(ValueError, match="pairs of layer 4"):
        first.add_pairs(4, together)


def test_pairs_are_counted_in_the_first_the_last_and_layers_between() -> None:
    assert pair_layers((3, 4)) == (3, 4)
    assert pair_layers(range(1, 49)) == (1, 17, 32, 48)
