"""What the command line says when the machine, not the recipe, is at fault."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from rlvr import cli
from rlvr.__main__ import main as entry_point
from rlvr.config import QuickstartRecipe, RecipeError, load_recipe, write_resolved
from rlvr.training.launch import processes_asked_for

ROOT = Path(__file__).parents[2]


def ends_with(error: Exception, monkeypatch, capsys) -> tuple[int, str]:
    """Exit code and last words of `rlvr` when a verb raises `error`."""

    def verb(**_) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "main", verb)
    monkeypatch.delenv("RLVR_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code, capsys.readouterr().err


def test_a_full_disk_is_one_line_whoever_was_writing(monkeypatch, capsys):
    import torch

    errors = []
    for write in (
        lambda: Path("/dev/full").write_text("x" * 10**6),
        lambda: torch.save(torch.zeros(10**6), "/dev/full"),
    ):
        with pytest.raises((OSError, RuntimeError)) as caught:
            write()
        errors.append(caught.value)
    for error in errors:
        code, said = ends_with(error, monkeypatch, capsys)
        assert code == 1
        assert said.count("\n") == 1 and "No space left on device" in said and "the same command continues" in said


@pytest.mark.parametrize("words", ["--cpu --num_processes 2", "--num_processes=2 --cpu", "--num-processes 2 x.py"])
def test_the_processes_a_launcher_was_asked_for_are_read_from_its_command(words):
    assert processes_asked_for(["accelerate", "launch", *words.split()]) == 2
    assert processes_asked_for(["accelerate", "launch", "--cpu", "--num_processes"]) == 1


def test_a_launcher_that_starts_one_process_of_several_is_told(monkeypatch):
    program = "from rlvr.training.launch import say_if_launched_alone; say_if_launched_alone()"
    launcher = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {program!r}])"  # its words are its own

    def said(**variables: str) -> str:
        command = [sys.executable, "-c", launcher, "accelerate", "launch", "--cpu", "--num_processes", "2"]
        env = {**os.environ, "ACCELERATE_USE_CPU": "True", **variables}
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stderr

    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = said()
    assert "asked for 2 processes and started 1" in alone and "torchrun --nproc_per_node 2" in alone
    assert said(WORLD_SIZE="2") == ""


def test_other_errors_keep_their_traceback(monkeypatch, capsys):
    with pytest.raises(RuntimeError, match="a bug"):
        ends_with(RuntimeError("a bug"), monkeypatch, capsys)


def test_sigterm_is_one_line_and_the_exit_code_of_a_run_to_be_started_again(tmp_path):
    sleeping = (
        "import time; from rlvr import cli\n"
        "cli.cli.main = lambda **_: (print(1, flush=True), time.sleep(60))\n"
        "cli.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", sleeping], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "1\n"
    process.terminate()
    _, said = process.communicate(timeout=30)
    assert process.returncode == 75
    assert said.strip() == "rlvr: SIGTERM; the same command continues where it stood"


def test_ctrl_c_during_the_first_imports_is_one_line_too(monkeypatch, capsys):
    class Interrupted(ModuleType):
        def __getattr__(self, name: str) -> None:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "rlvr.cli", Interrupted("rlvr.cli"))
    with pytest.raises(SystemExit) as stop:
        entry_point()
    assert stop.value.code == 130 and capsys.readouterr().err == "\nrlvr: interrupted\n"


def test_the_quickstart_leaves_a_folder_that_another_recipe_began_as_it_is(tmp_path):
    folder = tmp_path / "run"
    recipe = cli.CONFIGS / "quickstart-smoke.yaml"
    write_resolved(load_recipe(QuickstartRecipe, recipe, [f"output_dir={folder}"]), folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for change, said in (
        ("seed=5", "holds a run with seed 0, this recipe has 5"),
        ("stage2.budget.policy=uniform", 'stage2.budget.policy "knapsack", this recipe has "uniform"'),
        ("moe.balance={rule: sign}", "moe.balance"),
    ):
        with pytest.raises(RecipeError, match=re.escape(said)):
            run("quickstart", "--config", recipe, f"output_dir={folder}", change)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    run("quickstart", "--config", recipe, f"output_dir={folder}", "threads=1", "judge.workers=1", "--dry-run")


def run(*words: object) -> None:
    cli.cli.main([str(word) for word in words], standalone_mode=False)


def test_an_empty_recipe_an_empty_folder_name_and_a_negative_seed_are_refused(tmp_path):
    empty = tmp_path / "recipe.yaml"
    empty.write_text("# nothing yet\n")
    for words, said in (
        (("curate", "--config", empty), "an empty recipe"),
        (("quickstart", "output_dir=", "--dry-run"), "output_dir"),
        (("quickstart", "seed=-1", "--dry-run"), "seed"),
    ):
        with pytest.raises(RecipeError, match=said):
            run(*words)


def test_an_export_that_would_be_empty_or_onto_a_folder_is_an_error_and_leaves_no_file(tmp_path):
    tests = [{"input": "1\n", "output": "1\n"}]
    problem = {"id": "a", "statement": "Echo.", "checker": "unordered_lines", "tests": tests}
    source, out = tmp_path / "p.jsonl", tmp_path / "verl.parquet"
    source.write_text(json.dumps(problem) + "\n")
    with pytest.raises(ValueError, match=r"nothing to write: .*--own-reward"):
        run("export", "verl", source, "--out", out)
    with pytest.raises(ValueError, match="a folder; name the parquet file"):
        run("export", "trl", source, "--out", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.jsonl"]


def test_ratings_are_read_from_lines_and_json_packed_or_not(tmp_path, capsys):
    lines, packed = tmp_path / "ratings.tsv", tmp_path / "ratings.jsonl.gz"
    lines.write_text("".join(f"p{n}\t{1000 + n}\n" for n in range(0, 1000, 10)))
    packed.write_bytes(
        gzip.compress("".join(f'{{"ID": {n}, "Rating": {1000 + n}}}\n' for n in range(0, 1000, 10)).encode())
    )
    said = []
    for path in (lines, packed):
        run("rating", "calibrate", path, "--problems", 20, "--solvers", 10)
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] != ""
    broken = tmp_path / "broken.gz"
    broken.write_bytes(packed.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"broken\.gz: cut short"):
        run("rating", "calibrate", broken)


@pytest.mark.parametrize("words", [("--population", "beta:-1,3"), ("--low", "9", "--high", "3")])
def test_a_simulation_that_cannot_be_prints_nothing_but_the_error(words, capsys):
    with pytest.raises(ValueError):
        run("plan", "simulate", *words)
    assert capsys.readouterr().out == ""


def test_what_should_be_a_list_is_called_one():
    with pytest.raises(RecipeError, match="valid list"):
        run("curate", "--config", ROOT / "configs" / "curation" / "mbpp.yaml", "sources=mbpp:x", "--dry-run")
