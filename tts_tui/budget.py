"""Budgets and token counts: the tokens, FLOPs and time that a search may spend, and those it has spent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from tts_tui.errors import PlanError

if TYPE_CHECKING:
    from tts_tui.protocols import ModelInfo, Usage


class TokenCounts:
    """Running totals of a tree, in tokens.

    Attributes:
        prompt_computed: Policy prompt tokens that were run through the model.
        prompt_cached: Policy prompt tokens reused from a cache.
        completion: Policy tokens sampled.
        prm_computed: PRM tokens that were run through the model.
        prm_cached: PRM tokens reused from a cache.
    """

    __slots__ = ("completion", "prm_cached", "prm_computed", "prompt_cached", "prompt_computed")

    def __init__(self) -> None:
        self.prompt_computed = self.prompt_cached = self.completion = 0
        self.prm_computed = self.prm_cached = 0

    @property
    def computed(self) -> int:
        """The number of tokens that were run through either model, which a token budget limits."""
        return self.prompt_computed + self.completion + self.prm_computed

    @property
    def cached_share(self) -> float:
        """The share of the policy's prompt tokens that were reused, 0 to 1."""
        total = self.prompt_computed + self.prompt_cached
        return self.prompt_cached / total if total else 0.0

    def add(self, usage: Usage, sign: int = 1) -> None:
        """Add the usage of the policy (or subtract it, with sign -1)."""
        self.prompt_computed += sign * usage.prompt_computed
        self.prompt_cached += sign * usage.prompt_cached
        self.completion += sign * usage.completion

    def as_tuple(self) -> tuple[int, int, int, int, int]:
        """Return all five counts, for comparison."""
        policy = (self.prompt_computed, self.prompt_cached, self.completion)
        return (*policy, self.prm_computed, self.prm_cached)


class Budget(Struct, frozen=True, omit_defaults=True):
    """Limits of one search; None switches a limit off.

    Attributes:
        tokens: Policy and PRM tokens computed (prompt, completion and scoring; reused ones are free).
        flops: FLOPs of policy and PRM together, 2 x parameters x tokens computed.
        seconds: Wall time, without loading of models and without pauses.
    """

    tokens: int | None = None
    flops: float | None = None
    seconds: float | None = None

    def __post_init__(self) -> None:
        for name in ("tokens", "flops", "seconds"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise PlanError(f"the budget of {name} must be positive, not {value}")
            if value == float("inf"):
                raise PlanError(f"the budget of {name} must be finite: leave it out for no limit")

    def check_prompt(self, tokens: int) -> None:
        """Check that a prompt of `tokens` tokens leaves room for at least one token of an answer.

        Raises:
            PlanError: The prompt alone uses up the budget.
        """
        if self.tokens is not None and self.tokens <= tokens:
            raise PlanError(
                f"a budget of {self.tokens} tokens is too small for one step: "
                f"the prompt alone has {tokens}; raise the budget or drop it"
            )

    def overrun(self, counts: TokenCounts, policy: ModelInfo, prm: ModelInfo | None) -> str | None:
        """Return the limit that `counts` have reached, as a sentence; None if they are within all limits."""
        if self.tokens is not None and counts.computed >= self.tokens:
            return f"the budget of {self.tokens} tokens is spent"
        if self.flops is not None and sum(flops(counts, policy, prm)) >= self.flops:
            return f"the budget of {self.flops:.3g} FLOPs is spent"
        return None


def flops(counts: TokenCounts, policy: ModelInfo, prm: ModelInfo | None) -> tuple[float, float]:
    """Return the FLOPs of policy and PRM.

    They are 2 x parameters x tokens computed (Kaplan et al., 2020, section 2.1), without an attention term. The paper's
    Table 4 counts the policy alone; both are counted here.
    """
    written = counts.prompt_computed + counts.completion
    scored = 2.0 * prm.parameters * counts.prm_computed if prm else 0.0
    return 2.0 * policy.parameters * written, scored
