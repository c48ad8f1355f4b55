"""Evaluations from start to end: files of samples, kills, the command; the real judge."""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from endpoint_server import serving
from sums import PROBLEMS, asking, invoke, make_problem, own_suite, recipe_for, sample_rows, solver, write_rows

from data_curation import Solution, save_problems
from rlvr.commands.evaluate import summary
from rlvr.config import EvaluationRecipe, RecipeError
from rlvr.evaluation import read_results, read_samples
from rlvr.evaluation.evaluate import evaluate
from rlvr.evaluation.grade import Grading
from rlvr.evaluation.identity import identity_of
from rlvr.evaluation.journal import Journal
from rlvr.evaluation.problems import suite_problems
from rlvr.evaluation.samples import read_generations
from rlvr.models import ModelUnavailable


def test_a_folder_where_another_process_works_is_refused(tmp_path: Path) -> None:
    first = Journal(tmp_path / "graded.jsonl", {"suite": "a"})
    with pytest.raises(ValueError, match="another process is at work"):
        Journal(tmp_path / "graded.jsonl", {"suite": "a"})
    first.close()
    Journal(tmp_path / "graded.jsonl", {"suite": "b"}).close()  # a header alone holds no work to lose
    assert json.loads((tmp_path / "graded.jsonl").read_text()) == {"suite": "b"}
    spent = Journal(tmp_path / "graded.jsonl", {"suite": "b"})
    spent.append([{"seconds": 1.5}])
    spent.close()
    third = Journal(tmp_path / "graded.jsonl", {"suite": "c"})  # nor does the time of a try that made nothing
    third.append([{"a": 1}])
    third.close()
    with pytest.raises(ValueError, match='suite was "c", is "d"'):
        Journal(tmp_path / "graded.jsonl", {"suite": "d"})


# --- samples made elsewhere ---


@pytest.mark.parametrize("damage", [b"\0\0\0", b"\xff", b"7", b'{"a": '])
def test_a_damaged_line_of_a_journal_is_named(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "graded.jsonl"
    path.write_bytes(b'{"seed": 0}\n{"a": 1}\n' + damage + b'\n{"a": 2}\n')
    with pytest.raises(ValueError, match=r"graded.jsonl:3: damaged; delete this line, and what it held is made again"):
        Journal(path, {"seed": 0})
    path.write_bytes(b'{"seed": 0}\n{"a": 1}\n{"a": 2}\n')
    journal = Journal(path, {"seed": 0})
    assert journal.take() == [{"a": 1}, {"a": 2}]
    journal.close()


def test_a_file_of_samples_is_graded_only(sums_file: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "mine.jsonl", sample_rows())
    results = evaluate(recipe_for(sums_file, tmp_path / "out", samples=str(file)))
    metrics = results.results["sums"]
    assert metrics.pass_at[1].value == 0.5 and metrics.pass_at[2].value == 1.0
    assert metrics.truncation_rate == 0.5 and results.checkpoint == str(file)
    fewer = evaluate(recipe_for(sums_file, tmp_path / "fewer", samples=str(write_rows(file, sample_rows()[:-1]))))
    said = "\n".join(summary(fewer))
    assert re.search(r"avg@1 .* over 5 problems", said) and re.search(r"pass@2 .* over 4 problems", said)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem_id": "sum/77", "program": "x"}, r"mine\.jsonl:11: problem 'sum/77' is not in the suite"),
        ({"problem_id": "sum/1", "sample": 0, "program": "x"}, r":11: sample 0 of .* stands already in line 3"),
        ({"problem_id": "sum/1"}, r":11: neither 'completion' nor 'program'"),
        ({"program": "x"}, r":11: key 'problem_id' is missing"),
        ({"problem_id": "sum/1", "program": "x", "sample": "two"}, r":11: 'sample' must be a whole number"),
        ({"problem_id": "sum/1", "program": "x", "sample": 2, "greedy": "false"}, r":11: 'greedy' must be true or"),
        ({"problem_id": "sum/1", "program": "x", "sample": 2, "tokens": True}, r":11: 'tokens' must be a whole number"),
        ({"problem_id": "sum/1", "sample": 2, "program": 5}, r":11: 'program' must be text, got int"),
        ('{"problem_id": ' + "[" * 100_000, r":11: JSON that cannot be read \(maximum recursion"),
        ('{"problem_id": "sum/1", "tokens": ' + "9" * 5000 + "}", r":11: JSON that cannot be read \(Exceeds"),
    ],
)  # fmt: skip
def test_bad_samples_are_named_by_file_and_line(
    sums_file: Path, tmp_path: Path, change: dict[str, Any] | str, message: str
) -> None:
    file = write_rows(tmp_path / "mine.jsonl", [*sample_rows(), *([] if isinstance(change, str) else [change])])
    if isinstance(change, str):
        file.write_text(file.read_text() + change + "\n")
    with pytest.raises(RecipeError, match=message):
        evaluate(recipe_for(sums_file, tmp_path / "out", samples=str(file)))
    assert not (tmp_path / "out" / "results.json").exists()


