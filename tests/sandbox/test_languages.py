# ruff: noqa: E501
"""Every language whose tool chain is here: one program a language, asked to do a different thing in each test."""

from __future__ import annotations

import pytest

import sandbox
from sandbox import Limits, TestCase, ToolchainMissing, Verdict, languages

PROGRAMS = {
    "python": """
import sys, threading
sys.setrecursionlimit(10**6)
def deep(n): return 0 if n == 0 else 1 + deep(n - 1)
what = input()
if what == "add": print(sum(map(int, input().split())))
elif what == "deep": print(deep(20000))
elif what == "loop":
    while True: pass
elif what == "memory": print(len(bytearray(2 << 30)))
elif what == "crash": raise ValueError("boom")
elif what == "flood":
    while True: print("x" * 1000)
elif what == "passwd": print(open("/etc/passwd").read())
elif what == "process":
    import os; print(os.fork())
elif what == "socket":
    import socket; socket.socket().connect(("127.0.0.1", 22))
elif what == "thread":
    t = threading.Thread(target=print, args=("here",)); t.start(); t.join()
""",
    "cpp": """
#include <bits/stdc++.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <unistd.h>
#include <thread>
int deep(int n) { volatile char pad[32]; pad[0] = 1; return n == 0 ? 0 : deep(n - 1) + pad[0]; }
int main() {
    std::string what; std::cin >> what;
    if (what == "add") { long long a, s = 0; while (std::cin >> a) s += a; std::cout << s; }
    if (what == "deep") std::cout << deep(20000);
    if (what == "loop") for (volatile int i = 0;;) i = i + 1;
    if (what == "memory") { auto p = new char[2LL << 30]; memset(p, 1, 2LL << 30); std::cout << p[5]; }
    if (what == "crash") throw std::runtime_error("boom");
    if (what == "flood") for (;;) puts("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    if (what == "passwd") { std::ifstream f("/etc/passwd"); if (!f) return 9; std::cout << f.rdbuf(); }
    if (what == "process") { if (fork() < 0) return 9; std::cout << "forked"; }
    if (what == "socket") { if (socket(AF_INET, SOCK_STREAM, 0) < 0) return 9; std::cout << "socket"; }
    if (what == "thread") { std::thread t([] { std::cout << "here"; }); t.join(); }
}
""",
    "c": """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <pthread.h>
static int deep(int n) { volatile char pad[32]; pad[0] = 1; return n == 0 ? 0 : deep(n - 1) + pad[0]; }
static void *say(void *p) { puts("here"); return p; }
int main(void) {
    char what[20]; scanf("%19s", what);
    if (!strcmp(what, "add")) { long long a, s = 0; while (scanf("%lld", &a) == 1) s += a; printf("%lld", s); }
    if (!strcmp(what, "deep")) printf("%d", deep(20000));
    if (!strcmp(what, "loop")) for (volatile int i = 0;;) i = i + 1;
    if (!strcmp(what, "memory")) { char *p = malloc(2LL << 30); memset(p, 1, 2LL << 30); putchar(p[5]); }
    if (!strcmp(what, "crash")) abort();
    if (!strcmp(what, "flood")) for (;;) puts("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
    if (!strcmp(what, "passwd")) { if (!fopen("/etc/passwd", "r")) return 9; puts("read"); }
    if (!strcmp(what, "process")) { if (fork() < 0) return 9; puts("forked"); }
    if (!strcmp(what, "socket")) { if (socket(AF_INET, SOCK_STREAM, 0) < 0) return 9; puts("socket"); }
    if (!strcmp(what, "thread")) { pthread_t t; pthread_create(&t, 0, say, 0); pthread_join(t, 0); }
    return 0;
}
""",
    "java": """
package contest.deep;
import java.io.*;
import java.nio.file.*;
import java.util.*;
class Helper { static int deep(int n) { return n == 0 ? 0 : 1 + deep(n - 1); } }
public class Adder {
    public static void main(String[] arguments) throws Exception {
        Scanner in = new Scanner(System.in);
        switch (in.next()) {
            case "add": long s = 0; while (in.hasNextLong()) s += in.nextLong(); System.out.println(s); break;
            case "deep": System.out.println(Helper.deep(20000)); break;
            case "loop": for (long i = 0;; i++) if (i < 0) System.out.println(i);
            case "memory": List<byte[]> all = new ArrayList<>(); for (;;) { byte[] b = new byte[1 << 22]; Arrays.fill(b, (byte) 1); all.add(b); }
            case "crash": throw new IllegalStateException("boom");
            case "flood": for (;;) System.out.println("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx");
            case "passwd": System.out.println(Files.readString(Path.of("/etc/passwd"))); break;
            case "process": System.out.println(new ProcessBuilder("/bin/true").start().waitFor()); break;
            case "socket": new java.net.Socket("127.0.0.1", 22); System.out.println("connected"); break;
            case "thread": Thread t = new Thread(() -> System.out.println("here")); t.start(); t.join(); break;
        }
    }
}
""",
    "javascript": """
const fs = require('fs');
const [what, ...rest] = fs.readFileSync(0, 'utf8').split(/\\s+/).filter(x => x);
const deep = n => n === 0 ? 0 : 1 + deep(n - 1);
if (what === 'add') console.log(rest.map(Number).reduce((a, b) => a + b, 0));
if (what === 'deep') console.log(deep(20000));
if (what === 'loop') for (;;);
if (what === 'memory') { const all = []; for (;;) all.push(new Array(1 << 20).fill(all.length + 0.5)); }
if (what === 'crash') throw new Error('boom');
if (what === 'flood') for (;;) fs.writeSync(1, 'x'.repeat(1000) + '\\n');
if (what === 'passwd') console.log(fs.readFileSync('/etc/passwd', 'utf8'));
if (what === 'process') console.log(require('child_process').execFileSync('/bin/true').length);
if (what === 'socket') require('net').connect(22, '127.0.0.1', () => console.log('connected'));
if (what === 'thread') { const { Worker } = require('worker_threads'); new Worker("console.log('here')", { eval: true }); }
""",
    "go": """
package main
import ("bufio"; "fmt"; "net"; "os"; "os/exec")
func deep(n int) int { if n == 0 { return 0 }; return 1 + deep(n - 1) }
func main() {
    in := bufio.NewReader(os.Stdin)
    var what string
    fmt.Fscan(in, &what)
    switch what {
    case "add": s := 0; var a int; for { if _, e := fmt.Fscan(in, &a); e != nil { break }; s += a }; fmt.Println(s)
    case "deep": fmt.Println(deep(20000))
    case "loop": for i := 0; ; i++ { if i < 0 { fmt.Println(i) } }
    case "memory": var all [][]byte; for { b := make([]byte, 1<<22); for i := range b { b[i] = 1 }; all = append(all, b) }
    case "crash": panic("boom")
    case "flood": for { fmt.Println("xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx") }
    case "passwd": b, e := os.ReadFile("/etc/passwd"); if e != nil { panic(e) }; fmt.Println(string(b))
    case "process": if e := exec.Command("/bin/true").Run(); e != nil { panic(e) }; fmt.Println("ran")
    case "socket": if _, e := net.Dial("tcp", "127.0.0.1:22"); e != nil { panic(e) }; fmt.Println("connected")
    case "thread": c := make(chan string); go func() { c <- "here" }(); fmt.Println(<-c)
    }
}
""",
    "rust": """
use std::io::{Read, Write};
fn deep(n: u32) -> u32 { if n == 0 { 0 } else { 1 + std::hint::black_box(deep(n - 1)) } }
fn main() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    let mut words = text.split_whitespace();
    match words.next().unwrap() {
        "add" => println!("{}", words.map(|w| w.parse::<i64>().unwrap()).sum::<i64>()),
        "deep" => println!("{}", deep(20000)),
        "loop" => { let mut i = 0u64; loop { i = std::hint::black_box(i + 1); } }
        "memory" => { let mut all = Vec::new(); loop { all.push(vec![1u8; 1 << 22]); } }
        "crash" => panic!("boom"),
        "flood" => loop { std::io::stdout().write_all(&[b'x'; 1000]).unwrap(); },
        "passwd" => println!("{}", std::fs::read_to_string("/etc/passwd").unwrap()),
        "process" => println!("{:?}", std::process::Command::new("/bin/true").status().unwrap()),
        "socket" => println!("{:?}", std::net::TcpStream::connect("127.0.0.1:22").unwrap()),
        "thread" => std::thread::spawn(|| println!("here")).join().unwrap(),
        _ => {}
    }
}
""",
}
PROGRAMS["pypy"] = PROGRAMS["python"]
PROGRAMS["cpp17"] = PROGRAMS["cpp"]
GO_WITHOUT_NET = (
    PROGRAMS["go"]
    .replace('"net"; ', "")
    .replace('"os/exec"', "")
    .replace('"os"; ', '"os"')
    .replace('if _, e := net.Dial("tcp", "127.0.0.1:22"); e != nil { panic(e) }', 'panic("no sockets")')
    .replace('if e := exec.Command("/bin/true").Run(); e != nil { panic(e) }', 'panic("no processes")')
)

