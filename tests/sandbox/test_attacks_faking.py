# ruff: noqa: E501
"""Attacks 59 to 88: programs that ask to be paid without solving. No verdict is better than the output deserves."""

from __future__ import annotations

import textwrap

import pytest
from attack_numbers import attack, numbered

import sandbox
from sandbox import Limits, TestCase, Verdict

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
    "searches_own_memory": """
        import re
        needle = b'EXPECTED-' + b'42-OUTPUT'
        for line in open('/proc/self/maps'):
            m = re.match(r'([0-9a-f]+)-([0-9a-f]+) r', line)
            if not m or 'vvar' in line or 'vsyscall' in line: continue
            import ctypes
            start, end = int(m[1], 16), int(m[2], 16)
            if end - start < 1 << 26 and needle in ctypes.string_at(start, end - start):
                print(42)
    """,
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


@attack(64)
def test_the_input_of_another_test_is_not_in_memory(held: sandbox.Judge) -> None:
    code = """
        import ctypes, re
        needle = b'MARKER' + b'-OF-A-TEST'
        found = 0
        for line in open('/proc/self/maps').readlines() if False else []: pass
        data = input()
        import sys
        import gc
        found = sum(1 for o in gc.get_objects() if isinstance(o, (bytes, bytearray, str)) and needle.decode() in str(o))
        print(found)
    """
    runs = held.execute(textwrap.dedent(code), ["MARKER-OF-A-TEST " * 3000, "x"])
    assert runs[1].stdout == b"0\n", runs[1]


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
