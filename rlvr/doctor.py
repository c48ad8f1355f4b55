"""What this machine and this installation can do, what they cannot, and the remedy for each finding."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

Status = Literal["ok", "warn", "fail"]

PACKAGE = "rlvr"
TRAINING_EXTRA = "train"
UNREPORTED_EXTRAS = {"dev"}
GIB = 2**30
TORCH_PROBE = (
    "import torch; n = torch.cuda.device_count() if torch.cuda.is_available() else 0;"
    " print(torch.__version__, torch.version.cuda, n, *[torch.cuda.get_device_name(i) for i in range(n)], sep='|')"
)


@dataclass(frozen=True)
class Check:
    """One finding. `fail`: something needed is missing; `warn`: some things will not work, or not well."""

    name: str
    status: Status
    finding: str
    remedy: str = ""

    def as_dict(self) -> dict[str, str]:
        """The check as plain JSON types."""
        return asdict(self)


def diagnose(*, folder: Path | str = ".", ask_torch: bool = False) -> list[Check]:
    """All checks, in the order they matter. `folder` is where runs will be written.

    Nothing heavy is imported. `ask_torch` adds whether torch sees the GPUs, asked in a process of its own (seconds).
    """
    checks = [check_python(), check_platform(), *check_libraries(), check_accelerator()]
    if ask_torch:
        checks.append(check_torch())
    return [*checks, check_sandbox(), *check_languages(), check_cores(), check_memory(), check_disk(Path(folder))]


def render_table(checks: list[Check], width: int = 110) -> str:
    """The checks as lines of text, remedies below what they cure, and a last line that counts."""
    name_width = max((len(check.name) for check in checks), default=0)
    indent = " " * (name_width + 8)
    lines = []
    for check in checks:
        head = f"{check.status:<4}  {check.name:<{name_width}}  "
        lines.append(textwrap.fill(head + check.finding, width, subsequent_indent=indent, break_long_words=False))
        if check.remedy:
            text = f"-> {check.remedy}"
            lines.append(
                textwrap.fill(
                    text, width, initial_indent=indent, subsequent_indent=indent + "   ", break_long_words=False
                )
            )
    counts = {status: sum(check.status == status for check in checks) for status in ("ok", "warn", "fail")}
    lines.append(f"{counts['ok']} ok, {counts['warn']} to know about, {counts['fail']} to repair")
    return "\n".join(lines)


def check_python() -> Check:
    """Whether this Python is one the package supports."""
    wanted = importlib.metadata.metadata(PACKAGE)["Requires-Python"]
    version = platform.python_version()
    if SpecifierSet(wanted).contains(version, prereleases=True):
        return Check("python", "ok", f"{version} ({sys.executable})")
    return Check("python", "fail", f"{version}, supported is {wanted}", "make the environment with a newer Python")


def check_platform() -> Check:
    """Whether this is Linux, which the sandbox needs."""
    finding = f"{platform.system()} {platform.release()}, {platform.machine()}"
    if sys.platform == "linux":
        return Check("platform", "ok", finding)
    return Check("platform", "fail", f"{finding}: the sandbox needs Linux", "use Linux, a container or WSL 2")


def check_libraries() -> list[Check]:
    """Every library the package names, against the range it supports; from installed metadata, nothing imported."""
    return [check_library(*entry) for entry in _requirements()]


def check_library(requirement: Requirement, extra: str | None) -> Check:
    """One library. Missing ones fail if always needed, warn if training needs them, and else are just not there."""
    name = requirement.name
    wanted = str(requirement.specifier) or "any version"
    target = f"{PACKAGE}[{extra}]" if extra else PACKAGE
    remedy = f"pip install '{target}'"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        if extra is None:
            return Check(name, "fail", f"missing, needed is {wanted}", remedy)
        if extra == TRAINING_EXTRA:
            return Check(name, "warn", "missing: no training, no generation", remedy)
        return Check(name, "ok", f"not installed (optional, {extra})")
    if requirement.specifier.contains(version, prereleases=True):
        return Check(name, "ok", f"{version} ({wanted})")
    status: Status = "fail" if extra in (None, TRAINING_EXTRA) else "warn"
    return Check(name, status, f"{version}, supported is {wanted}", f"pip install '{name}{requirement.specifier}'")


def check_accelerator() -> Check:
    """The NVIDIA GPUs the driver reports, and whether the installed torch was built for them."""
    gpus = _nvidia_gpus()
    if not gpus:
        return Check("accelerator", "ok", "no NVIDIA GPU: tiny models train on the CPU, larger ones do not")
    finding = "; ".join(gpus)
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return Check("accelerator", "ok", finding)
    if torch.endswith("+cpu"):
        return Check(
            "accelerator",
            "warn",
            f"{finding}; but torch {torch} is the CPU build",
            "install torch's CUDA build: pip install --force-reinstall torch",
        )
    return Check("accelerator", "ok", finding)


def check_torch(timeout_s: float = 120) -> Check:
    """Whether torch starts, and which GPUs it sees; asked in a fresh process."""
    try:
        run = subprocess.run(
            [sys.executable, "-c", TORCH_PROBE], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        return Check("torch starts", "fail", f"no answer in {timeout_s:.0f} s", "try: python -c 'import torch'")
    if run.returncode != 0:
        reason = (run.stderr.strip().splitlines() or ["no message"])[-1]
        return Check("torch starts", "fail", reason, f"pip install '{PACKAGE}[{TRAINING_EXTRA}]'")
    version, cuda, count, *names = run.stdout.strip().split("|")
    if count == "0" and _nvidia_gpus():
        return Check(
            "torch starts",
            "warn",
            f"{version} (CUDA {cuda}) sees no GPU though the driver does",
            "install a torch build whose CUDA version the driver supports; look at CUDA_VISIBLE_DEVICES",
        )
    return Check("torch starts", "ok", f"{version}, " + (", ".join(names) or "CPU"))


def check_sandbox() -> Check:
    """The strongest protection level a worker can really be started at."""
    from sandbox.isolation.levels import LEVELS, probe

    reasons = []
    for level in LEVELS:
        reason = probe(level).reason
        if reason is None:
            break
        reasons.append(f"{level}: {reason}")
    else:
        return Check("sandbox", "fail", "; ".join(reasons), "python -m sandbox.doctor names the remedies")
    if level == LEVELS[0]:
        return Check("sandbox", "ok", f"programs run {level}")
    status: Status = "fail" if level == LEVELS[-1] else "ok"
    return Check(
        "sandbox", status, f"programs run {level} ({'; '.join(reasons)})", "python -m sandbox.doctor says more"
    )


def check_languages() -> list[Check]:
    """Every language the sandbox knows: usable, or what to install."""
    from sandbox import languages

    return [
        Check(f"language {name}", "ok", "usable")
        if remedy is None
        else Check(f"language {name}", "fail" if name == "python" else "warn", "toolchain missing", remedy)
        for name, remedy in languages.available().items()
    ]


def check_cores() -> Check:
    """CPU cores this process may use, with a container's quota counted."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota = _cgroup("cpu.max")
    if quota and quota[0] != "max":
        cores = min(cores, int(quota[0]) / int(quota[1]))
    finding = f"{cores:g} usable"
    if cores < 2:
        return Check("cores", "warn", finding, "two or more let programs be judged while the model works")
    return Check("cores", "ok", finding)


