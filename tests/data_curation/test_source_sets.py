"""APPS, TACO, CodeContests, Codeforces, verifiable problems, DeepCoder, Skywork, Code Jam: rows and their traps."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from published import published

import sandbox
from data_curation import Problem, RejectedRows, RowError, load_problems
from data_curation.sources import code_contests
from data_curation.sources.codeforces import read_submissions

ADD = "a, b = map(int, input().split())\nprint(a + b)\n"
APPS = {
    "problem_id": 7,
    "question": "Add two numbers.",
    "solutions": json.dumps([ADD]),
    "input_output": json.dumps({"inputs": ["1 2\n", ["3 4"]], "outputs": ["3\n", ["7"]]}),
    "difficulty": "interview",
    "url": "",
    "starter_code": "",
}
TACO = {
    **{key: APPS[key] for key in ("question", "solutions", "input_output", "starter_code")},
    "difficulty": "VERY_HARD",
    "raw_tags": "['math']",
    "name": "Sum",
    "source": "codeforces",
    "tags": "['Mathematics', 'Number theory']",
    "skill_types": "['Sorting']",
    "url": None,
    "Expected Auxiliary Space": "O(1)",
    "time_limit": "2.5 seconds",
    "date": "2008-02-03",
    "picture_num": "1",
    "memory_limit": "64.0 megabytes",
    "Expected Time Complexity": None,
}


def write(tmp_path: Path, *rows: dict, name: str = "rows.jsonl") -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def load(tmp_path: Path, *rows: dict, name: str = "rows.jsonl", options: str = "") -> list[Problem]:
    return load_problems(f"{write(tmp_path, *rows, name=name)}{options}")


def verdicts(problem: Problem, *programs: str) -> list[bool]:
    with sandbox.Judge(workers=1) as judge:
        return [found.accepted for found in judge.judge_batch([problem.submission(program) for program in programs])]


def test_apps_rows_hold_json_in_strings_and_lists_of_lines(tmp_path):
    (problem,) = load(tmp_path, APPS)
    assert problem.id == "apps/7" and problem.difficulty == "interview" and problem.license == "MIT"
    assert [(test.input, test.output) for test in problem.tests] == [("1 2\n", "3\n"), ("3 4\n", "7\n")]
    assert verdicts(problem, problem.solutions[0].code, "print(3)") == [True, False]


def test_calls_of_apps_have_wrapped_outputs_and_functions_or_methods(tmp_path):
    pairs = {"fn_name": "add", "inputs": [[1, 2], [[3], [4]]], "outputs": [[3], [[3, 4]]]}
    code = "class Solution:\n    def add(self, a, b):\n        return a + b\n"
    row = {**APPS, "input_output": json.dumps(pairs), "solutions": json.dumps([code])}
    (problem,) = load(tmp_path, row)
    assert [test.output for test in problem.tests] == ["3", "[3, 4]"]
    assert problem.starter_code.startswith("class Solution:\n    def add(self, a, b):")
    assert verdicts(problem, code, "def add(a, b): return a + b", "def add(a, b): return 3") == [True, True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_output": ""}, "no tests: `input_output` is empty"),
        ({"input_output": '{"inputs": [], "outputs": []}'}, "no tests: `input_output` has no inputs"),
        ({"input_output": '{"inputs": ["1"], "outputs": []}'}, "`input_output` has 1 inputs and 0 outputs"),
        ({"input_output": "{inputs}"}, "`input_output` is not JSON"),
        ({"question": " "}, "`question` is empty"),
        ({"solutions": "[1"}, "`solutions` is neither a Python literal nor JSON"),
    ],
)
def test_an_unusable_row_names_its_column_and_the_others_are_read(tmp_path, change, message):
    rejected = RejectedRows()
    path = write(tmp_path, APPS, {**APPS, **change}, APPS)
    assert len(load_problems(path, rejected=rejected)) == 2
    assert [error.row for error in rejected] == [2] and message in str(rejected)


def test_empty_solutions_and_huge_integers_are_no_obstacle(tmp_path):
    digits = "9" * 5000
    pairs = f'{{"fn_name": "same", "inputs": [[{digits}]], "outputs": [[{digits}]]}}'
    (problem,) = load(tmp_path, {**APPS, "solutions": "", "input_output": pairs})
    assert problem.solutions == [] and problem.tests[0].output == digits
    assert verdicts(problem, "def same(n): return n", "def same(n): return n + 1") == [True, False]


def test_taco_adds_limits_topics_and_names_with_spaces(tmp_path):
    unlabelled = {**TACO, "difficulty": "UNKNOWN_DIFFICULTY", "time_limit": None, "memory_limit": None, "date": None}
    problem, bare = load(tmp_path, TACO, unlabelled)
    assert (problem.cpu_s, problem.memory_mb, str(problem.date)) == (2.5, 64, "2008-02-03")
    assert problem.title == "Sum" and problem.difficulty == "very_hard"
    assert {"Mathematics", "Number theory", "skill:Sorting", "platform:codeforces", "pictures"} <= set(problem.tags)
    assert "expected auxiliary space:O(1)" in problem.tags
    assert (bare.difficulty, bare.cpu_s, bare.memory_mb, bare.date) == ("", 2.0, 256, None)


CODE_CONTESTS = {
    "name": "1575_A. Sum",
    "description": "Add two numbers. YES",
    "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
    "private_tests": {"input": ["1 2\n", "3 4\n"], "output": ["3\n", "7\n"]},
    "generated_tests": {"input": ["5 6\n"], "output": ["11\n"]},
    "source": 2,
    "difficulty": 7,
    "solutions": {"language": [1, 3, 2, 3], "solution": ["print 1", ADD, "int main() {}", ADD]},
    "incorrect_solutions": {"language": [3], "solution": ["print(3)"]},
    "cf_contest_id": 1575,
    "cf_index": "A",
    "cf_points": 0.0,
    "cf_rating": 1100,
    "cf_tags": ["math", ""],
    "is_description_translated": False,
    "untranslated_description": "",
    "time_limit": {"seconds": 1, "nanos": 500_000_000},
    "memory_limit_bytes": 256_000_000,
    "input_file": "",
    "output_file": "",
}


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_code_contests_is_columnar_and_numbered(tmp_path, name):
    (problem,) = load(tmp_path, CODE_CONTESTS, name=name)
    assert [(test.input, test.sample) for test in problem.tests] == [
        ("1 2\n", True),
        ("3 4\n", False),
        ("5 6\n", False),
    ]
    assert (problem.cpu_s, problem.memory_mb, problem.rating, problem.difficulty) == (1.5, 256, 1100.0, "a")
    assert problem.tags == ["platform:codeforces", "math"] and problem.url.endswith("/1575/A")
    assert {(s.language, s.verdict) for s in problem.solutions} == {
        ("python", "accepted"),
        ("cpp", "accepted"),
        ("python", "rejected"),
    }


def test_zero_and_null_mean_none_in_code_contests(tmp_path):
    row = {**CODE_CONTESTS, "time_limit": None, "memory_limit_bytes": 0, "cf_rating": 0, "difficulty": 0, "source": 0}
    (problem,) = load(tmp_path, row)
    assert (problem.cpu_s, problem.memory_mb, problem.rating, problem.difficulty) == (2.0, 256, None, "")


def test_file_names_are_kept_and_the_judge_uses_them(tmp_path):
    (problem,) = load(tmp_path, {**CODE_CONTESTS, "input_file": "sum.in", "output_file": "sum.out"})
    program = "a, b = map(int, open('sum.in').read().split())\nopen('sum.out', 'w').write(str(a + b))\n"
    assert (problem.input_file, problem.output_file) == ("sum.in", "sum.out")
    assert verdicts(problem, program) == [True]


def test_of_thousands_of_solutions_a_mix_is_kept(tmp_path):
    programs = [f"{ADD}#{n}" for n in range(100)]
    row = {**CODE_CONTESTS, "solutions": {"language": [3] * 99 + [2], "solution": programs}}
    (problem,) = load(tmp_path, row)
    accepted = [solution for solution in problem.solutions if solution.verdict == "accepted"]
    assert len(accepted) == code_contests.ACCEPTED and sum(solution.language == "cpp" for solution in accepted) == 1


def test_code_contests_plus_brings_checkers_and_measured_rates(tmp_path):
    row = {
        "id": 12,
        "title": "Sum",
        "description": "Add.",
        "time_limit": 1500,
        "memory_limit": 256,
        "validator": "int main() {}",
        "generator": "int main() {}",
        "checker": 'setName("compare two doubles, maximal absolute or relative error = %.10f", EPS); EPS = 1E-4;',
        "test_cases": [{"input": "1 2\n", "output": "3\n"}],
        "correct_submissions": [{"code": ADD, "language": "py3"}],
        "true_positive_rate": 0.9,
    }
    (problem,) = load(tmp_path, row)
    assert (problem.id, problem.cpu_s, problem.checker) == ("code_contests_plus/12", 1.5, "floats:1E-4")
    assert "true_positive_rate:0.900" in problem.tags and problem.solutions[0].language == "python"
    with pytest.raises(RowError, match="read one of ccplus_1x"):
        load(tmp_path, {**row, "test_cases": []})


@pytest.mark.parametrize(
    ("source", "checker"),
    [
        ('setName("compare sequences of tokens");', "tokens"),
        ('setName("compare two signed huge integers");', "tokens"),
        ('setName("YES or NO (case insensitive)");', "yes_no"),
        ('setName("check the path"); // its own', 'testlib:setName("check the path"); // its own'),
        ("", ""),
    ],
)
def test_standard_testlib_checkers_become_ours(source, checker):
    assert code_contests.testlib_checker(source) == checker


CODEFORCES = {
    "id": "12/A",
    "aliases": None,
    "contest_id": "12",
    "index": "A",
    "title": "Split",
    "description": "Split n into two numbers.",
    "input_format": "One number n.",
    "output_format": "Two numbers.",
    "interaction_format": None,
    "note": None,
    "examples": [{"input": "5\n", "output": "2 3\n"}],
    "time_limit": 1.0,
    "memory_limit": 64.0,
    "contest_start": 1_300_000_000,
    "rating": 800,
    "tags": ["math"],
    "official_tests": [{"input": "5", "output": "2 3"}, {"input": "9", "output": "4 5"}],
    "official_tests_complete": True,
    "input_mode": "stdio",
    "generated_checker": None,
    "executable": True,
    "generated_tests": 0,
}
CHECKER = """
import sys
n = int(open(sys.argv[1]).read())
a, b = map(int, open(sys.argv[3]).read().split())
print(1 if a + b == n else 0)
"""


def test_a_codeforces_statement_is_put_together_and_examples_are_samples(tmp_path):
    (problem,) = load(tmp_path, CODEFORCES)
    assert "## Input\n\nOne number n." in problem.statement and "```\n2 3\n```" in problem.statement
    assert [test.sample for test in problem.tests] == [True, False]
    assert (problem.rating, problem.memory_mb, str(problem.date)) == (800.0, 64, "2011-03-13")


def test_a_generated_checker_accepts_other_right_answers_and_no_wrong_or_malformed_ones(tmp_path):
    (problem,) = load(tmp_path, {**CODEFORCES, "generated_checker": CHECKER})
    right, other = "n = int(input())\nprint(n // 2, n - n // 2)", "print(0, input())"
    assert verdicts(problem, right, other, "print(1, 1)", "print('many')", "print(9)") == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_generated_checker_with_a_main_guard_exit_and_fractions(tmp_path):
    guarded = "if __name__ == '__main__':\n    print(1.0 if a + b == n else 0.5)\n    sys.exit(0)"
    scored = CHECKER.replace("print(1 if a + b == n else 0)", guarded)
    (problem,) = load(tmp_path, {**CODEFORCES, "generated_checker": scored})
    assert verdicts(problem, "print(0, input())", "print(1, 1)") == [True, False]


def test_a_checker_that_is_no_python_is_refused_with_its_row(tmp_path):
    with pytest.raises(RowError, match="row 1: `generated_checker` is no Python"):
        load(tmp_path, {**CODEFORCES, "generated_checker": "int main() {}"})


def test_generated_tests_are_read_from_the_file_of_their_contest(tmp_path):
    write(tmp_path, {**CODEFORCES, "generated_tests": 3}, {**CODEFORCES, "id": "12/B"}, name="data/train-0.parquet")
    write(
        tmp_path,
        *({"problem_id": "12/A", "input": f"{n}\n", "output": f"0 {n}\n", "test_i": 100 - n} for n in (20, 30, 40)),
        {"problem_id": "12/Z", "input": "1", "output": "1", "test_i": 0},
        name="generated_tests/test_cases_0012.parquet",
    )
    first, second = load_problems(f"codeforces:{tmp_path}")
    assert [test.input for test in first.tests] == ["5", "9", "40\n", "30\n", "20\n"] and len(second.tests) == 2
    (limited, _) = load_problems(f"codeforces:{tmp_path}?generated=1")
    assert [test.input for test in limited.tests] == ["5", "9", "40\n"]
    elsewhere = load_problems(f"codeforces:{tmp_path / 'data/train-0.parquet'}?tests={tmp_path / 'generated_tests'}")
    assert elsewhere[0] == first


def test_missing_generated_tests_and_incomplete_official_ones_are_marked(tmp_path):
    row = {**CODEFORCES, "official_tests_complete": False, "generated_tests": 5}
    write(tmp_path, row, name="data/train.jsonl")
    (problem,) = load_problems(f"codeforces:{tmp_path}")
    assert {"official tests incomplete", "generated tests are missing"} <= set(problem.tags)
    with pytest.raises(RowError, match="no tests: none official, and none generated"):
        write(tmp_path, {**row, "official_tests": [], "examples": []}, name="data/train.jsonl")
        load_problems(f"codeforces:{tmp_path}")


def test_interaction_and_file_mode_are_said(tmp_path):
    talk, file = load(tmp_path, {**CODEFORCES, "interaction_format": "Ask."}, {**CODEFORCES, "input_mode": "file"})
    assert "interactive" in talk.tags and "## Interaction\n\nAsk." in talk.statement
    assert (file.input_file, file.output_file) == ("input.txt", "output.txt")


def test_labelled_submissions_are_read_for_the_problems_asked_for(tmp_path):
    row = {"submission_id": 1, "problem_id": "12/A", "programmingLanguage": "PyPy 3", "verdict": "OK", "source": ADD}
    path = write(
        tmp_path,
        row,
        {**row, "verdict": "WRONG_ANSWER", "source": "print(1)", "programmingLanguage": "GNU C++17"},
        {**row, "verdict": "COMPILATION_ERROR", "source": "("},
        {**row, "problem_id": "13/A"},
    )
    (found,) = read_submissions(str(path), {"12/A"}).values()
    assert [(s.language, s.verdict) for s in found] == [("python", "accepted"), ("cpp", "wrong_answer")]
    for name in ("problems/train.jsonl", "problems/train.parquet"):
        problems = write(tmp_path, CODEFORCES, {**CODEFORCES, "id": "12/B"}, name=name)
        first, second = load_problems(f"codeforces:{problems}?submissions={path}")
        assert first.solutions == found and second.solutions == []


VERIFIABLE = {
    "source": "code_contests",
    "task_type": "verifiable_code",
    "in_source_id": "x",
    "prompt": "Solve the following coding problem using the programming language python:\n\nAdd two numbers.\n\n"
    "The input will be stdin and you should print your solution to stdout\n\n\n"
    "Now solve the problem and return the code.",
    "gold_standard_solution": f"```python\n{ADD}```",
    "problem_id": "vcp_1",
    "verification_info": str(
        {"language": "python", "test_cases": [{"type": "stdin_stdout", "input": "1 2\n", "output": "3\n"}]}
    ),
    "metadata": str(
        {"difficulty": None, "memory_limit_bytes": 64_000_000, "time_limit": str({"seconds": 1, "nanos": 0})}
    ),
}


def test_verifiable_rows_hold_python_literals_and_a_framed_statement(tmp_path):
    (problem,) = load(tmp_path, VERIFIABLE)
    assert problem.statement == "Add two numbers."
    assert (problem.cpu_s, problem.memory_mb, problem.languages) == (1.0, 64, ["python"])
    assert problem.tags == ["from:code_contests:x"] and problem.solutions[0].code == ADD


def test_the_structured_variant_gives_the_same_problem(tmp_path):
    info = {
        "language": "python",
        "test_cases": [{"type": "stdin_stdout", "input": "1 2\n", "output": "3\n", "fn_name": None}],
    }
    plain, structured = load(tmp_path, VERIFIABLE, {**VERIFIABLE, "verification_info": info})
    assert plain == structured
    (from_parquet,) = load(tmp_path, {**VERIFIABLE, "verification_info": info}, name="rows.parquet")
    assert from_parquet == plain


def test_function_calls_of_verifiable_rows(tmp_path):
    cases = [{"type": "function_call", "fn_name": "add", "input": "[1, 2]\n3", "output": [[1, 2, 3]]}]
    info = str({"language": "python", "test_cases": cases})
    code = "def add(values, last):\n    return values + [last]\n"
    (problem,) = load(tmp_path, {**VERIFIABLE, "verification_info": info, "gold_standard_solution": code})
    assert problem.starter_code == "def add(values, last):\n"
    assert verdicts(problem, code, "def add(values, last): return values") == [True, False]


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ("__import__('os').system('true')", "neither a Python literal nor JSON"),
        (str({"language": "python", "test_cases": []}), "no tests"),
        (str({"test_cases": [{"type": "guess", "input": "", "output": ""}]}), "unknown kind 'guess'"),
        (
            str({"test_cases": [{"type": "function_call", "input": "1", "output": "1"}]}),
            "without the name of a function",
        ),
    ],
)
def test_verification_that_cannot_be_used_is_refused(tmp_path, info, message):
    with pytest.raises(RowError, match=message):
        load(tmp_path, {**VERIFIABLE, "verification_info": info})


CASE = {"input": "1 2\n", "output": "3\n"}
DEEPCODER_SHAPES = [
    {"inputs": ["1 2\n"], "outputs": ["3\n"]},
    [{**CASE, "type": "stdin_stdout"}],
    [{**CASE, "testtype": "stdin", "metadata": {"func_name": None}}],
    {**CASE, "testtype": "stdin"},
]


@pytest.mark.parametrize("shape", DEEPCODER_SHAPES)
def test_the_four_shapes_of_deepcoder_are_one_problem(tmp_path, shape):
    row = {"problem": "Add two numbers.", "tests": json.dumps(shape), "solutions": [f"```python\n{ADD}```"]}
    (problem,) = load(tmp_path, row)
    assert [(test.input, test.output) for test in problem.tests] == [("1 2\n", "3\n")]
    assert verdicts(problem, problem.solutions[0].code) == [True]


@pytest.mark.parametrize(
    ("tests", "metadata"),
    [
        ([{"input": "[1]\n2", "output": "[1, 2]", "testtype": "functional"}], {"func_name": "join"}),
        ([{"input": "[1]\n2", "output": "[1, 2]", "testtype": "functional", "metadata": {"func_name": "join"}}], None),
        ([{"input": [[1], 2], "output": [[1, 2]], "type": "function_call", "fn_name": "join"}], None),
        ({"inputs": [[[1], 2]], "outputs": [[[1, 2]]], "fn_name": "join"}, None),
    ],
)
def test_functions_of_deepcoder_are_named_in_four_places(tmp_path, tests, metadata):
    (problem,) = load(tmp_path, {"problem": "Join.", "tests": json.dumps(tests), "metadata": metadata})
    assert problem.tests[0].output == "[1, 2]"
    assert verdicts(problem, "def join(values, last): return values + [last]", "def join(a, b): return a") == [
        True,
        False,
    ]


def skywork(truth: dict) -> dict:
    return {
        "data_source": "train-code-taco",
        "prompt": [
            {"role": "user", "content": "Do it.\n```python\nclass Solution:\n    def f(self, a):\n        \n```"}
        ],
        "ability": "code",
        "reward_model": {"style": "rule", "ground_truth": json.dumps(truth)},
        "extra_info": {"index": 3, "model_difficulty": {"7B": 8, "32B": None}},
    }


@pytest.mark.parametrize(
    "truth",
    [
        {"inputs": [[1], [2]], "outputs": [[2], [3]], "fn_name": "f"},
        {
            "import_prefix": "from typing import *\n",
            "test_code": "def check(candidate):\n    assert candidate(a = 1) == 2\n    assert candidate(2) == 3\n",
            "entry_point": "Solution().f",
        },
        {"assert_case": ["assert Solution().f(1) == 2", "assert Solution().f(2) == 3"]},
    ],
)
def test_the_three_truths_of_skywork(tmp_path, truth):
    (problem,) = load(tmp_path, skywork(truth))
    assert problem.id == "skywork/3" and "wrong of 16:7B:8" in problem.tags
    assert "wrong of 16:32B:None" not in problem.tags and problem.starter_code.startswith("class Solution")
    good = "class Solution:\n    def f(self, a):\n        return a + 1\n"
    assert verdicts(problem, good, good.replace("+ 1", "+ 2")) == [True, False]


CODEJAM = {
    "id": "google__x",
    "license": "Apache-2.0",
    "contest": "Code Jam 2008",
    "year": 2008,
    "title": "X",
    "statement": "Add.",
    "checker": {"kind": "tokens", "flags": "float_tolerance 1e-4"},
    "limits_text": ["Time limit (for each test set): 10 seconds.", "Memory limit: 1GB."],
    "tests": [{"name": "a", "sample": True, "input": "1\n", "output": "Case #1: 2\n"}],
    "solutions": [],
}


def test_code_jam_limits_are_text_and_tolerance_is_for_fractions(tmp_path):
    fractions = {**CODEJAM, "tests": [{"input": "1\n", "output": "Case #1: 2.5\n"}]}
    own = {**CODEJAM, "checker": {"kind": "custom", "flags": ""}, "limits_text": ["Time limit: TBD seconds."]}
    page = "Add.\n\nSample Input\n\n      save_alt\n\n    content_copy\n\n  Copied!\n\n3\n"
    assert load(tmp_path, {**CODEJAM, "statement": page})[0].statement == "Add.\n\nSample Input\n\n\n\n\n3\n"
    whole, real, custom = load(tmp_path, CODEJAM, fractions, own)
    assert (whole.cpu_s, whole.memory_mb, whole.checker) == (10.0, 1024, "tokens")
    assert real.checker == "floats:1e-4" and "checker not at hand" in custom.tags and custom.cpu_s == 2.0


def test_reasoning_rows_keep_program_and_licence_and_refuse_absent_questions(tmp_path):
    row = {
        "id": "r1",
        "input": "Add.",
        "output": f"<think>so</think>\n```python\n{ADD}```",
        "solution": f"```python\n{ADD}```",
        "dataset": "apps",
        "split": "train",
        "license": "mit",
        "source": "codechef",
        "difficulty": "EASY",
    }
    (problem,) = load(tmp_path, row)
    assert (problem.license, problem.solutions[0].code, problem.tests) == ("mit", ADD, [])
    with pytest.raises(RowError, match="the question is that of dataset apps, split train, index 4; join it"):
        load(tmp_path, {**row, "input": "-", "index": 4})


SAMPLES = {
    "apps": 6,
    "code_contests": 6,
    "deepcoder_lcbv5": 6,
    "deepcoder_primeintellect": 6,
    "deepcoder_taco": 6,
    "livecodebench_code_generation_lite": 8,
    "open_r1_codeforces": 6,
    "primeintellect_verifiable_coding": 6,
    "skywork_or1_code": 6,
    "taco": 6,
}


@pytest.mark.parametrize("name", SAMPLES)
def test_published_rows_load_as_they_are(name):
    path = published(f"schema_samples/{name}.jsonl")
    problems = load_problems(path)
    assert len(problems) == SAMPLES[name]
    assert all(problem.statement and problem.tests for problem in problems)


def test_the_code_jam_archive_is_read_whole():
    problems = load_problems(published("google_codejam_kickstart.jsonl.gz"))
    assert len(problems) == 591 and sum(len(problem.tests) for problem in problems) > 1500
