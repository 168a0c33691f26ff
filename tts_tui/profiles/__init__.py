"""What is known of models, as data: one TOML file each, every fact with its source."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from tts_tui.errors import UnknownName


@cache
def names() -> tuple[str, ...]:
    """Names of all profiles."""
    found = (item.name for item in files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml")))


@cache
def profile(name: str) -> dict[str, Any]:
    """The profile called `name`.

    Raises:
        UnknownName: There is none.
    """
    if name not in names():
        raise UnknownName("profile", name, names())
    return tomllib.loads((files(__name__) / f"{name}.toml").read_text("utf-8"))


def vote_defaults(name: str) -> dict[str, str]:
    """Score and vote that suit a reward model; empty if nothing is known of it."""
    defaults = profile(name).get("defaults", {}) if name in names() else {}
    return {key: defaults[key] for key in ("score", "vote") if key in defaults}


def plan_defaults(policy: str) -> dict[str, int]:
    """Limits of a plan that suit a policy, by its spec; empty if nothing is known of it."""
    name = f"{policy}-policy"
    limits = profile(name).get("plan", {}) if name in names() else {}
    return {key: limits[key] for key in ("step_tokens", "total_tokens") if key in limits}
