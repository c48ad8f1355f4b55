"""The report of a run with experts: balance over training and load by expert; a dense run misses nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from rlvr.moe.statistics import ExpertLoad, coactivation
from rlvr.report import render_report, svg
from rlvr.report.expert_charts import chosen_together, load_by_expert, load_over_time
from rlvr.report.run_data import Run, Segment
from rlvr.report.summary import what_was_trained


def run_folder(folder: Path, *, experts: bool) -> Path:
    stage = folder / "stage1"
    stage.mkdir(parents=True)
    rows = []
    for step in range(1, 6):
        row = {"step": step, "time": 1.0 * step, "stage": "stage1", "reward": 0.1 * step, "loss": 0.0}
        if experts:
            row |= {"moe/max_violation_batch": 1.0 / step, "moe/max_violation_window": 0.5 / step}
        rows.append(json.dumps(row))
    (stage / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    if experts:
        load = ExpertLoad((1, 2), 8)
        load.add(np.arange(16).reshape(2, 8))
        rng = np.random.default_rng(0)
        for layer in (1, 2):
            load.add_pairs(layer, coactivation(np.argsort(rng.random((500, 1, 8)))[..., :2], 8)[0])
        (stage / "expert_load.json").write_text(json.dumps(load.as_dict()))
    return folder


def test_load_is_drawn_where_there_are_experts_and_not_missed_where_there_are_none(tmp_path: Path) -> None:
    page = render_report(run_folder(tmp_path / "moe", experts=True)).read_text()
    for words in (
        "Expert balance",
        "Expert load",
        "strongest: 2.00 times the mean",
        "Experts chosen together",
        "times chance",
    ):
        assert words in page
    dense = render_report(run_folder(tmp_path / "dense", experts=False)).read_text()
    assert "Expert balance" not in dense and "Expert load" not in dense


def test_a_broken_load_file_is_named_and_the_report_stands(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", experts=True)
    (folder / "stage1" / "expert_load.json").write_text('{"layers": [1]}')
    page = render_report(folder).read_text()
    assert "Expert balance" in page
    assert "strongest:" not in page


def test_the_legend_stands_above_the_names_of_stages_and_replay_has_a_panel() -> None:
    rows = [{"step": n, "moe/max_violation_batch": 1.0, "moe/replayed": 0.5 * n} for n in (1, 2)]
    run = Run(Path(), "run", segments=[Segment("stage1", "rl", rows), Segment("stage2", "rl", rows, offset=2)])
    with svg.style():
        figure = load_over_time(run)
        assert figure is not None and [axes.get_ylabel() for axes in figure.axes] == ["busiest / mean - 1", "replayed"]
        FigureCanvasAgg(figure).draw()
        stages = [text.get_window_extent() for text in figure.axes[0].texts]
        legend = figure.axes[0].get_legend()
        assert legend is not None and len(stages) == 2
        entries = [text.get_window_extent() for text in legend.get_texts()]
    assert len(entries) == 1 and min(entry.y0 for entry in entries) >= max(stage.y1 for stage in stages)


def test_a_load_of_an_earlier_version_has_no_pairs_and_draws_none(tmp_path: Path) -> None:
    load = ExpertLoad((1,), 4)
    load.add(np.ones((1, 4), dtype=int))
    saved = load.as_dict()
    del saved["pairs"]
    (tmp_path / "expert_load.json").write_text(json.dumps(saved))
    assert load_by_expert(Run(tmp_path, "run")) is not None
    assert chosen_together(Run(tmp_path, "run")) is None


def test_of_many_layers_only_some_are_named(tmp_path: Path) -> None:
    load = ExpertLoad(tuple(range(3, 51)), 4)
    load.add(np.ones((48, 4), dtype=int))
    (tmp_path / "expert_load.json").write_text(json.dumps(load.as_dict()))
    figure = load_by_expert(Run(tmp_path, "run"))
    assert figure is not None
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == [str(n) for n in range(3, 51, 4)]


def test_the_first_sentence_names_the_experts_of_a_mixture() -> None:
    size = {"layers": 2, "hidden": 64, "experts": 8, "top_k": 2}
    for family, words in (
        ("qwen3_moe", "width 64 with 8 experts a layer, 2 of them for a token"),
        ("llama", "width 64:"),
    ):
        assert words in what_was_trained(Run(Path(), "run", config={"model": size | {"family": family}}))
