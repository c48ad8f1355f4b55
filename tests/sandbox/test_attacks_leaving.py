# ruff: noqa: E501
"""Attacks 31 to 58: programs that reach for what is not theirs. Each prints ESCAPED with its loot if it gets anywhere."""

from __future__ import annotations

import os
import socket
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from attack_numbers import attack, numbered
from unprivileged import NOBODY, SECRET_VARIABLE

import sandbox
from sandbox import Limits, TestCase, Verdict
from sandbox.isolation import runtime

NUMBERS = {
    31: "kill_parent kill_group kill_all stop_parent signal_by_other_calls pidfd_signal sigio_to_parent",
    32: "ptrace_parent seize_parent_threads",
    33: "parent_memory parent_environment parent_maps parent_descriptors mapped_files_of_parent",
    34: "process_vm_readv pidfd_getfd kcmp",
    35: "every_process list_processes",
    36: "environment_secrets",
    37: "answer_file tests_directory truncate_secret chmod_secret touch_secret extended_attribute rename_secret",
    38: "answer_file_by_symlink answer_file_by_hard_link answer_file_by_proc_root answer_file_by_parent_root "
    "answer_file_by_parent_cwd answer_file_by_relative_path answer_file_by_directory_descriptors",
    39: "etc_passwd home service_account_token root_listing",
    40: "write_standard_library write_site_packages remove_standard_library chmod_standard_library write_byte_code",
    41: "write_tmp write_scratch_parent",
    42: "overwrite_harness",
    43: "mount new_mount_api umount chroot pivot_root open_by_handle block_device",
    44: "user_namespace namespace_by_clone set_namespace",
    45: "tcp_to_loopback tcp6 udp metadata_service name_service listen",
    46: "unix_path_socket unix_abstract_socket datagram_pair_to_path stream_pair_reconnects socket_of_the_engine",
    47: "vsock_netlink_raw_packet io_uring aio",
    48: "keyring",
    49: "flock_shared_file record_lock_shared_file open_file_lock lease dnotify",
    50: "inotify_fanotify",
    51: "userfaultfd_bpf_perf memfd_and_memfd_secret unknown_system_calls kernel_log",
    52: "become_root capabilities capset setuid_binary personality",
    53: "exec_shell exec_own_binary execveat subprocess system posix_spawn multiprocessing",
    54: "terminal_input controlling_terminal",
    55: "inherited_descriptors harness_modules",
    56: "oom_score_of_parent core_pattern sysctl_read limits_of_parent session_and_group clock host_name flush_every_disk",
    62: "write_to_guessed_descriptors",
}

HEAD = """
import os, sys, ctypes, socket, signal
libc = ctypes.CDLL(None, use_errno=True)
def sc(nr, *a):
    return libc.syscall(ctypes.c_long(nr), *[ctypes.c_long(x) if isinstance(x, int) else x for x in a])
def loot(x):
    if x: print("ESCAPED", repr(x)[:300], flush=True)
def ok(result):
    loot(result is not None and result >= 0 and ("returned", result))
"""

