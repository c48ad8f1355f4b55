"""Which weights lie in a model folder: a fingerprint that is cheap for large files; and who may read them."""

from __future__ import annotations

import hashlib
from pathlib import Path

_WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")
_OTHERS = ("config.json", "adapter_config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json",
           "chat_template*", "vocab.*", "merges.txt")  # fmt: skip
_NO_WEIGHTS = {"training_args.bin"}
_BLOCK = 64 * 1024
_BLOCKS = 64  # of a file: training moves weights everywhere, so a sample sees it


def share_weights(folder: Path) -> None:
    """Gives weights the rights of config.json beside them: safetensors writes its files for their owner alone."""
    config = folder / "config.json"
    for path in folder.glob("*.safetensors") if config.exists() else ():
        path.chmod(config.stat().st_mode)


def weights_fingerprint(folder: Path) -> str:
    """16 hex digits over what decides a model's answers: weights, configuration, tokenizer, chat template.

    Files of more than 4 MiB count by their size and 64 blocks spread evenly over them, so 28 GB take no longer than
    28 MB. Where the folder lies and when it was written do not matter.
    """
    names = {path.name: path for pattern in (*_WEIGHTS, *_OTHERS) for path in folder.glob(pattern) if path.is_file()}
    digest = hashlib.sha256()
    for name in sorted(names.keys() - _NO_WEIGHTS):
        size = names[name].stat().st_size
        digest.update(f"{name}:{size}\n".encode())
        with names[name].open("rb") as file:
            if size <= _BLOCK * _BLOCKS:
                digest.update(file.read())
                continue
            for number in range(_BLOCKS):
                file.seek((size - _BLOCK) * number // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()[:16]
