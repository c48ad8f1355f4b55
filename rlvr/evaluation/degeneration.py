"""Signs of a degenerate completion: text that runs in circles, and languages that mix."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache

WINDOW = 8  # tokens of an n-gram
LEAST_WINDOWS = 64
_TOKEN = re.compile(r"[一-鿿぀-ヿ가-힯]|\w+|[^\w\s]")
_FENCE = re.compile(r"^[ ]{0,3}(```|~~~).*?(?:^[ ]{0,3}\1[^\n]*$|\Z)", re.DOTALL | re.MULTILINE)
_SECOND_SCRIPT = 0.02  # share of the letters outside code
_SECOND_LETTERS = 10


def repeated_share(text: str) -> float:
    """Share of the 8-grams of words and signs that stood before, in [0, 1]; 0 for texts of fewer than 64 of them."""
    tokens = _TOKEN.findall(text)
    windows = len(tokens) - WINDOW + 1
    if windows < LEAST_WINDOWS:
        return 0.0
    distinct = len(set(zip(*(tokens[start:] for start in range(WINDOW)), strict=False)))
    return 1.0 - distinct / windows


def is_repetitive(text: str) -> bool:
    """True when more than half of the 8-grams stood before, in the whole text or in its last 1,000 tokens.

    The end counts by itself, because a long completion that falls into a loop is mostly fresh before it.
    """
    return repeated_share(text) > 0.5 or repeated_share(" ".join(_TOKEN.findall(text)[-1000:])) > 0.5


def mixes_languages(text: str) -> bool:
    """True when the letters outside code blocks are of two scripts, the second with at least 2% and 10 letters.

    Greek does not count: it is mathematics. Languages that share a script are not told apart.
    """
    letters = Counter(character for character in _FENCE.sub("", text) if character.isalpha())
    scripts: Counter[str] = Counter()
    for character, count in letters.items():
        scripts[_script(character)] += count
    del scripts["GREEK"]
    ranked = scripts.most_common(2)
    return len(ranked) == 2 and ranked[1][1] >= max(_SECOND_LETTERS, _SECOND_SCRIPT * sum(scripts.values()))


_EAST_ASIAN = {"CJK", "HIRAGANA", "KATAKANA", "FULLWIDTH"}  # Japanese mixes them by itself


@lru_cache(maxsize=4096)
def _script(character: str) -> str:
    name = unicodedata.name(character, "OTHER").split()[0].split("-")[0]
    if name in _EAST_ASIAN:
        return "CJK"
    return "LATIN" if name in ("MATHEMATICAL", "MICRO", "MASCULINE", "FEMININE", "OTHER", "SCRIPT") else name
