"""Measured accuracy of the embedded policy on the problem families (`python -m benchmarks.accuracy`)."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import msgspec
from msgspec import Struct

from tts_tui.controller.levels import Level, bounds, level_of
from tts_tui.evaluation.datasets.families import FAMILIES


class Measured(Struct, frozen=True):
    """Figures of a family, measured on its test problems.

    Attributes:
        problems: Number of problems.
        samples: Number of solutions sampled for each problem.
        pass1: Share of right solutions.
        majority: Share of problems whose most frequent answer is right.
        passk: Share of problems with at least one right solution.
    """

    problems: int
    samples: int
    pass1: float
    majority: float
    passk: float

    @property
    def level(self) -> Level:
        """Difficulty of the family for this policy, from the mean over its problems."""
        return level_of(self.pass1)


@cache
def measured() -> dict[str, Measured]:
    """Return the measured figures by family name."""
    stored = (files("tts_tui") / "data" / "families.json").read_bytes()
    return msgspec.json.decode(stored, type=dict[str, Measured])


def of_level(level: Level) -> tuple[str, ...]:
    """Return the names of the families with this level (easy, medium or hard)."""
    return tuple(name for name, figures in measured().items() if figures.level == level)


def listing() -> str:
    """Return a table of all families, sorted by pass@1, easiest first."""
    known = measured()
    head = ("family", "level", "pass@1", "majority", "pass@16", "splits", "what")
    rows: list[tuple[str, ...]] = [head]
    for name in sorted(FAMILIES, key=lambda name: -known[name].pass1):
        family, own = FAMILIES[name], known[name]
        splits = "train, validation, test" if family.trained else "validation, test"
        figures = (f"{value:.2f}" for value in (own.pass1, own.majority, own.passk))
        rows.append((name, own.level, *figures, splits, family.summary))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    samples = max(own.samples for own in known.values())
    about = (
        f"Measured on the embedded model with {samples} samples of each test problem "
        f"({sum(own.problems for own in known.values())} problems). Levels are those of the mean pass@1: {bounds()}. "
        "Which split a problem is in follows from its numbers; a family without the split train is never trained on."
    )
    return "\n".join([*lines, "", about])
