"""C++17 and C++20, by the system's g++ with the flags contests use."""

from __future__ import annotations

from sandbox.languages.native import Native

_FLAGS = ["-O2", "-pipe", "-w", "-fmax-errors=5", "-DONLINE_JUDGE"]

CPP = Native("cpp", "g++", ["-std=gnu++20", *_FLAGS], ".cpp", "g++")  # C++20
CPP17 = Native("cpp17", "g++", ["-std=gnu++17", *_FLAGS], ".cpp", "g++")
