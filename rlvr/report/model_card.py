"""Model card of a run."""

from pathlib import Path


def write_model_card(run_dir: Path) -> Path:
    raise NotImplementedError
