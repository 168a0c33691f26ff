"""Colours for scores: lightness grows with the score, so that they are readable without hue."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style

_STOPS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
_BRIGHT = ((126, 87, 178), (86, 116, 199), (46, 158, 160), *_STOPS[3:])
"""Colour stops for bars, with a low end light enough for a thin bar on a dark background."""


def _colour(share: float, stops: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    place = share * (len(stops) - 1)
    low = min(int(place), len(stops) - 2)
    red, green, blue = (round(a + (b - a) * (place - low)) for a, b in zip(stops[low], stops[low + 1], strict=True))
    return red, green, blue


def _ground(share: float) -> Style:
    """Return a background colour with a text colour that contrasts with it."""
    red, green, blue = _colour(share, _STOPS)
    text = "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "#ffffff"
    return Style(color=text, bgcolor=f"#{red:02x}{green:02x}{blue:02x}")


HEAT = tuple(_ground(step / 100) for step in range(101))
"""Background styles, indexed by `degree`."""
BARS = tuple(
    Style(color="rgb({},{},{})".format(*_colour(step / 100, _BRIGHT)), bgcolor="#2a2a2e", reverse=False)
    for step in range(101)
)
"""Bar styles, indexed by `degree`: on a dark background, so that they are readable on light terminals, too."""


def degree(score: float) -> int:
    """Return the index of the colour of a score, from 0 to 100; scores are clamped to [0, 1]."""
    return round(min(max(score, 0.0), 1.0) * 100)
