"""Cases of the storm: each is one solver with a few searches at once, on servers of its own."""

from __future__ import annotations

from random import Random
from typing import Literal

from msgspec import Struct

from benchmarks.faults import connection_faults, stream_faults
from benchmarks.faults.kinds import KINDS
from benchmarks.faults.stand_in import POLICIES, Flavour
from tts_tui import Budget, Plan, Sampling

__all__ = ["KINDS", "Case", "Planned", "connection_faults", "deal", "stream_faults"]

STRATEGIES = ("cot", "majority", "best-of-n", "beam", "dvts", "auto")
End = Literal["", "cancel", "stop"]
PRMS: tuple[Flavour | Literal[""], ...] = ("prm-head", "prm-tokens", "prm-head", "prm-tokens", "")


class Planned(Struct, frozen=True):
    """One search.

    Attributes:
        plan: What it does.
        end: How it is ended from outside, if it is.
        after: Seconds until then.
    """

    plan: Plan
    end: End = ""
    after: float = 0.0


class Case(Struct, frozen=True):
    """One solver and its servers.

    Attributes:
        number: Which case of the run it is.
        seed: Of the run.
        policy: Whose protocol the policy's server speaks.
        prm: The same of the PRM's; empty for a PRM in this process.
        searches: What is searched at once.
        kinds: Faults that its servers have.
        rate: Share of requests that meet one.
        rough: Faults begin with the first request of all, and not with the first search.
        command: It is one run of the command line, in a process of its own.
    """

    number: int
    seed: int
    policy: Flavour
    prm: Flavour | Literal[""]
    searches: tuple[Planned, ...]
    kinds: tuple[str, ...]
    rate: float
    rough: bool = False
    command: bool = False

    @property
    def name(self) -> str:
        """The name of the case in messages."""
        return f"case {self.number} (seed {self.seed})"


def deal(seed: int, searches: int, only: tuple[str, ...] = ()) -> list[Case]:
    """Deal the cases of a run: the same arguments give the same cases."""
    cases: list[Case] = []
    left, turn = searches, 0
    deck: list[str] = []
    while left > 0:
        number = len(cases)
        draw = Random(f"{seed}/{number}")
        command = number % 11 == 7
        size = 1 if command else min(left, draw.choice((1, 2, 3, 4)))
        planned = tuple(_planned(STRATEGIES[(turn + place) % len(STRATEGIES)], draw, command) for place in range(size))
        kinds = list(only)
        while not only and len(kinds) < 4:
            deck = deck or sorted(KINDS, key=lambda _: draw.random())
            kinds.append(deck.pop())
        # The kinds of a run with all of them may not fit one route alone, so routes alternate.
        policy: Flavour = "sglang" if number % 5 in (0, 2, 4) else POLICIES[1 + number // 5 % 3]
        prm: Flavour | Literal[""] = draw.choice(PRMS)
        rate = 1.0 if draw.random() < 0.05 else draw.choice((0.1, 0.2, 0.3, 0.5))
        rough = draw.random() < 0.1
        cases.append(Case(number, seed, policy, prm, planned, tuple(kinds), rate, rough, command))
        left, turn = left - size, turn + size
    return cases


def _planned(strategy: str, draw: Random, command: bool) -> Planned:
    budgets = [Budget()] * 8 + [Budget(tokens=draw.randint(300, 2000)), Budget(seconds=draw.uniform(0.05, 1.0))]
    plan = Plan(
        strategy=strategy,
        n=1 if strategy == "cot" else 8,
        m=draw.choice((2, 4)),
        vote="majority" if strategy in ("cot", "majority") else draw.choice(("prm-vote", "prm-max")),
        score=draw.choice(("last", "min", "avg", "prod")),
        sampling=Sampling(0.0 if strategy == "cot" else 0.7),
        step_tokens=96,
        total_tokens=400,
        max_depth=draw.choice((3, 8)),
        variant=draw.choice(("paper", "paper", "search-and-learn")),
        speculation=draw.choice(("auto", "on", "off")),
        budget=draw.choice(budgets),
    )
    if command or draw.random() < 0.9:
        return Planned(plan)
    return Planned(plan, draw.choice(("cancel", "stop")), draw.uniform(0.0, 0.3))
