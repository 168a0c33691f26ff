"""What the last event says that a search came to: its votes, tokens and FLOPs, and the plan that they belong to."""

from __future__ import annotations

from msgspec import Struct

from tts_tui.protocols import Total


class PlanSummary(Struct, frozen=True):
    """The part of a plan that results are compared by."""

    strategy: str
    n: int
    m: int
    score: str
    vote: str


class PolicyTokens(Struct, frozen=True):
    """Tokens of the policy; `ahead` is the part of `completion` that was written ahead of its time and not used."""

    prompt_computed: Total
    prompt_cached: Total
    completion: Total
    ahead: Total = 0


class PrmTokens(Struct, frozen=True):
    """Tokens of the PRM."""

    computed: Total
    cached: Total


class Tokens(Struct, frozen=True):
    """All tokens of a search."""

    policy: PolicyTokens
    prm: PrmTokens


class Flops(Struct, frozen=True):
    """2 x parameters x tokens computed."""

    policy: float
    prm: float
