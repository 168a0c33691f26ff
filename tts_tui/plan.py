"""The plan: what a search will do, fixed before it starts.

The defaults are the paper's settings (arXiv 2502.06703, section 4.1): T = 0.7 (0 for CoT), beam width M = 4, at most
2048 tokens a step and 8192 in all, depth 40, steps separated by a blank line.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

from msgspec import Struct
from msgspec.structs import replace

from tts_tui.budget import Budget
from tts_tui.errors import PlanError, UnknownName
from tts_tui.protocols import SEPARATOR, Sampling

Score = Literal["min", "last", "avg", "prod"]
Vote = Literal["majority", "prm-max", "prm-vote"]
Variant = Literal["paper", "search-and-learn"]
Speculation = Literal["auto", "on", "off"]

MOST = 1_000_000
"""Largest N: more would not fit any memory."""

SCORES: tuple[str, ...] = get_args(Score)
VOTES: tuple[str, ...] = get_args(Vote)
VARIANTS: tuple[str, ...] = get_args(Variant)
SPECULATIONS: tuple[str, ...] = get_args(Speculation)


class Plan(Struct, frozen=True):
    """Strategy, sizes and voting, with the reason for the choice.

    Attributes:
        strategy: Name of a strategy (`tts_tui.registry.strategies`).
        n: Budget of candidates.
        m: Beam width: children of each surviving node. Survivors a round are n / m.
        score: How a path's step scores become one number.
        vote: How solutions become one answer.
        sampling: How tokens are drawn.
        step_tokens: Most tokens of one step.
        total_tokens: Most tokens of one path.
        max_depth: Most steps of a path that is grown step by step.
        separator: Text that ends a step.
        variant: Which public implementation decides where the two differ.
        speculation: Whether steps are written on while their round still waits for others (`tts_tui.search.speculation`): auto does
            so where the policy has room for it, so that no step becomes much slower by it, and no token is limited.
        budget: Limits of tokens, FLOPs and seconds.
        target_tokens: What a problem may cost on average under `auto`, in tokens of the policy (those of the PRM weigh as
            much as their FLOPs); it spends more where that helps.
        target_accuracy: Share of right answers that `auto` is to reach as cheaply as it can; instead of `target_tokens`.
        seed: Seeds every sample; two runs with one seed draw alike as far as the backend's arithmetic does.
        why: The reason for this plan, one sentence.
    """

    strategy: str = "best-of-n"
    n: int = 16
    m: int = 4
    score: Score = "last"
    vote: Vote = "prm-vote"
    sampling: Sampling = Sampling()
    step_tokens: int = 2048
    total_tokens: int = 8192
    max_depth: int = 40
    separator: str = SEPARATOR
    variant: Variant = "paper"
    speculation: Speculation = "auto"
    budget: Budget = Budget()
    target_tokens: int | None = None
    target_accuracy: float | None = None
    seed: int = 0
    why: str = "chosen by the user"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("score", self.score, SCORES),
            ("vote", self.vote, VOTES),
            ("variant", self.variant, VARIANTS),
            ("speculation", self.speculation, SPECULATIONS),
        ):
            if value not in known:
                raise UnknownName(name, value, known)
        for name in ("n", "m", "step_tokens", "total_tokens", "max_depth"):
            if getattr(self, name) < 1:
                raise PlanError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.n > MOST:
            raise PlanError(f"n must be at most {MOST:,}, not {self.n:,}")
        if not self.sampling.temperature >= 0:
            raise PlanError(f"the temperature must not be negative, not {self.sampling.temperature}")
        if math.isinf(self.sampling.temperature):
            raise PlanError("the temperature must be finite: 1 draws as the model says, 2 is wild already")
        if not 0 < self.sampling.top_p <= 1:
            raise PlanError(f"top_p must be in (0, 1], not {self.sampling.top_p}")
        self._check_wishes()
        if not self.separator:
            raise PlanError("the separator must not be empty")

    def _check_wishes(self) -> None:
        if self.target_tokens is not None and self.target_tokens < 1:
            raise PlanError(f"the mean cost must be at least 1 token, not {self.target_tokens}")
        if self.target_tokens is not None and self.target_accuracy is not None:
            raise PlanError("a mean cost and an accuracy to reach are two wishes: give one of them")
        if self.target_accuracy is not None and not 0 < self.target_accuracy < 1:
            raise PlanError(f"the accuracy to reach must be between 0 and 1, such as 0.8, not {self.target_accuracy}")

    def check_width(self) -> None:
        """Checks what strategies that keep n / m survivors rely on; to `auto` n is the most, and any will do.

        Raises:
            PlanError: m > n, or n is no multiple of m.
        """
        if self.strategy == "auto":
            return
        if self.m > self.n:
            raise PlanError(
                f"the beam width m={self.m} is larger than n={self.n}: lower m, or raise n to at least {self.m}"
            )
        if self.n % self.m:
            low, high = self.n - self.n % self.m, self.n + self.m - self.n % self.m
            raise PlanError(f"n={self.n} is not divisible by m={self.m}: use n={low} or n={high}")

    def replace(self, **changes: object) -> Plan:
        """A copy with `changes`, checked again."""
        return replace(self, **changes)


def default_plan(strategy: str, **changes: object) -> Plan:
    """The paper's plan for `strategy`: one greedy sample for cot, a plain majority where nothing is scored."""
    special: dict[str, dict[str, object]] = {
        "cot": {"n": 1, "sampling": Sampling(temperature=0.0), "vote": "majority"},
        "majority": {"vote": "majority"},
        "auto": {"n": 64},
    }
    settings = {"strategy": strategy, **special.get(strategy, {}), **changes}
    return Plan(**settings)  # type: ignore[arg-type]


def requires_restart(before: Plan, after: Plan) -> bool:
    """Whether a change of plan has the strategy decide anew; score, vote, sampling and limits change as it goes."""
    return any(getattr(before, name) != getattr(after, name) for name in ("strategy", "n", "m", "variant", "max_depth"))