def test_problems_are_found_by_the_names_they_are_published_under(tmp_path: Path) -> None:
    named = [("mbpp-11", "MBPP 11"), ("mbpp-12", "MBPP 12"), ("a/king", "King"), ("b/king", "King"), ("lc/two-sum", "")]
    problems = [make_problem(0, id=name, title=title) for name, title in named]
    rows = [{"task_id": name, "program": "x"} for name in (11, "Mbpp/11", "MBPP_12", "two sum", "lc/two-sum", "b/king")]
    file = write_rows(tmp_path / "samples.jsonl", rows)
    found = [f"{g.item.problem_id} {g.item.sample}" for g in read_generations(file, problems)]
    assert found == ["mbpp-11 0", "mbpp-11 1", "mbpp-12 0", "lc/two-sum 0", "lc/two-sum 1", "b/king 0"]
    write_rows(file, [*rows, {"task_id": "King", "program": "x"}])
    with pytest.raises(ValueError, match=r"samples.jsonl:7: 'King' may be any of 2 problems \(a/king, b/king\)"):
        read_generations(file, problems)


def test_bodies_of_functions_are_put_behind_the_code_of_their_problem(tmp_path: Path) -> None:
    header = 'def double(x):\n    """Twice x."""\n'
    problems = [make_problem(0, id="human/0", starter_code=header), make_problem(1, id="human/1", starter_code="")]
    texts = ["    return 2 * x\n", "\n    return x + x\n\ndef main():\n    pass", "def double(x):\n    return 2 * x",
             "  an indented thought\n```python\ndef double(x): return 2 * x\n```"]  # fmt: skip
    rows = [{"task_id": "human/0", "completion": text} for text in texts]
    file = write_rows(tmp_path / "s.jsonl", [*rows, {"task_id": "human/1", "completion": texts[0]}])
    programs = [generation.program for generation in read_generations(file, problems)]
    assert programs == [header + texts[0], header + texts[1], None, None, None]


def test_samples_without_a_code_block_are_said_to_be_of_another_format(
    sums_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"problem_id": "sum/0", "completion": "print(1)"}, {"problem_id": "sum/1", "completion": "print(1)"}]
    recipe = recipe_for(sums_file, tmp_path / "out", samples=str(write_rows(tmp_path / "s.jsonl", rows)))
    evaluate(recipe)
    assert "2 of 2 samples hold no program, which is what stands in a fenced code block" in caplog.text
    caplog.clear()
    evaluate(recipe.model_copy(update={"output_dir": str(tmp_path / "plain"),
                                       "prompt": recipe.prompt.model_copy(update={"style": "plain"})}))  # fmt: skip
    assert "hold no program" not in caplog.text
    assert {record.program for record in read_samples(tmp_path / "plain")} == {"print(1)"}


