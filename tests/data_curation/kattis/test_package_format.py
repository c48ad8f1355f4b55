"""Reading packages: metadata, links, groups, programs of several files, expectations. No program is run."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from problem_packages import all_packages, thirds, two_piles, write

from data_curation.kattis import PackageError, find_packages, read_package
from data_curation.kattis.bundle import CannotBundle, bundle
from data_curation.kattis.metadata import read_metadata
from data_curation.kattis.submissions import ALL, Expectation, of_category
from sandbox import checkers


def metadata(folder: Path, text: str):  # type: ignore[no-untyped-def]
    write(folder, {"problem.yaml": text})
    return read_metadata(folder)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("name: Plain\n", "Plain"),
        ("name: Two: Parts\n", "Two: Parts"),
        ("name: What's: up?  \nsource: A: B\n", "What's: up?"),
        ("name: 'quoted: yes'\nsource: A: B\n", "quoted: yes"),
        ('name: "a \\" b"\nauthor: X: Y\n', 'a " b'),
        ("name: {en: Inner, sv: Inre}\n", "Inner"),
        ("name:\n  de: Nur\nkeywords: a b\n", "Nur"),
        ("\ufeffname: With a mark\n", "With a mark"),
        ("name: 123\n", "123"),
        ("source: only\n", "folder"),
        ("", "folder"),
    ],
)
def test_names_are_read_also_where_the_file_is_no_yaml(tmp_path: Path, text: str, name: str) -> None:
    found = metadata(tmp_path / "folder", text)
    assert found.name == name
    assert found.repaired == (": " in text.partition("\n")[0].partition("name: ")[2].strip("'\"{") or "A: B" in text
                              or "X: Y" in text) or "{" in text  # fmt: skip


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("name: [\n", "not YAML"),
        ("- a\n- b\n", "expected keys and values, got list"),
        ("limits: {memory: -1}\n", "`memory`: expected a number above 0, got -1"),
        ("limits: {time_limit: soon}\n", "`time_limit`: expected a number above 0, got 'soon'"),
        ("limits: 3\n", "`limits`: expected keys and values"),
    ],
)
def test_a_file_past_repair_is_refused_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(PackageError) as refused:
        metadata(tmp_path, text)
    assert complaint in str(refused.value) and "problem.yaml" in str(refused.value) and "\n" not in str(refused.value)


def test_time_limits_come_from_where_each_layout_keeps_them(tmp_path: Path) -> None:
    assert metadata(tmp_path / "a", "limits: {time_limit: 3}\n").time_limit_s == 3
    write(tmp_path / "b", {".timelimit": "7\n"})
    assert metadata(tmp_path / "b", "").time_limit_s == 7
    write(tmp_path / "c", {"domjudge-problem.ini": "timelimit='2.5'\ncolor=red\n"})
    assert metadata(tmp_path / "c", "").time_limit_s == 2.5
    assert metadata(tmp_path / "d", "limits: {time_multiplier: 2}\n").time_multiplier == 2
    write(tmp_path / "e", {".timelimit": "a while"})
    with pytest.raises(PackageError, match=r"\.timelimit: expected a number"):
        metadata(tmp_path / "e", "")


def test_tests_come_in_order_with_links_followed_and_flags_inherited(tmp_path: Path) -> None:
    package = read_package(two_piles(tmp_path))
    assert [test.name for test in package.tests] == [
        "sample/1", "secret/01-as-sample", "secret/02-large", "secret/group/zeros", "secret/zz-samples/1",
    ]  # fmt: skip
    assert package.tests[1].texts() == ("1 2\n", "3\n") and [test.sample for test in package.tests] == [
        True,
        *[False] * 4,
    ]
    scored = read_package(thirds(tmp_path))
    assert [scored.checker(test) for test in scored.tests] == [
        "kattis_default:float_tolerance 1e-4", "kattis_default:float_tolerance 1e-9",
    ]  # fmt: skip
    assert {group.name: group.points for group in scored.groups} == {
        "secret": 100, "secret/group1": 30, "secret/group2": 70,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("target", "complaint"), [("../../../../outside.in", "out of the package"), ("gone", "not there")]
)
def test_a_link_that_leads_nowhere_good_is_refused(tmp_path: Path, target: str, complaint: str) -> None:
    folder = two_piles(tmp_path / "a")
    write(tmp_path, {"outside.in": "1 1\n"})
    os.symlink(target, folder / "data/secret/link.in")
    write(folder, {"data/secret/link.ans": "2\n"})
    with pytest.raises(PackageError, match=complaint):
        read_package(folder)


def test_a_folder_that_holds_itself_is_refused(tmp_path: Path) -> None:
    folder = two_piles(tmp_path)
    os.symlink("..", folder / "data/secret/group/up")
    with pytest.raises(PackageError, match="a folder that holds it"):
        read_package(folder)


def test_packages_are_found_below_a_folder(tmp_path: Path) -> None:
    all_packages(tmp_path)
    assert [path.name for path in find_packages(tmp_path)] == ["guessing", "splitnumber", "thirds", "twopiles"]
    assert find_packages(tmp_path / "thirds") == [tmp_path / "thirds"]
    with pytest.raises(FileNotFoundError, match=r"no problem\.yaml here or below"):
        find_packages(tmp_path / "thirds/data")


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"output_validators/a/a.py": "", "output_validators/b/b.py": ""}, "several output validators"),
        ({"output_validators/a/A.java": ""}, "in Python, C and C\\+\\+ are supported"),
        ({"output_validators/README": ""}, "supported, not README"),
        ({}, "missing: problem.yaml says"),
    ],
)
def test_validators_that_cannot_be_used_are_named(tmp_path: Path, files: dict[str, str], complaint: str) -> None:
    folder = two_piles(tmp_path)
    write(folder, {"problem.yaml": "validation: custom\n", **files})
    with pytest.raises(PackageError, match=complaint):
        read_package(folder)


def test_submissions_that_cannot_be_run_say_why(tmp_path: Path) -> None:
    folder = two_piles(tmp_path)
    write(
        folder / "submissions",
        {
            "accepted/a.hs": "main = interact id",
            "accepted/both/a.py": "1",
            "accepted/both/b.cpp": "",
            "accepted/which/a.py": "1",
            "accepted/which/b.py": "2",
            "accepted/two.py": "#!/usr/bin/python2\nprint 1",
            "accepted/js/a.js": "1",
            "accepted/js/b.js": "1",
        },
    )
    said = {each.name: each.problem for each in read_package(folder).submissions if each.problem}
    assert said.keys() == {f"accepted/{name}" for name in ("a.hs", "both", "which", "two.py", "js")}
    assert "no language that is known here (.hs)" in said["accepted/a.hs"]
    assert "call it main.py" in said["accepted/which"] and "Python 2" in said["accepted/two.py"]


def test_python_files_import_each_other_in_one_text(capsys: pytest.CaptureFixture[str]) -> None:
    files = {
        "main.py": "from __future__ import annotations\nimport a\nfrom b import y\nprint(a.x, y, __name__)",
        "a.py": "import b\nx = b.y + 1",
        "b.py": "y = 1",
    }
    exec(compile(bundle("python", files), "text", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    assert capsys.readouterr().out == "2 1 __main__\n"


def test_c_files_are_put_in_place_once(tmp_path: Path) -> None:
    files = {
        "b.cc": '#include <cstdio>\n#include "a.h"\nint twice(int x) { return 2 * x; }\n',
        "a.h": "#pragma once\nint twice(int x);\n",
        "main.cc": '#include "a.h"\n#include "missing.h"\nint main() { return twice(2); }\n',
    }
    text = bundle("cpp", files)
    assert text.count("int twice(int x);") == 1 and '#include "missing.h"' in text
    assert text.index("return 2 * x") < text.index("int main()")


def test_java_types_follow_with_one_of_them_public() -> None:
    files = {
        "Helper.java": "package x;\nimport java.util.*;\npublic class Helper { }\n",
        "Main.java": "import java.io.*;\npublic class Main { public static void main(String[] a) { } }\n",
    }
    text = bundle("java", files)
    assert text.count("public class") == 1 and "public class Main" in text and "class Helper" in text
    assert "package" not in text and text.index("import java.util.*;") < text.index("class")
    with pytest.raises(CannotBundle, match=r"call it Main\.java"):
        bundle("java", {"A.java": "class A {}", "B.java": "class B {}"})


@pytest.mark.parametrize(
    ("category", "results", "legacy_fault", "fault"),
    [
        ("accepted", ["AC", "AC"], None, None),
        ("accepted", ["AC", "TLE"], "TLE on", "TLE on"),
        ("wrong_answer", ["AC", "WA"], None, None),
        ("wrong_answer", ["WA", "TLE"], "TLE on", "TLE on"),
        ("wrong_answer", ["AC"], "no WA", "no WA"),
        ("time_limit_exceeded", ["WA", "TLE"], None, "WA on"),
        ("time_limit_exceeded", ["RTE", "TLE"], "RTE on", "RTE on"),
        ("run_time_error", ["WA", "RTE"], None, "WA on"),
        ("runtime_error", ["AC", "RTE"], None, None),
        ("rejected", ["AC", "RTE"], None, None),
        ("rejected", ["AC"], "no RTE or TLE or WA", "no RTE or TLE or WA"),
        ("slow_accepted", ["AC", "TLE"], None, None),
        ("brute_force", ["AC", "TLE"], None, None),
        ("brute_force", ["WA"], "WA on", "WA on"),
    ],
)
def test_folders_promise_what_the_format_says(
    category: str, results: list[str], legacy_fault: str | None, fault: str | None
) -> None:
    named = {f"secret/{number}": result for number, result in enumerate(results)}
    for legacy, expected in ((True, legacy_fault), (False, fault)):
        (expectation,) = of_category(category, legacy)
        found = expectation.fault(named)
        assert (found is None) == (expected is None) and (expected is None or expected in str(found))
    assert of_category("somebody_s_own", True) == ()


@given(
    st.lists(st.sampled_from(sorted(ALL)), min_size=1, max_size=6), st.sets(st.sampled_from(sorted(ALL)), min_size=1)
)
def test_an_expectation_holds_exactly_when_all_are_permitted_and_one_is_required(
    results: list[str], permitted: set[str]
) -> None:
    named = {f"secret/{number}": result for number, result in enumerate(results)}
    one = Expectation(frozenset(permitted), frozenset({"WA"}))
    assert (one.fault(named) is None) == (set(results) <= permitted and "WA" in results)
    elsewhere = Expectation(frozenset(), frozenset(), cases="sample")
    assert elsewhere.fault(named) is None


@pytest.mark.parametrize(
    ("flags", "output", "answer", "accepted"),
    [
        ("", b"YES 1", b"yes  1\n", True),
        ("case_sensitive", b"YES", b"yes", False),
        ("", b"1.0", b"1", False),
        ("", b"1 2", b"1", False),
        ("", b"1", b"1 2", False),
        ("", b"", b"", True),
        ("space_change_sensitive", b"1 2\n", b"1 2\n", True),
        ("space_change_sensitive", b"1  2\n", b"1 2\n", False),
        ("space_change_sensitive", b"1 2", b"1 2\n", False),
        ("float_tolerance 1e-4", b"3.14000000e-2", b"0.0314", True),
        ("float_tolerance 1e-4", b"0.03155", b"0.0314", False),
        ("float_tolerance 1e-4", b".5 5. +5", b"0.5 5 5.0", True),
        ("float_tolerance 1e-4", b"nan", b"1", False),
        ("float_tolerance 1e-4", b"nan", b"nan", True),
        ("float_tolerance 1e-4", b"inf", b"1e999", False),
        ("float_absolute_tolerance 0.5", b"1000.6", b"1000", False),
        ("float_absolute_tolerance 0.5", b"1000.4", b"1000", True),
        ("float_relative_tolerance 0.001", b"1000.6", b"1000", True),
        ("float_relative_tolerance 0.001", b"0.1", b"0.0", False),
        ("float_relative_tolerance 0.001 float_absolute_tolerance 1", b"0.1", b"0.0", True),
        ("float_tolerance 1e-20", b"12345678901234567890", b"12345678901234567891", False),
        ("float_tolerance 1e-4", b"Impossible", b"impossible", True),
        ("float_tolerance 1e-4", b"x", b"1.0", False),
        ("", b"\xc3\x84", b"\xc3\xa4", False),
    ],
)
def test_the_default_validator_compares_as_the_format_says(
    flags: str, output: bytes, answer: bytes, accepted: bool
) -> None:
    spec = f"kattis_default:{flags}" if flags else "kattis_default"
    said = checkers.find(spec).compare(output, answer)
    assert (said is None) == accepted
    told = r"(token|token or space) \d+ differs|(more|fewer) (token|token or space)s than expected"
    told += r"|\d+ tokens printed, \d+ expected"
    assert said is None or re.fullmatch(told, said), "the answer must not be told"


@pytest.mark.parametrize("flags", ["loose", "float_tolerance", "float_tolerance x", "float_tolerance -1"])
def test_unknown_flags_of_the_default_validator_are_refused(flags: str) -> None:
    with pytest.raises(ValueError, match="kattis_default"):
        checkers.find(f"kattis_default:{flags}")
