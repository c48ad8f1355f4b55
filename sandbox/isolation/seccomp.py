"""Seccomp filters as classic BPF, generated here so that no C library is needed.

A run is under two filters. The *base* filter is loaded once by a worker and inherited: it refuses what neither the
worker nor a program needs (sockets, namespaces, tracing, keyrings, locks on shared files, ownership and mode
changes ...). The small *run* filter is loaded for each run and refuses what the worker itself still needs (new
processes, execve, signals to others). Splitting keeps the cost per run low: a filter's price grows with its size.

Both look the call's number up by binary search. Rules on arguments are inspected in full 64 bits where that matters.
"""

from __future__ import annotations

import errno
import platform
import struct
from dataclasses import dataclass

from sandbox.isolation.syscalls import AUDIT_ARCH, LAST_KNOWN, NUMBERS

# A process number unknown when the filter is built; the worker puts the run's own number in its place.
OWN_PID = 0x7F5A11CE

_LD_ABS, _JA, _JEQ, _JGE, _JSET, _RET, _AND = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06, 0x54
_ALLOW = (_RET, 0, 0, 0x7FFF0000)
_KILL = (_RET, 0, 0, 0x80000000)

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant
Block = list[Instruction]


def _errno(number: int) -> Instruction:
    return (_RET, 0, 0, 0x00050000 | number)


_EPERM = _errno(errno.EPERM)
_ENOSYS = _errno(errno.ENOSYS)


def _low(index: int) -> Instruction:
    """Loads the low half of argument `index` (both architectures are little-endian)."""
    return (_LD_ABS, 0, 0, 16 + 8 * index)


def _high(index: int) -> Instruction:
    return (_LD_ABS, 0, 0, 20 + 8 * index)


def _deny_if_equal(index: int, values: tuple[int, ...]) -> Block:
    block: Block = [_low(index)]
    for position, value in enumerate(values):
        block.append((_JEQ, len(values) - position, 0, value))
    return [*block, _ALLOW, _EPERM]


def _allow_if_equal(index: int, values: tuple[int, ...]) -> Block:
    block: Block = [_low(index)]
    for position, value in enumerate(values):
        block.append((_JEQ, len(values) - position, 0, value))
    return [*block, _EPERM, _ALLOW]


_DENIED = [_EPERM]
_MISSING = [_ENOSYS]  # callers fall back to an older call
# TIOCSTI, TIOCLINUX, FIOSETOWN, SIOCSPGRP
_IOCTL = _deny_if_equal(1, (0x5412, 0x541C, 0x8901, 0x8902))
# F_SETLK(W), F_SETOWN, F_SETSIG, F_SETOWN_EX, F_OFD_SETLK(W), F_SETLEASE, F_NOTIFY: channels and signals to others
_FCNTL = _deny_if_equal(1, (6, 7, 8, 10, 15, 37, 38, 1024, 1026))
# Only a connected AF_UNIX stream pair, which asyncio needs: it reaches nothing outside the process.
_SOCKETPAIR: Block = [
    _low(0), (_JEQ, 0, 4, 1), _low(1), (_AND, 0, 0, 0xF), (_JEQ, 0, 1, 1), _ALLOW, _EPERM,
]  # fmt: skip
# send() is sendto() without an address
_SENDTO: Block = [_low(4), (_JEQ, 0, 3, 0), _high(4), (_JEQ, 0, 1, 0), _ALLOW, _EPERM]
_CLONE_NEW = 0x7E020080  # every CLONE_NEW* flag
_CLONE_BASE: Block = [_low(0), (_JSET, 0, 1, _CLONE_NEW), _EPERM, _ALLOW]
_CLONE_RUN: Block = [_low(0), (_JSET, 0, 1, 0x10000), _ALLOW, _EPERM]  # CLONE_THREAD: threads only
_PRCTL = _deny_if_equal(0, (1,))  # PR_SET_PDEATHSIG: a run must end with its worker
_OWN_PROCESS = _allow_if_equal(0, (OWN_PID,))
_OWN_OR_ZERO = _allow_if_equal(0, (0, OWN_PID))

_BASE_DENIED_NAMES = """
accept accept4 acct add_key adjtimex afs_syscall bind bpf capset chmod chown chroot clock_adjtime clock_settime connect
create_module delete_module fanotify_init fanotify_mark fchmod fchmodat fchmodat2 fchown fchownat finit_module flock
fremovexattr fsconfig fsetxattr fsmount fsopen fspick futimesat get_kernel_syms getpmsg init_module inotify_add_watch
inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit
io_uring_enter io_uring_register io_uring_setup ioperm iopl ioprio_set kcmp kexec_file_load kexec_load keyctl lchown
listen listmount lookup_dcookie lremovexattr lsetxattr lsm_get_self_attr lsm_list_modules lsm_set_self_attr mbind
memfd_secret migrate_pages mknod mknodat modify_ldt mount mount_setattr move_mount move_pages mq_getsetattr mq_notify
mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd name_to_handle_at nfsservctl
open_by_handle_at open_tree perf_event_open personality pidfd_getfd pivot_root process_madvise process_mrelease
process_vm_readv process_vm_writev ptrace putpmsg query_module quotactl quotactl_fd reboot removexattr request_key
sched_setaffinity sched_setattr sched_setparam sched_setscheduler security semctl semget semop semtimedop sendmmsg
sendmsg set_mempolicy set_mempolicy_home_node setdomainname setfsgid setfsuid setgid setgroups sethostname setns
setpriority setregid setresgid setresuid setreuid setpgid settimeofday setuid setxattr shmat shmctl shmdt shmget socket
statmount swapoff swapon sync syncfs sysfs syslog tuxcall umount2 unshare uselib userfaultfd ustat utime utimensat
utimes vhangup vserver _sysctl
"""

