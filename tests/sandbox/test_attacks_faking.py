# ruff: noqa: E501
"""Attacks 59 to 88: programs that ask to be paid without solving. No verdict is better than the output deserves."""

from __future__ import annotations

import textwrap
import time

import pytest
from attack_numbers import attack, numbered
from memory_scan import scanner

import sandbox
from sandbox import Limits, TestCase, Verdict, checkers, scoring
from sandbox.checkers import user
from sandbox.execution.job import Facts
from sandbox.grading import Form, Grading, Stop

PRINTED_NUMBERS = {
    59: "exit_before_output hard_exit_before_output output_lost_by_hard_exit",
    61: "markers exit_code_of_a_checker raises_after_patching_hook twice",
    63: "patches_everything",
    64: "frames searches_own_memory",
    68: "pickle_in_output",
    77: "no_break_space arabic_digits underscore_number signed_number leading_zero byte_order_mark as_float",
    82: "right_output_then_failure right_output_then_segfault right_output_then_memory extra_output_at_exit "
    "extra_output_by_finaliser extra_output_by_signal extra_output_by_hook faulthandler_on_output",
    83: "stdout_is_stdin removes_own_output closes_output",
    86: "nul_byte invalid_utf8",
}
CALLED_NUMBERS = {
    59: "exits_in_call exits_at_import hard_exit_at_import no_such_function prints_value raises",
    62: "writes_value_file threads_rewrite",
    63: "patches_encoder",
    65: "always_equal claims_another_class exception_with_value",
    66: "int_subclass_that_is_equal str_subclass list_that_lies infinite_generator self_reference very_deep "
    "float true_for_one text bytes complex lone_list spoofed_integer_form infinite_iterator_object",
    67: "nan infinity",
    68: "object_with_reduce",
}

# Each would print or return 42 if it could learn it; the tests expect 42.
PRINTED = {
    "exit_before_output": "import sys\nsys.exit(0)",
    "hard_exit_before_output": "import os\nos._exit(0)",
    "output_lost_by_hard_exit": "import os\nprint(42)\nos._exit(0)",
    "markers": "print('AC')\nprint('PASSED')\nprint('{\"verdict\": \"AC\", \"passed\": 1}')\nprint('1 passed in 0.01s')",
    "exit_code_of_a_checker": "import sys\nsys.exit(42)",
    "raises_after_patching_hook": "import sys\nsys.excepthook = lambda *a: None\nraise ValueError",
    "patches_everything": """
        import builtins, json, sys
        class Always:
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            def __hash__(self): return 0
            def __bool__(self): return True
        builtins.all = builtins.any = builtins.isinstance = lambda *a: True
        builtins.eq = Always()
        builtins.str = builtins.bytes = lambda *a, **k: Always()
        json.dumps = json.loads = lambda *a, **k: Always()
        print(1)
    """,
    "frames": """
        import gc, sys
        frame, seen = sys._getframe(), []
        while frame:
            seen += list(frame.f_locals.values()) + list(frame.f_globals.values())
            frame = frame.f_back
        for thing in gc.get_objects() + seen:
            for name in ('output', 'expected', 'tests', 'answer'):
                value = getattr(thing, name, None) if not isinstance(thing, dict) else thing.get(name)
                if value and '42' in str(value)[:1000]:
                    print(value)
    """,
    "searches_own_memory": scanner("EXPECTED-42-OUTPUT", then="if found: os.write(1, words[0].translate(flip))"),
    "stdout_is_stdin": "import os\nos.dup2(0, 1)\nprint(42)",
    "removes_own_output": "import os\nprint(42, flush=True)\nos.ftruncate(1, 0)",
    "no_break_space": "print('\\u00a042')",
    "arabic_digits": "print('\\u0664\\u0662')",
    "underscore_number": "print('4_2')",
    "signed_number": "print('+42')",
    "leading_zero": "print('042')",
    "byte_order_mark": "print('\\ufeff42')",
    "as_float": "print(42.0)",
    "twice": "print(42)\nprint(42)",
    "nul_byte": "print('42\\0')",
    "right_output_then_failure": "print(42, flush=True)\nraise SystemExit(1)",
    "right_output_then_segfault": "import ctypes\nprint(42, flush=True)\nctypes.string_at(0)",
    "right_output_then_memory": "print(42, flush=True)\na = [0] * (1 << 40)",
    "extra_output_at_exit": "import atexit\natexit.register(print, 43)\nprint(42)",
    "extra_output_by_finaliser": "class A:\n    def __del__(self):\n        import os\n        os.write(1, b'43')\na = A()\nprint(42, flush=True)",
    "extra_output_by_signal": "import signal, os\nsignal.signal(signal.SIGTERM, lambda *a: print(43))\nprint(42)\nos.kill(os.getpid(), signal.SIGTERM)",
    "extra_output_by_hook": "import sys\nsys.excepthook = lambda *a: print(43)\nprint(42)\nraise ValueError",
    "faulthandler_on_output": "import faulthandler, sys\nprint(42, flush=True)\nfaulthandler.enable(sys.stdout)\nimport ctypes\nctypes.string_at(0)",
    "closes_output": "import os\nos.close(1)\nprint(42)",
    "invalid_utf8": "import os\nos.write(1, b'42\\xff')",
    "pickle_in_output": "import pickle, sys\nsys.stdout.buffer.write(pickle.dumps(42))",
}

