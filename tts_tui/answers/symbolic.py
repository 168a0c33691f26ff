"""Compares two expressions by computer algebra: Math-Verify's reading and judgement, with what these lack around them.

For worker processes only (`tts_tui.answers.grading_worker`): what a model wrote may take any time and memory here, and no
timeout of Math-Verify's is used, because these are signals.

Before Math-Verify is asked, both expressions are evaluated, at some points where they have variables. Where they
clearly differ they are not the same, whatever rounding would say (0.333333 is not one third); where they agree to fifty
digits they are.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import math_verify
import sympy

logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns of the timeouts that it is told not to use
_CONFIG = [math_verify.LatexExtractionConfig()]
_DIGITS = 60
_CLOSE = sympy.Float("1e-50", _DIGITS)
_POINTS = 8
_VARIABLES = 8
"""Most variables of an expression that is evaluated."""


@lru_cache(maxsize=1000)
def read(text: str) -> Any:
    """The expression; None if it cannot be read.

    Raises:
        MemoryError: There was no room to read it, which is not remembered.
    """
    try:
        found = math_verify.parse(
            f"${text}$", _CONFIG, "no_fallback", "first_match", parsing_timeout=None, raise_on_error=True
        )
    except MemoryError:
        raise
    except Exception:
        return None
    if not found or isinstance(found[0], str):
        return None
    return found[0]


class Sympy:
    """Compares expressions with SymPy and Math-Verify."""

    def equal(self, left: str, right: str) -> bool:
        """Whether both have the same value, whatever their variables are."""
        one, two = read(left), read(right)
        if one is None or two is None:
            return False
        known = _same_values(one, two)
        return _verified(one, two) if known is None else known

    def proportional(self, left: str, right: str) -> bool:
        """Whether one is a multiple of the other."""
        one, two = _exact(read(left)), _exact(read(right))
        if one is None or two is None or one.free_symbols != two.free_symbols:
            return False
        ratios = []
        for point in _points(one.free_symbols):
            above, below = _value(one, point), _value(two, point)
            if above is not None and below is not None and abs(below) > _CLOSE:
                ratios.append(above / below)
        return len(ratios) > 2 and abs(ratios[0]) > _CLOSE and all(_near(ratios[0], other) for other in ratios[1:])


def _verified(one: Any, two: Any) -> bool:
    """Math-Verify's word. It takes a right and a given answer; here neither is the right one."""
    return _verified_in_order(one, two) or _verified_in_order(two, one)


def _verified_in_order(gold: Any, given: Any) -> bool:
    try:
        return bool(math_verify.verify(gold, given, strict=True, timeout_seconds=None, raise_on_error=True))
    except MemoryError:
        raise
    except Exception:
        return False


def _exact(expression: Any) -> Any:
    """The same with decimals as fractions and `i` as the imaginary unit; None for what is no expression."""
    if not isinstance(expression, sympy.Expr):
        return None
    parts = {number: sympy.Rational(str(number)) for number in expression.atoms(sympy.Float)}
    parts |= {symbol: sympy.I for symbol in expression.free_symbols if symbol.name == "i"}
    return expression.xreplace(parts) if parts else expression


def _same_values(one: Any, two: Any) -> bool | None:
    """Whether two expressions have the same values where both can be evaluated; None if that says nothing."""
    one, two = _exact(one), _exact(two)
    if one is None or two is None:
        return None
    symbols = one.free_symbols | two.free_symbols
    if not symbols:
        return _near_or_unknown(_value(one, {}), _value(two, {}))
    if len(symbols) > _VARIABLES:
        return None
    agreed = 0
    for point in _points(symbols):
        left, right = _value(one, point), _value(two, point)
        if left is None or right is None or not (left.is_real and right.is_real):
            continue  # a branch of a root or a logarithm: no fault of either
        near = _near_or_unknown(left, right)
        if near is False:
            return False
        agreed += near is True
    return True if agreed > 1 else None


def _points(symbols: set[Any]) -> list[dict[Any, Any]]:
    """Where to evaluate: fractions of both signs, the same in every process."""
    named = sorted(symbols, key=str)
    return [
        {
            symbol: sympy.Rational((37 * place + 101 * point) % 97 + 3, 29)
            * (-1) ** ((point + place * (point // 2)) % 2)
            for place, symbol in enumerate(named, 1)
        }
        for point in range(_POINTS)
    ]


def _value(expression: Any, point: dict[Any, Any]) -> Any:
    """Its value to many digits; None if it has none."""
    try:
        value = expression.subs(point).doit()
        value = value if value.is_Rational else value.evalf(_DIGITS)
    except (ArithmeticError, AttributeError, TypeError, ValueError, NotImplementedError):
        return None
    return value if value.is_number and value.is_finite else None


def _near(left: Any, right: Any) -> bool:
    return bool(abs(left - right) <= _CLOSE * max(abs(left), abs(right)))


def _near_or_unknown(left: Any, right: Any) -> bool | None:
    if left is None or right is None:
        return None
    if left.is_Rational and right.is_Rational:
        return bool(left == right)
    if max(abs(left), abs(right)) < _CLOSE:
        return None
    return _near(left, right)
