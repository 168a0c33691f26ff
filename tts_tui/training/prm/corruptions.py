"""Corruption of right solutions: a slip of the kind that small models make, with all later steps carried on from it."""

from __future__ import annotations

import random
import re
from fractions import Fraction

from tts_tui.evaluation.datasets.families import value

_STEP = re.compile(r"(?P<left>.+) = (?P<right>-?\d+)$")
_OTHER = {"+": "-*", "-": "+", "*": "+", "/": "*-"}


def slipped(rng: random.Random, steps: tuple[str, ...], answer: str) -> tuple[int, tuple[str, ...], str] | None:
    """Return gold steps with one slip inserted.

    Args:
        rng: Source of randomness for the kind of slip and its place.
        steps: Gold steps such as `8 * 4 = 32`.
        answer: The right answer.

    Returns:
        Index of the first wrong step, the steps, and the answer that they lead to; None if no slip was found.
    """
    if not steps:
        return None
    at = rng.randrange(len(steps))
    match = _STEP.match(steps[at])
    if not match:
        return None
    left, right = match["left"], match["right"]
    wrong = _slip(rng, left, right)
    if wrong is None or wrong[1] == right:
        return None
    changed = {right: wrong[1]}
    told = [*steps[:at], f"{wrong[0]} = {wrong[1]}"]
    for step in steps[at + 1 :]:
        later = _STEP.match(step)
        if not later:
            return None
        own = re.sub(r"\d+", lambda number: changed.get(number[0], number[0]), later["left"])
        result = _whole(own)
        if result is None:
            return None
        changed[later["right"]] = result
        told.append(f"{own} = {result}")
    end = changed.get(answer, answer)
    return (at, tuple(told), end) if end != answer else None


def _slip(rng: random.Random, left: str, right: str) -> tuple[str, str] | None:
    """Return both sides of a wrong equation: the result is off, an operand misread, or the operation replaced."""
    kind = rng.random()
    if kind < 0.6:
        return left, near(rng, right)
    if kind < 0.8:
        numbers = re.findall(r"\d+", left)
        chosen = rng.choice(numbers)
        left = left.replace(chosen, near(rng, chosen), 1)
    else:
        signs = [sign for sign in _OTHER if f" {sign} " in left]
        if not signs:
            return None
        sign = rng.choice(signs)
        left = left.replace(f" {sign} ", f" {rng.choice(_OTHER[sign])} ", 1)
    result = _whole(left)
    return None if result is None else (left, result)


def near(rng: random.Random, number: str) -> str:
    """Return a different number that a small model may plausibly generate instead."""
    own = int(number)
    if rng.random() < 0.6:
        found = own + rng.choice((-1, 1, -1, 1, -2, 2, -3, 3, -10, 10))
    else:
        digits = list(number)
        place = rng.randrange(len(digits))
        digits[place] = rng.choice("0123456789")
        found = int("".join(digits))
    return str(found) if found >= 0 and found != own else str(own + rng.randint(1, 4))


def _whole(left: str) -> str | None:
    """Return the value of an expression, or None unless it is a non-negative integer."""
    try:
        found = value(left)
    except (ValueError, ZeroDivisionError, IndexError):
        return None
    return str(found) if found >= 0 and found == Fraction(int(found)) else None
