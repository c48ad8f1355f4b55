"""C++, by the system's g++ with the flags contests use."""

from __future__ import annotations

from sandbox.languages.native import Native

CPP = Native("cpp", "g++", ["-std=gnu++20", "-O2", "-pipe", "-w", "-fmax-errors=5", "-DONLINE_JUDGE"], ".cpp", "g++")