CALLED = {
    "always_equal": "class A:\n    def __eq__(self, o): return True\n    def __hash__(self): return 42\ndef f(): return A()",
    "claims_another_class": "class A:\n    __class__ = int\n    def __index__(self): return 42\ndef f(): return A()",
    "int_subclass_that_is_equal": "class A(int):\n    def __eq__(self, o): return True\n    def __repr__(self): return '42'\ndef f(): return A(1)",
    "str_subclass": "class A(str):\n    def __eq__(self, o): return True\ndef f(): return A('42')",
    "list_that_lies": "class L(list):\n    def __iter__(self): return iter([42])\n    def __len__(self): return 1\ndef f(): return L()",
    "float": "def f(): return 42.0",
    "true_for_one": "def f(): return True",
    "text": "def f(): return '42'",
    "nan": "def f(): return float('nan')",
    "infinite_generator": "def f():\n    while True: yield 42",
    "self_reference": "def f():\n    a = []\n    a.append(a)\n    return a",
    "very_deep": "def f():\n    a = 42\n    for _ in range(100000): a = [a]\n    return a",
    "spoofed_integer_form": "def f(): return {'__int__': hex(42)}",
    "patches_encoder": """
        import json, sys, builtins
        json.dumps = lambda *a, **k: '43'
        builtins.type = lambda x: int
        def f(): return 1
    """,
    "writes_value_file": "import os\nos.write(3, b'43')\ndef f(): os._exit(0)",
    "exits_in_call": "def f():\n    import sys\n    sys.exit(0)",
    "exits_at_import": "raise SystemExit(0)",
    "hard_exit_at_import": "import os\nos._exit(0)",
    "no_such_function": "def g(): return 42",
    "prints_value": "def f(): print(42)",
    "raises": "def f(): raise ValueError(42)",
    "threads_rewrite": "import threading\ndef f(): return None\n",
    "exception_with_value": "class E(BaseException):\n    value = 42\ndef f(): raise E",
    "bytes": "def f(): return b'42'",
    "complex": "def f(): return 42 + 0j",
    "infinity": "def f(): return float('inf')",
    "infinite_iterator_object": "import itertools\ndef f(): return itertools.repeat(42)",
    "object_with_reduce": "class A:\n    def __reduce__(self): return (print, (42,))\ndef f(): return A()",
    "lone_list": "def f(): return [42]",
}


@pytest.mark.parametrize("name", numbered(PRINTED_NUMBERS, PRINTED))
def test_no_trick_makes_printed_output_pass(held: sandbox.Judge, name: str) -> None:
    code = textwrap.dedent(PRINTED[name])
    tests = [TestCase("EXPECT", "EXPECTED-42-OUTPUT" if name == "searches_own_memory" else "42\n")]
    judgement = held.judge(code, tests, limits=Limits(cpu_s=1.0))
    assert judgement.verdict not in (Verdict.AC, Verdict.IE), judgement


@pytest.mark.parametrize("name", numbered(CALLED_NUMBERS, CALLED))
def test_no_trick_makes_a_returned_value_pass(held: sandbox.Judge, name: str) -> None:
    judgement = held.judge(
        textwrap.dedent(CALLED[name]), [TestCase("", "1" if name == "true_for_one" else "42", call="f()")]
    )
    assert judgement.verdict not in (Verdict.AC, Verdict.IE), judgement


