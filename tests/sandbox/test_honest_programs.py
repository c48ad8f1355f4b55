# ruff: noqa: E501
"""Correct programs in every idiom contestants use are accepted, whatever the protection level."""

from __future__ import annotations

import json
import textwrap

import pytest

import sandbox
from sandbox import Limits, TestCase, Verdict

SUM_INPUT = "3\n10 20 30\n"

# name -> program that reads SUM_INPUT and prints 60
SUMS = {
    "input": "n = int(input())\nprint(sum(map(int, input().split())))",
    "sys_stdin_read": "import sys\nd = sys.stdin.read().split()\nprint(sum(map(int, d[1:])))",
    "sys_stdin_readline": "import sys\ninput = sys.stdin.readline\ninput()\nprint(sum(map(int, input().split())))",
    "sys_stdin_iteration": "import sys\nrows = [l for l in sys.stdin]\nprint(sum(map(int, rows[1].split())))",
    "buffer_readline": "import sys\ninput = sys.stdin.buffer.readline\ninput()\nprint(sum(map(int, input().split())))",
    "buffer_read": "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split()[1:])))",
    "os_read_of_stat_size": """
        import os
        data = os.read(0, os.fstat(0).st_size)
        print(sum(map(int, data.split()[1:])))
    """,
    "os_read_large": "import os\nprint(sum(map(int, os.read(0, 10**7).split()[1:])))",
    "open_0": "print(sum(map(int, open(0).read().split()[1:])))",
    "open_0_lines": "n, row, *_ = [*open(0)]\nprint(sum(map(int, row.split())))",
    "dev_stdin": "print(sum(map(int, open('/dev/stdin').read().split()[1:])))",
    "mmap_of_stdin": """
        import mmap
        print(sum(map(int, mmap.mmap(0, 0, access=mmap.ACCESS_READ).read().split()[1:])))
    """,
    "main_guard": """
        def main():
            input()
            print(sum(map(int, input().split())))
        if __name__ == "__main__":
            main()
    """,
    "module_global_counter": """
        total = 0
        def add(x):
            global total
            total += x
        input()
        for x in map(int, input().split()):
            add(x)
        print(total)
    """,
    "recursion_in_comprehension_scope": """
        def f(n):
            return [0 if n == 0 else f(n - 1) for _ in range(1)][0]
        f(50)
        input()
        print(sum(int(x) for x in input().split()))
    """,
    "fast_io_class": """
        import os, sys
        from io import BytesIO, IOBase
        class FastIO(IOBase):
            newlines = 0
            def __init__(self, file):
                self._fd = file.fileno()
                self.buffer = BytesIO()
                self.writable = "x" in file.mode or "r" not in file.mode
                self.write = self.buffer.write if self.writable else None
            def read(self):
                while True:
                    b = os.read(self._fd, max(os.fstat(self._fd).st_size, 8192))
                    if not b:
                        break
                    ptr = self.buffer.tell()
                    self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(ptr)
                self.newlines = 0
                return self.buffer.read()
            def readline(self):
                while self.newlines == 0:
                    b = os.read(self._fd, max(os.fstat(self._fd).st_size, 8192))
                    self.newlines = b.count(b"\\n") + (not b)
                    ptr = self.buffer.tell()
                    self.buffer.seek(0, 2), self.buffer.write(b), self.buffer.seek(ptr)
                self.newlines -= 1
                return self.buffer.readline()
            def flush(self):
                if self.writable:
                    os.write(self._fd, self.buffer.getvalue())
                    self.buffer.truncate(0), self.buffer.seek(0)
        class IOWrapper(IOBase):
            def __init__(self, file):
                self.buffer = FastIO(file)
                self.flush = self.buffer.flush
                self.writable = self.buffer.writable
                self.write = lambda s: self.buffer.write(s.encode("ascii"))
                self.read = lambda: self.buffer.read().decode("ascii")
                self.readline = lambda: self.buffer.readline().decode("ascii")
        sys.stdin, sys.stdout = IOWrapper(sys.stdin), IOWrapper(sys.stdout)
        input = lambda: sys.stdin.readline().rstrip("\\r\\n")
        input()
        print(sum(map(int, input().split())))
    """,
    "atexit_output": """
        import atexit, io, os, sys
        sys.stdout = io.StringIO()
        atexit.register(lambda: os.write(1, sys.stdout.getvalue().encode()))
        input()
        print(sum(map(int, input().split())))
    """,
    "unclosed_file_on_1": """
        out = open(1, "w", closefd=False)
        input()
        out.write(str(sum(map(int, input().split()))))
    """,
    "detached_stdout": """
        import io, sys
        sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding="utf-8")
        input()
        print(sum(map(int, input().split())))
    """,
    "timer_by_signal": """
        import signal
        rung = []
        signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        while not rung: pass
        input()
        print(sum(map(int, input().split())))
    """,
    "signal_to_itself": """
        import signal
        hit = []
        signal.signal(signal.SIGINT, lambda *_: hit.append(1))
        signal.raise_signal(signal.SIGINT)
        assert hit
        print(60)
    """,
    "output_of_finalizers": """
        import weakref
        class A:
            def __del__(self): print(0)
        class B: pass
        kept = B()
        weakref.finalize(kept, print, 6, end="")
        last = A()
    """,
    "daemon_thread_left_asleep": """
        import threading, time
        threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
        print(60)
    """,
    "exit_in_a_thread": """
        import sys, threading
        worker = threading.Thread(target=sys.exit, args=(3,))
        worker.start(), worker.join()
        print(60)
    """,
    "processes_where_there_are_none": """
        input()
        numbers = list(map(int, input().split()))
        try:
            from multiprocessing import Pool
            with Pool(2) as pool: print(sum(pool.map(int, numbers)))
        except Exception:
            print(sum(numbers))
    """,
    "own_class_called_as_a_builtin": "import sys\nlist = dict = str = max = 0\nclass input: pass\nprint(sum(map(int, sys.stdin.read().split()[1:])))",
    "numbers_of_more_than_4300_digits": "import sys\nsys.set_int_max_str_digits(0)\nassert len(str(int('7' * 20000))) == 20000\nprint(60)",
    "flush_storm": "for _ in range(20000): print(end=' ', flush=True)\nprint(60)",
    "file_input": "import fileinput\nprint(sum(map(int, list(fileinput.input())[1].split())))",
    "named_temporary_file": "import tempfile\nwith tempfile.NamedTemporaryFile() as file: file.write(b'x')\nprint(60)",
    "select_on_stdin": "import select, sys\nassert select.select([sys.stdin], [], [], 0)[0]\ninput()\nprint(sum(map(int, input().split())))",
    "byte_order_mark": "\ufeffinput()\nprint(sum(map(int, input().split())))",
    "fdopen_buffered_binary": """
        import os
        class Holder: pass
        h = Holder()
        h.me = h
        h.out = os.fdopen(1, "wb", 65536)
        input()
        h.out.write(b"%d" % sum(map(int, input().split())))
    """,
    "sys_exit_after_output": "import sys\ninput()\nprint(sum(map(int, input().split())))\nsys.exit(0)",
    "exit_and_quit": "input()\nprint(sum(map(int, input().split())))\nif len('ab') == 2: exit()\nquit()",
    "thread_with_large_stack": """
        import sys, threading
        sys.setrecursionlimit(10**6)
        threading.stack_size(2**27)
        def depth(n):
            return 0 if n == 0 else 1 + depth(n - 1)
        def main():
            input()
            assert depth(20000) == 20000
            print(sum(map(int, input().split())))
        t = threading.Thread(target=main)
        t.start()
        t.join()
    """,
    "very_large_thread_stack": """
        import threading
        threading.stack_size(512 * 1024 * 1024)
        t = threading.Thread(target=lambda: (input(), print(sum(map(int, input().split())))))
        t.start()
        t.join()
    """,
    "unjoined_thread": """
        import threading, time
        def work():
            time.sleep(0.01)
            input()
            print(sum(map(int, input().split())))
        threading.Thread(target=work).start()
    """,
    "thread_pool": """
        from concurrent.futures import ThreadPoolExecutor
        input()
        with ThreadPoolExecutor(8) as pool:
            print(sum(pool.map(int, input().split())))
    """,
    "raised_stack_limit": """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_STACK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        sys.setrecursionlimit(10**6)
        input()
        print(sum(map(int, input().split())))
    """,
    "deep_recursion": """
        import sys
        sys.setrecursionlimit(300000)
        def f(n):
            return 0 if n == 0 else 1 + f(n - 1)
        assert f(100000) == 100000
        input()
        print(sum(map(int, input().split())))
    """,
    "deep_cached_recursion": """
        import sys
        from functools import lru_cache
        sys.setrecursionlimit(300000)
        @lru_cache(None)
        def f(n):
            return 0 if n == 0 else 1 + f(n - 1)
        assert f(30000) == 30000
        input()
        print(sum(map(int, input().split())))
    """,
    "recursion_up_to_the_default_limit": """
        import sys
        def f(n):
            return 0 if n == 0 else 1 + f(n - 1)
        f(sys.getrecursionlimit() - 10 if sys.getrecursionlimit() < 990 else 990)
        input()
        print(sum(map(int, input().split())))
    """,
    "bootstrap_generator_recursion": """
        from types import GeneratorType
        def bootstrap(f, stack=[]):
            def wrapped(*args, **kwargs):
                if stack:
                    return f(*args, **kwargs)
                to = f(*args, **kwargs)
                while True:
                    if type(to) is GeneratorType:
                        stack.append(to)
                        to = next(to)
                    else:
                        stack.pop()
                        if not stack:
                            break
                        to = stack[-1].send(to)
                return to
            return wrapped
        @bootstrap
        def f(n):
            yield 0 if n == 0 else 1 + (yield f(n - 1))
        assert f(10000) == 10000
        input()
        print(sum(map(int, input().split())))
    """,
    "asyncio": """
        import asyncio
        async def main():
            await asyncio.sleep(0)
            input()
            print(sum(map(int, input().split())))
        asyncio.run(main())
    """,
    "dataclass_enum_typing": """
        from __future__ import annotations
        from dataclasses import dataclass, field
        from enum import Enum
        from typing import NamedTuple
        class Op(Enum):
            ADD = 1
        class Pair(NamedTuple):
            a: int
            b: int
        @dataclass(order=True)
        class Item:
            key: int
            tags: list[str] = field(default_factory=list)
        input()
        print(sum(i.key for i in sorted(Item(int(x)) for x in input().split())))
    """,
    "pickle_copy_of_own_class": """
        import copy, pickle
        class P:
            def __init__(self, v): self.v = v
        input()
        print(sum(pickle.loads(pickle.dumps(copy.deepcopy(P(int(x))))).v for x in input().split()))
    """,
    "usual_modules": """
        import array, bisect, cmath, collections, copy, datetime, decimal, fractions, functools, heapq, itertools
        import hashlib, json, math, operator, queue, random, re, statistics, string, sys, time, zlib, calendar
        import contextlib, io, struct, textwrap, traceback, types, typing, uuid, html, difflib, graphlib, secrets
        input()
        print(sum(map(int, input().split())))
    """,
    "local_time": """
        import datetime, time
        time.localtime(); datetime.datetime.now(); datetime.datetime.strptime("2020-01-02", "%Y-%m-%d")
        input()
        print(sum(map(int, input().split())))
    """,
    "scratch_file": """
        import os, tempfile
        with open("work.txt", "w") as f:
            f.write("x")
        assert open("work.txt").read() == "x"
        os.remove("work.txt")
        input()
        print(sum(map(int, input().split())))
    """,
    "optional_input_file": """
        import os, sys
        if os.path.exists("input.txt"):
            sys.stdin = open("input.txt")
        input()
        print(sum(map(int, input().split())))
    """,
    "reads_to_end_of_file": """
        total, first = 0, True
        while True:
            try:
                line = input()
            except EOFError:
                break
            if not first:
                total += sum(map(int, line.split()))
            first = False
        print(total)
    """,
    "stderr_is_ignored": "import sys\ninput()\nprint('debug', file=sys.stderr)\nprint(sum(map(int, input().split())))",
    "warnings_are_silent": "import warnings\ninput()\nx = '\\d'\nwarnings.warn('w')\nprint(sum(map(int, input().split())))",
    "invalid_escape_and_is_literal": "input()\ns = '\\ '\nassert not (1 is 2)\nprint(sum(map(int, input().split())))",
    "signal_alarm": """
        import signal
        signal.signal(signal.SIGALRM, lambda *a: None)
        signal.alarm(100)
        input()
        print(sum(map(int, input().split())))
    """,
    "memory_within_limit": "a = bytearray(100 << 20)\nb = [0] * (5 << 20)\ninput()\nprint(sum(map(int, input().split())))",
    "bytes_output": "import sys\ninput()\nsys.stdout.buffer.write(b'%d\\n' % sum(map(int, input().split())))",
    "os_write": "import os\ninput()\nos.write(1, str(sum(map(int, input().split()))).encode())",
    "print_to_reopened_stdout": """
        import sys
        sys.stdout = open("/dev/stdout", "w")
        input()
        print(sum(map(int, input().split())))
    """,
    "coding_cookie": "# -*- coding: latin-1 -*-\ninput()\nprint(sum(map(int, input().split())))",
    "crlf_source": "input()\r\nprint(sum(map(int, input().split())))\r\n",
    "form_feed": "\x0cinput()\nprint(sum(map(int, input().split())))",
    "leaves_stdin_unread": "print(60)",
    "closes_stdin": "import sys\nsys.stdin.close()\nprint(60)",
    "os_exit_after_flush": "import os, sys\nprint(60)\nsys.stdout.flush()\nos._exit(0)",
    "garbage_at_exit": "class A: pass\na = [A() for _ in range(1000)]\nfor x in a: x.me = x\nprint(60)",
    "del_method_at_exit": "class A:\n    def __del__(self): pass\na = A()\nprint(60)",
    "cpu_count": "import os\nos.cpu_count()\nprint(60)",
    "getpass_user_and_platform": "import platform, sys\nplatform.python_version(), sys.version_info\nprint(60)",
    "source_of_itself": "import inspect, sys\nassert 'inspect' in inspect.getsource(sys.modules['__main__'])\nprint(60)",
    "argv_has_one_entry": "import sys\nassert len(sys.argv) == 1\nprint(60)",
}