def test_verdicts_of_another_grader_are_not_mixed_and_can_be_made_anew(
    sums_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    file = write_rows(tmp_path / "mine.jsonl", sample_rows())
    recipe = recipe_for(sums_file, out, samples=str(file))
    evaluate(recipe)
    records = read_samples(out)
    (out / "results.json").unlink()
    header = {"data_fingerprint": "x", "grader": "another"}
    graded = out / "graded.jsonl"
    write_rows(graded, [header, *(json.loads(r.model_dump_json()) for r in records)])
    kept = graded.read_bytes()
    with pytest.raises(RecipeError, match='grader was "another"'):
        evaluate(recipe)
    assert graded.read_bytes() == kept
    assert evaluate(recipe, regrade=True).results["sums"].pass_at[2].value == 1.0
    with pytest.raises(RecipeError, match="the suite is fixed to"):
        evaluate(recipe.model_copy(update={"grader": "0.0", "output_dir": str(tmp_path / "fixed")}))


def test_files_of_odd_texts_are_graded_and_greedy_samples_alone_are_refused(sums_file: Path, tmp_path: Path) -> None:
    file = write_rows(tmp_path / "mine.jsonl", [*sample_rows(), {"problem_id": "sum/1", "completion": "\ud800"}])
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())  # a mark of the byte order, and half a surrogate pair
    evaluate(recipe_for(sums_file, tmp_path / "out", samples=str(file)))
    assert [r.completion for r in read_samples(tmp_path / "out") if r.sample == 2] == ["\N{REPLACEMENT CHARACTER}"]
    file = write_rows(tmp_path / "greedy.jsonl", [{"problem_id": "sum/1", "program": "x", "greedy": True}])
    with pytest.raises(RecipeError, match=r"greedy\.jsonl: all samples are marked greedy"):
        evaluate(recipe_for(sums_file, tmp_path / "greedy", samples=str(file)))