ASKED = [
    ("add\n2 3 -10\n", "-5", Verdict.AC),
    ("add\n1 1\n", "3", Verdict.WA),
    ("deep\n", "20000", Verdict.AC),
    ("thread\n", "here", Verdict.AC),
    ("crash\n", "x", Verdict.RE),
    ("passwd\n", "x", Verdict.RE),
    ("process\n", "x", Verdict.RE),
    ("socket\n", "x", Verdict.RE),
    ("flood\n", "x", Verdict.OLE),
    ("loop\n", "x", Verdict.TLE),
    ("memory\n", "x", Verdict.MLE),
]
LIMITS = Limits(cpu_s=0.4, wall_s=60, memory_mb=128, output_mb=2)


def usable(name: str) -> None:
    remedy = languages.available()[name]
    if remedy is not None:
        pytest.skip(f"{name}: {remedy}")


@pytest.mark.parametrize("language", sorted(PROGRAMS))
def test_verdicts_are_the_same_in_every_language(any_level: sandbox.Judge, language: str) -> None:
    usable(language)
    code = GO_WITHOUT_NET if language == "go" else PROGRAMS[language]
    tests = [TestCase(given, expected) for given, expected, _ in ASKED]
    judgement = any_level.judge(code, tests, language=language, limits=LIMITS, stop="never")
    found = {given.split()[0]: case.verdict for (given, _, _), case in zip(ASKED[2:], judgement.cases[2:], strict=True)}
    assert found == {given.split()[0]: verdict for given, _, verdict in ASKED[2:]}, judgement
    assert [case.verdict for case in judgement.cases[:2]] == [Verdict.AC, Verdict.WA], judgement


