"""Why a file could not be written, whichever library tried. Imports nothing heavy."""

from __future__ import annotations

import errno
import os
import re


def why_unwritten(error: Exception) -> str | None:
    """Returns the system's reason why a file was not written, None for errors of another kind."""
    if isinstance(error, OSError):
        return error.strerror if error.errno is not None else None
    said = str(error)
    if found := re.search(r"\(os error (\d+)\)", said):  # libraries in Rust, safetensors among them
        return os.strerror(int(found[1]))
    # torch's writer of archives hides the error number; it is raised while a write that failed is cleaned up
    if isinstance(error, RuntimeError) and "inline_container" in said:
        return f"{os.strerror(errno.ENOSPC)}, or the file system failed"
    return None
