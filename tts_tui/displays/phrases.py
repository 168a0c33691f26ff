"""Phrases and sentences about a search, shared by the plain and the live display."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from tts_tui import registry
from tts_tui.controller.levels import LEVELS
from tts_tui.formatting import clean, one_line, percent, plural, short
from tts_tui.plan import Plan
from tts_tui.protocols import ModelInfo
from tts_tui.search.slots import ENDED
from tts_tui.tree.events import Considered, Origin, PlanChosen, SearchFinished, SearchStarted
from tts_tui.tree.search_tree import Node

REASONS = {
    "solved": "the search is complete",
    "unsolved": "the search is complete, and no answer was found",
    "budget": "the budget is spent",
    "timeout": "the time is up",
    "interrupted": "stopped early",
    "failed": "a model failed",
}
CUT_OFF = "The recording ends before its search did: `tts-tui resume` continues it."
MOST_VOTES = 8
MOST_PLANS = 12
"""Maximum number of considered plans that are named."""
AUTO = "auto"
"""The strategy that chooses plans."""
STOP = "stop"
"""The plan that ends a search."""


class Mark(NamedTuple):
    """One aspect of the state of a step.

    Attributes:
        glyph: A single character.
        word: A word for a row of a tree.
        phrase: A longer form for where there is room.
    """

    glyph: str
    word: str
    phrase: str


def marks(step: Node) -> Iterator[Mark]:
    """Yield the state of a step in display order; nothing for a finished step that is open."""
    if step.by_hand:
        yield Mark("✎", "yours", "by hand")
    if step.state == "writing":
        yield Mark("…", "writing", "being written")
        return
    if step.solved:
        yield Mark("★", f"answer {answer(step.answer)}", f"answer {answer(step.answer)}")
    elif step.state == "failed" and step.why == ENDED:
        yield Mark("!", "unfinished", "unfinished: the search ended first")
    elif step.state == "failed" and not step.cut:
        yield Mark("!", f"failed ({one_line(step.why, 60)})", "failed")
    elif step.finish == "length":
        yield Mark("!", "cut off", "cut off at its limit")
    if step.cut:
        yield Mark("✗", "cut", "cut by hand")
    elif step.pruned:
        yield Mark("✗", "pruned", "pruned")


def model(info: ModelInfo | None) -> str:
    """Return the name and size of a model, e.g. `embedded (135M parameters)`."""
    return f"{one_line(info.name, 80)} ({short(info.parameters)} parameters)" if info else "none"


def reward_model(info: ModelInfo | None) -> str:
    """Return the name and size of a reward model, with the family whose conventions it is used with."""
    if info is None or info.family == "default":
        return model(info)
    return f"{one_line(info.name, 80)} as {one_line(info.family, 40)} ({short(info.parameters)} parameters)"


def plan(plan: Plan) -> str:
    """Return the plan in one line."""
    parts = [f"{one_line(plan.strategy, 40)}, n {up_to(plan)}"]
    strategy = registry.strategies().get(plan.strategy)
    if strategy is None or strategy.uses_width:
        parts.append(f"m {plan.m}")
    parts.append(f"temperature {plan.sampling.temperature:g}")
    if plan.sampling.top_p < 1:
        parts.append(f"top-p {plan.sampling.top_p:g}")
    parts.append(f"vote {plan.vote}" + ("" if plan.vote == "majority" else f" of {plan.score} scores"))
    parts.append(f"seed {plan.seed}")
    if aim := wish(plan):
        parts.append(aim)
    limits = plan.budget
    if limits.tokens is not None:
        parts.append(f"at most {limits.tokens:,} tokens")
    if limits.flops is not None:
        parts.append(f"at most {short(limits.flops)}FLOP")
    if limits.seconds is not None:
        parts.append(f"at most {limits.seconds:g} s")
    return ", ".join(parts)


def up_to(plan: Plan) -> str:
    """Return n of a plan; for `auto`, as the upper bound of the plans it chooses."""
    return f"up to {plan.n}" if plan.strategy == AUTO else str(plan.n)


def wish(plan: Plan) -> str:
    """Return the target of `auto`, e.g. `about 500 tokens on average`; empty if there is none."""
    if plan.target_tokens is not None:
        return f"about {plural(plan.target_tokens, 'token')} on average"
    if plan.target_accuracy is not None:
        return f"{share(plan.target_accuracy)} right as cheaply as it can"
    return ""


def opening(start: SearchStarted) -> Iterator[str]:
    """Yield sentences about the search that is about to start."""
    yield f"Problem: {one_line(start.problem, 1000)}"
    yield f"Policy: {model(start.policy)}. Reward model: {reward_model(start.prm)}."
    yield f"Plan: {plan(start.plan)}."
    if start.origin is not None:
        yield origin(start.origin)


def origin(origin: Origin) -> str:
    """Return a sentence about the origin of a fork."""
    copied = f"{plural(origin.steps, 'step')} copied from there" if origin.steps else "from its beginning"
    return f"A fork of run {one_line(origin.run, 40) or 'unknown'}, {copied}."


# -- what `auto` chose -------------------------------------------------------------------------------------------------


def share(probability: float) -> str:
    """Return a probability in percent: `11 %`, `<1 %`, `>99 %`."""
    if 0 < probability < 0.005:
        return "<1 %"
    if 0.995 <= probability < 1:
        return ">99 %"
    return percent(probability)


def expected(choice: PlanChosen) -> str:
    """Return the expected pass@1 with its range: `11 % (90 % range: <1 % to 48 %)`."""
    return f"{share(choice.pass1)} (90 % range: {share(choice.low)} to {share(choice.high)})"


def levels(choice: PlanChosen) -> str:
    """Return the probabilities of the difficulty levels: `easy 4 %, medium 28 %, hard 67 %`."""
    return ", ".join(f"{level} {share(chance)}" for level, chance in zip(LEVELS, choice.levels, strict=True))


def likeliest(choice: PlanChosen) -> str:
    """Return the likeliest difficulty level: `hard 67 %`."""
    return levels(choice).split(", ")[choice.levels.index(max(choice.levels))]


def now(choice: PlanChosen) -> str:
    """Return the plan that runs until the next choice, e.g. `best-of-n:4`; `stop` if nothing runs."""
    return f"{one_line(choice.strategy, 40)}:{choice.n}" if choice.strategy else STOP


def chosen(choice: PlanChosen) -> str:
    """Return the chosen plan, and the one that runs first if it differs: `beam:16, first best-of-n:4`."""
    plan = one_line(choice.chosen, 60)
    return plan if now(choice) in (plan, STOP) else f"{plan}, first {now(choice)}"


def why(choice: PlanChosen) -> str:
    """Return the reason for the choice, as a sentence with its full stop."""
    said = one_line(choice.why, 300)
    return said if said.endswith((".", "!", "?", "…")) else f"{said}."


def basis(choice: PlanChosen) -> str:
    """Return the basis of the choice, i.e. the data or priors behind it."""
    return one_line(choice.basis, 200)


def basis_in_short(choice: PlanChosen) -> str:
    """Return the basis of the choice without details: `priors from the paper`."""
    return re.split(r"[,;:(]| with ", basis(choice), maxsplit=1)[0].strip()


def cost(way: Considered) -> str:
    """Return the further tokens that a plan would take, e.g. `+1.10k`; `?` if unknown."""
    return f"+{short(way.tokens)}" if way.tokens > 0 else "0" if way.plan == STOP else "?"


def considered(choice: PlanChosen) -> str:
    """Return the considered plans, best first: `beam:16 (46 % right for 1.10k tokens more), stop (10 % right)`."""
    ways = []
    for way in choice.considered[:MOST_PLANS]:
        price = f" for {short(way.tokens)} tokens more" if way.tokens > 0 else " at a cost not known yet"
        ways.append(f"{one_line(way.plan, 60)} ({share(way.accuracy)} right{'' if way.plan == STOP else price})")
    more = len(choice.considered) - len(ways)
    return ", ".join(ways) + (f", and {plural(more, 'other plan')}" if more > 0 else "")


# -- results -----------------------------------------------------------------------------------------------------------


def answer(text: str | None) -> str:
    """Return an answer on one line, or `none`."""
    return "none" if text is None else one_line(text, 300)


def scored(node: Node) -> str:
    """Return the label and the score of a step: `step 0.3.1 (score 0.92)`."""
    return f"step {node.label}" + ("" if node.score is None else f" (score {node.score:.2f})")


def votes(finished: SearchFinished) -> str:
    """Return all answers with their votes, best first."""
    shown = [
        f"{answer(tally.answer)}: {tally.weight:.3g} from {plural(len(tally.solutions), 'solution')}"
        for tally in finished.votes[:MOST_VOTES]
    ]
    more = len(finished.votes) - len(shown)
    return "; ".join(shown) + (f"; and {plural(more, 'other answer')}" if more > 0 else "")


def costs(finished: SearchFinished) -> Iterator[str]:
    """Yield sentences about the costs of the search."""
    policy, prm = finished.tokens.policy, finished.tokens.prm
    prompt = policy.prompt_computed + policy.prompt_cached
    share = policy.prompt_cached / prompt if prompt else 0.0
    ahead = f" ({policy.ahead:,} of them speculative and unused)" if policy.ahead else ""
    yield (
        f"Policy: {plural(policy.completion, 'token')} written{ahead}, "
        f"{policy.prompt_computed:,} of the prompts computed, {policy.prompt_cached:,} reused "
        f"({percent(share)} cached)."
    )
    if prm.computed or prm.cached:
        yield f"Reward model: {plural(prm.computed, 'token')} computed, {prm.cached:,} reused."
    yield f"FLOPs: policy {short(finished.flops.policy)}, reward model {short(finished.flops.prm)}."
    yield f"Time: {finished.seconds:.1f} s, {plural(finished.nodes, 'step')} in the tree."


def closing(finished: SearchFinished) -> Iterator[str]:
    """Yield sentences about the result: answer, votes, reason for the end, and costs."""
    yield f"Answer: {answer(finished.answer)}"
    if finished.votes:
        yield f"Votes: {votes(finished)}."
    why = REASONS.get(finished.reason, finished.reason)
    detail = one_line(clean(finished.detail), 400)
    yield f"Ended: {why}" + (f" ({detail})." if detail else ".")
    yield from costs(finished)
