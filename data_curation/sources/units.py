"""Durations, memory sizes and dates in the spellings of published data sets."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from typing import Any

from data_curation.sources.decoding import Unreadable, literal, optional

_NUMBER = re.compile(r"([0-9]+(?:[.,][0-9]+)?)\s*([A-Za-z]*)")
_SECONDS = {"": 1.0, "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0}
_SECONDS |= {"ms": 1e-3, "msec": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3, "min": 60.0, "minutes": 60.0}
_MEGABYTES = {"mb": 1.0, "mib": 1.0, "m": 1.0, "megabyte": 1.0, "megabytes": 1.0}
_MEGABYTES |= {"gb": 1024.0, "gib": 1024.0, "gigabyte": 1024.0, "gigabytes": 1024.0}
_MEGABYTES |= {"kb": 1 / 1024, "kib": 1 / 1024, "kilobytes": 1 / 1024, "b": 2**-20, "byte": 2**-20, "bytes": 2**-20}
_LONGEST_S = 3600.0


def seconds(value: Any, column: str = "time_limit") -> float | None:
    """A time limit in seconds from a number, {seconds, nanos}, that as text, "2.0 seconds" or "500 ms"; None for none.

    0 means "none" in published sets. Unreadable for text that is no duration, and for more than an hour.
    """
    if isinstance(value, str) and value.strip().startswith("{"):
        value = literal(value, column)
    if isinstance(value, Mapping):
        whole, nanos = value.get("seconds") or 0, value.get("nanos") or 0
        return _limited(float(whole) + float(nanos) * 1e-9, column)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _limited(float(value), column)
    found = optional(value)
    return _limited(_quantity(found, _SECONDS, column, "2.0 seconds"), column) if found else None


def megabytes(value: Any, column: str = "memory_limit", *, unit: str = "mb") -> int | None:
    """A memory limit in MB, rounded up, from a number of `unit` ("mb" or "bytes") or text with one; None for none.

    256000000 bytes and 268435456 bytes are both a "256 MB" limit and give 256.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value) or value <= 0:
            return None
        if unit == "bytes":
            return math.ceil(value / 1e6 if value % 1e6 == 0 else value / 2**20)
        return math.ceil(value)
    found = optional(value)
    size = _quantity(found, {"": 1.0, **_MEGABYTES}, column, "256 megabytes") if found else 0.0
    return math.ceil(size) if size > 0 else None


def day(value: Any, column: str = "date") -> datetime.date | None:
    """The day of a date, a timestamp, ISO text, seconds since 1970, or a bare year (its first day); None for none."""
    if isinstance(value, datetime.datetime):
        return value.date()
    if isinstance(value, datetime.date):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        if 1900 < value < 2200:
            return datetime.date(int(value), 1, 1)
        if not math.isfinite(value) or value <= 0:
            return None
        return datetime.datetime.fromtimestamp(value, datetime.UTC).date()
    found = optional(value).strip()
    if not found:
        return None
    if found.isdigit():
        return day(int(found), column)
    try:
        return datetime.datetime.fromisoformat(found).date()
    except ValueError:
        raise Unreadable(f"`{column}`: {found[:40]!r} is no date; expected one such as 2024-08-31") from None


def number(value: Any) -> float | None:
    """A rating or score as a number; None for null, 0, text that says "none", and everything that is no number."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0:
        return float(value)
    return None


def _quantity(found: str, units: Mapping[str, float], column: str, example: str) -> float:
    match = _NUMBER.search(found)
    if match is None or match[2].casefold() not in units:
        raise Unreadable(f"`{column}`: cannot read {found[:40]!r}; expected a number with a unit such as {example}")
    return float(match[1].replace(",", ".")) * units[match[2].casefold()]


def _limited(found: float, column: str) -> float | None:
    if not math.isfinite(found) or found <= 0:
        return None
    if found > _LONGEST_S:
        raise Unreadable(f"`{column}`: {found:g} seconds is more than an hour; is it in milliseconds?")
    return round(found, 6)
