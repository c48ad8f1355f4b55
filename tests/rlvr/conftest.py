"""A tiny policy that can already write some right programs, and problems to try it on; made once a session."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads do not survive a fork, which some tests need

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_curation import Problem


@pytest.fixture(scope="session")
def pipeline_set() -> list[Problem]:
    """24 problems of the generated family, depth 1."""
    from data_curation.builtin.pipelines import pipeline_problems

    return pipeline_problems(24, (1,), 3, split="train")


@pytest.fixture(scope="session")
def demonstrations() -> list[dict[str, str]]:
    """1,500 noisy demonstrations as SFT rows."""
    from data_curation.builtin.pipelines import pipeline_demonstrations

    return [
        {
            "problem_id": row["problem_id"],
            "prompt": row["statement"] + "\n# program\n",
            "completion": row["program"],
        }
        for row in pipeline_demonstrations(1500, (0, 1), 0)
    ]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, demonstrations: list[dict[str, str]]) -> Path:
    """An untrained policy of about 0.1 M parameters with its tokenizer."""
    from rlvr.models import build_tiny_policy

    out = tmp_path_factory.mktemp("policy") / "tiny"
    texts = [row["prompt"] + row["completion"] for row in demonstrations]
    return build_tiny_policy(texts, out, vocab_size=640, hidden=48, layers=2, heads=2, mlp=96)


@pytest.fixture(scope="session")
def demonstrations_file(tmp_path_factory: pytest.TempPathFactory, demonstrations: list[dict[str, str]]) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path_factory.mktemp("sft") / "sft.parquet"
    pq.write_table(pa.Table.from_pylist(demonstrations), path)
    return path


@pytest.fixture(scope="session")
def problems_file(tmp_path_factory: pytest.TempPathFactory, pipeline_set: list[Problem]) -> Path:
    from data_curation import save_problems

    path = tmp_path_factory.mktemp("problems") / "problems.jsonl"
    save_problems(pipeline_set, path)
    return path


@pytest.fixture(scope="session")
def warm_model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, demonstrations_file: Path) -> Path:
    """The tiny policy after a short SFT: some of its programs pass, most do not."""
    kept = os.environ.get("RLVR_TEST_MODELS")  # a folder to keep it in between sessions; the model is always the same
    folder = (Path(kept) if kept else tmp_path_factory.mktemp("warm")) / "sft"
    final = folder / "final"
    return final if final.is_dir() else warmed(tiny_model, demonstrations_file, folder)


@pytest.fixture
def wide_warm_model(
    tmp_path: Path, demonstrations: list[dict[str, str]], demonstrations_file: Path
) -> Callable[[str], Path]:
    """The same for a family, with attention heads of 32 numbers, the narrowest that vLLM's kernels for CPUs take."""
    from rlvr.models import build_tiny_policy

    def build(family: str) -> Path:
        sizes: dict[str, Any] = {"vocab_size": 640, "hidden": 64, "layers": 2, "heads": 2, "mlp": 96}
        if family != "llama":
            sizes |= {"hidden": 128, "heads": 4, "experts": 8, "top_k": 2, "expert_mlp": 64}
        texts = [row["prompt"] + row["completion"] for row in demonstrations]
        tiny = build_tiny_policy(texts, tmp_path / f"tiny-{family}", family=family, **sizes)
        return warmed(tiny, demonstrations_file, tmp_path / f"sft-{family}")

    return build


def warmed(model: Path, demonstrations: Path, folder: Path) -> Path:
    """`model` after a short SFT, in `folder`."""
    from rlvr.config import SFTRecipe
    from rlvr.training.sft import train_sft

    return train_sft(
        SFTRecipe.model_validate(
            {
                "name": "warm",
                "output_dir": str(folder),
                "model": {"name_or_path": str(model)},
                "data": str(demonstrations),
                "sft": {
                    "num_train_epochs": 6,
                    "per_device_train_batch_size": 32,
                    "learning_rate": 5e-3,
                    "max_length": 128,
                    "save_steps": 1000,
                },
            }
        )
    )


@pytest.fixture
def sums_file(tmp_path: Path) -> Path:
    """The problems of `sums`."""
    from sums import PROBLEMS

    from data_curation import save_problems

    path = tmp_path / "problems.jsonl"
    save_problems(PROBLEMS, path)
    return path


@pytest.fixture(scope="session")
def vllm_python() -> str:
    """A Python with vLLM, which may be another than this one: RLVR_VLLM_PYTHON=/path/to/venv/bin/python."""
    python = os.environ.get("RLVR_VLLM_PYTHON")
    if not python:
        pytest.skip("RLVR_VLLM_PYTHON names no Python with vLLM")
    return python
