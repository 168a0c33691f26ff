"""The state of a search in single lines, shared by the terminal UI's panels, the live display and pictures.

Pure: plain values in, text out.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from tts_tui import registry
from tts_tui.answers.voting import AnswerVotes
from tts_tui.budget import flops
from tts_tui.displays import phrases
from tts_tui.formatting import bar, clock, one_line, percent, plural, short
from tts_tui.plan import Plan
from tts_tui.tree.search_tree import SearchTree

SEPARATOR = Text(" │ ", style="dim")
SMALL, LARGE = 6, 10
"""Widths of a gauge, for lines below 120 columns and from there on."""


def fit(parts: Sequence[Text], width: int) -> Text:
    """Join as many of `parts` as fit into a line of `width` columns, the first ones first."""
    line = Text(no_wrap=True, overflow="ellipsis")
    for part in parts:
        gap = SEPARATOR.cell_len if line.plain else 1
        if line.plain and line.cell_len + gap + part.cell_len > width:
            break
        line.append_text(SEPARATOR if line.plain else Text(" ")).append_text(part)
    line.truncate(width, overflow="ellipsis")
    return line


# -- the run -----------------------------------------------------------------------------------------------------------


def state(tree: SearchTree, writing: int, trouble: str = "") -> Text:
    """Return the glyph and the word for the current state of a run.

    Args:
        tree: The run.
        writing: The number of steps that are being generated.
        trouble: Why it failed, if it did.
    """
    if trouble:
        return Text("! failed", style="bold")
    if tree.finished is not None:
        glyph = "★" if tree.finished.answer is not None else "■"
        return Text(f"{glyph} {phrases.REASONS.get(tree.finished.reason, tree.finished.reason)}", style="bold")
    if tree.started is None:
        return Text("… getting ready", style="bold")
    doing = f"{writing} writing"
    if tree.paused:
        return Text("‖ paused" + (f", {doing}" if writing else ""), style="bold reverse")
    return Text(f"● running, {doing}", style="bold")


def status(tree: SearchTree, writing: int, width: int, *, title: str = "", trouble: str = "") -> Text:
    """Return the first status line: the search, its plan and its elapsed time."""
    parts = [Text(title, style="bold")] if title else []
    parts.append(state(tree, writing, trouble))
    if tree.started is not None:
        parts += [
            Text(short_plan(tree.plan), style="bold"),
            Text(clock(tree.seconds)),
            Text(chooses(tree.plan)),
            Text(one_line(tree.start.policy.name, 40), style="dim"),
        ]
    return fit(parts, width)


def short_plan(plan: Plan) -> str:
    """Return a plan in short, e.g. `beam N 16 M 4`."""
    strategy = registry.strategies().get(plan.strategy)
    width = f" M {plan.m}" if strategy is None or strategy.uses_width else ""
    return f"{one_line(plan.strategy, 30)} N {phrases.up_to(plan)}{width}"


def chooses(plan: Plan) -> str:
    """Return how the answer is chosen, e.g. `prm-vote of last`."""
    return plan.vote if plan.vote == "majority" else f"{plan.vote} of {plan.score}"


# -- the budget used ---------------------------------------------------------------------------------------------------


def gauges(tree: SearchTree, width: int, *, written: float = 0.0, scored: float = 0.0, blocks: bool = True) -> Text:
    """Return the second status line: the budget used and the token rates.

    Args:
        tree: The run.
        width: Maximum width in columns.
        written, scored: Recent tokens per second of policy and reward model.
        blocks: Whether the terminal supports block characters.
    """
    if tree.started is None:
        return Text()
    counts, limits = tree.counts, tree.plan.budget
    size = LARGE if width >= 120 else SMALL
    spent_policy, spent_prm = flops(counts, tree.start.policy, tree.start.prm)
    spent = spent_policy + spent_prm
    parts: list[Text] = []

    def gauge(label: str, share: float, said: str) -> None:
        drawn = bar(share, size, blocks=blocks).replace(" ", "░")
        parts.append(Text(f"{label} ").append(drawn, style="bold").append(f" {said}"))

    if limits.tokens is not None:
        share = min(counts.computed / limits.tokens, 1.0)
        gauge("budget", share, f"{percent(share)} {short(counts.computed)}/{short(limits.tokens)} tokens")
    if limits.flops is not None:
        share = min(spent / limits.flops, 1.0)
        gauge("FLOPs", share, f"{percent(share)} {short(spent)}/{short(limits.flops)}")
    if limits.seconds is not None:
        used = tree.seconds - tree.held
        gauge("time", min(used / limits.seconds, 1.0), f"{max(0.0, limits.seconds - used):.0f} s left")
    if limits.tokens is None:
        parts.append(Text(f"{short(counts.computed)} tokens"))
    gauge("cached", counts.cached_share, percent(counts.cached_share))
    if tree.finished is None and written >= 0.5:
        parts.append(Text(f"{written:.0f} tok/s"))
    if tree.finished is None and scored >= 0.5:
        parts.append(Text(f"PRM {scored:.0f} tok/s"))
    parts.append(Text(plural(len(tree), "step")))
    if limits.flops is None:
        parts.append(Text(f"{flop(spent)}" + (f", PRM {percent(spent_prm / spent)}" if spent_prm else "")))
    return fit(parts, width)


def flop(number: float) -> str:
    """Return a number of operations, e.g. `257 GFLOP`."""
    said = short(number)
    return f"{said[:-1]} {said[-1]}FLOP" if said[-1].isalpha() else f"{said} FLOP"


# -- results -----------------------------------------------------------------------------------------------------------


def answers_line(votes: Sequence[AnswerVotes], width: int, *, over: bool, blocks: bool = True) -> Text:
    """Return the answers with their votes, best first.

    Args:
        votes: The current votes.
        width: Maximum width in columns.
        over: Whether the votes are final.
        blocks: Whether the terminal supports block characters.
    """
    line = Text(" answers ", no_wrap=True)
    if not votes:
        line.append("none" if over else "none yet", style="dim")
    most = max((tally.weight for tally in votes), default=1.0) or 1.0
    for place, tally in enumerate(votes):
        if line.cell_len > width:
            break
        line.append(f" {'★ ' if place == 0 else ''}{one_line(tally.answer, 24)} ", style="bold" if place == 0 else "")
        line.append(bar(tally.weight / most, SMALL, blocks=blocks).rstrip() or "·")
        line.append(f" {tally.weight:.3g} ({len(tally.solutions)}) ")
    line.truncate(width, overflow="ellipsis")
    return line
