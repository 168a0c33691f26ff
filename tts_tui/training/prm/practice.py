"""Kinds of practice problems, used only in training: they widen what an adapter sees beyond the problem families.

None of them is a family of `tts_tui.evaluation.datasets.families`, so there are no percentages, no minutes, and no
change after a purchase. Two are close to a family that is never trained on: `conversion` asks about other units what
`unit` asks about hours and minutes, in the same words, and `share` asks for halves, thirds, quarters and fifths.
"""

from __future__ import annotations

import random
from collections.abc import Callable

Drawn = tuple[str, int, tuple[str, ...]]
"""A question, its answer, and its gold steps."""

_NAMES = ("Kim", "Leo", "Mia", "Noah", "Olga", "Paul", "Rosa", "Sam", "Tina", "Uma")
_THINGS = ("balls", "bottles", "candles", "chairs", "flowers", "letters", "nuts", "oranges", "stickers", "toys")


def _difference(rng: random.Random) -> Drawn:
    a, b = sorted((rng.randint(5, 99), rng.randint(2, 60)), reverse=True)
    return f"What is {a} - {b}?", a - b, (f"{a} - {b} = {a - b}",)


def _quotient(rng: random.Random) -> Drawn:
    a, b = rng.randint(2, 12), rng.randint(2, 9)
    return f"Calculate {a * b} / {b}.", a, (f"{a * b} / {b} = {a}",)


def _from_whole(rng: random.Random) -> Drawn:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    c = a * b + rng.randint(1, 40)
    return f"Compute {c} - {a} * {b}.", c - a * b, (f"{a} * {b} = {a * b}", f"{c} - {a * b} = {c - a * b}")


def _bracket(rng: random.Random) -> Drawn:
    a, b, c = rng.randint(2, 12), rng.randint(2, 12), rng.randint(2, 9)
    steps = (f"{a} + {b} = {a + b}", f"{a + b} * {c} = {(a + b) * c}")
    return f"What is ({a} + {b}) * {c}?", (a + b) * c, steps


def _products(rng: random.Random) -> Drawn:
    a, b, c, d = (rng.randint(2, 9) for _ in range(4))
    first, second = a * b, c * d
    steps = (f"{a} * {b} = {first}", f"{c} * {d} = {second}", f"{first} + {second} = {first + second}")
    return f"Calculate {a} * {b} + {c} * {d}.", first + second, steps


def _smallest(rng: random.Random) -> Drawn:
    numbers = rng.sample(range(11, 99), 3)
    low = min(numbers[:2])
    steps = (f"min({numbers[0]}, {numbers[1]}) = {low}", f"min({low}, {numbers[2]}) = {min(numbers)}")
    return f"Which is the smallest of {numbers[0]}, {numbers[1]} and {numbers[2]}?", min(numbers), steps


_UNITS = (("weeks", "days", 7), ("dozens of eggs", "eggs", 12), ("feet", "inches", 12), ("years", "months", 12),
          ("metres", "centimetres", 100), ("days", "hours", 24), ("pairs of socks", "socks", 2))  # fmt: skip


def _conversion(rng: random.Random) -> Drawn:
    large, small, factor = rng.choice(_UNITS)
    a, b = rng.randint(2, 9), rng.randint(1, 11)
    steps = (f"{a} * {factor} = {a * factor}", f"{a * factor} + {b} = {a * factor + b}")
    return f"How many {small} are {a} {large} and {b} {small}?", a * factor + b, steps


def _share(rng: random.Random) -> Drawn:
    part, name = rng.choice(((2, "half"), (3, "a third"), (4, "a quarter"), (5, "a fifth")))
    value = rng.randint(3, 30)
    return f"What is {name} of {part * value}?", value, (f"{part * value} / {part} = {value}",)


def _rectangle(rng: random.Random) -> Drawn:
    a, b = rng.randint(2, 20), rng.randint(2, 9)
    if rng.random() < 0.5:
        return f"A rectangle is {a} m long and {b} m wide. What is its area?", a * b, (f"{a} * {b} = {a * b}",)
    steps = (f"{a} + {b} = {a + b}", f"{a + b} * 2 = {2 * (a + b)}")
    return f"A rectangle is {a} m long and {b} m wide. What is its perimeter?", 2 * (a + b), steps


def _left_over(rng: random.Random) -> Drawn:
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    a, b = rng.randint(10, 60), rng.randint(5, 40)
    c = rng.randint(2, a + b - 1)
    steps = (f"{a} + {b} = {a + b}", f"{a + b} - {c} = {a + b - c}")
    question = f"{name} has {a} {thing}, gets {b} more and gives {c} away. How many {thing} are left?"
    return question, a + b - c, steps


def _groups(rng: random.Random) -> Drawn:
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    bags, each, used = rng.randint(2, 9), rng.randint(3, 12), rng.randint(1, 6)
    total = bags * each
    steps = (f"{bags} * {each} = {total}", f"{total} - {used} = {total - used}")
    question = f"{name} packs {bags} boxes with {each} {thing} each and then takes {used} out. How many are packed now?"
    return question, total - used, steps


def _each(rng: random.Random) -> Drawn:
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    people, each = rng.randint(2, 9), rng.randint(2, 9)
    a = rng.randint(1, people * each - 1)
    b = people * each - a
    steps = (f"{a} + {b} = {people * each}", f"{people * each} / {people} = {each}")
    question = (
        f"{name} puts {a} {thing} and {b} {thing} together and divides them equally into {people} groups. "
        f"How many are in each group?"
    )
    return question, each, steps


def _ages(rng: random.Random) -> Drawn:
    name, other = rng.sample(_NAMES, 2)
    a, b, c = rng.randint(5, 40), rng.randint(2, 15), rng.randint(2, 20)
    steps = (f"{a} + {b} = {a + b}", f"{a + b} + {c} = {a + b + c}")
    question = f"{name} is {a} years old. {other} is {b} years older. How old will {other} be in {c} years?"
    return question, a + b + c, steps


def _times(rng: random.Random) -> Drawn:
    name, other, thing = *rng.sample(_NAMES, 2), rng.choice(_THINGS)
    a, b = rng.randint(3, 20), rng.randint(2, 6)
    steps = (f"{a} * {b} = {a * b}", f"{a} + {a * b} = {a + a * b}")
    question = f"{name} has {a} {thing} and {other} has {b} times as many. How many {thing} do they have together?"
    return question, a + a * b, steps


PRACTICE: dict[str, Callable[[random.Random], Drawn]] = {
    draw.__name__.removeprefix("_"): draw
    for draw in (
        _difference, _quotient, _from_whole, _bracket, _products, _smallest, _conversion, _share, _rectangle,
        _left_over, _groups, _each, _ages, _times,
    )
}  # fmt: skip
"""Generators of all kinds of practice problems, by name."""


def fact(rng: random.Random) -> str:
    """Return a right equation, in the form that steps have."""
    kind = rng.choice("++--**/")
    if kind == "+":
        a, b = rng.randint(1, rng.choice((20, 99, 400))), rng.randint(1, rng.choice((20, 99)))
        return f"{a} + {b} = {a + b}"
    if kind == "-":
        a = rng.randint(2, rng.choice((30, 120, 400)))
        b = rng.randint(1, min(a, 99))
        return f"{a} - {b} = {a - b}"
    a, b = rng.randint(2, rng.choice((9, 15, 99))), rng.randint(2, 9)
    return f"{a} * {b} = {a * b}" if kind == "*" else f"{a * b} / {b} = {a}"
