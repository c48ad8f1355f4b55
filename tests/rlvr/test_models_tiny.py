import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlvr.models import build_tiny_policy, train_tokenizer

PROMPTS = [
    f"Read n and a list of n integers. Keep only the {word} numbers. Then print the sum.\n# program\n"
    for word in ("odd", "even", "positive", "negative")
]
PROGRAMS = ["n=int(input())\na=list(map(int,input().split()))\na=[x for x in a if x%12!=0]\nprint(sum(a))"]
CORPUS = [prompt + program for prompt in PROMPTS for program in PROGRAMS] * 5
SMALL = dict(hidden=32, layers=1, heads=2, mlp=64, max_positions=64)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_policy(CORPUS, tmp_path_factory.mktemp("tiny") / "policy", vocab_size=400)


@pytest.fixture(scope="module")
def tokenizer(policy: Path) -> AutoTokenizer:
    return AutoTokenizer.from_pretrained(policy)


def test_the_defaults_are_a_small_tied_llama_in_fp32(policy: Path, tokenizer: AutoTokenizer) -> None:
    model = AutoModelForCausalLM.from_pretrained(policy)
    assert model.config.model_type == "llama" and model.config.tie_word_embeddings
    assert model.dtype == torch.float32 and model.config.max_position_embeddings == 256
    assert model.config.vocab_size == len(tokenizer) <= 400
    assert model.num_parameters() == len(tokenizer) * 128 + 3 * (4 * 128**2 + 3 * 128 * 384 + 2 * 128) + 128
    assert model.get_input_embeddings().weight[2:].std().item() == pytest.approx(0.04, rel=0.1)
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (1, 0)


def test_a_reloaded_tokenizer_pads_left_and_knows_its_special_tokens(tokenizer: AutoTokenizer) -> None:
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id) == (0, 1, None)
    assert tokenizer.padding_side == "left" and tokenizer.model_max_length == 256
    batch = tokenizer(["a", "qzx"], padding=True)
    assert batch["input_ids"][0][0] == 0 and batch["attention_mask"][0][0] == 0


def test_digits_stand_alone_and_words_may_share_a_token(tokenizer: AutoTokenizer) -> None:
    assert tokenizer.tokenize("12045") == ["1", "2", "0", "4", "5"]
    assert tokenizer.tokenize("Keep only the ") == ["KeepĠ", "onlyĠtheĠ"]  # a capital begins a token
    assert all(token == "Ċ" or "Ċ" not in token for token in tokenizer.convert_ids_to_tokens(range(2, len(tokenizer))))


def test_any_text_survives_and_a_prompt_is_cut_off_from_its_program(tokenizer: AutoTokenizer) -> None:
    for text in (*CORPUS[:2], "snake_case = 'äß漢🙂'\n\tif x :\n", "a , b .\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    prompt, program = (tokenizer(text)["input_ids"] for text in (PROMPTS[0], PROGRAMS[0]))
    assert prompt + program == tokenizer(PROMPTS[0] + PROGRAMS[0])["input_ids"]


def test_it_generates(policy: Path, tokenizer: AutoTokenizer) -> None:
    model = AutoModelForCausalLM.from_pretrained(policy)
    batch = tokenizer(PROMPTS[:2], padding=True, return_tensors="pt")
    output = model.generate(**batch, max_new_tokens=4, do_sample=True)
    assert output.shape[0] == 2 and output.shape[1] <= batch["input_ids"].shape[1] + 4


def test_the_same_seed_gives_the_same_bytes_in_another_process_and_another_seed_does_not(tmp_path: Path) -> None:
    script = (
        "import sys; from rlvr.models import build_tiny_policy; import ast\n"
        "build_tiny_policy(ast.literal_eval(sys.argv[1]), sys.argv[2], vocab_size=400, seed=3,"
        f" **{SMALL!r})"
    )
    subprocess.run(
        [sys.executable, "-c", script, repr(CORPUS), str(tmp_path / "other")],
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "77"},
    )
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    here = build_tiny_policy(CORPUS, tmp_path / "here", vocab_size=400, seed=3, **SMALL)  # type: ignore[arg-type]
    assert torch.equal(torch.rand(3), expected), "the caller's random numbers were touched"
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (here / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
    another = build_tiny_policy(CORPUS, tmp_path / "another", vocab_size=400, seed=4, **SMALL)  # type: ignore[arg-type]
    assert (another / "model.safetensors").read_bytes() != (here / "model.safetensors").read_bytes()
    assert not list(tmp_path.glob(".*")), "working folders are left behind"


def test_impossible_requests_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="258 is the least"):
        build_tiny_policy(CORPUS, tmp_path / "a", vocab_size=100)
    with pytest.raises(ValueError, match="hidden 100 over 3 heads"):
        build_tiny_policy(CORPUS, tmp_path / "a", hidden=100, heads=3)
    with pytest.raises(ValueError, match="corpus is empty"):
        train_tokenizer([], 400, 64)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="used"):
        build_tiny_policy(CORPUS, tmp_path / "used")
    assert not (tmp_path / "a").exists() and (tmp_path / "used" / "notes.txt").read_text() == "mine"