def check_memory() -> Check:
    """Memory free for a run, with a container's limit counted; the quickstart peaks below 4 GiB."""
    memory = psutil.virtual_memory()
    total, free = memory.total, memory.available
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if limit and used and limit[0] != "max":
        total = min(total, int(limit[0]))
        free = min(free, int(limit[0]) - int(used[0]))
    finding = f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    if free < 2 * GIB:
        return Check("memory", "fail", finding, "free some: even the quickstart needs about 4 GiB")
    if free < 4 * GIB:
        return Check("memory", "warn", finding, "enough to judge programs; the quickstart needs about 4 GiB")
    return Check("memory", "ok", finding)


def check_disk(folder: Path) -> Check:
    """Disk free where runs will be written."""
    existing = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(existing).free
    finding = f"{free / GIB:.1f} GiB free in {existing}"
    if free < GIB:
        return Check("disk", "fail", finding, "free at least 1 GiB, or put runs on another disk")
    if free < 10 * GIB:
        return Check(
            "disk", "warn", finding, "enough for tiny models; a checkpoint of 1 B parameters takes about 16 GiB"
        )
    return Check("disk", "ok", finding)


def _requirements() -> Iterator[tuple[Requirement, str | None]]:
    """(requirement, the extra it belongs to or None) for this platform, as the installed package states them."""
    extras = importlib.metadata.metadata(PACKAGE).get_all("Provides-Extra") or []
    for text in importlib.metadata.requires(PACKAGE) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement, None
            continue
        for extra in extras:
            if extra not in UNREPORTED_EXTRAS and requirement.marker.evaluate({"extra": extra}):
                yield requirement, extra


def _nvidia_gpus() -> list[str]:
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
    try:
        run = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []  # a driver that does not answer gives no GPU to use
    return parse_gpus(run.stdout) if run.returncode == 0 else []


def parse_gpus(listing: str) -> list[str]:
    """One phrase a GPU, from nvidia-smi's "name, MiB, driver" lines."""
    gpus = []
    for line in listing.splitlines():
        fields: list[Any] = [field.strip() for field in line.split(",")]
        if len(fields) == 3:
            memory = f"{int(fields[1]) / 1024:.0f} GiB" if fields[1].isdigit() else fields[1]
            gpus.append(f"{fields[0]}, {memory}, driver {fields[2]}")
    return gpus


def _cgroup(name: str) -> list[str]:
    """Words of a control-group file of this container, or none where there is no such file."""
    try:
        return Path("/sys/fs/cgroup", name).read_text(encoding="ascii").split()
    except OSError:
        return []