ATTACKS = {
    "kill_parent": "ok(os.kill(os.getppid(), 9) or 0)",
    "kill_group": "ok(os.killpg(0, 9) or 0)",
    "kill_all": "ok(os.kill(-1, 9) or 0)",
    "stop_parent": "ok(os.kill(os.getppid(), signal.SIGSTOP) or 0)",
    "signal_by_other_calls": """
        p = os.getppid()
        for nr, args in ((200, (p, 9)), (234, (p, p, 9)), (129, (p, 9, bytes(128))), (297, (p, p, 9, bytes(128)))):
            ok(sc(nr, *args))
    """,
    "pidfd_signal": "fd = os.pidfd_open(os.getppid())\nsignal.pidfd_send_signal(fd, 9)\nloot('sent')",
    "sigio_to_parent": "import fcntl\nr, w = os.pipe()\nfcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())\nloot('set')",
    "ptrace_parent": "ok(libc.ptrace(16, os.getppid(), 0, 0))\nok(libc.ptrace(0x4206, os.getppid(), 0, 0))",
    "seize_parent_threads": """
        for pid in (os.getppid(), 1, 2):
            for request in (0x4206, 16, 0x4207):
                ok(sc(101, request, pid, 0, 0))
    """,
    "parent_memory": "loot(open(f'/proc/{os.getppid()}/mem', 'rb').fileno())",
    "parent_environment": "loot(open(f'/proc/{os.getppid()}/environ', 'rb').read())",
    "parent_maps": "loot(open(f'/proc/{os.getppid()}/maps').read())",
    "parent_descriptors": "loot(os.listdir(f'/proc/{os.getppid()}/fd'))",
    "every_process": """
        for pid in range(1, 5000):
            for what in ('environ', 'mem', 'cmdline', 'maps'):
                try: data = open(f'/proc/{pid}/{what}', 'rb').read(100)
                except OSError: continue
                if pid != os.getpid(): loot((pid, what, data))
    """,
    "list_processes": "loot([p for p in os.listdir('/proc') if p.isdigit() and int(p) != os.getpid()])",
    "process_vm_readv": """
        buf = ctypes.create_string_buffer(16)
        iov = (ctypes.c_void_p * 2)(ctypes.addressof(buf), 16)
        ok(sc(310, os.getppid(), ctypes.addressof(iov), 1, ctypes.addressof(iov), 1, 0))
    """,
    "pidfd_getfd": "ok(sc(438, sc(434, os.getppid(), 0), 0, 0))",
    "kcmp": "ok(sc(312, os.getpid(), os.getppid(), 0, 0, 0))",
    "environment_secrets": "loot([v for v in os.environ.values() if 'SECRET' in v])",
    "answer_file": "loot(open(SECRET_FILE).read())",
    "answer_file_by_symlink": "os.symlink(SECRET_FILE, 'link')\nloot(open('link').read())",
    "answer_file_by_hard_link": "os.link(SECRET_FILE, 'link')\nloot(open('link').read())",
    "answer_file_by_proc_root": "loot(open('/proc/self/root' + SECRET_FILE).read())",
    "answer_file_by_parent_root": "loot(open(f'/proc/{os.getppid()}/root' + SECRET_FILE).read())",
    "answer_file_by_parent_cwd": "loot(os.listdir(f'/proc/{os.getppid()}/cwd/..'))",
    "answer_file_by_relative_path": "loot(open('../../../../../..' + SECRET_FILE).read())",
    "answer_file_by_directory_descriptors": """
        for fd in range(3, 128):
            try: loot(os.open(SECRET_FILE.lstrip('/'), os.O_RDONLY, dir_fd=fd))
            except OSError: pass
        loot(os.open('..' + SECRET_FILE, os.O_RDONLY, dir_fd=os.open('.', os.O_PATH)))
    """,
    "overwrite_harness": """
        for name in ('supervise', 'server', 'observe', 'execute', 'channel', 'zygote', 'confine'):
            for path in (f'{BOX}/{name}.py', f'{BOX}/{name}.pyc', f'../{name}.py'):
                for attempt in (lambda: open(path, 'w'), lambda: os.unlink(path), lambda: os.symlink('/', path)):
                    try: attempt()
                    except OSError: continue
                    loot(path)
    """,
    "write_byte_code": """
        d = os.path.join(os.path.dirname(os.__file__), '__pycache__')
        for name in ('heapq', 'bisect', 'sitecustomize'):
            try: open(f'{d}/{name}.{sys.implementation.cache_tag}.pyc', 'wb')
            except OSError: continue
            loot(name)
    """,
    "socket_of_the_engine": """
        for path in ('/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock', '/tmp/ray'):
            try: loot((path, os.listdir(path) if path == '/tmp/ray' else socket.socket(socket.AF_UNIX).connect(path) or path))
            except OSError: pass
    """,
    "open_file_lock": """
        import fcntl, struct
        f = open(os.__file__)
        fcntl.fcntl(f, 37, struct.pack('hhqqi4x', fcntl.F_RDLCK, 0, 0, 0, 0))
        loot('locked')
    """,
    "setuid_binary": """
        for path in ('/bin/su', '/usr/bin/sudo', '/usr/bin/passwd', '/bin/mount'):
            try: os.execv(path, [path, '--version'])
            except OSError: pass
    """,
    "inherited_descriptors": """
        found = []
        for fd in range(3, 4096):
            try: os.fstat(fd)
            except OSError: continue
            found.append(fd)
        loot(found)
    """,
    "write_to_guessed_descriptors": """
        for fd in range(3, 200):
            try: loot((fd, os.write(fd, b'AC')))
            except OSError: pass
    """,
    "tests_directory": "loot(os.listdir(TESTS_DIRECTORY))",
    "etc_passwd": "loot(open('/etc/passwd').read())",
    "home": "loot(os.listdir(REAL_HOME))",
    "service_account_token": "loot(open('/var/run/secrets/kubernetes.io/serviceaccount/token').read())",
    "root_listing": "loot([e for e in os.listdir('/') if e in ('root', 'home', 'work', 'etc') and os.listdir('/' + e)])",
    "write_standard_library": "open(os.path.join(os.path.dirname(os.__file__), 'x.py'), 'w')\nloot('wrote')",
    "write_site_packages": """
        d = os.path.join(os.path.dirname(os.__file__), 'site-packages')
        open(os.path.join(d, 'x.pth'), 'w')
        loot('wrote')
    """,
    "remove_standard_library": "os.remove(os.__file__)\nloot('removed')",
    "truncate_secret": "os.truncate(SECRET_FILE, 0)\nloot('truncated')",
    "chmod_secret": "os.chmod(SECRET_FILE, 0)\nloot('changed')",
    "chmod_standard_library": "os.chmod(os.path.dirname(os.__file__), 0o777)\nloot('changed')",
    "touch_secret": "os.utime(SECRET_FILE)\nloot('changed')",
    "extended_attribute": "os.setxattr(SECRET_FILE, 'user.x', b'1')\nloot('set')",
    "rename_secret": "os.rename(SECRET_FILE, SECRET_FILE + 'x')\nloot('renamed')",
    "write_tmp": """
        for d in ('/tmp', '/var/tmp', '/dev/shm', '/run', '/', os.path.expanduser('~')):
            try: open(d + '/leftover', 'w').close()
            except OSError: continue
            loot(d)
    """,
    "write_scratch_parent": "open('../leftover', 'w').close()\nloot('wrote')",
    "mount": "ok(libc.mount(b'none', b'/tmp', b'tmpfs', 0, None))",
    "new_mount_api": "ok(sc(430, b'tmpfs', 0))\nok(sc(428, -100, b'/', 1))",
    "umount": "ok(libc.umount2(b'/proc', 2))",
    "chroot": "os.chroot('.')\nloot('chroot')",
    "pivot_root": "ok(sc(155, b'.', b'.'))",
    "open_by_handle": "ok(sc(303, -100, b'/', bytes(128), bytes(8), 0))\nok(sc(304, 0, bytes(128), 0))",
    "user_namespace": "ok(libc.unshare(0x10000000))",
    "namespace_by_clone": "ok(sc(56, 0x10000000 | 17, 0, 0, 0, 0))",
    "set_namespace": "ok(libc.setns(os.open('/proc/self/ns/net', 0), 0))",
    "tcp_to_loopback": "s = socket.create_connection(('127.0.0.1', PORT), 2)\nloot('connected')",
    "tcp6": "s = socket.socket(socket.AF_INET6)\nloot(s)",
    "udp": "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.sendto(b'x', ('127.0.0.1', PORT))\nloot('sent')",
    "metadata_service": "loot(socket.create_connection(('169.254.169.254', 80), 1))",
    "name_service": "loot(socket.getaddrinfo('example.com', 80))",
    "listen": "s = socket.socket()\ns.bind(('127.0.0.1', 0))\ns.listen()\nloot('listening')",
    "unix_path_socket": "s = socket.socket(socket.AF_UNIX)\ns.connect(UNIX_PATH)\nloot('connected')",
    "unix_abstract_socket": "s = socket.socket(socket.AF_UNIX)\ns.connect(ABSTRACT)\nloot('connected')",
    "datagram_pair_to_path": """
        a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        a.sendto(b'x', ABSTRACT)
        loot('sent')
    """,
    "stream_pair_reconnects": "a, b = socket.socketpair()\na.connect(ABSTRACT)\nloot('connected')",
    "vsock_netlink_raw_packet": """
        for family in (40, 16, 17, 38, 29, 44):
            for kind in (1, 2, 3):
                try: loot((family, socket.socket(family, kind, 0)))
                except OSError: pass
    """,
    "io_uring": "ok(sc(425, 8, bytes(120)))",
    "aio": "ok(sc(206, 8, bytes(8)))",
    "keyring": "ok(sc(248, b'user', b'k', b'v', 1, -3))\nok(sc(250, 0, -3, 1))",
    "flock_shared_file": "import fcntl\nfcntl.flock(open(os.__file__), fcntl.LOCK_EX)\nloot('locked')",
    "record_lock_shared_file": "import fcntl\nfcntl.lockf(open(os.__file__), fcntl.LOCK_SH)\nloot('locked')",
    "lease": "import fcntl\nfcntl.fcntl(os.open(os.__file__, 0), fcntl.F_SETLEASE, fcntl.F_RDLCK)\nloot('leased')",
    "dnotify": "import fcntl\nfcntl.fcntl(os.open('.', 0), fcntl.F_NOTIFY, 1)\nloot('watching')",
    "inotify_fanotify": "ok(sc(294, 0))\nok(sc(253))\nok(sc(300, 0, 0))",
    "userfaultfd_bpf_perf": "ok(sc(323, 0))\nok(sc(321, 0, bytes(128), 128))\nok(sc(298, bytes(128), 0, -1, -1, 0))",
    "memfd_and_memfd_secret": "ok(sc(319, b'x', 0))\nok(sc(447, 0))",
    "become_root": """
        for f in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgroups([0])):
            try: f()
            except OSError: continue
            loot('changed')
    """,
    "capabilities": "import re\nloot(re.findall(r'Cap(?:Prm|Eff|Bnd):\\t0*[1-9a-f]', open('/proc/self/status').read()))",
    "capset": "ok(sc(126, bytes(8), b'\\xff' * 24))",
    "exec_shell": "os.execv('/bin/sh', ['sh', '-c', 'echo ESCAPED'])",
    "exec_own_binary": "os.execv(sys.executable, [sys.executable, '-c', 'print(\"ESCAPED\")'])",
    "execveat": "ok(sc(322, -100, b'/bin/sh', 0, 0, 0))",
    "subprocess": "import subprocess\nloot(subprocess.check_output(['echo', 'x']))",
    "system": "loot(os.system('true') == 0)",
    "posix_spawn": "ok(os.posix_spawn('/bin/true', ['true'], {}))",
    "multiprocessing": "import multiprocessing as m\np = m.Process(target=print)\np.start()\nloot('started')",
    "terminal_input": "import fcntl\nfcntl.ioctl(0, 0x5412, b'x')\nloot('typed')",
    "controlling_terminal": "loot(os.open('/dev/tty', os.O_RDWR))",
    "oom_score_of_parent": "open(f'/proc/{os.getppid()}/oom_score_adj', 'w').write('1000')\nloot('set')",
    "core_pattern": "open('/proc/sys/kernel/core_pattern', 'w').write('x')\nloot('set')",
    "sysctl_read": "loot(open('/proc/sys/kernel/core_pattern').read())",
    "limits_of_parent": "import resource\nresource.prlimit(os.getppid(), resource.RLIMIT_CPU, (1, 1))\nloot('set')",
    "session_and_group": "ok(os.setpgid(0, os.getppid()) or 0)",
    "clock": "import time\ntime.clock_settime(time.CLOCK_REALTIME, 0)\nloot('set')",
    "flush_every_disk": "os.sync()\nok(sc(306, 0))\nif ctypes.CDLL(None).syscall(162) >= 0: loot('flushed')",
    "host_name": "import socket as s\ns.sethostname('x')\nloot('set')",
    "personality": "ok(sc(135, 0x0040000))",
    "unknown_system_calls": "[ok(sc(n, 0, 0, 0)) for n in range(470, 700)]",
    "block_device": "os.mknod('d', 0o60666, os.makedev(8, 0))\nloot('made')",
    "kernel_log": "ok(libc.klogctl(3, bytes(100), 100))",
    "mapped_files_of_parent": "loot(os.listdir(f'/proc/{os.getppid()}/map_files'))",
    "harness_modules": "loot([m for m in sys.modules if m in ('supervise', 'server', 'observe', 'zygote', 'confine', 'channel', 'execute')])",
}  # fmt: skip