@pytest.mark.parametrize("name", SUMS)
def test_idioms_are_accepted(any_level: sandbox.Judge, name: str) -> None:
    judgement = any_level.judge(textwrap.dedent(SUMS[name]), [TestCase(SUM_INPUT, "60\n")])
    assert judgement.verdict is Verdict.AC, judgement


def test_output_of_many_megabytes_is_accepted(any_level: sandbox.Judge) -> None:
    code = "import sys\nfor _ in range(40): sys.stdout.write('7' * (1 << 20))\n"
    judgement = any_level.judge(code, [TestCase("", "7" * (40 << 20))])
    assert judgement.verdict is Verdict.AC, judgement


def test_large_input_left_unread_does_not_block(any_level: sandbox.Judge) -> None:
    assert any_level.judge("print(1)", [TestCase("x" * (32 << 20), "1")]).verdict is Verdict.AC


def test_large_input_arrives_whole(any_level: sandbox.Judge) -> None:
    text = "12345678\n" * 500_000
    code = "import sys\nd = sys.stdin.buffer.read()\nprint(len(d), d.count(b'\\n'))"
    assert any_level.judge(code, [TestCase(text, f"{len(text)} 500000")]).verdict is Verdict.AC


def test_invalid_utf8_is_compared_as_bytes(any_level: sandbox.Judge) -> None:
    code = "import sys\nsys.stdout.buffer.write(b'\\xff\\x00a')"
    raw = b"\xff\x00a".decode("utf-8", "surrogateescape")
    assert any_level.judge(code, [TestCase("", raw)]).verdict is Verdict.AC


