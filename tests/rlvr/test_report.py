"""The report says what the run's folder holds, all of it, nothing else, and works where things are missing."""

from __future__ import annotations

import base64
import gzip
import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from browser import probed
from click.testing import CliRunner
from run_fixture import write_quickstart_run, write_training_run

from rlvr.cli import cli
from rlvr.evaluation import read_results
from rlvr.report import render_report, write_model_card
from rlvr.report.rollouts import load_rollouts, pick
from rlvr.report.run_data import load_run
from rlvr.report.summary import compact, duration

SMALL: dict[str, Any] = {
    "stage1_steps": 6, "stage2_steps": 4, "problems_per_step": 6, "rollouts_per_problem": 4, "evaluation_problems": 30,
}  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished quickstart with its report; tests that change it work on a copy."""
    folder = write_quickstart_run(tmp_path_factory.mktemp("runs") / "quickstart", **SMALL)
    render_report(folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "quickstart"))


def page(folder: Path) -> str:
    return render_report(folder).read_text(encoding="utf-8")


def unpacked(page: str, element: str) -> Any:
    match = re.search(rf'<script type="text/plain" id="{element}">([^<]*)</script>', page)
    assert match, f"{element} is not on the page"
    return json.loads(gzip.decompress(base64.b64decode(match[1])))


def stored_rollouts(folder: Path) -> list[dict[str, Any]]:
    paths = [*sorted((folder / "stage1").rglob("*.parquet")), *sorted((folder / "stage2").rglob("*.parquet"))]
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def test_the_report_is_one_file_that_loads_nothing(finished: Path) -> None:
    text = (finished / "report.html").read_text(encoding="utf-8")
    without_names = text.replace("http://www.w3.org/", "")  # XML namespaces are names, not addresses
    assert not re.search(r"https?://|//cdn|@import|<link[^>]+href=\"(?!data:)|src=\"(?!data:)", without_names)
    assert not re.search(r"\{\{|\{%", text)
    assert [p.name for p in finished.iterdir() if "tmp" in p.name] == []


def test_ids_on_the_page_are_unique(finished: Path) -> None:
    ids = re.findall(r'\bid="([^"]+)"', (finished / "report.html").read_text(encoding="utf-8"))
    assert len(ids) == len(set(ids))


def test_the_headline_goes_from_the_first_checkpoint_to_the_last(finished: Path) -> None:
    text = (finished / "report.html").read_text(encoding="utf-8")
    before = read_results(finished / "evaluation" / "sft").results["heldout"].pass_at[1].value
    after = read_results(finished / "evaluation" / "stage2").results["heldout"].pass_at[1].value
    assert f'<span class="from">{100 * before:.1f}</span><span class="arrow">→</span>{100 * after:.1f}' in text
    assert f"{100 * (after - before):+.1f}" in text
    assert "Not in this folder" not in text


def test_every_chart_is_drawn_in_colours_the_page_decides(finished: Path) -> None:
    text = (finished / "report.html").read_text(encoding="utf-8")
    drawn = set(re.findall(r'<figure id="chart-([a-z-]+)">', text))
    assert drawn == {
        "reward", "pass-rate", "effective", "allocation", "allocation-heat", "verdicts", "entropy", "length", "time",
        "optimiser", "sft",
    }  # fmt: skip
    for svg in re.findall(r"<svg role=.*?</svg>", text, flags=re.S):
        assert not re.search(r"#0[0-9a-f]{5}\b", svg), "a stand-in colour was left"
        assert "var(--" in svg
    used = set(re.findall(r"var\((--[\w-]+)", text))
    defined = set(re.findall(r"(--[\w-]+):", text))
    assert used <= defined | {"--v-"}, used - defined


def test_stages_follow_each_other_on_one_axis(finished: Path) -> None:
    run = load_run(finished)
    assert [(segment.name, segment.offset) for segment in run.rl] == [("stage1", 0), ("stage2", 6)]
    assert run.rollouts == 10 * 24
    assert run.tokens == sum(
        json.loads((finished / stage / "metrics.jsonl").read_text().splitlines()[-1])["num_tokens"]
        for stage in ("sft", "stage1", "stage2")
    )


def test_the_viewer_holds_every_rollout_unchanged(finished: Path) -> None:
    text = (finished / "report.html").read_text(encoding="utf-8")
    index = unpacked(text, "rollout-index")
    texts = [t for n in range(len(index["chunks"])) for t in unpacked(text, f"rollout-text-{n}")]
    rows = stored_rollouts(finished)
    assert index["size"] == len(rows) == 240
    for i, row in enumerate(rows):
        for name in ("stage", "problem_id", "verdict", "finish_reason", "message"):
            assert index["vocabulary"][name][index["names"][name][i]] == row[name]
        for name in ("step", "passed", "tests", "completion_tokens", "n_allocated", "group"):
            assert index["numbers"][name][i] == row[name]
        assert index["numbers"]["reward"][i] == row["reward"]
        assert index["numbers"]["advantage"][i] == pytest.approx(row["advantage"], abs=1e-4)
        assert index["vocabulary"]["cases"][index["cases"][i]] == ",".join(row["cases"])
        assert texts[index["texts"]["prompt"][i]] == row["prompt"]
        program = index["texts"]["program"][i]
        assert (texts[program] if program >= 0 else "") == row["program"]


def test_what_a_program_prints_cannot_become_part_of_the_page(run: Path) -> None:
    path = next((run / "stage2" / "rollouts").glob("*.parquet"))
    table = pq.read_table(path)
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"
    for name in ("program", "completion", "prompt", "message", "problem_id"):
        column = table.schema.get_field_index(name)
        table = table.set_column(column, table.schema.field(name), [[evil] * table.num_rows])
    pq.write_table(table, path)
    text = page(run)
    assert "<script>alert(1)" not in text and "<img src=x" not in text
    assert html.escape("<script>alert(1)", quote=False) in text  # shown among the picked ones, as text


def test_beyond_the_cap_rollouts_are_sampled_evenly_and_the_page_says_so(run: Path) -> None:
    text = render_report(run, run / "small.html", max_rollouts=50).read_text(encoding="utf-8")
    index = unpacked(text, "rollout-index")
    assert index["size"] == 50
    assert "50 of 240 rollouts, sampled evenly over the run." in text
    stages = [index["vocabulary"]["stage"][i] for i in index["names"]["stage"]]
    assert stages.count("stage1") == 30 and stages.count("stage2") == 20
    with pytest.raises(ValueError, match="max_rollouts"):
        render_report(run, max_rollouts=0)


def test_long_texts_are_shortened_and_bulk_is_bounded(run: Path) -> None:
    path = next((run / "stage1" / "rollouts").glob("*.parquet"))
    table = pq.read_table(path)
    column = table.schema.get_field_index("completion")
    long = [[f"{i} " + "x" * 50_000 + " end" for i in range(table.num_rows)]]
    pq.write_table(table.set_column(column, table.schema.field("completion"), long), path)
    files = load_run(run).rollout_files
    rollouts = load_rollouts(files)
    assert rollouts.clipped == table.num_rows
    assert max(map(len, rollouts.texts)) < 9_000
    assert any(text.endswith(" end") for text in rollouts.texts)
    assert "24 long texts are shortened" in page(run)
    bounded = load_rollouts(files, most_characters=60_000)
    assert bounded.characters <= 60_000 and 0 < len(bounded) < 240


def test_picked_rollouts_show_hard_solved_problems_and_every_kind_of_failure(finished: Path) -> None:
    rollouts = load_rollouts(load_run(finished).rollout_files)
    picked = pick(rollouts)
    verdicts = [row["verdict"] for _, row in picked]
    present = {row["verdict"] for row in stored_rollouts(finished)}
    assert verdicts[:3] == ["AC"] * 3 and set(verdicts) == present and len(verdicts) == 3 + len(present) - 1
    assert len({row["problem_id"] for _, row in picked[:3]}) == 3
    rates = [row["success_rate"] for _, row in picked[:3]]
    assert rates == sorted(rates)
    for _, row in picked[3:]:
        assert row["stage"] == "stage2" or row["verdict"] in ("IE", "NO_CODE", "TLE", "CE", "RE")


# --- other shapes of a run ---


def test_a_single_training_run_is_reported_from_its_own_folder(tmp_path: Path) -> None:
    folder = write_training_run(tmp_path / "contest-05b", steps=5)
    text = page(folder)
    assert "Qwen/Qwen2.5-Coder-0.5B" in text and "builtin-contest" in text and "checkpoint-10" in text
    run = load_run(folder)
    assert [(s.name, s.offset, s.last_step) for s in run.rl] == [("entropy", 0, 5), ("hard", 0, 10)]
    assert {file.stage for file in run.rollout_files} == {"entropy", "hard"}
    assert "there is no before and after to compare" in text


def test_an_interrupted_run_shows_what_exists_and_names_what_does_not(run: Path) -> None:
    shutil.rmtree(run / "evaluation" / "stage2")
    shutil.rmtree(run / "evaluation" / "stage1")
    shutil.rmtree(run / "stage2" / "rollouts")
    for path in run.glob("*/environment.json"):
        path.unlink()
    with (run / "stage2" / "metrics.jsonl").open("r+") as file:
        lines = file.readlines()
        file.seek(0)
        file.truncate()
        file.writelines([*lines[:2], lines[2][:40]])  # killed while writing
    next((run / "stage1" / "rollouts").glob("*.parquet")).write_bytes(b"PAR1 torn")
    text = html.unescape(page(run))
    assert "stage2/metrics.jsonl: line 3 is no metric row and was skipped" in text
    assert "stage2: 2 of 4 steps are there (interrupted or running)" in text
    assert "environment.json" in text and "is unreadable" in text
    assert "there is no before and after to compare" in text
    assert unpacked(text, "rollout-index")["size"] == 5 * 24


def test_a_run_that_has_only_fine_tuned_so_far_has_a_report(run: Path) -> None:
    for name in ("stage1", "stage2", "evaluation"):
        shutil.rmtree(run / name)
    text = page(run)
    assert 'id="chart-sft"' in text and 'id="rollouts"' not in text
    assert "only supervised fine-tuning has been logged" in text
    assert "no evaluated checkpoint" in text


def test_a_folder_of_evaluations_alone_has_a_report(run: Path) -> None:
    for name in ("sft", "stage1", "stage2"):
        shutil.rmtree(run / name)
    text = page(run)
    assert "no training curve to show" in text and "Training</h2>" not in text
    assert text.index(">sft</td>") < text.index(">stage1</td>") < text.index(">stage2</td>")  # by date


def test_a_broken_results_file_is_named_and_the_rest_is_shown(run: Path) -> None:
    (run / "evaluation" / "stage1" / "results.json").write_text('{"results": {"heldout": {"problems": 3}}}')
    text = html.unescape(page(run))
    assert "evaluation/stage1/results.json, suite 'heldout': no pass@k found" in text
    assert ">stage2</td>" in text


def test_rows_logged_twice_after_a_resume_count_once(run: Path) -> None:
    path = run / "stage1" / "metrics.jsonl"
    lines = path.read_text().splitlines()
    again = json.loads(lines[3]) | {"reward": 0.875}
    path.write_text("\n".join([*lines[:5], json.dumps(again), *lines[4:]]) + "\n")
    segment = load_run(run).rl[0]
    assert [row["step"] for row in segment.rows] == [1, 2, 3, 4, 5, 6]
    assert segment.rows[3]["reward"] == 0.875


def test_a_run_of_a_single_step_is_drawn(tmp_path: Path) -> None:
    folder = write_quickstart_run(tmp_path / "tiny", **(SMALL | {"stage1_steps": 1, "stage2_steps": 1}))
    assert page(folder).count("<figure") == 13


def test_what_is_no_run_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        render_report(tmp_path / "absent")
    with pytest.raises(ValueError, match="is it the folder of a run"):
        render_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


# --- model card ---


def test_the_model_card_states_model_data_method_and_results(tmp_path: Path) -> None:
    folder = write_training_run(tmp_path / "contest-05b", steps=4)
    path = write_model_card(folder)
    assert path == folder / "README.md"
    text = path.read_text(encoding="utf-8")
    assert text.startswith("---\n") and 'base_model: "Qwen/Qwen2.5-Coder-0.5B"' in text
    estimate = read_results(folder / "evaluation" / "builtin-contest").results["builtin-contest"].pass_at[1]
    assert f"{100 * estimate.value:.1f} [{100 * estimate.ci95[0]:.1f}, {100 * estimate.ci95[1]:.1f}]" in text
    for cited in ("2511.06307", "2509.25849", "2402.03300"):
        assert cited in text
    assert "`grpo.learning_rate` | `1e-06`" in text and "Problems: `builtin:contest`" in text
    assert "torch 2.13.0" in text and "2 CPU cores" in text
    assert str(tmp_path) not in text  # nothing of this machine's folders


def test_the_model_card_of_an_unevaluated_run_says_so(run: Path) -> None:
    shutil.rmtree(run / "evaluation")
    done = CliRunner().invoke(cli, ["report", str(run), "--card"])
    assert done.output.splitlines() == [str(run / "report.html"), str(run / "README.md")]
    text = (run / "README.md").read_text(encoding="utf-8")
    assert "No evaluation was found" in text and "{{" not in text
    assert write_model_card(run) == run / "README.md"  # its own it writes again
    (run / "README.md").write_text("mine")
    with pytest.raises(ValueError, match=r"README\.md: is no model card of ours; move it away first"):
        write_model_card(run)
    assert (run / "README.md").read_text() == "mine"


# --- words ---


@pytest.mark.parametrize(
    ("seconds", "words"), [(3.21, "3.2 s"), (59.4, "59 s"), (200, "3 min 20 s"), (18420, "5 h 07 min")]
)
def test_durations_read_well(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_large_numbers_read_well() -> None:
    assert [compact(n) for n in (950, 12_345, 1.708e6)] == ["950", "12.3 k", "1.71 M"]


# --- in a browser ---

PROBE = """
<script>
(async () => {
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const $ = (id) => document.getElementById(id);
  while (!$("viewer").dataset.ready) await pause(20);
  const seen = { all: $("count").textContent, lines: document.querySelectorAll("#rows .line").length };
  const set = async (name, value) => {
    $("filters").elements[name].value = value;
    $("filters").elements[name].dispatchEvent(new Event("input", { bubbles: true }));
    await pause(400);
    return $("count").textContent;
  };
  seen.stage = await set("stage", "stage2");
  seen.reward = await set("reward", "full");
  seen.text = await set("text", "SEP=");
  document.querySelector("#filters button[type=reset]").click();
  await pause(400);
  document.querySelector("#verdicts input").click();
  await pause(400);
  seen.verdict = $("count").textContent;
  document.querySelectorAll("button.open")[0].click();
  await pause(400);
  seen.detail = $("detail").textContent;
  [...document.querySelectorAll("#detail button")][0].click();
  await pause(400);
  seen.group = $("count").textContent;
  document.body.dataset.probe = JSON.stringify(seen);
})();
</script>
"""


def probe(folder: Path, tmp_path: Path) -> dict[str, str]:
    """What the viewer of a run shows to someone who filters, opens a rollout and goes to its group."""
    return probed(page(folder), PROBE, tmp_path)


def test_the_viewer_filters_and_shows_rollouts_in_a_browser(run: Path, tmp_path: Path) -> None:
    seen = probe(run, tmp_path)
    rows = stored_rollouts(run)
    second = [row for row in rows if row["stage"] == "stage2"]
    full = [row for row in second if row["reward"] == 1]
    assert seen["all"].startswith("240 of 240 rollouts")
    assert 0 < seen["lines"] < 100
    assert seen["stage"].startswith(f"{len(second)} of 240")
    assert seen["reward"].startswith(f"{len(full)} of 240 rollouts, 100.0% accepted")
    assert seen["text"].startswith(f"{sum('sep=' in row['program'] for row in full)} of 240")
    assert re.match(r"\d+ of 240 rollouts", seen["verdict"]) and not seen["verdict"].startswith("240 ")
    _, first = pick(load_rollouts(load_run(run).rollout_files))[0]
    assert first["problem_id"] in seen["detail"] and first["program"] in seen["detail"]
    assert seen["group"].startswith(f"Group {first['group']} of step {first['step']}")


@pytest.mark.slow
def test_the_viewer_is_usable_with_fifty_thousand_rollouts(tmp_path: Path) -> None:
    steps = {"stage1_steps": 150, "stage2_steps": 50, "problems_per_step": 16, "rollouts_per_problem": 16}
    run = write_quickstart_run(tmp_path / "quickstart", **steps, evaluation_problems=30)
    seen = probe(run, tmp_path)
    rows = stored_rollouts(run)
    assert len(rows) == 51_200 and seen["all"].startswith("51,200 of 51,200 rollouts")
    assert 0 < int(seen["lines"]) < 200  # rows on the page: only those in sight
    second = [row for row in rows if row["stage"] == "stage2"]
    full = [row for row in second if row["reward"] == 1]
    assert seen["stage"].startswith(f"{len(second):,} of 51,200")
    assert seen["text"].startswith(f"{sum('sep=' in row['program'] for row in full):,} of 51,200")
    assert seen["group"].startswith("Group ")
    assert (run / "report.html").stat().st_size < 40_000_000
