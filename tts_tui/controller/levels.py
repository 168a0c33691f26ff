"""How hard a problem is, in words: levels by absolute pass@1 (arXiv 2502.06703, section 3.2)."""

from __future__ import annotations

from typing import Literal, get_args

Level = Literal["easy", "medium", "hard"]
LEVELS: tuple[Level, ...] = get_args(Level)

EASY, HARD = 0.5, 0.1
"""Easy is a pass@1 from 50 % on, hard one below 10 %, and medium what lies between."""
_ROUNDING = 1e-9
"""A share that was computed may miss a bound that it equals by so much."""


def level_of(pass1: float) -> Level:
    """The level of a problem, or of a family of problems, whose share of right samples is `pass1`."""
    if pass1 >= EASY - _ROUNDING:
        return "easy"
    return "medium" if pass1 >= HARD - _ROUNDING else "hard"


def bounds() -> str:
    """What the levels mean, for a caption."""
    return f"easy from {EASY:.0%} on, hard below {HARD:.0%}".replace("%", " %")
