"""Problem packages as a source of curation."""

from __future__ import annotations

from pathlib import Path

import pytest
from problem_packages import all_packages, guessing, split_number, two_piles, write

from data_curation import load_problems
from data_curation.schema import Subtask
from data_curation.sources import RejectedRows, RowError, local_files
from data_curation.sources.kattis import plain_text
from sandbox import checkers


def test_packages_become_problems(tmp_path: Path) -> None:
    all_packages(tmp_path)
    rejected = RejectedRows()
    problems = {problem.id: problem for problem in load_problems(f"kattis:{tmp_path}", rejected=rejected)}
    assert set(problems) == {"splitnumber", "twopiles"}
    assert len(rejected) == 2 and "no statement" in str(rejected) and "checked in different ways" in str(rejected)
    piles = problems["twopiles"]
    assert (piles.title, piles.source, piles.license) == ("Piles: Two of Them", "Autumn Contest", "cc by-sa")
    assert (piles.memory_mb, piles.cpu_s, piles.checker) == (512, 5.0, "kattis_default")
    assert [(test.sample, test.group) for test in piles.tests][:2] == [(True, "sample"), (False, "secret")]
    verdicts = [solution.verdict for solution in piles.solutions]
    assert verdicts.count("accepted") == 2 and verdicts.count("wrong_answer") == 2 and len(verdicts) == 7
    assert piles.statement.startswith("How many stones lie in two piles of $a$ and $b$ stones?")
    assert "- $0 <= a, b <= 10^9$" in piles.statement and piles.statement.endswith("Sample Output 1\n3")
    assert "easy" not in piles.statement and "\\" not in piles.statement


def test_a_validator_and_an_interactor_travel_with_the_problem(tmp_path: Path) -> None:
    split_number(tmp_path)
    (problem,) = load_problems(f"kattis:{tmp_path}")
    assert problem.cpu_s == 2.0 and problem.tags == ["math", "easy"] and problem.title == "Split a Number"
    referee = checkers.find(problem.checker).referee
    assert referee is not None and referee.protocol == "kattis" and referee.flags == ("different",)
    assert len(problem.tests) == 2, "the sample is checked without the argument: shown, not judged"
    write(guessing(tmp_path / "other"), {"problem_statement/problem.tex": "Guess the number."})
    (problem,) = load_problems(f"kattis:{tmp_path / 'other'}")
    assert problem.interactor.startswith("kattis:") and problem.checker == "tokens"
    assert problem.statement == "Guess the number."


def test_groups_worth_points_become_subtasks(tmp_path: Path) -> None:
    folder = two_piles(tmp_path)
    write(
        folder,
        {
            "problem.yaml": "name: Piles\ntype: scoring\n",
            "data/secret/group/testdata.yaml": "range: 0 40\n",
            "data/secret/more/testdata.yaml": "accept_score: 60\n",
            "data/secret/more/1.in": "5 5\n",
            "data/secret/more/1.ans": "10\n",
        },
    )
    (problem,) = load_problems(f"kattis:{tmp_path}")
    assert problem.subtasks == [Subtask(name="secret/group", points=40), Subtask(name="secret/more", points=60)]
    assert {test.group for test in problem.tests} >= {"secret/group", "secret/more"}


def test_a_bad_package_is_named_by_its_file(tmp_path: Path) -> None:
    write(two_piles(tmp_path), {"problem.yaml": "limits: {memory: none}\n"})
    with pytest.raises(RowError, match=r"problem\.yaml: `memory`: expected a number above 0"):
        load_problems(f"kattis:{tmp_path}")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_problems(f"kattis:{tmp_path / 'nothing'}")
    assert tmp_path / "twopiles/problem.yaml" in local_files(f"kattis:{tmp_path}")


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"\problemname{A {B}} Text \textbf{bold}~here\\next", "Text bold here\nnext"),
        (
            r"\section*{Input}" + "\nOne $\\leq$ two, 100\\% of \\texttt{x\\_y} % gone",
            "Input\n\nOne $<=$ two, 100% of x_y",
        ),
        (r"\illustration{0.3}{a.png}{Cap}``quoted'' --- $a \cdot b$", '"quoted" - $a * b$'),
        ("\\begin{itemize}\n\\item one\n\\item two\n\\end{itemize}", "- one\n- two"),
        ("\\begin{Output}\nYes.\n\\end{Output}", "Output\n\nYes."),
    ],
)
def test_statements_in_latex_become_text(latex: str, text: str) -> None:
    assert plain_text(latex) == text
