"""What makes a checkpoint complete, and which settings of accelerate let one be written."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from rlvr.config import RecipeError
from rlvr.training.checkpoints import (
    STATE_FILE,
    complete_checkpoints,
    latest_checkpoint,
    publish_checkpoint,
    read_state,
)

ACCELERATE = sorted((Path(__file__).parents[2] / "configs" / "accelerate").glob("*.yaml"))


def test_a_checkpoint_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    staged, final = tmp_path / ".incomplete" / "checkpoint-3", tmp_path / "checkpoint-3"
    staged.mkdir(parents=True)
    (staged / "config.json").write_text("{}")
    with pytest.raises(RecipeError, match=r"no weights were written.*FULL_STATE_DICT.*zero3_save_16bit_model"):
        publish_checkpoint(staged, final, {"step": 3})
    assert latest_checkpoint(tmp_path) is None and not final.exists()
    (staged / "model.safetensors").write_bytes(b"weights")
    (staged / "model.safetensors").chmod(0o600)
    (staged / "config.json").chmod(0o640)
    publish_checkpoint(staged, final, {"step": 3})
    assert latest_checkpoint(tmp_path) == final and not staged.exists()
    assert (final / "model.safetensors").stat().st_mode & 0o777 == 0o640  # whoever may read the rest may read it


def written(folder: Path, step: int) -> Path:
    staged, final = folder / ".incomplete" / f"checkpoint-{step}", folder / f"checkpoint-{step}"
    (staged / "optimizer").mkdir(parents=True)
    for name in ("model.safetensors", "optimizer/part-0"):
        (staged / name).write_bytes(b"x" * 100)
    (staged / "trainer_state.json").write_text("{}")
    publish_checkpoint(staged, final, {"step": step})
    assert read_state(final) == {"step": step}
    return final


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("optimizer/part-0", b"x" * 99, "optimizer/part-0 has 99 bytes of 100"),
        ("optimizer/part-0", None, "optimizer/part-0 is missing"),
        ("model.safetensors", b"", "model.safetensors has 0 bytes of 100"),
        ("trainer_state.json", b"{{", "trainer_state.json is no JSON"),
        (STATE_FILE, None, "rlvr_state.json is missing"),
        (STATE_FILE, b'{"step', "rlvr_state.json is no JSON"),
        (STATE_FILE, b"[]", "rlvr_state.json holds no state"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(tmp_path, caplog, name, content, said):
    first, second = written(tmp_path, 3), written(tmp_path, 12)
    assert latest_checkpoint(tmp_path) == second and not caplog.messages
    for checkpoint in (second, first):
        (checkpoint / name).unlink() if content is None else (checkpoint / name).write_bytes(content)
        if checkpoint == second:
            assert latest_checkpoint(tmp_path) == first
            assert caplog.messages == [f"{second}: damaged: {said}; going on from checkpoint-3"]
            assert complete_checkpoints(tmp_path) == [(3, first)]
    with pytest.raises(RecipeError, match=rf"^{second}: damaged: {said}; no whole checkpoint is left"):
        latest_checkpoint(tmp_path)  # a run that began anew would take their place


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda path: path.stem)
def test_every_file_for_accelerate_loads_and_gathers_the_weights_of_a_checkpoint(path: Path) -> None:
    assert load_config_from_file(str(path)).num_processes >= 1
    keys = yaml.safe_load(path.read_text())
    if keys["distributed_type"] == "FSDP":
        assert keys["fsdp_config"]["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    if keys["distributed_type"] == "DEEPSPEED" and keys["deepspeed_config"]["zero_stage"] == 3:
        assert keys["deepspeed_config"]["zero3_save_16bit_model"] is True
