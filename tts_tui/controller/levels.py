"""Levels of difficulty by absolute pass@1 (arXiv 2502.06703, section 3.2)."""

from __future__ import annotations

from typing import Literal, get_args

Level = Literal["easy", "medium", "hard"]
LEVELS: tuple[Level, ...] = get_args(Level)

EASY, HARD = 0.5, 0.1
"""Bounds of the levels: easy is a pass@1 of at least 50 %, hard is below 10 %, and medium lies between them."""
_ROUNDING = 1e-9
"""Tolerance for rounding errors in a computed share that equals a bound."""


def level_of(pass1: float) -> Level:
    """Return the level of a problem, or of a family of problems, whose share of right samples is `pass1`."""
    if pass1 >= EASY - _ROUNDING:
        return "easy"
    return "medium" if pass1 >= HARD - _ROUNDING else "hard"


def bounds() -> str:
    """Return the definition of the levels, for a caption."""
    return f"easy from {EASY:.0%} on, hard below {HARD:.0%}".replace("%", " %")