@attack(60)
def test_right_output_before_a_clean_exit_is_accepted(held: sandbox.Judge) -> None:
    assert held.judge("import sys\nprint(42)\nsys.exit()", [TestCase("", "42")]).accepted


@attack(70)
def test_state_does_not_pass_from_test_to_test(held: sandbox.Judge) -> None:
    code = """
        import sys, builtins, os
        count = getattr(builtins, 'count', 0)
        builtins.count = sys.count = count + 1
        os.environ['COUNT'] = '1'
        sys.modules['count'] = count
        print(count, len([k for k in os.environ if k == 'COUNT']))
        os.environ['COUNT'] = '1'
    """
    runs = held.execute(textwrap.dedent(code), [""] * 3)
    assert len({run.stdout for run in runs}) == 1


MARKS = ("SOURCE-MARK", "INPUT-MARK", "OUTPUT-MARK", "ERROR-MARK", "CALL-MARK", "VALUE-MARK", "ANSWER-MARK")
REFUSING = "python:import json, sys\njson.load(sys.stdin)\nsys.exit(1)"
SILENT = "python:import sys\nopen(sys.argv[2]).read()\nsys.exit(1)"
LOOK = Limits(cpu_s=10, wall_s=120, memory_mb=512)


@attack(64)
def test_nothing_of_other_programs_and_tests_is_in_memory(held: sandbox.Judge) -> None:
    assert held.execute(scanner(*MARKS), ["INPUT-MARK"], limits=LOOK)[0].stdout == b"[1]\n"  # it can find things
    for size in (1, 30, 1000):
        source = "#" + "SOURCE-MARK " * size + "\n"
        printing = (
            source
            + f"import sys\nprint('OUTPUT-MARK' * {size})\nsys.stderr.write('ERROR-MARK' * {size})\nsys.stdin.read()"
        )
        returning = source + f"def f(*a): return 'VALUE-MARK' * {size}"
        given = TestCase("INPUT-MARK" * size, "x")
        called = TestCase(f'["{"INPUT-MARK" * size}"]', "1", call=f"f(*args, '{'CALL-MARK' * size}')")
        before = []
        for number in range(4):  # on every worker, with one test and with several
            for code, test in ((printing, given), (returning, called)):
                before += [sandbox.Submission(f"{code}\n#{number}", [test] * count) for count in (1, 2)]
            answer = [TestCase("INPUT-MARK" * size, "ANSWER-MARK" * size)]
            before.append(sandbox.Submission(f"{printing}\n#{number}", answer, checker=REFUSING))
            before.append(sandbox.Submission(f"{source}print(1)\n#{number}", answer, interactor=SILENT))
        assert {judgement.verdict for judgement in held.judge_batch(before, stop="never")} == {Verdict.WA}
        for inputs in (["x"], ["INPUT-MARK" * 3, "x"], ["x"]):
            run = held.execute(scanner(*MARKS), inputs, limits=LOOK)[-1]
            assert run.stdout == b"[]\n", (size, run)


@attack(64)
def test_the_expected_output_is_sent_to_no_worker(any_level: sandbox.Judge, monkeypatch: pytest.MonkeyPatch) -> None:
    from sandbox.execution.worker import Worker

    sent: list[bytes] = []
    original = Worker.send

    def recording(self: Worker, kind: str, *parts: bytes) -> None:
        sent.extend(bytes(part) for part in parts)
        original(self, kind, *parts)

    monkeypatch.setattr(Worker, "send", recording)
    tests = [TestCase("in-1", "EXPECTED-1"), TestCase("[2]", '"EXPECTED-2"', call="f(*args)")]
    any_level.judge("def f(x): return x\nprint('EXPECTED' + '-1')", tests, stop="never")
    assert any(b"in-1" in part for part in sent)
    assert not any(b"EXPECTED-" in part for part in sent)


@attack(73)
def test_empty_tests_are_an_error(judge: sandbox.Judge) -> None:
    with pytest.raises(ValueError, match="no tests"):
        judge.judge("print(1)", [])


@attack(73)
def test_an_expected_value_that_is_no_json_is_the_judges_failure(judge: sandbox.Judge) -> None:
    judgement = judge.judge("def f(): return 1", [TestCase("", "not json", call="f()")])
    assert judgement.verdict is Verdict.IE


