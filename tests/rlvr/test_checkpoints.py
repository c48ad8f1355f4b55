"""What makes a checkpoint complete, and which settings of accelerate let one be written."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from rlvr.config import RecipeError
from rlvr.training.checkpoints import latest_checkpoint, publish_checkpoint

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


@pytest.mark.parametrize("path", ACCELERATE, ids=lambda path: path.stem)
def test_every_file_for_accelerate_loads_and_gathers_the_weights_of_a_checkpoint(path: Path) -> None:
    assert load_config_from_file(str(path)).num_processes >= 1
    keys = yaml.safe_load(path.read_text())
    if keys["distributed_type"] == "FSDP":
        assert keys["fsdp_config"]["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    if keys["distributed_type"] == "DEEPSPEED" and keys["deepspeed_config"]["zero_stage"] == 3:
        assert keys["deepspeed_config"]["zero3_save_16bit_model"] is True
