# ruff: noqa: E501
"""Attacks 89 to 100: sources that abuse the compiler, and binaries that go past the C library."""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from attack_numbers import attack, numbered

import sandbox
from sandbox import Limits, TestCase, Verdict
from sandbox.languages import available

MACROS = "".join(f"#define {a} {' '.join([b] * 10)}\n" for a, b in zip("ABCDEFG", "BCDEFGH", strict=True))

NUMBERS = {
    89: "template_recursion",
    90: "include_random_device include_zero_device include_standard_input",
    91: "include_passwords include_environment include_other_process",
    92: "incbin_passwords incbin_zero_device incbin_secret embed_directive",
    93: "initialised_gigabytes",
    94: "error_flood warning_flood",
    95: "plugin_by_pragma options_by_attribute include_with_at_sign specs_by_pragma",
    96: "constexpr_for_ever macro_explosion include_itself",
    97: "rust_include rust_environment java_peeks go_embed go_generate go_cgo",
    100: "include_tests has_include_tests incbin_tests",
}

# name -> (language, source); "SECRET_FILE" stands for a readable file outside that holds the word LOOT
SOURCES: dict[str, tuple[str, str]] = {
    "template_recursion": ("cpp", "template<int N> struct A { A<N + 1> a; A<N + 2> b; }; A<0> a; int main() {}"),
    "include_random_device": ("c", '#include "/dev/urandom"\nint main(void) {}'),
    "include_zero_device": ("c", '#include "/dev/zero"\nint main(void) {}'),
    "include_standard_input": ("c", '#include "/dev/stdin"\n#include "/dev/fd/0"\nint main(void) {}'),
    "include_passwords": ("c", '#include "/etc/passwd"\nint main(void) {}'),
    "include_environment": ("c", '#include "/proc/self/environ"\nint main(void) {}'),
    "include_other_process": ("c", '#include "/proc/1/environ"\nint main(void) {}'),
    "incbin_passwords": ("c", 'asm(".incbin \\"/etc/passwd\\"");\nint main(void) {}'),
    "incbin_zero_device": ("c", 'asm(".incbin \\"/dev/zero\\"");\nint main(void) {}'),
    "incbin_secret": ("c", 'asm(".incbin \\"SECRET_FILE\\"");\nint main(void) {}'),
    "embed_directive": ("cpp", 'const char a[] = {\n#embed "SECRET_FILE"\n};\nint main() {}'),
    "initialised_gigabytes": ("c", "char a[2147483647] = {1};\nint main(void) { return a[5]; }"),
    "error_flood": ("c", "#error " + "x" * 1_000_000 + "\n"),
    "warning_flood": ("c", "int main(void) {\n" + "undeclared;\n" * 20_000 + "}"),
    "plugin_by_pragma": ("cpp", '#pragma GCC optimize("-fplugin=SECRET_FILE")\n#error ends here\nint main() {}'),
    "options_by_attribute": ("c", '__attribute__((optimize("-fplugin=SECRET_FILE"))) int f(void) { return g(); }'),
    "include_with_at_sign": ("c", '#include "@SECRET_FILE"\nint main(void) {}'),
    "specs_by_pragma": ("c", '#pragma GCC specs "SECRET_FILE"\n#include "-specs=SECRET_FILE"\nint main(void) {}'),
    "constexpr_for_ever": (
        "cpp",
        "constexpr long f(long n) { return n < 2 ? n : f(n - 1) + f(n - 2); }\nconstexpr long x = f(90);\nint main() {}",
    ),
    "macro_explosion": ("cpp", MACROS + "#define H +1+1+1+1+1+1+1+1+1+1\nint main() { return A; }"),
    "include_itself": ("c", "#include __FILE__\n#include __FILE__\nint main(void) {}"),
    "rust_include": ("rust", 'fn main() { print!("{}", include_str!("SECRET_FILE")); }'),
    "rust_environment": ("rust", 'fn main() { print!("{}", env!("SANDBOX_TEST_API_KEY")); }'),
    "java_peeks": (
        "java",
        '@javax.annotation.processing.SupportedAnnotationTypes("*")\npublic class Main extends javax.annotation.processing.'
        "AbstractProcessor {}",
    ),
    "go_embed": ("go", 'package main\nimport _ "embed"\n//go:embed main.go\nvar s string\nfunc main() { print(s) }'),
    "go_generate": ("go", "package main\n//go:generate cp SECRET_FILE loot\nfunc main() { return 1 }"),
    "go_cgo": ("go", 'package main\n// #cgo LDFLAGS: -fplugin=SECRET_FILE\nimport "C"\nfunc main() { C.puts(nil) }'),
    "include_tests": ("c", '#include "SECRET_FILE"\nint main(void) {}'),
    "has_include_tests": ("cpp", '#if !__has_include("SECRET_FILE")\n#error not there\n#endif\nint main() {}'),
    "incbin_tests": ("cpp", 'asm(".incbin \\"SECRET_FILE\\"");\nint main() {}'),
}
SLOW = {"template_recursion", "initialised_gigabytes", "constexpr_for_ever", "macro_explosion", "incbin_zero_device"}