def test_finished_results_are_scored_and_checked_afresh_for_what_is_asked_now(
    sums_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    file = write_rows(tmp_path / "mine.jsonl", sample_rows())
    recipe = recipe_for(sums_file, out, samples=str(file))
    first = evaluate(recipe)
    assert set(first.results["sums"].pass_at) == {1, 2} and evaluate(recipe) == first
    fewer = recipe.model_copy(update={"sampling": recipe.sampling.model_copy(update={"k": [1]})})
    assert set(evaluate(fewer).results["sums"].pass_at) == {1}
    again = evaluate(recipe)
    assert again.results == first.results and (again.date, again.cost) == (first.date, first.cost)

    capsys.readouterr()
    evaluate(recipe.model_copy(update={"trained_on": [str(sums_file)], "data_cutoff": datetime.date(2030, 1, 1)}))
    said = capsys.readouterr().err
    assert (
        "WARNING: sums: 5 of 5 problems are in the training data" in said and "before the model's data cutoff" in said
    )
    contamination = read_results(out).config["contamination"]
    assert contamination["overlapping_problems"] == contamination["problems_before_cutoff"] == 5
    assert json.loads((out / "contamination.json").read_text())["overlapping_problems"] == 5


# --- kills ---


def test_judging_anew_goes_on_after_a_kill(sums_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with serving(solver) as (url, requests):
        recipe = recipe_for(sums_file, out, **asking(url))
        whole = evaluate(recipe)
        graded: list[int] = []
        original = Grading._add

        def killed(self: Any, *arguments: Any) -> None:
            if len(graded) == 6:
                raise KeyboardInterrupt
            graded.append(1)
            original(self, *arguments)

        monkeypatch.setattr(Grading, "_add", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate(recipe, regrade=True)
        assert not (out / "results.json").exists()
        counted: list[int] = []

        def counting(self: Any, *arguments: Any) -> None:
            counted.append(1)
            original(self, *arguments)

        monkeypatch.setattr(Grading, "_add", counting)
        again = evaluate(recipe, regrade=True)
    assert len(counted) == 15 - 6 and len(requests) == 15  # none graded twice, none asked for again
    assert again.results == whole.results and len(read_samples(out)) == 15


KILLED = """
import sys, time
from rlvr.config import EvaluationRecipe
from rlvr.evaluation import generate
from rlvr.evaluation.evaluate import evaluate
generate._MARK_EVERY_S = 0.1
evaluate(EvaluationRecipe.model_validate_json(sys.argv[1]))
"""


def test_a_killed_evaluation_continues_without_loss_or_duplicates(sums_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def slow(body: dict[str, Any], number: int) -> tuple[int, str]:
        time.sleep(0.3)
        return solver(body, number)

    with serving(slow) as (url, requests):
        recipe = recipe_for(sums_file, out, **asking(url, concurrency=1))
        command = [sys.executable, "-c", KILLED, recipe.model_dump_json()]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.time() + 120
        while len(requests) < 7 and time.time() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        before = len(requests)
        journal = (out / "generations.jsonl").read_text()
        answered = journal.count('"problem_id"')
        spent = [json.loads(line)["seconds"] for line in journal.splitlines() if '"seconds"' in line]
        assert 4 <= answered <= before and sum(spent) >= 0.3 * (answered - 1)
        with (out / "graded.jsonl").open("a") as file:
            file.write('{"problem_id": "sum/0", "samp')  # a line cut short
        results = evaluate(recipe)
        assert len(requests) - before == 15 - answered
    records = read_samples(out)
    assert len(records) == len({r.key for r in records}) == 15
    assert results.results["sums"].pass_at[1].value == pytest.approx(3 / 5)
    assert results.cost.generate_s > sum(spent)


def test_an_evaluation_killed_while_it_grades_grades_the_rest_only(sums_file: Path, tmp_path: Path) -> None:
    out, slow = tmp_path / "out", "import time\ntime.sleep(0.2)\n"
    rows = [{"problem_id": p.id, "program": slow + p.solutions[0].code} for p in PROBLEMS for _ in range(4)]
    recipe = recipe_for(sums_file, out, samples=str(write_rows(tmp_path / "mine.jsonl", rows)))
    process = subprocess.Popen([sys.executable, "-c", KILLED, recipe.model_dump_json()], stderr=subprocess.DEVNULL)
    journal, deadline = out / "graded.jsonl", time.time() + 120
    while not (journal.exists() and journal.read_text().count('"verdict"') >= 3) and time.time() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    header, *known = journal.read_text().splitlines(keepends=True)
    assert 3 <= len(known) < 20 and not (out / "results.json").exists()
    journal.write_text(header + "".join(row.replace('"message": ""', '"message": "as it was"') for row in known))
    results = evaluate(recipe)
    records = read_samples(out)
    assert len(records) == len({record.key for record in records}) == 20
    assert sum(record.message == "as it was" for record in records) == len(known)  # not judged again
    assert results.results["sums"].pass_at[1].value == 1.0


def test_a_local_model_gives_the_same_samples_after_a_kill(
    warm_model: Path, problems_file: Path, tmp_path: Path
) -> None:
    def recipe(out: str) -> EvaluationRecipe:
        return EvaluationRecipe.model_validate(
            {
                "suite": "pipelines",
                "output_dir": str(tmp_path / out),
                "model": {"name_or_path": str(warm_model)},
                "data": {"problems": str(problems_file), "limit": 6},
                "prompt": {"style": "plain"},
                "sampling": {"n": 3, "k": [1, 3], "max_completion_length": 24, "batch_size": 8},
                "judge": {"workers": 1},
            }
        )

    whole = evaluate(recipe("whole"))
    assert {r.finish_reason for r in read_samples(tmp_path / "whole")} <= {"stop", "length"}

    cut = tmp_path / "cut"
    evaluate(recipe("cut"))
    samples = read_samples(cut)
    for name in ("results.json", "samples.jsonl"):
        (cut / name).unlink()
    identity = identity_of(recipe("cut"), suite_problems(recipe("cut")), in_memory=False)
    rows = [
        {"problem_id": r.problem_id, "sample": r.sample, "greedy": r.greedy, "tokens": r.completion_tokens,
         "finish_reason": r.finish_reason, "completion": r.completion}
        for r in samples[:10]
    ]  # fmt: skip
    write_rows(cut / "generations.jsonl", [identity, *rows])
    with (cut / "generations.jsonl").open("a") as file:
        file.write('{"problem_id": "pi')
    resumed = evaluate(recipe("cut"))
    assert [r.completion for r in read_samples(cut)] == [r.completion for r in samples]
    assert resumed.results == whole.results


def test_weights_trained_on_under_the_same_path_are_another_evaluation(
    tiny_model: Path, problems_file: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "final"
    shutil.copytree(tiny_model, checkpoint)
    sampling = {"n": 1, "k": [1], "greedy": False, "max_completion_length": 4}
    recipe = recipe_for(
        problems_file, tmp_path / "out", model={"name_or_path": str(checkpoint)}, prompt={"style": "plain"},
        sampling=sampling, data={"problems": str(problems_file), "limit": 2},
    )  # fmt: skip
    first = evaluate(recipe)
    weights = checkpoint / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(RecipeError, match=r"results of another evaluation \(weights changed\)"):
        evaluate(recipe)
    shutil.rmtree(checkpoint)  # what is finished needs the model no more
    assert evaluate(recipe) == first and evaluate(recipe, regrade=True).results == first.results
    (tmp_path / "out" / "results.json").unlink()
    with pytest.raises(ModelUnavailable, match="no such folder"):
        evaluate(recipe)


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_more_samples_asked_for_than_drawn_is_one_line(sums_file: Path, tmp_path: Path, dry: tuple[str, ...]) -> None:
    suite = own_suite(tmp_path)
    answer = invoke(
        "--suite", suite, "--data", sums_file, "--model", "m", "--out", tmp_path / "e", "sampling.k=[1,2]", *dry
    )
    assert isinstance(answer.exception, RecipeError)
    (line,) = str(answer.exception).splitlines()
    assert "sampling.k: pass@2 needs sampling.n >= 2, and sampling.n is 1" in line
    assert not (tmp_path / "e").exists()


def test_the_command_grades_compares_and_lists(sums_file: Path, tmp_path: Path) -> None:
    suite = own_suite(tmp_path)
    good = write_rows(tmp_path / "good.jsonl", [r for r in sample_rows() if "completion" in r])
    bad = write_rows(tmp_path / "bad.jsonl", [{"problem_id": p.id, "program": "print(6)"} for p in PROBLEMS])
    for file in (good, bad):
        answer = invoke(
            "--suite", suite, "--data", sums_file, "--samples", file, "--out", tmp_path / "e", "judge.workers=1"
        )
        assert answer.exit_code == 0, (answer.output, answer.exception)
    assert "own: pass@1 0.000" in answer.output and "estimated rating" in answer.output
    results = [tmp_path / "e" / name / "own" for name in ("bad", "good")]
    assert read_results(results[1]).results["own"].pass_at[1].value == 1.0
    answer = invoke("compare", *results)
    assert "0.000 -> 1.000" in answer.output and "Holm" in answer.output
    assert invoke("compare", *(tmp_path / "e" / name for name in ("bad", "good"))).output == answer.output
    twice = str(invoke("compare", tmp_path / "e", results[0]).exception)
    assert "holds results of own more than once, in" in twice and str(results[1]) in twice
    assert invoke("compare", results[0]).exit_code == 2
    assert "drive-livecode-v6" in invoke("--list").output
    assert "say what to evaluate" in invoke("--suite", suite, "--data", sums_file).output
    assert invoke("--suite", suite, "--data", sums_file, "--model", "m", "--dry-run").output.startswith("suite: own")
    two = invoke("--suite", suite, "--data", sums_file, "--model", "m", "--references").output
    assert "one target at a time, got --references and --model" in two
    assert "needs the folder of a RUN" in invoke("--suite", suite, "--model", "m", "--all-checkpoints").output
    absent = invoke("--suite", suite, "--data", sums_file, "--model", "nowhere", "--out", tmp_path / "n")
    assert "model nowhere: no such folder" in str(absent.exception) and not (tmp_path / "n").exists()


def test_options_beside_a_recipe_replace_its_values_or_are_refused(sums_file: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    body = {"suite": "own", "output_dir": "here", "model": {"name_or_path": "m"}, "data": {"problems": str(sums_file)}}
    recipe.write_text(json.dumps(body))
    out = tmp_path / "there"
    answer = invoke(
        "--config", recipe, "--out", out, "--model", "other", "--engine", "vllm", "--trained-on", "builtin",
        "--data-cutoff", "2024-06-30", "seed=3", "--dry-run",
    )  # fmt: skip
    shown = yaml.safe_load(answer.output)
    assert shown["output_dir"] == str(out) and shown["model"]["name_or_path"] == "other"
    assert (shown["engine"], shown["trained_on"], shown["seed"]) == ("vllm", ["builtin"], 3)
    assert str(shown["data_cutoff"]) == "2024-06-30"
    refused = invoke("--config", recipe, "--samples", sums_file, "--suite", "mbpp", "--references")
    assert refused.exit_code == 2 and "leave out --suite, --samples, --references" in refused.output


def test_exit_codes_tell_bad_input_from_a_failure_on_the_way(sums_file: Path, tmp_path: Path) -> None:
    def ended(*arguments: Any) -> tuple[int, list[str]]:
        command = [sys.executable, "-m", "rlvr.cli", "evaluate", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        return done.returncode, done.stderr.strip().splitlines()

    suite = own_suite(tmp_path)
    code, lines = ended("compare", tmp_path / "a")
    assert code == 2 and lines[-1] == "rlvr: compare needs at least two results"
    code, lines = ended("--suite", suite, "--data", sums_file, "--references", "--out", sums_file)
    assert code == 2 and lines[-1] == f"rlvr: --out: {sums_file} is a file; name a folder"
    target = ("--endpoint", "http://127.0.0.1:9/v1", "--model", "m", "--out", tmp_path / "dead")
    code, lines = ended("--suite", suite, "--data", sums_file, *target, "endpoint.tries=1")
    assert code == 1 and lines[-1].startswith("rlvr: http://127.0.0.1:9/v1: ") and "ConnectError" in lines[-1]


def test_a_model_without_a_chat_template_is_told_so(tiny_model: Path, sums_file: Path, tmp_path: Path) -> None:
    chat = {"model": {"name_or_path": str(tiny_model)}, "prompt": {"style": "chat"}}
    with pytest.raises(RecipeError, match=r"tokenizer has no chat template: prompt\.style=plain"):
        evaluate(recipe_for(sums_file, tmp_path / "out", **chat))


def test_references_are_graded_like_any_sample_and_failing_ones_are_named(sums_file: Path, tmp_path: Path) -> None:
    broken = PROBLEMS[2].model_copy(update={"solutions": [Solution(code="print(3)")]})
    without = PROBLEMS[4].model_copy(update={"solutions": [Solution(code="print(3)", verdict="wrong_answer")]})
    save_problems([*PROBLEMS[:2], broken, without], sums_file)
    arguments = ("--suite", own_suite(tmp_path), "--data", sums_file, "--references", "--out", tmp_path / "e")
    answer = invoke(*arguments, "judge.workers=1")
    assert answer.exit_code == 0, (answer.output, answer.exception)
    assert "own: 2 of 3 references pass" in answer.output and "sum/2: WA" in answer.output
    (left_out,) = [line for line in answer.output.splitlines() if "no reference" in line]
    assert "sum/4" in left_out
    assert read_results(tmp_path / "e" / "references" / "own").checkpoint == "references"
    save_problems([without], sums_file)
    answer = invoke(*arguments[:-1], tmp_path / "f", "judge.workers=1")
    assert isinstance(answer.exception, RecipeError)
    assert "none of the 1 problems has a reference solution in python" in str(answer.exception)


def test_all_checkpoints_of_a_run_are_evaluated(warm_model: Path, problems_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    for name in ("checkpoint-2", "checkpoint-10", "final"):
        (run / name).symlink_to(warm_model)
    path = tmp_path / "p.yaml"
    path.write_text(json.dumps({
        "suite": "p", "description": "d", "prompt": {"style": "plain"},
        "data": {"problems": str(problems_file), "limit": 2},
        "sampling": {"n": 1, "k": [1], "greedy": False, "max_completion_length": 16},
    }))  # fmt: skip
    answer = invoke(run, "--all-checkpoints", "--suite", path, "judge.workers=1")
    assert answer.exit_code == 0, (answer.output, answer.exception)
    assert sorted(p.parent.parent.name for p in run.glob("evaluation/*/p/results.json")) == [
        "checkpoint-10", "checkpoint-2", "final"
    ]  # fmt: skip


def test_what_others_publish_is_printed_beside(sums_file: Path, tmp_path: Path) -> None:
    suite = own_suite(tmp_path)
    suite.write_text(json.dumps(json.loads(suite.read_text()) | {"published": {"Their model": {"pass@1": 0.25}}}))
    file = write_rows(tmp_path / "mine.jsonl", sample_rows())
    answer = invoke(
        "--suite", suite, "--data", sums_file, "--samples", file, "--out", tmp_path / "e", "judge.workers=1"
    )
    assert "own: published, with their own prompts, sampling and judges: Their model pass@1 0.250" in answer.output
