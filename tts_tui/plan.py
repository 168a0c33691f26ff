"""The plan of a search: strategy, sizes, sampling, voting and limits, fixed before it starts.

The defaults are the paper's settings (arXiv 2502.06703, section 4.1): T = 0.7 (0 for CoT), beam width M = 4, at most
2048 tokens per step and 8192 in total, depth 40, steps separated by a blank line.
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
"""Upper bound of N: a larger tree would not fit in memory."""

SCORES: tuple[str, ...] = get_args(Score)
VOTES: tuple[str, ...] = get_args(Vote)
VARIANTS: tuple[str, ...] = get_args(Variant)
SPECULATIONS: tuple[str, ...] = get_args(Speculation)


class Plan(Struct, frozen=True):
    """A plan for one search: strategy, sizes and voting, with the reason for the choice.

    Attributes:
        strategy: Name of a strategy (`tts_tui.registry.strategies`).
        n: Number of candidates (upper bound for `auto`).
        m: Beam width: the number of children of each surviving node. n / m nodes survive a round.
        score: How the step scores of a path are combined into one number.
        vote: How the answer is chosen among the solutions.
        sampling: The sampling parameters.
        step_tokens: Maximum number of tokens per step.
        total_tokens: Maximum number of tokens per path.
        max_depth: Maximum number of steps of a path that is grown step by step.
        separator: Text that ends a step.
        variant: The public implementation to follow where the two differ: "paper" or "search-and-learn".
        speculation: Mode of speculation, which continues steps while their round still waits for others
            (`tts_tui.search.speculation`): "on", "off", or "auto", which speculates if the policy has spare capacity,
            so that no other step becomes much slower, and if neither tokens nor FLOPs are limited.
        budget: Limits on tokens, FLOPs and seconds.
        target_tokens: Target for the average cost of a problem under `auto`, in policy tokens (PRM tokens are weighted
            by their FLOPs); harder problems may cost more where that helps.
        target_accuracy: Target for the share of right answers that `auto` reaches at the lowest cost; set either this
            or `target_tokens`.
        seed: Seed of all samples; two runs with the same seed draw the same samples, up to differences in the
            backend's arithmetic.
        why: The reason for this plan, in one sentence.
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
            raise PlanError("set either target_tokens or target_accuracy, not both")
        if self.target_accuracy is not None and not 0 < self.target_accuracy < 1:
            raise PlanError(f"the accuracy to reach must be between 0 and 1, such as 0.8, not {self.target_accuracy}")

    def check_width(self) -> None:
        """Check that n is a multiple of m, as strategies that keep n / m survivors require.

        Any n is valid for `auto`, where it is an upper bound.

        Raises:
            PlanError: m > n, or n is not a multiple of m.
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
        """Return a copy with `changes` applied, validated again.

        Raises:
            PlanError, UnknownName: The changed plan is not valid.
        """
        return replace(self, **changes)


def default_plan(strategy: str, **changes: object) -> Plan:
    """Return the paper's plan for `strategy`, with `changes` applied.

    For `cot` this is one greedy sample; strategies that score nothing vote by plain majority.

    Raises:
        PlanError, UnknownName: The changed plan is not valid.
    """
    special: dict[str, dict[str, object]] = {
        "cot": {"n": 1, "sampling": Sampling(temperature=0.0), "vote": "majority"},
        "majority": {"vote": "majority"},
        "auto": {"n": 64},
    }
    settings = {"strategy": strategy, **special.get(strategy, {}), **changes}
    return Plan(**settings)  # type: ignore[arg-type]


def requires_restart(before: Plan, after: Plan) -> bool:
    """Return whether a change of plan makes the strategy decide again from the start.

    Changes of score, vote, sampling and limits take effect without a restart.
    """
    return any(getattr(before, name) != getattr(after, name) for name in ("strategy", "n", "m", "variant", "max_depth"))
