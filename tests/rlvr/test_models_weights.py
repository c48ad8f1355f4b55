"""The fingerprint of a model folder."""

from __future__ import annotations

import random
from pathlib import Path

from rlvr.models import weights_fingerprint


def folder(path: Path, weights: bytes) -> Path:
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    return path


def test_weights_trained_on_are_others_and_copies_are_the_same(tmp_path: Path) -> None:
    source = random.Random(0)
    weights = bytearray(source.randbytes(9_000_000))
    before = folder(tmp_path / "a", weights)
    copy = folder(tmp_path / "b", weights)
    (copy / "optimizer.pt").write_bytes(b"no part of the model")
    assert weights_fingerprint(before) == weights_fingerprint(copy)
    for place in range(0, len(weights), 20_000):  # one byte in 20,000
        weights[place] ^= 1
    assert weights_fingerprint(folder(tmp_path / "c", weights)) != weights_fingerprint(before)


def test_the_chat_template_counts_and_sizes_do(tmp_path: Path) -> None:
    one = folder(tmp_path / "a", b"1234")
    known = {weights_fingerprint(one)}
    (one / "chat_template.jinja").write_text("{{ messages }}")
    known.add(weights_fingerprint(one))
    (one / "model.safetensors").write_bytes(b"12345")
    assert len(known | {weights_fingerprint(one)}) == 3
