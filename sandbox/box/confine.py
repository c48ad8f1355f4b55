"""Kernel confinement by system call: Landlock, seccomp, capabilities, prctl.

Runs inside the box with nothing but the standard library; imports nothing from the package.
"""

import ctypes
import os
import resource
import struct

# Called with the interpreter's lock held, without ctypes' own errno and without declared argument types: each of
# these would touch pages that the kernel then has to copy in every run. Arguments are therefore int or bytes.
_libc = ctypes.PyDLL(None)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_prctl = _libc.prctl
_fork = _libc.fork
_sigprocmask = _libc.sigprocmask
_setrlimit = resource.setrlimit
_put_pid = struct.Struct("<I").pack_into
_NO_SIGNALS = bytes(128)
_errno_location = _libc.__errno_location
_errno_location.restype = ctypes.POINTER(ctypes.c_int)

_SECCOMP = {"x86_64": 317, "aarch64": 277}[os.uname().machine]
_CAPSET = {"x86_64": 126, "aarch64": 91}[os.uname().machine]

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_FILE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 5
MAKE_REG, TRUNCATE, IOCTL_DEV = 1 << 8, 1 << 14, 1 << 15
READ = READ_FILE | READ_DIR
SCRATCH = READ | WRITE_FILE | REMOVE_FILE | MAKE_REG | TRUNCATE
BUILD = SCRATCH | 1 << 4 | 1 << 7  # and directories, which some compilers work in


def _check(result: int, what: str) -> int:
    if result < 0:
        number = _errno_location().contents.value
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def fork() -> int:
    """Forks without the interpreter's preparations for threads, of which a worker has none.

    They touch about a hundred pages, each of which the kernel would have to copy in every run.
    """
    return _check(_fork(), "fork")


def no_new_privs() -> None:
    _check(_prctl(38, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")


def set_dumpable(value: int) -> None:
    _check(_prctl(4, value, 0, 0, 0), "prctl(PR_SET_DUMPABLE)")


def die_with_parent(parent: int) -> None:
    """Ends this process when `parent` ends, at once if it has ended already."""
    _check(_prctl(1, 9, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


def become_subreaper() -> None:
    _check(_prctl(36, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def drop_capabilities() -> None:
    """Empties every capability set of this process; a no-op for an unprivileged one."""
    for capability in range(64):
        if _prctl(24, capability, 0, 0, 0) < 0:  # PR_CAPBSET_DROP
            break
    _prctl(47, 4, 0, 0, 0)  # PR_CAP_AMBIENT_CLEAR_ALL
    header = struct.pack("<Ii", 0x20080522, 0)
    _check(_syscall(_CAPSET, header, b"\0" * 24), "capset")


def landlock_abi() -> int:
    """Version of Landlock the kernel offers, 0 without."""
    return max(0, _syscall(444, None, 0, 1))


def landlock_ruleset(rules, abi: int) -> int:
    """File descriptor of a ruleset that allows `rules` ((path, rights) pairs) and no other file access.

    Also refuses TCP (ABI 4) and signals and abstract sockets to outside (ABI 6). Missing paths are skipped.
    """
    handled = (1 << 13) - 1
    if abi >= 2:
        handled |= 1 << 13
    if abi >= 3:
        handled |= 1 << 14
    if abi >= 5:
        handled |= 1 << 15
    attribute = struct.pack("<Q", handled)
    if abi >= 4:
        attribute += struct.pack("<Q", 3)
    if abi >= 6:
        attribute += struct.pack("<Q", 3)
    ruleset = _check(_syscall(444, attribute, len(attribute), 0), "landlock_create_ruleset")
    for path, rights in rules:
        add_rule(ruleset, path, rights & handled)
    return ruleset


def add_rule(ruleset: int, path: str, rights: int) -> None:
    try:
        target = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not os.path.isdir(path):
        rights &= EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
    try:
        rule = struct.pack("<Qi", rights, target)
        _check(_syscall(445, ruleset, 1, rule, 0), f"landlock_add_rule {path}")
    finally:
        os.close(target)


def landlock_restrict(ruleset: int) -> None:
    _check(_syscall(446, ruleset, 0), "landlock_restrict_self")


class Filter:
    """A seccomp filter ready to load; `own_pid_at` are offsets that take the calling process's number."""

    def __init__(self, code: bytes, own_pid_at) -> None:
        self.buffer = ctypes.create_string_buffer(code, len(code))
        self.own_pid_at = tuple(own_pid_at)
        self.program = struct.pack("<H6xQ", len(code) // 8, ctypes.addressof(self.buffer))

    def load(self) -> None:
        _load(self)


def _load(seccomp: Filter) -> None:
    pid = os.getpid()
    for offset in seccomp.own_pid_at:
        _put_pid(seccomp.buffer, offset, pid)
    # SPEC_ALLOW: without it older kernels turn on costly mitigations for the whole run
    if _syscall(_SECCOMP, 1, 4, seccomp.program) < 0:
        _check(_syscall(_SECCOMP, 1, 0, seccomp.program), "seccomp")


def enter(parent: int, files, ruleset, limits, seccomp) -> None:
    """Turns a process just forked by `parent` into a run.

    It ends with its parent, may touch what `ruleset` allows, has `files` as descriptors 0, 1 ... and no others, and is
    held to `limits` ((resource, (soft, hard)) pairs) and to the filter `seccomp`. `ruleset` and `seccomp` may be None.

    All in one place and in few steps: each function and object that is touched here is a page copied in every run.
    """
    if _prctl(1, 9, 0, 0, 0) < 0:  # PR_SET_PDEATHSIG
        _check(-1, "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # which ended before
        os._exit(1)
    if ruleset is not None and _syscall(446, ruleset, 0) < 0:  # before its descriptor may be overwritten
        _check(-1, "landlock_restrict_self")
    target = 0
    for fd in files:
        os.dup2(fd, target)
        target += 1
    for limit in limits:
        _setrlimit(*limit)
    os.closerange(target, 65536)
    if _prctl(4, 1, 0, 0, 0) < 0:  # PR_SET_DUMPABLE: a program may look at itself
        _check(-1, "prctl(PR_SET_DUMPABLE)")
    if _sigprocmask(2, _NO_SIGNALS, None) < 0:  # SIG_SETMASK
        _check(-1, "sigprocmask")
    if seccomp is not None:
        _load(seccomp)


def default_thread_stack(size: int) -> None:
    """Sets the stack of threads that ask for none; otherwise it would follow the main stack's limit."""
    attribute = ctypes.create_string_buffer(64)
    _libc.pthread_attr_init(attribute)
    _libc.pthread_attr_setstacksize(attribute, ctypes.c_size_t(size))
    if hasattr(_libc, "pthread_setattr_default_np"):
        _libc.pthread_setattr_default_np(attribute)


def virtual_kb() -> int:
    """Address space of this process in KiB."""
    with open("/proc/self/statm", "rb", buffering=0) as file:
        return int(file.read().split()[0]) * (os.sysconf("SC_PAGE_SIZE") // 1024)