@pytest.fixture(scope="module")
def outside() -> Iterator[dict[str, object]]:
    """What a program must not reach: a file, an environment variable, listening sockets."""
    os.environ[SECRET_VARIABLE] = "SECRET-in-the-environment"
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder, "answers.txt")
        secret.write_text("SECRET")
        os.chmod(folder, 0o755)
        if os.geteuid() == 0:  # the file of a process of the same user
            for path in (folder, secret):
                os.chown(path, NOBODY, NOBODY)
        tcp = socket.create_server(("127.0.0.1", 0))
        named = socket.socket(socket.AF_UNIX)
        named.bind(str(Path(folder, "socket")))
        named.listen()
        abstract = socket.socket(socket.AF_UNIX)
        name = f"\0sandbox-test-{os.getpid()}"
        abstract.bind(name)
        abstract.listen()
        yield {
            "SECRET_FILE": str(secret),
            "PORT": tcp.getsockname()[1],
            "UNIX_PATH": str(Path(folder, "socket")),
            "ABSTRACT": name,
            "BOX": str(runtime.BOX),
            "TESTS_DIRECTORY": str(Path(__file__).parent),
            "REAL_HOME": os.path.expanduser("~"),
        }
        assert secret.read_text() == "SECRET"
        for opened in (tcp, named, abstract):
            opened.close()
    del os.environ[SECRET_VARIABLE]