BROKEN = {
    "pypy": ("def f(:\n", "SyntaxError"),
    "c": ("int main(void) { return x; }", "undeclared"),
    "cpp": ("int main() { return x; }", "not declared"),
    "cpp17": ('#include <ranges>\nint main() { return std::ranges::size("a"); }', "ranges"),
    "java": ('public class Main { public static void main(String[] a) { int x = ""; } }', "incompatible types"),
    "javascript": ("let x = ;", "SyntaxError"),
    "go": ("package main\nfunc main() { return 1 }", "return"),
    "rust": ('fn main() { let x: i32 = ""; }', "mismatched types"),
}


@pytest.mark.parametrize("language", sorted(BROKEN))
def test_what_does_not_compile_is_named(judge: sandbox.Judge, language: str) -> None:
    usable(language)
    code, reason = BROKEN[language]
    judgement = judge.judge(code, [TestCase("", "")], language=language)
    assert judgement.verdict is Verdict.CE and reason in judgement.message, judgement


PEEKING = {
    "c": '#include "/etc/passwd"\nint main(void) {}',
    "java": "public class Main {}",  # nothing to start
    "go": 'package main\nimport _ "embed"\n//go:embed main.go\nvar s string\nfunc main() { println(s) }',
    "rust": 'fn main() { println!("{}", include_str!("/etc/passwd")); }',
}


@pytest.mark.parametrize("language", sorted(PEEKING))
def test_compilers_read_nothing_but_the_program(any_level: sandbox.Judge, language: str) -> None:
    usable(language)
    judgement = any_level.judge(PEEKING[language], [TestCase("", "")], language=language)
    assert judgement.verdict is Verdict.CE and "root:" not in judgement.message, judgement


