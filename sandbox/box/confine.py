"""Kernel confinement by system call: Landlock, seccomp, capabilities, prctl.

Runs inside the box with nothing but the standard library; imports nothing from the package.
"""

import ctypes
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
_prctl = _libc.prctl
_prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]

# Called with the interpreter's lock held, unlike functions of _libc.
_bare_fork = ctypes.PyDLL(None).fork

_SECCOMP = {"x86_64": 317, "aarch64": 277}[os.uname().machine]
_CAPSET = {"x86_64": 126, "aarch64": 91}[os.uname().machine]

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR, REMOVE_FILE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 5
MAKE_REG, TRUNCATE, IOCTL_DEV = 1 << 8, 1 << 14, 1 << 15
READ = READ_FILE | READ_DIR
SCRATCH = READ | WRITE_FILE | REMOVE_FILE | MAKE_REG | TRUNCATE
BUILD = SCRATCH | 1 << 4 | 1 << 7  # and directories, which some compilers work in


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def prctl(option: int, value: int = 0, extra: int = 0) -> int:
    return _check(_prctl(option, value, extra, 0, 0), f"prctl {option}")


def fork() -> int:
    """Forks without the interpreter's preparations for threads, of which a worker has none.

    They touch about a hundred pages, each of which the kernel would have to copy in every run.
    """
    return _check(_bare_fork(), "fork")


def no_new_privs() -> None:
    prctl(38, 1)


def set_dumpable(value: int) -> None:
    prctl(4, value)


def die_with_parent() -> None:
    prctl(1, 9)


def become_subreaper() -> None:
    prctl(36, 1)


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
    return max(0, _syscall(444, None, ctypes.c_size_t(0), 1))


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
    size = ctypes.c_size_t(len(attribute))
    ruleset = _check(_syscall(444, attribute, size, 0), "landlock_create_ruleset")
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
        self._buffer = ctypes.create_string_buffer(code, len(code))
        self._own_pid_at = own_pid_at
        address = ctypes.addressof(self._buffer)
        self._program = struct.pack("<H6xQ", len(code) // 8, address)

    def load(self) -> None:
        pid = os.getpid()
        for offset in self._own_pid_at:
            struct.pack_into("<I", self._buffer, offset, pid)
        # SPEC_ALLOW: without it older kernels turn on costly mitigations for the whole run
        if _syscall(_SECCOMP, 1, 4, self._program) < 0:
            _check(_syscall(_SECCOMP, 1, 0, self._program), "seccomp")


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