@pytest.mark.parametrize("name", numbered(NUMBERS, ATTACKS))
def test_nothing_outside_is_reached(held: sandbox.Judge, outside: dict[str, object], name: str) -> None:
    constants = "".join(f"{key} = {value!r}\n" for key, value in outside.items())
    code = HEAD + constants + textwrap.dedent(ATTACKS[name])
    run = held.execute(code, [""], limits=Limits(cpu_s=1.0, wall_s=10.0))[0]
    assert b"ESCAPED" not in run.stdout, run.stdout
    assert run.verdict in (Verdict.AC, Verdict.RE, Verdict.TLE), run
    # a typing error in the attack is no defence
    for mistake in (b"NameError", b"SyntaxError", b"AttributeError", b"TypeError"):
        assert mistake not in run.stderr, run.stderr


def test_the_judge_is_unchanged_after_all_of_them(held: sandbox.Judge) -> None:
    runs = held.execute("import os\nprint(os.listdir('.'), input())", [str(n) for n in range(20)])
    assert [run.stdout for run in runs] == [f"[] {n}\n".encode() for n in range(20)]
    assert held.workers_replaced == 0


@attack(41)
def test_files_do_not_outlive_a_run(held: sandbox.Judge) -> None:
    code = "import os\nprint(sorted(os.listdir('.')))\nopen('left' + input(), 'w').write('x')"
    runs = held.execute(code, ["1", "2", "3"])
    assert [run.stdout for run in runs] == [b"[]\n"] * 3


