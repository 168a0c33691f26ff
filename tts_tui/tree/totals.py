"""The totals of a search in its last event: tokens and FLOPs, and a summary of the plan."""

from __future__ import annotations

from msgspec import Struct

from tts_tui.protocols import Total


class PlanSummary(Struct, frozen=True):
    """The part of a plan that results are compared by; see `Plan` for the fields."""

    strategy: str
    n: int
    m: int
    score: str
    vote: str


class PolicyTokens(Struct, frozen=True):
    """Tokens of the policy; `ahead` is the part of `completion` that was generated speculatively and not used."""

    prompt_computed: Total
    prompt_cached: Total
    completion: Total
    ahead: Total = 0


class PrmTokens(Struct, frozen=True):
    """Tokens of the PRM, computed and reused from a cache."""

    computed: Total
    cached: Total


class Tokens(Struct, frozen=True):
    """The tokens of a search, by model."""

    policy: PolicyTokens
    prm: PrmTokens


class Flops(Struct, frozen=True):
    """The FLOPs of a search, by model: 2 x parameters x tokens computed."""

    policy: float
    prm: float
