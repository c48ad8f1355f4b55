"""Engine arguments held against the installed vLLM."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
from collections.abc import Mapping
from typing import Any


class UnknownArgument(ValueError):
    """An engine argument the installed vLLM does not know, or a value it refuses; one line."""


def vllm_installed() -> bool:
    """True where vLLM can be imported."""
    return importlib.util.find_spec("vllm") is not None


def check_arguments(model: str, arguments: Mapping[str, Any]) -> str:
    """Returns the vLLM version that accepts `arguments` by name and value; nothing is loaded or started.

    Raises UnknownArgument naming the first one it does not know, ImportError where vLLM is not installed.
    """
    from vllm import __version__
    from vllm.engine.arg_utils import AsyncEngineArgs

    known = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    for name in arguments:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did it become {close[0]}?" if close else ""
            raise UnknownArgument(f"vLLM {__version__} has no engine argument {name}{hint}")
    try:
        AsyncEngineArgs(model=model, **arguments)
    except (TypeError, ValueError) as error:
        raise UnknownArgument(f"vLLM {__version__}: {' '.join(str(error).split())[:300]}") from None
    return str(__version__)