_BASE_INSPECTED: dict[str, Block] = {
    "clone": _CLONE_BASE,
    "clone3": _MISSING,
    "fcntl": _FCNTL,
    "ioctl": _IOCTL,
    "sendto": _SENDTO,
    "socketpair": _SOCKETPAIR,
}

_RUN_RULES: dict[str, Block] = {
    "clone": _CLONE_RUN,
    "execve": _DENIED,
    "execveat": _DENIED,
    "fork": _DENIED,
    "kill": _OWN_PROCESS,
    "memfd_create": _DENIED,
    "pidfd_open": _DENIED,
    "pidfd_send_signal": _DENIED,
    "prctl": _PRCTL,
    "prlimit64": _OWN_OR_ZERO,
    "rt_sigqueueinfo": _OWN_PROCESS,
    "rt_tgsigqueueinfo": _OWN_PROCESS,
    "setsid": _DENIED,
    "tgkill": _OWN_PROCESS,
    "tkill": _DENIED,
    "truncate": _DENIED,
    "vfork": _DENIED,
}


def _search(segments: list[tuple[int, Block]]) -> Block:
    """Code that runs the block of the last segment whose first number is not above the call's number."""
    if len(segments) == 1:
        return segments[0][1]
    middle = len(segments) // 2
    below, above = _search(segments[:middle]), _search(segments[middle:])
    pivot = segments[middle][0]
    if len(below) <= 255:
        return [(_JGE, len(below), 0, pivot), *below, *above]
    return [(_JGE, 0, 1, pivot), (_JA, 0, 0, len(below)), *below, *above]


def _assemble(rules: dict[str, Block], machine: str) -> Block:
    numbers = NUMBERS[machine]
    by_number = {numbers[name]: block for name, block in rules.items() if name in numbers}
    segments: list[tuple[int, Block]] = []
    for number in range(LAST_KNOWN + 1):
        block = by_number.get(number, [_ALLOW])
        if not segments or segments[-1][1] != block:
            segments.append((number, block))
    segments.append((LAST_KNOWN + 1, _MISSING))
    head: Block = [(_LD_ABS, 0, 0, 4), (_JEQ, 1, 0, AUDIT_ARCH[machine]), _KILL, (_LD_ABS, 0, 0, 0)]
    if machine == "x86_64":  # the x32 calls share the architecture's value
        head += [(_JGE, 0, 1, 0x40000000), _KILL]
    return head + _search(segments)


@dataclass(frozen=True)
class Filter:
    """A filter's bytes (struct sock_filter, 8 bytes each) and where the run's own process number belongs."""

    code: bytes
    own_pid_at: tuple[int, ...]


def _pack(block: Block) -> Filter:
    code = b"".join(struct.pack("<HBBI", *instruction) for instruction in block)
    at = tuple(8 * i + 4 for i, (op, _, _, k) in enumerate(block) if op == _JEQ and k == OWN_PID)
    return Filter(code, at)


def supported(machine: str | None = None) -> bool:
    return (machine or platform.machine()) in NUMBERS


def base_filter(machine: str | None = None) -> Filter:
    """The filter of a worker and everything below it. KeyError on an architecture without a table."""
    rules = dict.fromkeys(_BASE_DENIED_NAMES.split(), _DENIED) | _BASE_INSPECTED
    return _pack(_assemble(rules, machine or platform.machine()))


def run_filter(*, execve: bool, machine: str | None = None) -> Filter:
    """The filter of one run; `execve` leaves execve open for programs that are binaries."""
    rules = dict(_RUN_RULES)
    if execve:
        del rules["execve"]
    return _pack(_assemble(rules, machine or platform.machine()))


def compile_filter(machine: str | None = None) -> Filter:
    """The filter of a compiler, which may start processes and change modes of its own files."""
    open_calls = {"chmod", "fchmod", "fchmodat", "fchmodat2", "utimensat", "flock", "fcntl"}
    rules = dict.fromkeys(_BASE_DENIED_NAMES.split(), _DENIED) | _BASE_INSPECTED
    rules["setsid"] = _DENIED  # so that ending the process group ends all of it
    return _pack(_assemble({k: v for k, v in rules.items() if k not in open_calls}, machine or platform.machine()))
