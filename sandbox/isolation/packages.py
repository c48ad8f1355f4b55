"""Third-party packages that Python programs may import, as contest sites offer them: copied, so that nothing else of an
installation can be seen."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import py_compile
import shutil
import tempfile
from functools import cache
from pathlib import Path

PACKAGES = ("sortedcontainers",)  # of Python alone: what is compiled for one interpreter has no place here
FOLDER = "packages"


@cache
def versions() -> tuple[str, ...]:
    """Name and version of each package that is installed: a verdict may depend on them."""
    return tuple(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES if _home(name))


def provide(directory: str) -> str:
    """Path of a folder under `directory` that holds the packages and nothing else; made if it is not there."""
    folder = os.path.join(directory, FOLDER)
    if not os.path.isdir(folder):
        partial = tempfile.mkdtemp(prefix="packages-", dir=directory)
        os.chmod(partial, 0o755)
        for home in filter(None, map(_home, PACKAGES)):
            for source in sorted(home.rglob("*.py")):
                copy = Path(partial, home.name, source.relative_to(home))
                copy.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                shutil.copyfile(source, copy)
                shown = f"{home.name}/{source.relative_to(home)}"
                mode = py_compile.PycInvalidationMode.UNCHECKED_HASH  # the copy is read-only: nothing to be checked
                py_compile.compile(str(copy), dfile=shown, doraise=True, invalidation_mode=mode)
        os.rename(partial, folder)
    return folder


@cache
def _home(name: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.submodule_search_locations[0]) if spec is not None and spec.submodule_search_locations else None
