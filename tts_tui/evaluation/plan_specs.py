"""Plans as typed by users: `best-of-n:16`, `dvts:16,m=2`, `cot`, `majority:8,temperature=1`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from tts_tui import registry
from tts_tui.errors import PlanError, TTSError, UnknownName, UsageError
from tts_tui.plan import SCORES, SPECULATIONS, VARIANTS, VOTES, Plan
from tts_tui.solver import Solver

FORM = "STRATEGY[:N][,m=4][,score=last][,vote=prm-max][,temperature=0.7][,budget=TOKENS]…"

_NAMES: dict[str, tuple[str, ...]] = {
    "score": SCORES,
    "vote": VOTES,
    "variant": VARIANTS,
    "speculation": SPECULATIONS,
}
_NUMBERS: dict[str, Callable[[str], float]] = {
    "m": int,
    "temperature": float,
    "top_p": float,
    "step_tokens": int,
    "total_tokens": int,
    "max_depth": int,
    "seed": int,
    "budget": int,
    "flops": float,
    "seconds": float,
    "target_tokens": int,
    "target_accuracy": float,
}
_KEYS = (
    "m", "score", "vote", "variant", "speculation", "temperature", "top_p", "step_tokens", "total_tokens",
    "max_depth", "seed", "budget", "flops", "seconds", "target_tokens", "target_accuracy",
)  # fmt: skip
"""All keys, in the order in which they appear in names."""
_ONE = "cot"
"""The strategy that takes no number."""


class Spec(Struct, frozen=True):
    """A plan as typed by the user.

    Attributes:
        strategy: Name of the strategy.
        n: Number of candidates; None if not given.
        settings: All other given settings, by key.
    """

    strategy: str
    n: int | None
    settings: dict[str, Any]


def parse(text: str) -> Spec:
    """Parse a spec.

    Raises:
        UnknownName: There is no such strategy, key or name.
        UsageError: The spec cannot be parsed; the message names the wrong part.
    """
    head, *parts = [part.strip() for part in text.split(",")]
    strategy, colon, size = (part.strip() for part in head.partition(":"))
    if not strategy:
        raise UsageError(f"the plan {text!r} names no strategy: write {FORM}")
    registry.strategy(strategy)
    settings: dict[str, Any] = {}
    if colon:
        settings["n"] = _value("n", size, text)
    for part in parts:
        key, equals, value = (piece.strip() for piece in part.partition("="))
        key = key.lower().replace("-", "_")
        if not equals:
            raise UsageError(f"{part!r} in the plan {text!r} is no KEY=VALUE: write {FORM}")
        if key != "n" and key not in _KEYS:
            raise UnknownName("setting of a plan", key, ["n", *_KEYS])
        if key in settings:
            raise UsageError(f"the plan {text!r} gives {key} twice: give it once")
        settings[key] = _value(key, value, text)
    n = settings.pop("n", None)
    if strategy == _ONE and n not in (None, 1):
        raise PlanError(f"the plan {text!r} gives {_ONE} a number, and it is one sample: leave the number out")
    return Spec(strategy, n, settings)


def _value(key: str, text: str, spec: str) -> Any:
    if key in _NAMES:
        if text not in _NAMES[key]:
            raise UnknownName(key, text, _NAMES[key])
        return text
    kind = _NUMBERS.get(key, int)
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise UsageError(f"{key} in the plan {spec!r} must be {what}, not {text!r}") from None


def make(spec: Spec, solver: Solver, **defaults: Any) -> tuple[str, Plan]:
    """Return the canonical name and the plan of a spec.

    Args:
        spec: The parsed spec.
        solver: The solver, whose models determine the settings left open.
        defaults: Settings of `Plan` for those that the spec does not give, such as `seed`.

    Raises:
        UsageError: The settings contradict each other, or the models do not support them.
    """
    wish = next((key for key in ("target_tokens", "target_accuracy") if key in spec.settings), None)
    if wish is not None and spec.strategy != "auto":
        raise PlanError(f"the plan {_name(spec, spec.n)}: {wish} is for auto alone, leave it out")
    own = dict(spec.settings)
    drawing = {key: own.pop(key) for key in ("temperature", "top_p") if key in own}
    limits = {
        field: own.pop(key)
        for key, field in (("budget", "tokens"), ("flops", "flops"), ("seconds", "seconds"))
        if key in own
    }
    if spec.n is not None:
        own["n"] = spec.n
    try:
        plan = solver.plan(spec.strategy, **{**defaults, **own})
        if drawing:
            plan = plan.replace(sampling=replace(plan.sampling, **drawing))
        if limits:
            plan = plan.replace(budget=replace(plan.budget, **limits))
        solver.check(plan)
    except TTSError as error:
        raise PlanError(f"the plan {_name(spec, spec.n)}: {error}") from error
    sized = spec.n if spec.n is not None else plan.n if _has_size(plan) else None
    return _name(spec, sized), plan


def _has_size(plan: Plan) -> bool:
    """Return whether a plan's name includes the number of candidates even if the spec does not give one."""
    return plan.strategy not in (_ONE, "auto")


def _name(spec: Spec, n: int | None) -> str:
    size = "" if n is None or spec.strategy == _ONE else f":{n}"
    given = [f",{key}={_shown(spec.settings[key])}" for key in _KEYS if key in spec.settings]
    return f"{spec.strategy}{size}{''.join(given)}"


def _shown(value: Any) -> str:
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def make_all(specs: Iterable[str], solver: Solver, **defaults: Any) -> dict[str, Plan]:
    """Return the plans of several specs by name, in their order.

    Raises:
        UsageError: A spec cannot be used, or two are the same plan.
    """
    plans: dict[str, Plan] = {}
    for text in specs:
        name, plan = make(parse(text), solver, **defaults)
        twin = next((other for other, made in plans.items() if other == name or made == plan), None)
        if twin is not None:
            same = f"{twin} twice" if twin == name else f"{twin} and {name}, which are the same"
            raise UsageError(f"the plans have {same}: leave one out")
        plans[name] = plan
    return plans


def defaults(solver: Solver) -> tuple[str, ...]:
    """Return the specs that are run by default: one sample, the majority, and, with a reward model, Best-of-N."""
    return ("cot", "majority:8") if solver.prm is None else ("cot", "majority:8", "best-of-n:8")