@attack(57)
def test_a_foreign_architecture_call_kills_the_run(held: sandbox.Judge) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("the 32-bit call gate is that of x86")
    # mov eax, 20 (getpid of i386); int 0x80; ret
    code = (
        "import ctypes, mmap\nm = mmap.mmap(-1, 4096, prot=7)\nm.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')\n"
        "f = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(m)))\nprint('ESCAPED', f())"
    )
    run = held.execute(code, [""])[0]
    assert run.verdict is Verdict.RE
    assert "SIGSYS" in run.message or "SIGSEGV" in run.message
    x32 = "import ctypes\nprint('ESCAPED', ctypes.CDLL(None).syscall(0x40000000 + 39))"
    assert held.execute(x32, [""])[0].verdict is Verdict.RE


@attack(56)
def test_what_a_run_sets_for_itself_ends_with_it(held: sandbox.Judge) -> None:
    code = """
        import os
        seen = [open('/proc/self/' + name).read().strip() for name in ('comm', 'oom_score_adj', 'coredump_filter')]
        print(seen, os.umask(0), os.getcwd())
        for name, value in (('comm', 'zygote'), ('oom_score_adj', '1000'), ('coredump_filter', '0')):
            try: open('/proc/self/' + name, 'w').write(value)
            except OSError: pass
        os.environ['LEFT'] = '1'
    """
    runs = held.execute(textwrap.dedent(code), [""] * 3)
    assert len({(run.stdout, run.verdict) for run in runs}) == 1, runs


@attack(58)
def test_feedback_names_no_expected_value(held: sandbox.Judge) -> None:
    tests = [TestCase("1", "SECRET-VALUE"), TestCase("2", "3.25"), TestCase("[1]", '"SECRET-VALUE"', call="f(*args)")]
    for checker in ("tokens", "lines", "exact", "floats", "yes_no", "case_insensitive", "unordered_lines"):
        for test in tests:
            judgement = held.judge("def f(x): return x\nprint(7)", [test], checker=checker)
            assert judgement.verdict is Verdict.WA
            for value in ("SECRET", "3.25"):
                assert value not in judgement.message + judgement.cases[0].message
