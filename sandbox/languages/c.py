"""C, by the system's gcc."""

from __future__ import annotations

from sandbox.languages.native import Native

C = Native("c", "gcc", ["-std=gnu17", "-O2", "-pipe", "-w", "-fmax-errors=5", "-DONLINE_JUDGE"], ".c", "gcc")