def test_non_ascii_text_passes_through(any_level: sandbox.Judge) -> None:
    assert any_level.judge("print(input()[::-1])", [TestCase("αβγ→\n", "→γβα")]).verdict is Verdict.AC


def test_reaching_a_tight_memory_limit_from_below_is_accepted(any_level: sandbox.Judge) -> None:
    code = "a = bytearray(30 << 20)\nprint(len(a))"
    judgement = any_level.judge(code, [TestCase("", str(30 << 20))], limits=Limits(memory_mb=64))
    assert judgement.verdict is Verdict.AC, judgement


def test_random_is_seeded_the_same_in_every_run(any_level: sandbox.Judge) -> None:
    code = "import random\nprint(random.random(), hash('a'), list({'x', 'y', 'z', 'w'}))"
    first, second = any_level.execute(code, ["", ""])
    assert first.verdict is Verdict.AC
    assert first.stdout == second.stdout


CALLS = {
    "function": ("def add(a, b): return a + b", "add(*args)", "[1, 2]", "3"),
    "method": ("class Solution:\n    def f(self, x): return [x, x]", "Solution().f(*args)", "[1]", "[1, 1]"),
    "no_input": ("def f(x): return x", "set(f([1, 2]))", "", '{"__set__": [2, 1]}'),
    "tuple_is_a_list": ("def f(): return (1, (2, 'a'))", "f()", "", '[1, [2, "a"]]'),
    "int_keys": ("def f(): return {1: 'a', 2: 'b'}", "f()", "", '{"__dict__": [[2, "b"], [1, "a"]]}'),
    "counter": ("from collections import Counter\ndef f(): return Counter('aab')", "f()", "", '{"a": 2, "b": 1}'),
    "namedtuple": ("from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return P(1, 2)", "f()", "", "[1, 2]"),
    "huge_int": ("def f(): return 10**5000", "f()", "", "1" + "0" * 5000),
    "nan": ("def f(): return float('nan')", "f()", "", "NaN"),
    "none_and_bools": ("def f(): return [None, True, False]", "f()", "", "[null, true, false]"),
    "in_place": ("def f(a): a.sort()", "(f(*args), args[0])[1]", "[[3, 1, 2]]", "[1, 2, 3]"),
    "prints_while_working": ("def f(): print('x' * 1000); return 1", "f()", "", "1"),
    "main_guard_is_not_run": ("def f(): return 1\nif __name__ == '__main__': raise SystemExit", "f()", "", "1"),
    "annotations_of_own_classes": (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
        "def f(): return A(3).x",
        "f()", "", "3",
    ),
    "unicode": ("def f(s): return s[::-1]", "f(*args)", '["αβ"]', '"βα"'),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_calls_return_plain_values(any_level: sandbox.Judge, name: str) -> None:
    code, call, arguments, value = CALLS[name]
    judgement = any_level.judge(code, [TestCase(arguments, value, call=call)])
    assert judgement.verdict is Verdict.AC, judgement


_REVERSE = """class Solution:
    def f(self, head: Optional[ListNode]):
        last = None
        while head:
            head.next, last, head = last, head, head.next
        return last
"""
_OWN_CLASS = """class ListNode:
    def __init__(self, x):
        self.val, self.next = x, None
"""
_INVERT = """class Solution:
    def f(self, root: 'TreeNode') -> 'TreeNode':
        if root:
            root.left, root.right = self.f(root.right), self.f(root.left)
        return root
"""
_LIST, _TREE = "Solution().f(make_linked_list(args[0]))", "Solution().f(make_tree(args[0]))"
# name -> (program, checker, call, arguments, value, verdict)
STRUCTURES = {
    "linked_list": ("from typing import Optional\n" + _REVERSE, "linked_list", _LIST, "[[1, 2, 3]]", "[3, 2, 1]", Verdict.AC),
    "linked_list_of_its_own_class": ("from typing import *\n" + _OWN_CLASS + _REVERSE, "linked_list", _LIST, "[[1, 2]]", "[2, 1]", Verdict.AC),
    "linked_list_not_reversed": (_REVERSE.replace("Optional[ListNode]", "ListNode").replace("return last", "return None"), "linked_list", _LIST, "[[1, 2]]", "[2, 1]", Verdict.WA),
    "linked_list_empty": (_REVERSE.replace("Optional[ListNode]", "ListNode"), "linked_list", _LIST, "[[]]", "[]", Verdict.AC),
    "linked_list_in_a_ring": ("class Solution:\n    def f(self, head):\n        head.next = head\n        return head", "linked_list", _LIST, "[[1]]", "[1]", Verdict.RE),
    "linked_list_given_as_a_list": ("class Solution:\n    def f(self, head): return [1]", "linked_list", _LIST, "[[1]]", "[1]", Verdict.WA),
    "tree": (_INVERT, "tree", _TREE, "[[4, 2, 7, null, 3]]", "[4, 7, 2, null, null, 3]", Verdict.AC),
    "tree_not_inverted": ("class Solution:\n    def f(self, root): return root", "tree", _TREE, "[[4, 2, 7]]", "[4, 7, 2]", Verdict.WA),
    "tree_deep": ("class Solution:\n    def f(self, root): return root", "tree", _TREE, json.dumps([[1] + [None, 1] * 5000]), json.dumps([1] + [None, 1] * 5000), Verdict.AC),
    "in_place": ("class Solution:\n    def f(self, a): a.sort()", "in_place", "Solution().f(*args)", "[[3, 1, 2]]", "[1, 2, 3]", Verdict.AC),
    "in_place_bound_anew": ("class Solution:\n    def f(self, a): a = sorted(a)", "in_place", "Solution().f(*args)", "[[3, 1, 2]]", "[1, 2, 3]", Verdict.WA),
    "in_place_with_more_arguments": ("def f(a, k): a[:] = a[k:] + a[:k]; return 7", "in_place", "f(*args)", "[[1, 2, 3], 1]", "[2, 3, 1]", Verdict.AC),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURES)
def test_lists_trees_and_changed_arguments_have_comparators(judge: sandbox.Judge, name: str) -> None:
    code, checker, call, arguments, value, verdict = STRUCTURES[name]
    judgement = judge.judge(code, [TestCase(arguments, value, call=call)], checker=checker)
    assert judgement.verdict is verdict, judgement


@pytest.mark.parametrize(("arguments", "call"), [("1", None), ("[]", "f(*args)"), ("", "f()")])
def test_comparators_of_returned_values_need_a_call_that_fits(
    judge: sandbox.Judge, arguments: str, call: str | None
) -> None:
    with pytest.raises(ValueError, match="every test needs"):
        judge.judge("def f(*a): return 1", [TestCase(arguments, "1", call=call)], checker="in_place")


def test_every_call_gets_fresh_arguments_and_a_fresh_namespace(any_level: sandbox.Judge) -> None:
    code = "seen = []\ndef f(a):\n    a.append(0)\n    seen.append(1)\n    return [len(a), len(seen)]"
    tests = [TestCase("[[1]]", "[2, 1]", call="f(*args)")] * 3
    assert any_level.judge(code, tests).verdict is Verdict.AC


def test_sortedcontainers_can_be_imported_and_nothing_else_of_the_installation(any_level: sandbox.Judge) -> None:
    use = "from sortedcontainers import SortedList\nprint(*SortedList(map(int, input().split())))"
    assert any_level.judge(use, [TestCase("3 1 2", "1 2 3"), TestCase("2 1", "1 2")]).verdict is Verdict.AC
    call = "import sortedcontainers\ndef f(d): return list(sortedcontainers.SortedDict(d))"
    assert any_level.judge(call, [TestCase('[{"b": 1, "a": 2}]', '["a", "b"]', call="f(*args)")]).accepted
    assert "No module named 'numpy'" in any_level.judge("import numpy", [TestCase("", "")]).message


@pytest.mark.parametrize("change", ["open(home, 'a')", "os.remove(home)", "os.rename(home, 'x')", "os.chmod(home, 0)"])
def test_what_a_program_may_import_it_cannot_change(any_level: sandbox.Judge, change: str) -> None:
    code = f"import os, sortedcontainers\nhome = sortedcontainers.__file__\nprint(1)\n{change}"
    judgement = any_level.judge(code, [TestCase("", "1")])
    assert judgement.verdict is Verdict.RE and ("Error: [Errno" in judgement.message or "signal" in judgement.message)
