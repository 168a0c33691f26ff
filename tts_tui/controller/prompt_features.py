"""Numeric features of a problem's text that predict its difficulty: size, arithmetic, notation and words.

Words are hashed into a few buckets, so that a calibration can learn that problems about, say, remainders are hard for a
model, without a curated dictionary. All counts are transformed as `log(1 + count)`, so that doubling a count has a
similar effect from 1 to 2 as from 10 to 20.
"""

from __future__ import annotations

import math
import re
import zlib

BUCKETS = 24
"""Number of buckets for hashed words."""

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_WORD = re.compile(r"[A-Za-z]{2,}")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_SIGNS: tuple[tuple[str, str], ...] = (
    ("plus", r"\+"),
    ("minus", r"(?<![A-Za-z]{2})(?<=[\w)\s])-(?=[\s\d(\\]|[a-z](?![A-Za-z]))"),
    ("times", r"\*|\\times|\\cdot|×"),
    ("divided", r"/|\\frac|\\div|÷"),
    ("power", r"\^"),
    ("root", r"\\sqrt|√"),
    ("equals", r"="),
    ("compares", r"<|>|\\l?eq?\b|\\ge?q?\b"),
    ("percent", r"%"),
    ("variables", r"(?<![A-Za-z\\])[a-z](?![A-Za-z])"),
    ("commas", r","),
    ("questions", r"\?"),
    ("sentences", r"[.?!](?:\s|$)"),
)
_COMPILED = tuple((name, re.compile(pattern)) for name, pattern in _SIGNS)

NAMES: tuple[str, ...] = (
    "words",
    "characters",
    "numbers",
    "digits of the largest",
    "digits of all",
    "one-digit numbers",
    "commands",
    *(name for name, _ in _SIGNS),
    *(f"words {bucket}" for bucket in range(BUCKETS)),
)
"""Names of the features, in order: the quantity that each one counts."""


def features(problem: str) -> list[float]:
    """Return the features of a problem's text, one number for each of `NAMES`."""
    numbers = _NUMBER.findall(problem)
    words = [word.casefold() for word in _WORD.findall(_COMMAND.sub(" ", problem))]
    sizes = [len(number.replace(".", "")) for number in numbers]
    counts: list[float] = [
        len(words),
        len(problem),
        len(numbers),
        max(sizes, default=0),
        sum(sizes),
        sum(size == 1 for size in sizes),
        len(_COMMAND.findall(problem)),
        *(len(pattern.findall(problem)) for _, pattern in _COMPILED),
    ]
    buckets = [0] * BUCKETS
    for word in words:
        buckets[zlib.crc32(word.encode()) % BUCKETS] += 1
    return [math.log1p(count) for count in (*counts, *buckets)]