@attack(69)
def test_arguments_are_decoded_afresh_for_each_test(held: sandbox.Judge) -> None:
    code = "seen = []\ndef f(a):\n    seen.append(a)\n    a.append(0)\n    return [len(a), len(seen)]"
    tests = [TestCase("[[5]]", "[2, 1]", call="f(*args)")] * 3
    assert held.judge(code, tests).accepted
    # the argument changed into what was expected of it earns nothing: only the returned value counts
    code = "def f(a):\n    a[:] = [3, 2, 1]\n    return None"
    assert held.judge(code, [TestCase("[[1, 2, 3]]", "[3, 2, 1]", call="f(*args)")]).verdict is Verdict.WA


@attack(71)
def test_a_program_is_shown_the_same_in_every_test(held: sandbox.Judge) -> None:
    code = """
        import os, stat, sys
        seen = [sys.argv, sys.flags, sorted(os.environ.items()), os.getcwd(), os.listdir('.'), __name__, __file__,
                os.isatty(0), sys.stdin.name, sys.orig_argv, sorted(sys.modules), os.getuid(), os.uname(), os.times()[2:4]]
        for fd in (0, 1, 2):
            st = os.fstat(fd)
            seen.append((stat.S_IFMT(st.st_mode), st.st_uid, st.st_nlink, os.lseek(fd, 0, os.SEEK_CUR), os.readlink(f'/proc/self/fd/{fd}')))
        print(seen)
    """
    code = textwrap.dedent(code)
    outputs = {run.stdout for run in held.execute(code, ["1"] * 3)} | {held.execute(code, ["2"])[0].stdout}
    assert len(outputs) == 1, outputs
    assert all(output.startswith(b"[[") for output in outputs)


@attack(72)
def test_a_program_that_knows_some_tests_shows_in_the_pattern_of_the_tests(held: sandbox.Judge) -> None:
    code = "import os\nprint(int(input()) + 1 if os.fstat(0).st_size < 4 else 0)"
    tests = [TestCase("1\n", "2"), TestCase("9\n", "10"), TestCase("12345\n", "12346"), TestCase("99999\n", "100000")]
    judgement = held.judge(code, tests, stop="never")
    assert [case.verdict for case in judgement.cases] == ["AC", "AC", "WA", "WA"]
    assert judgement.verdict is Verdict.WA


@attack(74)
@pytest.mark.parametrize("reported", [0, 1, 2])
def test_fewer_results_than_tests_are_never_a_pass(reported: int) -> None:
    delivered: list[sandbox.Judgement] = []
    tests = [TestCase("", "42")] * 3
    stop, checker = Stop.parse("first_failure"), checkers.find("tokens")
    grading = Grading(tests, checker, Form(), stop, False, "namespaced", delivered.append, lambda *_: None)
    for index in range(reported):
        grading.on_facts(index, Facts(Verdict.AC, stdout=b"42"))
    grading.on_done(None, None)
    assert [judgement.verdict for judgement in delivered] == [Verdict.IE]
    assert scoring.all_pass(delivered[0]) is None


CRASHING = {
    "raises_on_output": "import json, sys\nint(json.load(sys.stdin)['output'])\nsys.exit(0)",
    "endless_on_output": "import json, sys\nwhile json.load(sys.stdin)['output'].startswith('loop'): pass",
    "deep_recursion": "import json, sys\ndef f(s): return f(s)\nf(json.load(sys.stdin)['output'])",
    "exits_oddly": "import sys\nsys.exit(42)",
    "killed": "import os\nos.abort()",
    "evaluates_output": "import json, sys\nsys.exit(int(eval(json.load(sys.stdin)['output'])))",
}


