"""Comparison of expressions by computer algebra: Math-Verify's parser and verifier, with numeric checks added.

For worker processes only (`tts_tui.answers.grading_worker`): model output may take any amount of time and memory here,
and Math-Verify's timeouts are not used, because they rely on signals.

Before Math-Verify is asked, both expressions are evaluated, at several points if they have variables. If they clearly
differ they are not the same, even if rounding would make them equal (0.333333 is not one third); if they agree to fifty
digits they are.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import math_verify
import sympy

logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # it warns that its timeouts are disabled
_CONFIG = [math_verify.LatexExtractionConfig()]
_DIGITS = 60
_CLOSE = sympy.Float("1e-50", _DIGITS)
_POINTS = 8
_VARIABLES = 8
"""Maximum number of variables of an expression that is evaluated."""


@lru_cache(maxsize=1000)
def read(text: str) -> Any:
    """Return the parsed expression; None if it cannot be parsed.

    Raises:
        MemoryError: There was not enough memory to parse it; this outcome is not cached.
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
    """An `Algebra` that compares expressions with SymPy and Math-Verify."""

    def equal(self, left: str, right: str) -> bool:
        """Return whether both expressions have the same value for all values of their variables."""
        one, two = read(left), read(right)
        if one is None or two is None:
            return False
        known = _same_values(one, two)
        return _verified(one, two) if known is None else known

    def proportional(self, left: str, right: str) -> bool:
        """Return whether one expression is a multiple of the other."""
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
    """Return Math-Verify's verdict in either order: it takes a gold and a given answer, and here neither is gold."""
    return _verified_in_order(one, two) or _verified_in_order(two, one)


def _verified_in_order(gold: Any, given: Any) -> bool:
    try:
        return bool(math_verify.verify(gold, given, strict=True, timeout_seconds=None, raise_on_error=True))
    except MemoryError:
        raise
    except Exception:
        return False


def _exact(expression: Any) -> Any:
    """Return the expression with decimals as fractions and `i` as the imaginary unit; None if it is no expression."""
    if not isinstance(expression, sympy.Expr):
        return None
    parts = {number: sympy.Rational(str(number)) for number in expression.atoms(sympy.Float)}
    parts |= {symbol: sympy.I for symbol in expression.free_symbols if symbol.name == "i"}
    return expression.xreplace(parts) if parts else expression


def _same_values(one: Any, two: Any) -> bool | None:
    """Return whether two expressions have the same values where both can be evaluated; None if that is not decisive."""
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
            continue  # a branch of a root or a logarithm, which does not decide
        near = _near_or_unknown(left, right)
        if near is False:
            return False
        agreed += near is True
    return True if agreed > 1 else None


def _points(symbols: set[Any]) -> list[dict[Any, Any]]:
    """Return the points at which to evaluate: fractions of both signs, the same in every process."""
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
    """Return the value of an expression at a point, exact or to 60 digits; None if it has none."""
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
