"""Programs of several files as one source text, which is what the judge takes.

Python: the other files become modules that are imported from the text. C and C++: local includes are put in their
place, and the files that are compiled follow one another. Java: the types of all files, one of them public.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath

_LOCAL_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*\"([^\"]+)\".*$", re.MULTILINE)
_PRAGMA_ONCE = re.compile(r"^[ \t]*#[ \t]*pragma[ \t]+once.*$", re.MULTILINE)
_IMPORT = re.compile(r"^[ \t]*import[ \t]+(?:static[ \t]+)?[\w.*]+[ \t]*;", re.MULTILINE)
_PACKAGE = re.compile(r"^[ \t]*package[ \t]+[\w.]+[ \t]*;", re.MULTILINE)
_PUBLIC_TYPE = re.compile(r"^([ \t]*)public[ \t]+(?=(?:\w+[ \t]+)*(?:class|interface|enum|record)\b)", re.MULTILINE)
_JAVA_MAIN = re.compile(r"\bstatic\s+(?:public\s+)?(?:final\s+)?void\s+main\b")
COMPILED = {"c": (".c",), "cpp": (".cc", ".cpp", ".cxx", ".c++", ".C")}


class CannotBundle(ValueError):
    """Files that do not make one program; the message says why."""


def bundle(language: str, files: Mapping[str, str], entry: str | None = None) -> str:
    """One source text for the program of `files` (text by file name). `entry` names the file that is started.
    CannotBundle when several could be."""
    if not files:
        raise CannotBundle("no source files")
    if language == "python":
        return _python(files, entry)
    if language in COMPILED:
        return _c(language, files)
    if len(files) == 1:
        return next(iter(files.values()))
    if language == "java":
        return _java(files, entry)
    raise CannotBundle(f"{language} programs of several files are not supported")


# importlib itself would cost a run many times what the program does
_MODULES = """
import sys
class _Files:
    def find_spec(self, name, path=None, target=None, files={modules!r}, spec=type(sys.__spec__)):
        return spec(name, self) if name in files else None
    def create_module(self, spec):
        return None
    def exec_module(self, module, files={modules!r}):
        exec(compile(files[module.__name__], module.__name__ + ".py", "exec"), module.__dict__)
sys.meta_path.insert(0, _Files())
del sys, _Files
exec(compile({main!r}, "solution.py", "exec"))
"""


def _python(files: Mapping[str, str], entry: str | None) -> str:
    names = [entry] if entry else ["__main__.py", "main.py", "main.py3"]
    main = next((name for name in names if name in files), None)
    if main is None:
        sources = [name for name in files if name != "__init__.py"]
        if len(sources) != 1:
            raise CannotBundle(f"which of {', '.join(sorted(files))} is started? call it main.py")
        main = sources[0]
    modules = {PurePath(name).stem: text for name, text in files.items() if name != main}
    modules.pop("__init__", None)
    return _MODULES.format(modules=modules, main=files[main]) if modules else files[main]


def _c(language: str, files: Mapping[str, str]) -> str:
    units = [name for name in files if name.endswith(COMPILED[language])]
    if not units:
        raise CannotBundle(f"no {' or '.join(COMPILED[language][:2])} file among {', '.join(sorted(files))}")
    included: set[str] = set()

    def expanded(name: str, above: tuple[str, ...]) -> str:
        def replacement(found: re.Match[str]) -> str:
            wanted = PurePath(found[1]).name
            if wanted not in files:
                return found[0]
            text = files[wanted]
            if wanted in above or (wanted in included and _guarded(text)):
                return ""
            included.add(wanted)
            return expanded(wanted, (*above, wanted))

        return _LOCAL_INCLUDE.sub(replacement, _PRAGMA_ONCE.sub("", files[name]))

    # the file with main() last, so that what it uses has been defined
    units.sort(key=lambda name: ("main" in files[name], name))
    return "\n".join(expanded(name, (name,)) for name in units if name not in included)


def _guarded(text: str) -> bool:
    return bool(_PRAGMA_ONCE.search(text) or re.search(r"^\s*#\s*ifndef\s+\w+\s*\n\s*#\s*define", text, re.MULTILINE))


def _java(files: Mapping[str, str], entry: str | None) -> str:
    mains = [name for name, text in files.items() if _JAVA_MAIN.search(text)]
    if entry is not None:
        mains = [name for name in files if PurePath(name).stem == entry] or mains
    if "Main.java" in mains:
        mains = ["Main.java"]
    if len(mains) != 1:
        raise CannotBundle(f"which of {', '.join(sorted(mains or files))} is started? call it Main.java")
    imports: dict[str, None] = {}
    bodies = []
    for name in [mains[0], *(name for name in files if name != mains[0])]:
        text = _PACKAGE.sub("", files[name])
        imports.update((found.strip(), None) for found in _IMPORT.findall(text))
        text = _IMPORT.sub("", text)
        bodies.append(text if name == mains[0] else _PUBLIC_TYPE.sub(r"\1", text))
    return "\n".join([*imports, *bodies])
