"""The generated filters, evaluated instruction by instruction for both architectures."""

from __future__ import annotations

import struct

import pytest

from sandbox.isolation import seccomp
from sandbox.isolation.syscalls import AUDIT_ARCH, LAST_KNOWN, NUMBERS

ALLOW, KILL, EPERM, ENOSYS = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
PID = 4242


def decide(filter_: seccomp.Filter, arch: int, number: int, *arguments: int) -> int:
    """What the kernel would answer to a call."""
    code = bytearray(filter_.code)
    for offset in filter_.own_pid_at:
        struct.pack_into("<I", code, offset, PID)
    program = list(struct.iter_unpack("<HBBI", bytes(code)))
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, arch, 0, *padded)
    accumulator, at = 0, 0
    while True:
        op, yes, no, k = program[at]
        at += 1
        if op == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif op == 0x54:
            accumulator &= k
        elif op == 0x05:
            at += k
        elif op == 0x06:
            return k
        else:
            holds = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[op]
            at += yes if holds else no


@pytest.fixture(params=["x86_64", "aarch64"])
def machine(request: pytest.FixtureRequest) -> str:
    return request.param


def call(machine: str, filter_: seccomp.Filter, name: str, *arguments: int) -> int:
    return decide(filter_, AUDIT_ARCH[machine], NUMBERS[machine][name], *arguments)


def test_every_denied_call_is_denied_and_no_other(machine: str) -> None:
    base = seccomp.base_filter(machine)
    numbers = NUMBERS[machine]
    denied = {numbers[name] for name in seccomp._BASE_DENIED_NAMES.split() if name in numbers}
    inspected = {numbers[name] for name in seccomp._BASE_INSPECTED if name in numbers}
    for number in range(LAST_KNOWN + 1):
        if number not in inspected:
            expected = EPERM if number in denied else ALLOW
            assert decide(base, AUDIT_ARCH[machine], number) == expected, number
    assert len(denied) > 110


def test_foreign_tables_and_unknown_calls(machine: str) -> None:
    for filter_ in (seccomp.base_filter(machine), seccomp.run_filter(execve=False, machine=machine)):
        assert decide(filter_, 0x40000003, 20) == KILL  # i386
        assert decide(filter_, AUDIT_ARCH[machine], LAST_KNOWN + 1) == ENOSYS
        assert decide(filter_, AUDIT_ARCH[machine], 100_000) == ENOSYS
    if machine == "x86_64":
        assert decide(seccomp.base_filter(machine), AUDIT_ARCH[machine], 0x40000000 + 39) == KILL


def test_arguments_are_inspected(machine: str) -> None:
    base = seccomp.base_filter(machine)
    assert call(machine, base, "clone", 0x10000000) == EPERM
    assert call(machine, base, "clone", 0x3D0F00) == ALLOW
    assert call(machine, base, "clone3") == ENOSYS
    assert call(machine, base, "socketpair", 1, 0x80001) == ALLOW
    assert call(machine, base, "socketpair", 1, 2) == EPERM
    assert call(machine, base, "socketpair", 2, 1) == EPERM
    assert call(machine, base, "sendto", 3, 0, 0, 0, 0) == ALLOW
    assert call(machine, base, "sendto", 3, 0, 0, 0, 0x7FFF) == EPERM
    assert call(machine, base, "sendto", 3, 0, 0, 0, 1 << 40) == EPERM
    assert call(machine, base, "ioctl", 0, 0x5412) == EPERM
    assert call(machine, base, "ioctl", 0, 0x5401) == ALLOW
    assert call(machine, base, "fcntl", 0, 1024) == EPERM
    assert call(machine, base, "fcntl", 0, 3) == ALLOW


def test_a_run_may_signal_only_itself_and_start_only_threads(machine: str) -> None:
    run = seccomp.run_filter(execve=False, machine=machine)
    for name in ("kill", "tgkill", "rt_sigqueueinfo"):
        assert call(machine, run, name, PID, 6) == ALLOW
        for other in (0, 1, PID + 1, (1 << 32) - 1):
            assert call(machine, run, name, other, 9) == EPERM
    assert call(machine, run, "prlimit64", 0) == ALLOW
    assert call(machine, run, "prlimit64", PID + 1) == EPERM
    assert call(machine, run, "clone", 17) == EPERM
    assert call(machine, run, "clone", 0x10000) == ALLOW
    assert call(machine, run, "execve") == EPERM
    binary = seccomp.run_filter(execve=True, machine=machine)
    assert call(machine, binary, "execve") == ALLOW
    assert call(machine, binary, "execveat") == EPERM


def test_filters_fit_the_kernel_and_reach_every_instruction(machine: str) -> None:
    for filter_ in (seccomp.base_filter(machine), seccomp.compile_filter(machine)):
        assert len(filter_.code) // 8 < 4096
    assert call(machine, seccomp.compile_filter(machine), "setsid") == EPERM
    assert call(machine, seccomp.compile_filter(machine), "fchmod") == ALLOW
