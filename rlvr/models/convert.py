"""GGUF weights to a Hugging Face model folder that can be trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlvr.models.weights import share_weights


def convert_gguf(gguf: Path, out: Path) -> None:
    """Write `out`: bf16 safetensors, config, tokenizer and chat template of the GGUF file; the same every time.

    The weights are the dequantised ones, so a little worse than the original's. Where the file holds the output head
    apart from the embedding, as two roundings of one matrix, the head's (the finer one) is used for both.
    """
    import torch
    from tokenizers import decoders
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast

    folder, name = str(gguf.parent), gguf.name
    model: Any = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.bfloat16)
    guessed: Any = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    config = model.config

    # The tensors are dense by now, but transformers refuses to save a model that remembers having been quantised.
    model.hf_quantizer = None
    model.is_quantized = False
    for owner, attribute in ((model, "quantization_method"), (config, "quantization_config")):
        if hasattr(owner, attribute):
            delattr(owner, attribute)

    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head.weight is not embedding.weight and _same_up_to_rounding(head.weight, embedding.weight):
        with torch.no_grad():
            embedding.weight.copy_(head.weight)
        config.tie_word_embeddings = True
        model.tie_weights()

    pad_id = config.pad_token_id if config.pad_token_id is not None else config.eos_token_id
    config.pad_token_id = pad_id
    if hasattr(config, "_model_name_or_path"):
        del config._model_name_or_path  # the quantiser's working title
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=pad_id
    )
    model.save_pretrained(out)
    share_weights(out)

    # What transformers makes of the file gets three things wrong: the special tokens, which it guesses by name although
    # the file holds their ids; a decoder that turns the character "▁" into a space; and clean-up that eats spaces.
    backend = guessed.backend_tokenizer
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=None if config.bos_token_id is None else guessed.convert_ids_to_tokens(config.bos_token_id),
        eos_token=guessed.convert_ids_to_tokens(config.eos_token_id),
        pad_token=guessed.convert_ids_to_tokens(pad_id),
        padding_side="left",
        model_max_length=config.max_position_embeddings,
        clean_up_tokenization_spaces=False,
        chat_template=guessed.chat_template,
    )
    tokenizer.save_pretrained(out)


def _same_up_to_rounding(head: Any, embedding: Any) -> bool:
    """Whether two [vocabulary, hidden] matrices differ by no more than quantisation does (a few per cent)."""
    if head.shape != embedding.shape:
        return False
    rows = slice(None, None, max(1, head.shape[0] // 4096))
    a, b = head[rows].float(), embedding[rows].float()
    return bool((a - b).norm() <= 0.15 * a.norm())
