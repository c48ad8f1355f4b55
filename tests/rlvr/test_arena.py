"""Arena learning through the command line: folds, predictions, and what SFT is then taught."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from data_curation import Problem, Solution, load_problems
from data_curation.arena import Arena
from data_curation.storage import save_problems
from rlvr.cli import cli
from rlvr.config import RecipeError
from rlvr.config.sections import PromptSection
from rlvr.config.sft import ArenaSection
from rlvr.training.demonstrations import load_demonstrations

PLAIN = PromptSection(style="plain", template="{statement}\n# program\n")


def run(*arguments: object) -> str:
    found = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    if found.exception and not isinstance(found.exception, SystemExit):
        raise found.exception
    assert found.exit_code == 0, found.output
    return found.output


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "train.parquet"
    made = [
        Problem(id=f"p{n}", statement=f"Print {n}.", family=f"f{n // 2}", solutions=[Solution(code=f"print({n})")])
        for n in range(20)
    ]
    save_problems(made, path)
    return path


def played(problems: Path, books: Path) -> dict[str, bool]:
    """Every third problem is failed; the whole arena is played with the verbs. Returns what was predicted."""
    predicted = {}
    run("arena", "new", problems, "--folds", 4, "--out", books)
    for _ in range(3):
        fold = books.with_name("fold.parquet")
        run("arena", "next", books, "--problems", problems, "--out", fold)
        passed = {p.id: int(p.id[1:]) % 3 != 0 for p in load_problems(fold)}
        rows = [{"problem_id": name, "sample": 0, "verdict": "AC" if ok else "WA"} for name, ok in passed.items()]
        rows.append({"problem_id": rows[0]["problem_id"], "sample": 1, "verdict": "IE"})
        samples = books.with_name("samples.jsonl")
        samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
        run("arena", "record", books, "--samples", samples)
        predicted |= passed
    return predicted


def test_sft_is_taught_the_first_fold_once_and_every_failure_twice(tmp_path, problems):
    books = tmp_path / "arena.json"
    predicted = played(problems, books)
    arena = Arena.load(books)
    assert set(predicted) | set(arena.folds[0]) == {f"p{n}" for n in range(20)}
    failed = {name for name, ok in predicted.items() if not ok}
    taught = load_demonstrations(str(problems), None, PLAIN, ArenaSection(books=str(books)))["completion"]
    times = {name: taught.count(f"print({name[1:]})") for name in (f"p{n}" for n in range(20))}
    assert times == {name: 2 if name in failed else int(name in arena.folds[0]) for name in times}
    assert set(taught[-len(failed) :]) == {f"print({name[1:]})" for name in failed}  # copies behind the first pass
    only_hard = ArenaSection(books=str(books), keep_first=False, hard_repeat=1)
    assert len(load_demonstrations(str(problems), None, PLAIN, only_hard)) == len(failed)
    last = load_demonstrations(str(problems), None, PLAIN, ArenaSection(books=str(books), teach="training_ids"))
    assert {f"p{code[6:-1]}" for code in last["completion"]} == set(arena.kept[-1])


def test_the_sft_verb_trains_on_what_the_books_select(tmp_path, tiny_model, demonstrations):
    rows, books, recipe = tmp_path / "sft.jsonl", tmp_path / "arena.json", tmp_path / "sft.yaml"
    rows.write_text("".join(json.dumps(row) + "\n" for row in demonstrations[:40]))
    ids = list(dict.fromkeys(row["problem_id"] for row in demonstrations[:40]))
    Arena([ids[:10], ids[10:]], [ids[:10], ids[10:15]]).save(books)
    recipe.write_text(f"name: arena\ndata: {rows}\nmodel: {{name_or_path: {tiny_model}}}\n")
    options = ["sft.max_steps=1", "sft.max_length=96", f"output_dir={tmp_path / 'run'}", f"arena.books={books}"]
    run("sft", "--config", recipe, *options)
    counts = {name: sum(row["problem_id"] == name for row in demonstrations[:40]) for name in ids}
    expected = sum(counts[name] for name in ids[:10]) + 2 * sum(counts[name] for name in ids[10:15])
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["demonstrations"] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["arena", "new", "{problems}", "--folds", "30", "--out", "{new}"], "10 families cannot be cut into 30 folds"),
        (["arena", "new", "{problems}", "--out", "{books}"], "is there already"),
        (["arena", "show", "{problems}"], "not the books of an arena"),
        (["arena", "show", "{new}"], "no such file; `rlvr arena new` makes one"),
        (["arena", "next", "{books}", "--problems", "builtin:contest", "--out", "{new}"], "lacks"),
        (["arena", "record", "{books}", "--samples", "{new}"], "no such file of samples"),
        (["arena", "record", "{books}", "--samples", "{one}"], "problems of fold 2 of 4 have no result"),
        (["arena", "record", "{books}", "--samples", "{bad}"], "row 1: `verdict`: unknown 'OK'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(tmp_path, problems, arguments, message):
    names = {name: tmp_path / name for name in ("books", "new", "one", "bad")}
    Arena.of({f"p{n}": f"f{n // 2}" for n in range(20)}, 4).save(names["books"])
    names["one"].write_text('{"problem_id": "none", "verdict": "AC"}\n')
    names["bad"].write_text('{"problem_id": "p1", "verdict": "OK"}\n')
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        run(*[argument.format(problems=problems, **names) for argument in arguments])
    assert "\n" not in str(caught.value) and not names["new"].exists()


def test_files_that_hold_no_demonstrations_are_named_with_their_row(tmp_path):
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and no more")
    with pytest.raises(RecipeError, match=r"broken\.parquet: not a parquet file \("):
        load_demonstrations(str(broken), None, PromptSection())
    numbers = tmp_path / "numbers.jsonl"
    numbers.write_text('{"prompt": "p", "completion": "c"}\n{"prompt": 3, "completion": "c"}\n')
    with pytest.raises(RecipeError, match=r"row 2: column 'prompt' is a text or a list of messages \(got 3\)"):
        load_demonstrations(str(numbers), None, PromptSection())


def test_demonstrations_without_problem_ids_cannot_be_selected(tmp_path):
    rows, books = tmp_path / "sft.jsonl", tmp_path / "arena.json"
    rows.write_text('{"prompt": "a", "completion": "b"}\n')
    Arena([["x"], ["y"]], [["x"]]).save(books)
    with pytest.raises(RecipeError, match="row 1: column 'problem_id' is missing"):
        load_demonstrations(str(rows), None, PLAIN, ArenaSection(books=str(books)))
    rows.write_text('{"prompt": "a", "completion": "b", "problem_id": "z"}\n')
    with pytest.raises(RecipeError, match=r"none of the 1 problems that .* selects .hard_ids. has a demonstration"):
        load_demonstrations(str(rows), None, PLAIN, ArenaSection(books=str(books)))
