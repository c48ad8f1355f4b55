"""The judge of a recipe: here, behind a URL or on a cluster, with the same grading."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from pydantic import ValidationError

import sandbox
from data_curation import load_problems
from rlvr.config import JudgeSection, PromptSection
from rlvr.rewards.judged import ProgramGrader
from sandbox.service import client as service_client
from sandbox.service import exchange
from sandbox.service.app import Settings, create_app
from sandbox.service.client import JudgeClient, ServiceRefused, ServiceUnreachable

TOKEN = "token-of-the-tests"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    try:
        judge = sandbox.Judge(workers=1)
    except sandbox.ProtectionUnavailable as error:
        pytest.skip(str(error))
    server = uvicorn.Server(uvicorn.Config(create_app(judge, Settings(token=TOKEN)), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(60)


def test_rollouts_are_graded_by_a_service_as_they_are_here(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", TOKEN)
    problem = next(problem for problem in load_problems("builtin:contest") if problem.solutions)
    right = next(solution.code for solution in problem.solutions if solution.verdict == "accepted")
    completions = [f"```python\n{right}\n```", "```python\nprint()\n```", "no program"]
    grades = []
    for section in (JudgeSection(url=url, token_variable="MY_TOKEN"), JudgeSection(workers=1)):
        with ProgramGrader(PromptSection(), judge=section) as grader:
            assert isinstance(grader.judge, JudgeClient if section.url else sandbox.Judge)
            grades.append(
                [(g.accuracy, g.score, g.judgement.verdict) for g in grader.grade([problem] * 3, completions)]
            )
    assert grades[0] == grades[1]
    assert [accuracy for accuracy, _, _ in grades[0]] == [1.0, 0.0, 0.0]


def test_a_wrong_token_or_no_service_stops_a_run_before_it_starts(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RLVR_JUDGE_TOKEN", raising=False)
    with pytest.raises(ServiceRefused, match="token"):
        ProgramGrader(PromptSection(), judge=JudgeSection(url=url))
    with pytest.raises(ServiceUnreachable, match="not a URL"):
        ProgramGrader(PromptSection(), judge=JudgeSection(url="nowhere"))


def test_a_service_below_the_level_demanded_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLVR_JUDGE_TOKEN", TOKEN)
    monkeypatch.setattr("sandbox.Judge.protection", "limited", raising=False)
    weaker = {"protocol": 1, "protection": "limited", "max_batch": 10}
    monkeypatch.setattr(JudgeClient, "_first_health", lambda *_: weaker)
    with pytest.raises(ServiceRefused, match="'limited', 'confined' is demanded"):
        ProgramGrader(PromptSection(), judge=JudgeSection(url=url))


@pytest.mark.parametrize(
    "values", [{"url": "http://a", "ray": "auto"}, {"url": "http://a", "cache": "x"}, {"ray": "auto", "cache": "x"}]
)
def test_programs_are_judged_in_one_place(values: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="judg"):
        JudgeSection(**values)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for library, module, section in (
        ("httpx", "sandbox.service.client", JudgeSection(url="http://127.0.0.1:1")),
        ("ray", "sandbox.service.ray_judge", JudgeSection(ray="auto")),
    ):
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ImportError, match=r"pip install 'rlvr\["):
            ProgramGrader(PromptSection(), judge=section)


def test_verdicts_are_kept_where_the_recipe_says(tmp_path: Path, url: str) -> None:
    path = tmp_path / "verdicts.sqlite"
    with ProgramGrader(PromptSection(), judge=JudgeSection(workers=1, cache=str(path))):
        assert path.exists()


def test_a_judge_that_is_gone_ends_a_step_within_a_minute_unless_a_recipe_says_otherwise():
    patience = JudgeSection().patience_s
    silence = service_client._SILENCE.read
    assert patience + exchange._LONGEST_PAUSE_S <= 60, "refused connections: the last try is at most a pause late"
    assert -(-patience // silence) * silence <= 60, "a service that hangs: silence after silence until patience ends"
