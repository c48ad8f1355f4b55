"""Families and their side of the split: renamed copies and close variants stay together."""

from __future__ import annotations

import hashlib

HELDOUT_SHARE = 0.2


def unit_hash(text: str) -> float:
    """A number in [0, 1) that depends on `text` alone (SHA-256), the same on every machine and in every run."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def is_heldout(family: str, share: float = HELDOUT_SHARE) -> bool:
    """Whether a family belongs to the held-out side: its hash is below `share`."""
    return unit_hash(f"family {family}") < share