def usable(language: str) -> None:
    if available()[language] is not None:
        pytest.skip(f"{language} is not installed here")


@pytest.fixture(scope="module")
def secret() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder, "1.ans")
        path.write_text("LOOT\n")
        yield path


def refuse(judge: sandbox.Judge, secret: Path, name: str) -> None:
    language, source = SOURCES[name]
    usable(language)
    try:
        judgement = judge.judge(source.replace("SECRET_FILE", str(secret)), [TestCase("", "LOOT")], language=language)
    except sandbox.ToolchainMissing as error:  # for the unprivileged user only
        pytest.skip(str(error))
    # the compiler's standard input is empty
    assert judgement.verdict is (Verdict.WA if name == "include_standard_input" else Verdict.CE), judgement
    assert len(judgement.message) <= 300
    assert "root:" not in judgement.message and "LOOT" not in judgement.message


QUICK = {number: " ".join(n for n in names.split() if n not in SLOW) for number, names in NUMBERS.items()}
BOMBS = {number: " ".join(n for n in names.split() if n in SLOW) for number, names in NUMBERS.items()}


@pytest.mark.parametrize("name", numbered(QUICK, set(SOURCES) - SLOW))
def test_compilers_reach_nothing_and_end(held: sandbox.Judge, secret: Path, name: str) -> None:
    refuse(held, secret, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", numbered(BOMBS, SLOW))
def test_bombs_for_the_compiler_are_compile_errors(judge: sandbox.Judge, secret: Path, name: str) -> None:
    refuse(judge, secret, name)


@attack(98)
@pytest.mark.parametrize(
    "body", ['"mov $20, %%eax; int $0x80"', '"mov $0x40000027, %%eax; syscall"'], ids=["i386", "x32"]
)
def test_foreign_call_tables_kill_a_binary(held: sandbox.Judge, body: str) -> None:
    usable("c")
    code = '#include <stdio.h>\nint main(void) { asm volatile(BODY ::: "rax", "rcx", "r11"); puts("ESCAPED"); }'
    run = held.execute(code.replace("BODY", body), [""], language="c")[0]
    assert (run.verdict, run.stdout) == (Verdict.RE, b""), run


@attack(98)
def test_raw_calls_reach_no_further_than_the_library(held: sandbox.Judge) -> None:
    usable("c")
    code = """
        #include <stdio.h>
        static long call(long n, long a, long b, long c, long d, long e) {
            long r; register long r10 asm("r10") = d; register long r8 asm("r8") = e;
            asm volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
            return r;
        }
        #define TRY(n, ...) if (call(n, __VA_ARGS__) >= 0) printf("ESCAPED %d\\n", n)
        int main(void) {
            TRY(41, 2, 1, 0, 0, 0); TRY(56, 17, 0, 0, 0, 0); TRY(57, 0, 0, 0, 0, 0); TRY(58, 0, 0, 0, 0, 0);
            TRY(62, -1, 9, 0, 0, 0); TRY(101, 16, call(110, 0, 0, 0, 0, 0), 0, 0, 0); TRY(272, 0x10000000, 0, 0, 0, 0);
            TRY(257, -100, (long)"/etc/passwd", 0, 0, 0); TRY(435, (long)"", 88, 0, 0, 0); TRY(425, 8, 0, 0, 0, 0);
            TRY(434, call(110, 0, 0, 0, 0, 0), 0, 0, 0, 0); TRY(319, (long)"x", 0, 0, 0, 0); TRY(29, 0, 4096, 01666, 0, 0);
            puts("end");
        }
    """
    run = held.execute(textwrap.dedent(code), [""], language="c")[0]
    assert run.stdout == b"end\n", run


@attack(99)
def test_untouched_memory_is_not_charged(held: sandbox.Judge) -> None:
    usable("c")
    code = '#include <stdio.h>\nstatic char huge[2000000000];\nint main(void) { printf("%d", huge[123456789]); }'
    assert held.judge(code, [TestCase("", "0")], language="c", limits=Limits(memory_mb=64)).accepted
    code = code.replace("printf", "for (long i = 0; i < 2000000000; i += 4096) huge[i] = 1;\n printf")
    judgement = held.judge(code, [TestCase("", "0")], language="c", limits=Limits(memory_mb=64))
    assert judgement.verdict is Verdict.MLE, judgement