def test_standard_libraries_are_there(judge: sandbox.Judge) -> None:
    programs = {
        "go": 'package main\nimport ("container/heap"; "fmt"; "math/big"; "sort"; "strings"; "time")\ntype H []int\nfunc (h H) Len() int { return len(h) }\nfunc (h H) Less(i, j int) bool { return h[i] < h[j] }\nfunc (h H) Swap(i, j int) { h[i], h[j] = h[j], h[i] }\nfunc (h *H) Push(x interface{}) { *h = append(*h, x.(int)) }\nfunc (h *H) Pop() interface{} { o := *h; x := o[len(o)-1]; *h = o[:len(o)-1]; return x }\nfunc main() { _ = time.Now(); h := &H{3, 1}; heap.Init(h); s := []int{2, 1}; sort.Ints(s); fmt.Println(heap.Pop(h), s, new(big.Int).Exp(big.NewInt(2), big.NewInt(70), nil), strings.Repeat("a", 2)) }',
        "rust": 'use std::collections::{BTreeMap, BinaryHeap};\nfn main() { let mut h = BinaryHeap::from(vec![1, 3]); let m: BTreeMap<_, _> = [(1, 2)].into(); println!("{:?} {:?} {:?}", h.pop(), m, 1u128 << 70); }',
        "java": 'import java.math.*; import java.util.*; import java.util.stream.*;\nclass Main { record P(int a) {} public static void main(String[] x) { System.out.println(new PriorityQueue<>(List.of(3, 1)).poll() + " " + BigInteger.TWO.pow(70) + " " + IntStream.range(0, 4).sum() + new P(1)); System.out.println(new Random(1).nextInt() != 0); } }',
        "javascript": "const m = new Map([[1, 2n ** 70n]]); console.log(m.get(1).toString(), [3, 1].sort()[0]); const rl = require('readline').createInterface({input: process.stdin}); rl.on('line', l => console.log(l)); ",
        "pypy": "import bisect, collections, heapq, itertools, math, fractions, decimal, re\nprint(math.comb(70, 3), bisect.bisect([1, 2], 1), open(0).read())",
    }
    expected = {
        "go": "1 [1 2] 1180591620717411303424 aa",
        "rust": "Some(3) {1: 2} 1180591620717411303424",
        "java": "1 1180591620717411303424 6P[a=1]\ntrue",
        "javascript": "1180591620717411303424 1\nline",
        "pypy": "54740 1 line",
    }
    present = [name for name in programs if languages.available()[name] is None]
    for name in present:
        judgement = judge.judge(programs[name], [TestCase("line", expected[name])], language=name, keep_output=True)
        assert judgement.verdict is Verdict.AC, (name, judgement)


def test_names_are_found_under_their_usual_spellings() -> None:
    spelled = {
        "Python3": "python",
        "pypy3": "pypy",
        "C++": "cpp",
        "c++17": "cpp17",
        "cpp20": "cpp",
        "Node": "javascript",
        "golang": "go",
    }
    assert {name: languages.find(name).name for name in spelled} == spelled
    with pytest.raises(ValueError, match="known are c, cpp, cpp17, go, java, javascript, pypy, python, rust"):
        languages.find("fortran")


@pytest.mark.parametrize("language", ["go", "java", "javascript", "pypy", "rust"])
def test_a_missing_tool_chain_says_what_to_install(
    judge: sandbox.Judge, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    spoken = languages.find(language)
    with monkeypatch.context() as patched:
        patched.setitem(spoken.__dict__, "path", None)
        with pytest.raises(ToolchainMissing, match=r"not found: install it"):
            judge.judge("x", [TestCase("", "")], language=language)
    spoken.__dict__.pop("path")


def test_call_based_tests_are_for_python_only(judge: sandbox.Judge) -> None:
    with pytest.raises(ValueError, match="python only"):
        judge.judge("x", [TestCase("[]", "1", call="f()")], language="cpp")


FAILED_ALLOCATIONS = {
    "cpp": "#include <vector>\nint main() { std::vector<char> v(1ull << 42); return v.size() == 1; }",
    "go": 'package main\nimport "fmt"\nfunc main() { fmt.Println(len(make([]byte, 1<<45))) }',
    "java": "class A { public static void main(String[] a) { System.out.println(new long[2147483639].length); } }",
    "python": "bytearray(1 << 42)",
}


@pytest.mark.parametrize("language", FAILED_ALLOCATIONS)
def test_an_allocation_that_fails_is_the_memory_limit(judge: sandbox.Judge, language: str) -> None:
    usable(language)
    found = judge.judge(FAILED_ALLOCATIONS[language], [TestCase()], language=language, limits=Limits(wall_s=60))
    assert found.verdict is Verdict.MLE and "out of memory (" in found.message, found
