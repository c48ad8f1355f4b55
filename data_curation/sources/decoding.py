"""Values as published data sets hold them: JSON or Python literals in text, packed tests, four ways to say "none"."""

from __future__ import annotations

import ast
import base64
import binascii
import io
import json
import math
import pickle
import re
import sys
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

MAXIMUM_DIGITS = 200_000  # of an integer in a data file; reading takes quadratic time
MAXIMUM_UNPACKED = 1 << 30  # bytes of one unpacked test field
_NOTHING = frozenset({"", "-", "none", "null", "nan", "n/a", "unknown"})
_FENCE = re.compile(r"```[ \t]*([\w+#.-]*)[^\n]*\n(.*?)(?:\n?```|\Z)", re.DOTALL)


class Unreadable(ValueError):
    """A row that cannot become a problem; the message says what is wrong with it and what would be right."""


@contextmanager
def long_integers() -> Iterator[None]:
    """Lets Python read and print integers of up to MAXIMUM_DIGITS digits; the usual limit of 4300 is restored after."""
    before = sys.get_int_max_str_digits()
    if before == 0 or before >= MAXIMUM_DIGITS:
        yield
        return
    sys.set_int_max_str_digits(MAXIMUM_DIGITS)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(before)


def text(row: Mapping[str, Any], *names: str) -> str:
    """The first of the columns that holds text, with unix line ends; Unreadable if all are missing or empty."""
    for name in names:
        value = row.get(name)
        if isinstance(value, str) and value.strip():
            return value.replace("\r\n", "\n").replace("\r", "\n")
    present = next((name for name in names if row.get(name) is not None), None)
    if present is not None:
        kind = "empty" if row[present] == "" or isinstance(row[present], str) else f"a {type(row[present]).__name__}"
        raise Unreadable(f"`{present}` is {kind}; expected text")
    raise Unreadable(f"`{names[0]}` is missing")


def optional(value: Any) -> str:
    """The value as text; "" for everything that data sets write for "none": null, "", "-", "None", "nan"."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    found = str(value).replace("\r\n", "\n").replace("\r", "\n")
    return "" if found.strip().casefold() in _NOTHING else found


def decoded(value: Any, column: str) -> Any:
    """JSON text as its value; anything that is not text as it is; None for empty text. Unreadable if it is not JSON."""
    if not isinstance(value, str):
        return value
    if optional(value) == "":
        return None
    try:
        with long_integers():
            return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"`{column}` is not JSON: {_first_line(error)}") from None


def literal(value: Any, column: str) -> Any:
    """A Python literal in text as its value, never executed; JSON is taken too. None for empty text."""
    if not isinstance(value, str):
        return value
    if optional(value) == "":
        return None
    try:
        with long_integers(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes in published text are valid all the same
            return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        pass
    try:
        with long_integers():
            return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"`{column}` is neither a Python literal nor JSON: {_first_line(error)}") from None


def strings(value: Any, column: str) -> list[str]:
    """A list of texts given as a list, as JSON or a Python literal of one, or as one text; empty entries left out."""
    if isinstance(value, str) and value.strip()[:1] in "[(":
        value = literal(value, column)
    if value is None or value != value:
        return []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, Sequence):
        raise Unreadable(f"`{column}`: expected a list, got {type(value).__name__}")
    return [found for found in map(optional, value) if found.strip()]


def objects(value: Any, column: str) -> list[dict[str, Any]]:
    """A list of structs, whether stored row by row or as one struct of equally long lists; [] for nothing."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        columns = {name: items for name, items in value.items() if isinstance(items, Sequence)}
        if len(columns) != len(value) or any(isinstance(items, str) for items in columns.values()):
            return [dict(value)]  # one struct where a list of them is usual
        if len({len(items) for items in columns.values()}) > 1:
            lengths = ", ".join(f"{name} {len(items)}" for name, items in columns.items())
            raise Unreadable(f"`{column}`: its lists are of different lengths ({lengths})")
        return [dict(zip(columns, items, strict=True)) for items in zip(*columns.values(), strict=True)]
    if isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(item, Mapping) for item in value):
        return [dict(item) for item in value]
    raise Unreadable(f"`{column}`: expected a list of objects, got {type(value).__name__}")


def packed_json(value: Any, column: str) -> Any:
    """The value of JSON text, or of JSON text that was pickled, deflated and put into base64, as LiveCodeBench does."""
    if not isinstance(value, str) or value.lstrip()[:1] in ("[", "{", ""):
        return decoded(value, column)
    try:
        unpacker = zlib.decompressobj()
        body = unpacker.decompress(base64.b64decode(value.encode(), validate=True), MAXIMUM_UNPACKED)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise Unreadable(f"`{column}` is neither JSON nor base64 of deflated data: {_first_line(error)}") from None
    if unpacker.unconsumed_tail:
        raise Unreadable(f"`{column}` unpacks to more than {MAXIMUM_UNPACKED >> 20} MiB")
    return decoded(unpickled_text(body, column), column)


def unpickled_text(body: bytes, column: str) -> str:
    """The str that a pickle holds. Unreadable for a pickle of anything else: no class is ever looked up or called."""
    try:
        value = _TextUnpickler(io.BytesIO(body)).load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        raise Unreadable(f"`{column}` holds a pickle that is not plain text: {_first_line(error)}") from None
    if not isinstance(value, str):
        raise Unreadable(f"`{column}` holds a pickled {type(value).__name__}; only a str is legal")
    return value


class _TextUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}; only a str is legal")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to data outside; only a str is legal")


def unfenced(code: str) -> tuple[str, str]:
    """(program, language) of text with a Markdown code fence: the last fenced block; plain text as it is with ""."""
    blocks = _FENCE.findall(code)
    if not blocks:
        return code, ""
    language, body = blocks[-1]
    return body + ("" if body.endswith("\n") else "\n"), language.casefold()


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
