"""A small policy from nothing: a tokenizer trained on a corpus and randomly initialised weights."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr.models.weights import share_weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, EOS = "<pad>", "<eos>"
FAMILIES = ("llama", "qwen3_moe", "glm4_moe")
SMALLEST_VOCABULARY = 256 + 2  # every byte, and the two special tokens


def build_tiny_policy(
    corpus: Iterable[str],
    out: Path | str,
    *,
    vocab_size: int = 1024,
    hidden: int = 128,
    layers: int = 3,
    heads: int = 4,
    mlp: int = 384,
    max_positions: int = 256,
    seed: int = 0,
    family: str = "llama",
    experts: int = 8,
    top_k: int = 2,
    expert_mlp: int = 128,
) -> Path:
    """Folder `out` in Hugging Face format: a tokenizer of this corpus and random fp32 weights, the same every time.

    The defaults give a Llama of 0.77 M parameters; `family` qwen3_moe or glm4_moe gives experts of width `expert_mlp`
    instead of the feed-forward layer (glm4_moe: in all layers but the first). A corpus too small for `vocab_size` gives
    a smaller vocabulary, and a model to match. Raises ValueError for shapes that do not fit or an empty corpus,
    FileExistsError if `out` is in use.
    """
    out = Path(out)
    if vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(
            f"vocab_size {vocab_size}: {SMALLEST_VOCABULARY} is the least (256 bytes and 2 special tokens)"
        )
    if hidden % heads or (hidden // heads) % 2:
        raise ValueError(f"hidden {hidden} over {heads} heads must give a whole, even number of channels a head")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out}: already there; remove it or choose another folder")

    if family not in FAMILIES:
        raise ValueError(f"family {family!r}: one of {', '.join(FAMILIES)}")
    if family != "llama" and top_k > experts:
        raise ValueError(f"top_k {top_k} of {experts} experts: at most as many as there are")

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    tokenizer = train_tokenizer(corpus, vocab_size, max_positions)
    own: dict[str, Any] = {}
    if family != "llama":
        own = {"num_experts_per_tok": top_k, "moe_intermediate_size": expert_mlp, "norm_topk_prob": True}
        own |= {"head_dim": hidden // heads}
        own |= {"num_experts": experts} if family == "qwen3_moe" else {"n_routed_experts": experts, "n_group": 1}
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=max_positions,
        initializer_range=0.04,
        tie_word_embeddings=family != "glm4_moe",  # whose output head vLLM never ties
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype=torch.float32,
        **own,
    )
    with _own_random_state(seed):
        model = AutoModelForCausalLM.from_config(config)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        share_weights(partial)
        partial.chmod(0o755)  # mkdtemp's 0700 would stay on the finished folder
        if out.exists():
            out.rmdir()
        os.replace(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return out


def train_tokenizer(corpus: Iterable[str], vocab_size: int, max_positions: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose tokens may span several words, but never a line, a sentence, a comma or more than one digit.

    Short programs and stock phrases become few tokens, which is most of a tiny model's speed and skill. Token 0 is
    <pad>, token 1 <eos>; pads on the left. Raises ValueError for an empty corpus.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    texts = list(corpus)
    if not any(texts):
        raise ValueError("tokenizer: the corpus is empty")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # A newline stands alone, so a prompt that ends in one is cut off from its completion: both have
            # the same tokens apart as together.
            pre_tokenizers.Split(Regex(r"\n|\. |, |[A-Z][a-z]+ ?"), behavior="isolated"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        padding_side="left",
        model_max_length=max_positions,
        clean_up_tokenization_spaces=False,
    )


@contextlib.contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Weights drawn from `seed` alone, leaving the caller's random numbers as they were."""
    import torch

    state: Any = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
