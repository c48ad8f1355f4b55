"""What happens in the process of a run: the program as `__main__`, or a call into it, on real descriptors 0, 1, 2."""

import _sitebuiltins
import _thread
import atexit
import builtins
import collections
import errno
import gc
import io
import json
import linecache
import os
import random
import sys
import threading
import time
import types

import structures

_FILE = "solution.py"
_SEED = 0
_FRAMES_BELOW = 10  # of the harness, under the program's own
_MAX_DEPTH = 200
_MAX_NODES = 5_000_000
_WRITERS = frozenset((io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom))
_DICTS = (dict, collections.Counter, collections.OrderedDict, collections.defaultdict)

builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")
builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")


def compile_program(source: bytes):
    return compile(source, _FILE, "exec", dont_inherit=True)


def describe(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        where = f" (line {error.lineno})" if error.lineno else ""
        return f"{type(error).__name__}: {error.msg}{where}"
    return f"{type(error).__name__}: {error}"


def run_binary(command: dict, arguments, keep_sigpipe_ignored: bool = False) -> None:
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN if keep_sigpipe_ignored else signal.SIG_DFL)
    for patience in range(200, -1, -1):
        try:
            os.execve(command["path"], [command["path"], *command["arguments"], *arguments], command["environment"])
        except OSError as error:
            # a process that is just being started may hold the descriptor by which the binary was written
            if error.errno != errno.ETXTBSY or not patience:
                raise
            time.sleep(0.005)


def _stream(fd: int, mode: str, name: str):
    raw = io.FileIO(fd, mode, closefd=False)
    buffer = io.BufferedReader(raw) if mode == "rb" else io.BufferedWriter(raw)
    raw.name = name
    errors = "backslashreplace" if fd == 2 else "strict"
    text = io.TextIOWrapper(buffer, encoding="utf-8", errors=errors, line_buffering=fd == 2)
    text.mode = mode[0]  # type: ignore[misc]
    return text


def set_stage(recursion: int) -> types.ModuleType:
    """The module programs will run as, and everything around it, made once: what a fork inherits costs a run nothing.

    Descriptors 0, 1 and 2 are replaced in each run under the streams made here, which hold no data yet.
    """
    for stream_name, fd, file_mode in (("stdin", 0, "rb"), ("stdout", 1, "wb"), ("stderr", 2, "wb")):
        stream = _stream(fd, file_mode, f"<{stream_name}>")
        setattr(sys, stream_name, stream)
        setattr(sys, f"__{stream_name}__", stream)
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    module.__dict__["__file__"] = _FILE
    sys.modules["__main__"] = module
    sys.argv[:] = [_FILE]
    sys.orig_argv[:] = ["python3", _FILE]
    random.seed(_SEED)
    sys.setrecursionlimit(recursion + _FRAMES_BELOW)
    return module


def remember_source(source: bytes) -> None:
    """Lets tracebacks and `inspect` show the program's lines."""
    linecache.cache[_FILE] = (lambda: source.decode("utf-8", "replace"),)


def _show(error: BaseException) -> None:
    trace = error.__traceback__
    if trace is not None:
        trace = trace.tb_next  # without this file's frame
    sys.excepthook(type(error), error.with_traceback(trace), trace)


def _exit_code(error: SystemExit) -> int:
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)
    return 1


def _finish(code: int, namespace: dict) -> None:
    """Ends as the interpreter would: threads, exit functions, files that are dropped with the namespace, streams."""
    try:
        if _thread._count():
            threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
    except SystemExit as error:
        code = _exit_code(error)
    _flush(sys.stdout)
    for stream in [thing for thing in gc.get_objects() if type(thing) in _WRITERS]:  # left open by the program
        _flush(stream)
    sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
    namespace.clear()
    os._exit(code if _flush(sys.__stdout__) else code or 120)


def _flush(stream) -> bool:
    """Whether `stream`, perhaps the program's own object, could be flushed; says on standard error why not."""
    try:
        if type(stream) is io.TextIOWrapper and stream.buffer is None:  # detached: another has taken its place
            return True
        if stream is not None and not stream.closed:
            stream.flush()
        return True
    except BaseException as error:
        try:
            os.write(2, f"{type(error).__name__}: {error}\n".encode("utf-8", "replace"))
        except OSError:  # descriptor 2 is the program's to close
            return False
        return False


def run_program(program, module: types.ModuleType, call, arguments=()) -> None:
    """Runs the program to the end of the process."""
    gc.freeze()  # also forgets how many objects the harness has made: the program's first ones start no collection
    gc.enable()
    sys.argv[1:] = arguments
    namespace = module.__dict__
    if call is not None:
        _run_call(program, module, call)
    code = 0
    try:
        exec(program, namespace)
    except SystemExit as error:
        code = _exit_code(error)
    except BaseException as error:
        code = 1
        _show(error)
    _finish(code, namespace)


def _run_call(program, module: types.ModuleType, call: str) -> None:
    """Builds the program's namespace as an import would, evaluates `call` and writes its value to descriptor 3."""
    namespace = module.__dict__
    namespace["__name__"] = "solution"
    namespace["ListNode"], namespace["TreeNode"] = structures.ListNode, structures.TreeNode
    sys.modules["solution"] = sys.modules.pop("__main__")
    write, truncate, leave = os.pwrite, os.ftruncate, os._exit
    with open(0, "rb", closefd=False) as file:
        text = file.read()
    code = 0
    try:
        exec(program, namespace)
        namespace["args"] = json.loads(text) if text.strip() else []
        namespace.update(structures.makers(namespace))
        value = eval(compile(call, "<call>", "eval", dont_inherit=True), namespace)
        encoded = json.dumps(_plain(value, 0, [0]), allow_nan=True).encode()
        truncate(3, 0)
        done = 0
        while done < len(encoded):
            done += write(3, encoded[done:], done)
    except SystemExit as error:
        code = _exit_code(error) or 1
        print("the program exited before it returned a value", file=sys.stderr)
    except BaseException as error:
        code = 1
        _show(error)
    _flush(sys.stdout)
    leave(code)


class NotPlainData(TypeError):
    """A returned value that has no exact JSON form."""


def _plain(value, depth: int, count: list):
    """`value` as JSON data; exact types only, so that a program's own classes cannot speak for themselves."""
    count[0] += 1
    if depth > _MAX_DEPTH or count[0] > _MAX_NODES:
        raise NotPlainData("the returned value is too large or too deeply nested")
    kind = type(value)
    if value is None or kind in (bool, float, str):
        return value
    if kind is int:
        return value if -(1 << 4096) < value < 1 << 4096 else {"__int__": hex(value)}
    if kind in (list, tuple):
        return [_plain(item, depth + 1, count) for item in value]
    if kind in (set, frozenset):
        return {"__set__": [_plain(item, depth + 1, count) for item in value]}
    if kind in _DICTS:
        items = list(dict.items(value))
        if all(type(key) is str and not key.startswith("__") for key, _ in items):
            return {key: _plain(item, depth + 1, count) for key, item in items}
        pairs = [[_plain(key, depth + 1, count), _plain(item, depth + 1, count)] for key, item in items]
        return {"__dict__": pairs}
    if tuple in kind.__bases__ and hasattr(kind, "_fields"):  # a namedtuple equals its tuple
        return [_plain(item, depth + 1, count) for item in tuple.__iter__(value)]
    nodes = structures.written_out(value)
    if nodes is not None:
        marker, values = nodes
        return {marker: [_plain(item, depth + 1, count) for item in values]}
    raise NotPlainData(f"the returned value holds a {kind.__name__}, which is not plain data")