@attack(75)
@pytest.mark.parametrize("name", CRASHING)
def test_a_checker_made_to_fail_is_nobodys_pass(
    held: sandbox.Judge, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import sys\nprint('loop' if input() else \"__import__('os').abort()\")"
    given = "\n" if name == "evaluates_output" else "x"
    if name == "endless_on_output":
        code = "print('loop' * 3)\n"
        # only in this process: the judge of the container waits for the limit as it is
        monkeypatch.setattr(user, "LIMITS", Limits(cpu_s=0.5, wall_s=60, language_factors=False))
    judgement = held.judge(code, [TestCase(given, "1")], checker="python:" + CRASHING[name])
    assert judgement.verdict is Verdict.IE, judgement
    assert scoring.all_pass(judgement) is None


HOSTILE_OUTPUTS = {
    "ten_megabytes_of_one_token": b"9" * (10 << 20),
    "huge_exponent": b"1e999999999",
    "huge_exponents": b"1e999999 " * 10_000,
    "long_mantissa": b"0." + b"1" * 1_000_000,
    "deep_brackets": b"[" * 1_000_000,
    "nul_bytes": bytes(1 << 20),
    "lone_surrogates": b"\xed\xa0\x80" * 1000,
    "only_blanks": b" \n" * (1 << 20),
    "a_million_lines": b"\n" * (1 << 20) + b"41",
    "not_a_number": b"nan " * 10_000,
    "deep_json": b"[" * 100_000 + b"]" * 100_000,
}


@attack(76)
@pytest.mark.parametrize("checker", [name for name in checkers.names() if name not in user.PROTOCOLS])
@pytest.mark.parametrize("name", HOSTILE_OUTPUTS)
def test_checkers_are_bounded_in_what_output_can_do_to_them(checker: str, name: str) -> None:
    output, expected = HOSTILE_OUTPUTS[name], b"42 1.5\n" * 1000
    found = checkers.find(checker)
    before = time.process_time()
    assert found.returned_only or found.compare(output, expected) is not None
    for value in (b"42", b"[1, 2]", b"1.5"):
        try:
            assert found.compare_values(output, value) is not None
        except (ValueError, RecursionError):  # becomes the judge's failure, never a pass
            continue
    assert time.process_time() - before < 20


@attack(78)
@pytest.mark.parametrize(
    ("code", "verdicts"),
    [
        ("print(1, flush=True)\nprint(2, flush=True)", {Verdict.WA}),  # talks first
        ("import time\ntime.sleep(60)", {Verdict.ILE}),  # never talks: both wait
        ("input()\ninput()", {Verdict.ILE, Verdict.RE, Verdict.WA}),
        ("input()\nwhile True: print('x' * 99999, flush=True)", {Verdict.WA, Verdict.OLE, Verdict.RE}),
        ("import os\nos.closerange(0, 100)", {Verdict.WA}),
        ("print(input(), flush=True)", {Verdict.WA}),  # echoes
        ("print('0 accepted', flush=True)\nimport os\nos._exit(42)", {Verdict.WA, Verdict.RE}),
        ("input()\nprint(7, flush=True)\nraise ValueError", {Verdict.AC, Verdict.RE}),
    ],
)
def test_the_interactor_decides(held: sandbox.Judge, code: str, verdicts: set[Verdict]) -> None:
    interactor = """
        import sys
        secret = int(open(sys.argv[2]).read())
        print("guess", flush=True)
        sys.exit(0 if input() == str(secret) else 1)
    """
    limits = Limits(cpu_s=0.5, wall_s=1.5 if Verdict.ILE in verdicts else 60, output_mb=1)
    spec = "python:" + textwrap.dedent(interactor)
    judgement = held.judge(code, [TestCase("", "7")], interactor=spec, limits=limits)
    assert judgement.verdict in verdicts, judgement


@attack(79)
def test_the_interactors_secrets_are_out_of_the_programs_reach(held: sandbox.Judge) -> None:
    interactor = "import sys\nopen(sys.argv[2]).read()\nprint('go', flush=True)\nwhile sys.stdin.read(100): pass"
    code = """
        import os, sys
        input()
        needle = 'SECRET' + '-ANSWER'
        places = [os.getcwd(), '..', '../desk', '/tmp/run/desk', '/tmp', '.'] + [f'/proc/{p}/fd' for p in range(1, 40)]
        places += [f'/proc/{p}/cwd' for p in (1, 2, os.getppid())] + [f'/proc/self/fd/{n}' for n in range(64)]
        found = [fd for fd in range(3, 256) if os.path.exists(f'/proc/self/fd/{fd}')]
        for place in places:
            try: names = [os.path.join(place, name) for name in os.listdir(place)]
            except OSError: names = [place]
            for name in names:
                if name.endswith(('/fd/0', '/fd/1', '/fd/2')): continue
                try:
                    with open(name, errors='replace') as file: text = file.read(1 << 16)
                except (OSError, ValueError): continue
                if needle in text: found.append(name)
        sys.exit(7 if [f for f in found if f != 3] else 0)
    """
    spec = "python:" + interactor
    judgement = held.judge(textwrap.dedent(code), [TestCase("in", "SECRET-ANSWER")], interactor=spec)
    assert judgement.accepted, judgement


@attack(80)
@pytest.mark.parametrize(
    ("code", "verdicts"),
    [
        ("", {Verdict.NO_CODE}),
        ("\n\t \r\n", {Verdict.NO_CODE}),
        ("print(42)\n\0", {Verdict.CE}),
        ("# -*- coding: utf-7 -*-\nprint(42)", {Verdict.CE, Verdict.AC}),
        ("# -*- coding: rot13 -*-\ncevag(42)", {Verdict.CE, Verdict.RE}),
        ("\x0cprint(42)\x0c\n", {Verdict.AC}),
        ("\ufeffprint(42)", {Verdict.AC, Verdict.CE}),
        ("\u202eprint(42)", {Verdict.CE}),
        ("x = '\u202e\u2066'\nprint(42)", {Verdict.AC}),
        ("x = '\ud800'\nprint(42)", {Verdict.CE, Verdict.AC}),
        ("#" + "x" * (10 << 20) + "\nprint(42)", {Verdict.AC}),
        ("```python\nprint(42)\n```", {Verdict.CE}),  # fences are taken off before, by one rule
    ],
    ids=range(12),
)
def test_odd_sources_have_one_meaning(held: sandbox.Judge, code: str, verdicts: set[Verdict]) -> None:
    judgement = held.judge(code, [TestCase("", "42")])
    assert judgement.verdict in verdicts, judgement


@attack(81)
def test_there_is_no_harness_to_reload_and_no_source_to_overwrite(held: sandbox.Judge) -> None:
    code = """
        import importlib, os, sys
        ours = ('supervise', 'server', 'observe', 'execute', 'channel', 'zygote', 'confine', 'dialogue', 'sandbox')
        print([name for name in ours if name in sys.modules])
        for name in ours:
            try: importlib.import_module(name)
            except ImportError: continue
            print('imported', name)
        print(os.path.exists(__file__), [m for m, v in sys.modules.items() if '/box' in str(getattr(v, '__file__', ''))])
        open(__file__, 'w').write('print(42)')
        try: os.execv(sys.executable, [sys.executable, __file__])
        except OSError: print('refused')
    """
    run = held.execute(textwrap.dedent(code), [""])[0]
    assert run.stdout == b"[]\nFalse []\nrefused\n", run


@attack(84, 87)
@pytest.mark.slow
def test_a_program_may_leave_a_large_input_unread(held: sandbox.Judge) -> None:
    large = "1 " * (32 << 20)
    assert held.judge("print(42)", [TestCase(large, "42")] * 2, limits=Limits(wall_s=120)).accepted
    code = "import os\nos.close(0)\nos._exit(3)"
    assert held.judge(code, [TestCase(large, "42")], limits=Limits(wall_s=120)).verdict is Verdict.RE


@attack(84, 87)
def test_a_program_may_end_before_it_has_read(held: sandbox.Judge) -> None:
    assert held.judge("print(42)", [TestCase("1 " * (1 << 20), "42")] * 3).accepted


@attack(85)
@pytest.mark.parametrize("read", ["sys.stdin.read()", "os.read(0, 1)", "sys.stdin.readline()"])
def test_reading_on_after_the_end_ends_by_time(held: sandbox.Judge, read: str) -> None:
    code = f"import os, sys\nwhile True: {read}"
    assert held.judge(code, [TestCase("1", "1")], limits=Limits(cpu_s=0.05, wall_s=60)).verdict is Verdict.TLE


@attack(86)
def test_output_is_compared_as_bytes(held: sandbox.Judge) -> None:
    code = "import os\nos.write(1, bytes(range(128, 256)) + b'\\0')"
    expected = (bytes(range(128, 256)) + b"\0").decode("utf-8", "surrogateescape")
    assert held.judge(code, [TestCase("", expected)], checker="exact").accepted
    assert held.judge(code, [TestCase("", expected[:-1])], checker="exact").verdict is Verdict.WA


@attack(88)
def test_random_numbers_and_hashes_are_the_same_in_every_run(held: sandbox.Judge) -> None:
    code = "import random\nprint(random.random(), hash('text'), list({'a', 'b', 'c'}), random.Random(1).random())"
    outputs = {run.stdout for run in held.execute(code, [""] * 4)} | {held.execute(code, ["x"])[0].stdout}
    assert len(outputs) == 1
