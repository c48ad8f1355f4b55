"""What the command line says when the machine, not the recipe, is at fault."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rlvr import cli


def ends_with(error: Exception, monkeypatch, capsys) -> tuple[int, str]:
    """Exit code and last words of `rlvr` when a verb raises `error`."""

    def verb(**_) -> None:
        raise error

    monkeypatch.setattr(cli.cli, "main", verb)
    monkeypatch.delenv("RLVR_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return stop.value.code, capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_is_one_line_whoever_was_writing(monkeypatch, capsys):
    import torch

    errors = []
    for write in (
        lambda: Path("/dev/full").write_text("x" * 10**6),
        lambda: torch.save(torch.zeros(10**6), "/dev/full"),
    ):
        with pytest.raises((OSError, RuntimeError)) as caught:
            write()
        errors.append(caught.value)
    for error in errors:
        code, said = ends_with(error, monkeypatch, capsys)
        assert code == 1
        assert said.count("\n") == 1 and "No space left on device" in said and "the same command continues" in said


def test_other_errors_keep_their_traceback(monkeypatch, capsys):
    with pytest.raises(RuntimeError, match="a bug"):
        ends_with(RuntimeError("a bug"), monkeypatch, capsys)
