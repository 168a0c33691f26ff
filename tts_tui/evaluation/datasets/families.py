"""Seeded families of small problems whose every step can be checked by program.

They go from trivial to beyond the embedded policy (`docs/embedded-prm.md` has figures), so that search, voting and
reward models can be studied on a CPU.

Splits never mix: which split a problem belongs to follows from its numbers alone (`split_of`), so `3 + 4` and
`4 + 3` always land on the same side, whatever the seed. `shots` is a split of its own: the examples that the
embedded policy is prompted with are never problems of the other three.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Literal, get_args

from msgspec import Struct

from tts_tui.errors import UnknownName, UsageError

Split = Literal["train", "validation", "test", "shots"]
SPLITS: tuple[str, ...] = get_args(Split)

_SHARES: tuple[tuple[Split, int], ...] = (("train", 50), ("validation", 68), ("test", 90))
_MAX_MISSES = 5000


class Problem(Struct, frozen=True):
    """One problem.

    Attributes:
        family: Name of its family.
        split: The split that its numbers belong to.
        index: Its place among the distinct problems of that family and split.
        question: What the policy is asked.
        answer: The right answer, a plain integer.
        steps: Gold steps without their numbering, such as `8 * 4 = 32`.
    """

    family: str
    split: Split
    index: int
    question: str
    answer: str
    steps: tuple[str, ...]

    @property
    def solution(self) -> str:
        """The gold solution in the format that the embedded policy is shown."""
        return solution_text(self.steps, self.answer)


class Family(Struct, frozen=True):
    """A generator of problems of one kind.

    Attributes:
        name: What it is called in tables and files.
        summary: One line for lists.
        draw: Draws (question, answer, gold steps).
        trained: Whether reward models of this project may train on it.
    """

    name: str
    summary: str
    draw: Callable[[random.Random], tuple[str, int, tuple[str, ...]]]
    trained: bool = True


def solution_text(steps: tuple[str, ...], answer: str) -> str:
    """The steps numbered, one paragraph each, and the boxed answer in the last one."""
    lines = [f"Step {number}: {step}" for number, step in enumerate(steps, 1)]
    return "\n\n".join([*lines, f"The answer is \\boxed{{{answer}}}."])


# --- generators -------------------------------------------------------------------------------------------------------


def _ask(rng: random.Random, expression: str) -> str:
    return rng.choice(("What is {}?", "What is {}?", "Compute {}.", "Calculate {}.")).format(expression)


def _running(first: int, rest: list[tuple[str, int]]) -> tuple[int, tuple[str, ...]]:
    """Folds `first op number op number …` from left to right, one step each."""
    total, steps = first, []
    for sign, number in rest:
        after = total + number if sign == "+" else total - number
        steps.append(f"{total} {sign} {number} = {after}")
        total = after
    return total, tuple(steps)


def _chain(rng: random.Random, numbers: list[int]) -> tuple[str, int, tuple[str, ...]]:
    total, steps = _running(numbers[0], [("+", number) for number in numbers[1:]])
    return _ask(rng, " + ".join(map(str, numbers))), total, steps


def _add0(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    return _chain(rng, [rng.randint(1, 9) for _ in range(2)])


def _add1(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    return _chain(rng, [rng.randint(1, 9) for _ in range(3)])


def _chain4(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    return _chain(rng, [rng.randint(1, 9) for _ in range(4)])


def _chain3d2(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    return _chain(rng, [rng.randint(11, 99) for _ in range(3)])


def _mul1(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    return _ask(rng, f"{a} * {b}"), a * b, (f"{a} * {b} = {a * b}",)


def _mixed(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    a, b, c = rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 20)
    steps = (f"{a} * {b} = {a * b}", f"{a * b} + {c} = {a * b + c}")
    return _ask(rng, f"{a} * {b} + {c}"), a * b + c, steps


def _addsub(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    a, b = rng.randint(2, 9), rng.randint(2, 9)
    c = rng.randint(1, min(9, a + b - 1))
    total, steps = _running(a, [("+", b), ("-", c)])
    return _ask(rng, f"{a} + {b} - {c}"), total, steps


def _cmp(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    numbers = rng.sample(range(11, 99), 4)
    best, steps = numbers[0], []
    for number in numbers[1:]:
        larger = max(best, number)
        steps.append(f"max({best}, {number}) = {larger}")
        best = larger
    listed = ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"
    return f"Which is the largest of {listed}?", best, tuple(steps)


def _pct(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    rate = rng.choice((10, 20, 25, 30, 40, 50, 60, 75, 80))
    whole = rng.randint(1, 15) * 20
    value = whole * rate // 100
    steps = (f"{whole} * {rate} = {whole * rate}", f"{whole * rate} / 100 = {value}")
    return f"What is {rate}% of {whole}?", value, steps


def _unit(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    hours, minutes = rng.randint(1, 9), rng.randint(1, 11) * 5
    steps = (f"{hours} * 60 = {hours * 60}", f"{hours * 60} + {minutes} = {hours * 60 + minutes}")
    plural = "hour" if hours == 1 else "hours"
    question = f"How many minutes are {hours} {plural} and {minutes} minutes?"
    return question, hours * 60 + minutes, steps


def _lin(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    a, x, b = rng.randint(2, 9), rng.randint(2, 9), rng.randint(1, 20)
    c = a * x + b
    return f"Solve {a}x + {b} = {c} for x.", x, (f"{c} - {b} = {a * x}", f"{a * x} / {a} = {x}")


def _mul2x1(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    tens, ones, b = rng.randint(1, 9) * 10, rng.randint(1, 9), rng.randint(3, 9)
    steps = (
        f"{tens} * {b} = {tens * b}",
        f"{ones} * {b} = {ones * b}",
        f"{tens * b} + {ones * b} = {(tens + ones) * b}",
    )
    return _ask(rng, f"{tens + ones} * {b}"), (tens + ones) * b, steps


def _add2(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    a, b = rng.randint(11, 99), rng.randint(11, 99)
    tens, ones = a // 10 * 10 + b // 10 * 10, a % 10 + b % 10
    steps = (
        f"{a // 10 * 10} + {b // 10 * 10} = {tens}",
        f"{a % 10} + {b % 10} = {ones}",
        f"{tens} + {ones} = {a + b}",
    )
    return f"Add {a} and {b}: first the tens, then the units.", a + b, steps


def _rem(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    b, quotient = rng.randint(3, 9), rng.randint(2, 9)
    rest = rng.randint(1, b - 1)
    a = b * quotient + rest
    steps = (f"{b} * {quotient} = {b * quotient}", f"{a} - {b * quotient} = {rest}")
    return f"What is the remainder when {a} is divided by {b}?", rest, steps


def _seq(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    first, step = rng.randint(1, 30), rng.randint(2, 9)
    terms = [first + step * place for place in range(4)]
    steps = (f"{terms[1]} - {terms[0]} = {step}", f"{terms[3]} + {step} = {terms[3] + step}")
    question = f"What comes next: {', '.join(map(str, terms))}?"
    return question, terms[3] + step, steps


_NAMES = ("Ann", "Ben", "Carla", "Dan", "Eva", "Finn", "Gina", "Hugo", "Iris", "Jack")
_THINGS = ("apples", "books", "cards", "coins", "eggs", "marbles", "pencils", "shells", "stamps")


def _word2(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    boxes, each, more = rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 19)
    question = (
        f"{name} has {boxes} boxes with {each} {thing} each and finds {more} more. "
        f"How many {thing} does {name} have now?"
    )
    total = boxes * each
    steps = (f"{boxes} * {each} = {total}", f"{total} + {more} = {total + more}")
    return question, total + more, steps


def _word3(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    friends = rng.randint(2, 5)
    share = rng.randint(2, 9)
    bags, each = rng.randint(3, 9), rng.randint(4, 9)
    bought = bags * each
    lost = rng.randint(2, 9)
    extra = friends * share - (bought - lost)
    while extra < 1:
        share += 1
        extra = friends * share - (bought - lost)
    steps = (
        f"{bags} * {each} = {bought}",
        f"{bought} - {lost} = {bought - lost}",
        f"{bought - lost} + {extra} = {friends * share}",
        f"{friends * share} / {friends} = {share}",
    )
    question = (
        f"{name} buys {bags} bags of {each} {thing}, loses {lost} of them, gets {extra} more as a gift "
        f"and shares all of them equally among {friends} friends. "
        f"How many {thing} does each friend get?"
    )
    return question, share, steps


def _money(rng: random.Random) -> tuple[str, int, tuple[str, ...]]:
    name, count, price = rng.choice(_NAMES), rng.randint(2, 9), rng.randint(2, 15)
    paid = next(note for note in (20, 50, 100, 200) if note > count * price)
    thing = rng.choice(("tickets", "sandwiches", "toys", "plants", "shirts"))
    question = (
        f"{name} buys {count} {thing} for {price} dollars each and pays with {paid} dollars. "
        "How many dollars of change are returned?"
    )
    cost = count * price
    return question, paid - cost, (f"{count} * {price} = {cost}", f"{paid} - {cost} = {paid - cost}")


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family("add0", "sum of two 1-digit numbers", _add0),
        Family("mul1", "product of two 1-digit numbers", _mul1),
        Family("mixed", "a * b + c", _mixed),
        Family("add1", "sum of three 1-digit numbers", _add1),
        Family("addsub", "a + b - c with 1-digit numbers", _addsub),
        Family("cmp", "largest of four numbers", _cmp),
        Family("pct", "percentage of a round number", _pct, trained=False),
        Family("chain4", "sum of four 1-digit numbers", _chain4),
        Family("unit", "hours and minutes to minutes", _unit, trained=False),
        Family("lin", "ax + b = c", _lin),
        Family("word2", "word problem of two steps", _word2),
        Family("mul2x1", "2-digit times 1-digit, by parts", _mul2x1),
        Family("chain3d2", "sum of three 2-digit numbers", _chain3d2),
        Family("word3", "word problem of four steps", _word3),
        Family("add2", "sum of two 2-digit numbers by tens and units", _add2),
        Family("rem", "remainder of a division", _rem),
        Family("seq", "next number of an arithmetic sequence", _seq),
        Family("money", "change after a purchase", _money, trained=False),
    )
}
"""Every family by name. Those with `trained=False` are only ever tested on."""

TRAINED: tuple[str, ...] = tuple(name for name, family in FAMILIES.items() if family.trained)
UNSEEN: tuple[str, ...] = tuple(name for name, family in FAMILIES.items() if not family.trained)


# --- splits -----------------------------------------------------------------------------------------------------------


def split_of(family: str, question: str) -> Split:
    """The split of a problem: a hash of its family and its sorted numbers, so wording and order change nothing."""
    numbers = sorted(int(number) for number in re.findall(r"\d+", question))
    key = f"{family}:{','.join(map(str, numbers))}"
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 100
    return next((split for split, below in _SHARES if bucket < below), "shots")


def stream(family: str, split: Split) -> Iterator[Problem]:
    """The distinct problems of a split, in their fixed order, until the family has no more.

    Raises:
        UnknownName: No such family or split.
    """
    if family not in FAMILIES:
        raise UnknownName("problem family", family, FAMILIES)
    if split not in SPLITS:
        raise UnknownName("split", split, SPLITS)
    rng = random.Random(f"tts-tui families 1/{family}/{split}")
    seen: set[tuple[str, ...]] = set()
    misses = 0
    while misses < _MAX_MISSES:
        question, answer, steps = FAMILIES[family].draw(rng)
        numbers = tuple(re.findall(r"\d+", question))  # another wording is no other problem
        if numbers in seen or split_of(family, question) != split:
            misses += 1
            continue
        seen.add(numbers)
        misses = 0
        yield Problem(family, split, len(seen) - 1, question, str(answer), steps)


def problems(family: str, split: Split, count: int) -> list[Problem]:
    """The first `count` problems of a split; fewer where the family has no more distinct ones."""
    return [problem for problem, _ in zip(stream(family, split), range(count), strict=False)]


def problem(family: str, split: Split, index: int) -> Problem:
    """Problem `index` of a split, always the same one.

    Raises:
        UsageError: The family has fewer distinct problems in that split.
    """
    found = problems(family, split, index + 1)
    if len(found) <= index:
        raise UsageError(f"family {family!r} has only {len(found)} {split} problems: choose a lower index")
    return found[index]


# --- checking ---------------------------------------------------------------------------------------------------------

_EQUATION = re.compile(
    r"(?P<left>(?:max|min)\(-?[\d., ]+\)|-?\d[\d.,]*(?:\s*[-+*/x×÷]\s*-?\d[\d.,]*)+)"
    r"\s*=\s*(?P<right>-?\d[\d.,]*)"
)


def _number(text: str) -> Fraction:
    return Fraction(text.rstrip(".,").replace(",", ""))


def value(left: str) -> Fraction:
    """The value of `a op b op …` (products first), `max(a, b, …)` or `min(a, b, …)`."""
    if left.startswith(("max(", "min(")):
        numbers = [_number(part) for part in re.findall(r"-?\d[\d.]*", left)]
        return max(numbers) if left.startswith("max") else min(numbers)
    tokens = re.findall(r"[-+*/x×÷]|\d[\d.,]*", left)
    terms: list[Fraction] = []
    sign, operator, expect = 1, "+", True
    for token in tokens:
        if token in "-+*/x×÷" and expect:
            sign = -sign if token == "-" else sign
        elif token in "-+*/x×÷":
            operator, expect = token, True
        else:
            number, sign, expect = sign * _number(token), 1, False
            if operator in "*x×":
                terms[-1] *= number
            elif operator in "/÷":
                terms[-1] /= number
            else:
                terms.append(-number if operator == "-" else number)
    return sum(terms, Fraction(0))


def equations(step: str) -> list[tuple[str, str, bool]]:
    """The equations written in a step: left side, right side, and whether they are equal."""
    found = []
    for match in _EQUATION.finditer(step):
        left, right = match["left"], match["right"].rstrip(".,")
        try:
            right_value = _number(right)
            found.append((left, right, value(left) == right_value))
        except (ValueError, ZeroDivisionError, IndexError):
            found.append((left, right, False))
    return found


def arithmetic_right(step: str) -> bool | None:
    """Whether every equation of a step holds; None where it has none."""
    found = equations(step)
    return all(equal for _, _, equal in found) if found else None
