"""`rlvr sandbox`: what this machine can enforce, judging from the shell, problem packages, the judge as a service."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from sandbox import Judgement, TestCase
    from sandbox.service.testsets import TestSets

LEVEL = click.option(
    "--min-protection",
    type=click.Choice(["namespaced", "confined"]),
    default="confined",
    show_default=True,
    help="Refuse to run programs below this level.",
)
UNCONFINED = click.option("--allow-unconfined", is_flag=True, help="Accept mere resource limits. Not for others' code.")
WORKERS = click.option("--workers", type=click.IntRange(min=1), default=None, help="Default: the usable CPUs.")
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
CACHE = click.option("--cache", type=click.Path(path_type=Path), default=None, help="SQLite file of known verdicts.")


@click.group()
def sandbox() -> None:
    """Run untrusted programs: check this machine, judge, verify problem packages, serve."""


@sandbox.command()
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def doctor(as_json: bool) -> None:
    """Say what this machine can enforce, why not more, what would help. Exit code 1: programs cannot be confined."""
    from sandbox.doctor import examine

    report = examine()
    click.echo(json.dumps(asdict(report), indent=2) if as_json else report.text())
    if report.level is None:
        raise SystemExit(1)


@sandbox.command()
@click.argument("program", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--tests", required=True, type=click.Path(path_type=Path), help="Folder of .in/.ans or .out, or .jsonl.")
@click.option("--language", default=None, help="Default: by the file's extension.")
@click.option("--checker", default="tokens", show_default=True, help="tokens, lines, exact, floats:1e-6, yes_no, ...")
@click.option("--checker-program", type=FILE, default=None, help="The problem's own checker, run in the sandbox.")
@click.option("--interactor", type=FILE, default=None, help="The problem's side of a conversation.")
@click.option(
    "--protocol",
    type=click.Choice(["python", "testlib", "kattis"]),
    default=None,
    help="Of the two above. Default: python for .py, testlib for what includes testlib.h, else kattis.",
)
@click.option("--testlib", type=FILE, default=None, help="Your testlib.h. Default: SANDBOX_TESTLIB.")
@click.option("--input-file", default="", help="The file PROGRAM reads, instead of standard input.")
@click.option("--output-file", default="", help="The file PROGRAM writes, instead of standard output.")
@click.option("--completion", is_flag=True, help="PROGRAM is a model's completion: judge the program in it.")
@click.option(
    "--cpu", "cpu_s", type=float, default=2.0, show_default=True, help="CPU seconds for C++; see --plain-time."
)
@click.option("--plain-time", is_flag=True, help="--cpu is the limit itself, whatever the language.")
@click.option("--memory", "memory_mb", type=int, default=256, show_default=True, help="MiB.")
@click.option("--output", "output_mb", type=float, default=64.0, show_default=True, help="MiB.")
@click.option("--all", "run_all", is_flag=True, help="Run all tests, also after one has failed.")
@click.option("--url", default=None, help="Judge on the service there; its token in RLVR_JUDGE_TOKEN.")
@LEVEL
@UNCONFINED
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def judge(
    program: Path,
    tests: Path,
    language: str | None,
    checker: str,
    checker_program: Path | None,
    interactor: Path | None,
    protocol: str | None,
    testlib: Path | None,
    input_file: str,
    output_file: str,
    completion: bool,
    cpu_s: float,
    plain_time: bool,
    memory_mb: int,
    output_mb: float,
    run_all: bool,
    url: str | None,
    min_protection: str,
    allow_unconfined: bool,
    as_json: bool,
) -> None:
    """Judge PROGRAM on tests. Exit code 0: accepted, 1: not accepted, 2: wrong usage, 3: the judge itself failed."""
    from sandbox import Limits, Verdict
    from sandbox.extraction import extract_code
    from sandbox.testfiles import read_tests, text_of

    cases = read_tests(tests)
    limits = Limits(cpu_s, memory_mb=memory_mb, output_mb=output_mb, language_factors=not plain_time)
    language = language or ("python" if completion else _language_of(program))
    code = extract_code(text_of(program), language) if completion else text_of(program)
    with _open_judge(url, 1, min_protection, allow_unconfined, None, testlib) as used:
        judgement = used.judge(
            code,
            cases,
            language=language,
            limits=limits,
            checker=checker if checker_program is None else _referee(checker_program, protocol),
            input_file=input_file,
            output_file=output_file,
            interactor="" if interactor is None else _referee(interactor, protocol),
            stop="never" if run_all else "first_failure",
        )
    click.echo(json.dumps(_as_dict(judgement, cases), indent=2) if as_json else _table(judgement, cases))
    if not judgement.accepted:
        raise SystemExit(3 if judgement.verdict is Verdict.IE else 1)


@sandbox.command("verify-package")
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="DIR...")
@click.option("--only", "categories", multiple=True, metavar="CATEGORY", help="As in submissions/CATEGORY; repeatable.")
@click.option(
    "--time-limit", type=click.FloatRange(min=0, min_open=True), default=None, help="CPU s; else the package's."
)
@click.option("--thorough", is_flag=True, help="Run every submission on every test, also after it has failed.")
@click.option("--url", default=None, help="Judge on the service there; its token in RLVR_JUDGE_TOKEN.")
@WORKERS
@LEVEL
@UNCONFINED
@click.option("--json", "as_json", is_flag=True, help="Machine-readable.")
def verify_package(
    folders: tuple[Path, ...],
    categories: tuple[str, ...],
    time_limit: float | None,
    thorough: bool,
    url: str | None,
    workers: int | None,
    min_protection: str,
    allow_unconfined: bool,
    as_json: bool,
) -> None:
    """Run all submissions of Kattis, DOMjudge and ICPC problem packages and compare with what their folders promise.

    DIR is a package or holds packages. Exit code 0: all as promised, 1: not, 2: a package cannot be read, 3: the judge
    itself failed.
    """
    from data_curation.kattis import PackageError, find_packages, read_package, table
    from data_curation.kattis.verify import verify

    places = [place for folder in folders for place in find_packages(folder)]
    packages, found, unreadable = [], [], []

    def refuse(place: Path, error: Exception) -> None:
        unreadable.append(place)
        click.echo(f"{place.name}: {error}", err=True)

    for place in places:
        try:
            packages.append((place, read_package(place)))
        except PackageError as error:
            refuse(place, error)
    there = {submission.category for _, package in packages for submission in package.submissions}
    if packages and (unknown := sorted(set(categories) - there)):
        raise click.UsageError(f"--only {unknown[0]}: no submissions of it; there are {', '.join(sorted(there))}")
    options: dict[str, Any] = {"time_limit_s": time_limit, "categories": categories, "thorough": thorough}
    with _open_judge(url, workers, min_protection, allow_unconfined, None) as used:
        for place, package in packages:
            with _bar(package.name) as bar:
                try:
                    found.append(verify(package, used, progress=bar, **options))
                except ValueError as error:  # its validator, for example, does not compile
                    refuse(place, error)
                    continue
            if not as_json:
                click.echo(table.text(found[-1]))
    if as_json:
        click.echo(json.dumps([table.data(each) for each in found], indent=2))
    elif len(places) > 1:
        good = sum(each.passed and not each.judge_failed for each in found)
        click.echo(f"{good} of {len(places)} packages are as they should be")
    if unreadable:
        raise SystemExit(2)
    if any(each.judge_failed for each in found):
        raise SystemExit(3)
    if not all(each.passed for each in found):
        raise SystemExit(1)


@contextlib.contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int], None]]:
    from tqdm import tqdm

    with tqdm(desc=name, unit=" submissions", leave=False, disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield show


@sandbox.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Beyond this machine only with a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0: any free one.")
@click.option("--token-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Or RLVR_JUDGE_TOKEN.")
@click.option("--problems", multiple=True, help="Hold the tests of these problems, by id (as `load_problems` names).")
@click.option("--max-queue", type=click.IntRange(min=1), default=4096, show_default=True, help="Submissions; then 429.")
@click.option("--max-body-mb", type=click.IntRange(min=1), default=256, show_default=True)
@click.option("--max-tests-mb", type=click.IntRange(min=1), default=4096, show_default=True, help="Test sets held.")
@click.option("--max-run-s", type=float, default=120.0, show_default=True, help="Longest run of /run_code.")
@click.option("--max-memory-mb", type=click.IntRange(min=16), default=4096, show_default=True, help="Of /run_code.")
@click.option("--grace-s", type=float, default=30.0, show_default=True, help="For running requests at the end.")
@click.option("--ssl-certificate", type=click.Path(exists=True, dir_okay=False), default=None)
@click.option("--ssl-key", type=click.Path(exists=True, dir_okay=False), default=None)
@WORKERS
@CACHE
@LEVEL
@UNCONFINED
def serve(
    host: str,
    port: int,
    token_file: Path | None,
    problems: tuple[str, ...],
    max_queue: int,
    max_body_mb: int,
    max_tests_mb: int,
    max_run_s: float,
    max_memory_mb: int,
    grace_s: float,
    ssl_certificate: str | None,
    ssl_key: str | None,
    workers: int | None,
    cache: Path | None,
    min_protection: str,
    allow_unconfined: bool,
) -> None:
    """Judge over HTTP: batches whose answers stay here, and POST /run_code. See docs/judge-service.md."""
    app_module, serve_module = _service_modules()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    token = serve_module.token_from(token_file)
    serve_module.require_token_beyond_loopback(host, token)
    settings = app_module.Settings(
        token=token,
        max_queue=max_queue,
        max_body_mb=max_body_mb,
        max_tests_mb=max_tests_mb,
        max_run_s=max_run_s,
        max_memory_mb=max_memory_mb,
    )
    held = _problems_held(problems, max_tests_mb)
    used = _open_judge(None, workers, min_protection, allow_unconfined, cache)

    def announce(url: str) -> None:
        asked = "a token is asked for" if token else "no token is asked for"
        click.echo(f"judging at {url}, protection {used.protection}, {len(held)} test sets, {asked}")

    try:
        app = app_module.create_app(used, settings, held)
        for name, reason in held.refuse_kept(app.state.service.check_tests).items():
            click.echo(f"{name}: not held: {reason}", err=True)
        serve_module.run(
            app,
            host,
            port,
            grace_s=grace_s,
            certificate=ssl_certificate,
            key=ssl_key,
            announce=announce,
        )
    finally:
        used.close()


def _problems_held(sources: tuple[str, ...], max_tests_mb: int) -> TestSets:
    from sandbox.service.testsets import TestSets
    from sandbox.service.wire import TestSet

    held = TestSets(max_tests_mb << 20)
    if sources:
        from data_curation import load_problems
    for source in sources:
        for problem in load_problems(source):
            if problem.preamble:
                click.echo(f"{problem.id}: needs a preamble, which only its submitter can add: not held", err=True)
            elif problem.tests:
                said = problem.submission("")
                fields = (said.limits, said.checker, said.input_file, said.output_file, said.interactor)
                held.keep(problem.id, TestSet(tuple(said.tests), *fields))
    return held


def _service_modules() -> tuple[Any, Any]:
    try:
        from sandbox.service import app, serve
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: pip install 'rlvr[service]'") from None
    return app, serve


def _open_judge(
    url: str | None,
    workers: int | None,
    min_protection: str,
    allow_unconfined: bool,
    cache: Path | None,
    testlib: Path | None = None,
) -> Any:
    """A judge here, or the client of the service at `url`."""
    if url is None:
        from sandbox import Judge

        return Judge(workers, min_protection, allow_unconfined, cache=cache or False, testlib=testlib)
    import os

    try:
        from sandbox.service.client import JudgeClient
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is missing: pip install 'rlvr[service]'") from None
    token = os.environ.get("RLVR_JUDGE_TOKEN")
    return JudgeClient(url, token, connect_s=5, min_protection=min_protection, allow_unconfined=allow_unconfined)


def _referee(program: Path, protocol: str | None) -> str:
    """The checker or interactor in the file `program`, as the judge takes it."""
    from sandbox.checkers import user
    from sandbox.testfiles import text_of

    code, python = text_of(program), program.suffix == ".py"
    if protocol is None:
        protocol = "python" if python else "testlib" if "testlib.h" in code else "kattis"
    return user.spec(protocol, code, "" if protocol != "kattis" else "python" if python else "cpp")


def _language_of(program: Path) -> str:
    from sandbox.testfiles import LANGUAGE_BY_EXTENSION

    language = LANGUAGE_BY_EXTENSION.get(program.suffix.lower())
    if language is None:
        known = ", ".join(LANGUAGE_BY_EXTENSION)
        raise click.ClickException(f"{program}: extension {program.suffix!r} is not known ({known}): give --language")
    return language


def _as_dict(judgement: Judgement, tests: list[TestCase]) -> dict[str, Any]:
    cases = [
        {"test": test.name, **{key: value for key, value in asdict(case).items() if key != "output"}}
        for test, case in zip(tests, judgement.cases, strict=False)
    ]
    return {
        "verdict": judgement.verdict,
        "message": judgement.message,
        "passed": judgement.passed,
        "tests": len(tests),
        "protection": judgement.protection,
        "cases": cases,
    }


def _table(judgement: Judgement, tests: list[TestCase]) -> str:
    width = max([len(test.name) for test in tests] + [4])
    lines = [f"{'test':{width}s}  verdict   CPU s     MiB  message"]
    for test, case in zip(tests, judgement.cases, strict=False):
        lines.append(
            f"{test.name:{width}s}  {case.verdict:8s} {case.cpu_s:6.3f} {case.memory_mb:7.1f}  {case.message}".rstrip()
        )
    why = f": {judgement.message}" if judgement.message else ""
    lines.append(f"{judgement.verdict}{why} ({judgement.passed} of {len(tests)} tests, {judgement.protection})")
    return "\n".join(lines)
