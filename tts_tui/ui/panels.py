"""What stands in the panels of a run, as text: a model in, lines out, no widget."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from tts_tui import registry
from tts_tui.budget import flops
from tts_tui.plan import Plan, Score
from tts_tui.tree import Node
from tts_tui.ui import words
from tts_tui.ui.frame import HEAT
from tts_tui.ui.model import RunModel
from tts_tui.ui.text import bar, clock, digits, one_line, percent, plural, short
from tts_tui.voting import path_score
from tts_tui.writing import ENDED

SEPARATOR = Text(" │ ", style="dim")
SMALL, LARGE = 6, 10
MOST_SCORES = 12
"""Step scores that are shown of a path; of a longer one the last ones."""


def fit(parts: Sequence[Text], width: int) -> Text:
    """As many of `parts` as fit into a line of `width` columns, the first ones first."""
    line = Text(no_wrap=True, overflow="ellipsis")
    for part in parts:
        gap = SEPARATOR.cell_len if line.plain else 1
        if line.plain and line.cell_len + gap + part.cell_len > width:
            break
        line.append_text(SEPARATOR if line.plain else Text(" ")).append_text(part)
    line.truncate(width, overflow="ellipsis")
    return line


def state(model: RunModel, trouble: str = "") -> Text:
    """Glyph and word for what the run does now."""
    tree = model.tree
    if trouble:
        return Text("! failed", style="bold")
    if tree.finished is not None:
        glyph = "★" if tree.finished.answer is not None else "■"
        return Text(f"{glyph} {words.REASONS.get(tree.finished.reason, tree.finished.reason)}", style="bold")
    if tree.started is None:
        return Text("… getting ready", style="bold")
    doing = f"{len(model.writing)} writing"
    if tree.paused:
        return Text("‖ paused" + (f", {doing}" if model.writing else ""), style="bold reverse")
    return Text(f"● running, {doing}", style="bold")


def status(model: RunModel, width: int, *, title: str = "", trouble: str = "") -> Text:
    """The first line: what runs, how, for how long."""
    parts = [Text(title, style="bold")] if title else []
    parts.append(state(model, trouble))
    if model.tree.started is not None:
        plan = model.tree.plan
        parts += [
            Text(short_plan(plan), style="bold"),
            Text(clock(model.tree.seconds)),
            Text(chooses(plan)),
            Text(one_line(model.tree.start.policy.name, 40), style="dim"),
        ]
    return fit(parts, width)


def short_plan(plan: Plan) -> str:
    """`beam N 16 M 4`."""
    strategy = registry.strategies().get(plan.strategy)
    width = f" M {plan.m}" if strategy is None or strategy.uses_width else ""
    return f"{one_line(plan.strategy, 30)} N {plan.n}{width}"


def chooses(plan: Plan) -> str:
    """`prm-vote of last`."""
    return plan.vote if plan.vote == "majority" else f"{plan.vote} of {plan.score}"


def _gauge(label: str, share: float, said: str, size: int) -> Text:
    return Text(f"{label} ").append(bar(share, size).replace(" ", "░"), style="bold").append(f" {said}")


def gauges(model: RunModel, width: int) -> Text:
    """The second line: what was spent of what, and how fast."""
    tree = model.tree
    if tree.started is None:
        return Text()
    counts, limits = tree.counts, tree.plan.budget
    size = LARGE if width >= 120 else SMALL
    spent_policy, spent_prm = flops(counts, tree.start.policy, tree.start.prm)
    spent = spent_policy + spent_prm
    parts: list[Text] = []
    if limits.tokens is not None:
        share = min(counts.computed / limits.tokens, 1.0)
        said = f"{percent(share)} {short(counts.computed)}/{short(limits.tokens)} tokens"
        parts.append(_gauge("budget", share, said, size))
    if limits.flops is not None:
        share = min(spent / limits.flops, 1.0)
        parts.append(_gauge("FLOPs", share, f"{percent(share)} {short(spent)}/{short(limits.flops)}", size))
    if limits.seconds is not None:
        used = tree.seconds - tree.held
        share = min(used / limits.seconds, 1.0)
        parts.append(_gauge("time", share, f"{max(0.0, limits.seconds - used):.0f} s left", size))
    if limits.tokens is None:
        parts.append(Text(f"{short(counts.computed)} tokens"))
    parts.append(_gauge("cached", counts.cached_share, percent(counts.cached_share), size))
    written = model.policy_rate.at(tree.seconds, counts.completion)
    scored = model.prm_rate.at(tree.seconds, counts.prm_computed)
    if not model.over and written >= 0.5:
        parts.append(Text(f"{written:.0f} tok/s"))
    if not model.over and scored >= 0.5:
        parts.append(Text(f"PRM {scored:.0f} tok/s"))
    parts.append(Text(plural(len(tree), "step")))
    if limits.flops is None:
        parts.append(Text(f"{flop(spent)}" + (f", PRM {percent(spent_prm / spent)}" if spent_prm else "")))
    return fit(parts, width)


def flop(number: float) -> str:
    """`257 GFLOP`."""
    said = short(number)
    return f"{said[:-1]} {said[-1]}FLOP" if said[-1].isalpha() else f"{said} FLOP"


def answers(model: RunModel, width: int, height: int) -> list[Text]:
    """Answers as they gather votes, best first, a line each."""
    votes = model.votes
    if not votes:
        return [fit([Text("no answer" + ("" if model.over else " yet"), style="dim")], width)]
    most = max(tally.weight for tally in votes) or 1.0
    shown = votes if len(votes) <= height else votes[: max(1, height - 1)]
    column = min(max(len(one_line(tally.answer, 24)) for tally in shown), max(4, width // 3))
    lines = []
    for place, tally in enumerate(shown):
        line = Text(" ★ " if place == 0 else "   ", no_wrap=True, style="bold" if place == 0 else "")
        line.append(one_line(tally.answer, column).ljust(column) + " ")
        size = max(4, min(20, width - column - 22))
        line.append(bar(tally.weight / most, size) if tally.weight >= 0 else "")
        line.append(f" {tally.weight:.3g} from {plural(len(tally.solutions), 'solution')}")
        line.truncate(width, overflow="ellipsis")
        lines.append(line)
    if len(votes) > len(shown):
        lines.append(Text(f"   and {plural(len(votes) - len(shown), 'other answer')}", style="dim"))
    return lines


def answers_line(model: RunModel, width: int) -> Text:
    """The same in one line."""
    votes = model.votes
    line = Text(" answers ", no_wrap=True)
    if not votes:
        line.append("none" if model.over else "none yet", style="dim")
    most = max((tally.weight for tally in votes), default=1.0) or 1.0
    for place, tally in enumerate(votes):
        if line.cell_len > width:
            break
        line.append(f" {'★ ' if place == 0 else ''}{one_line(tally.answer, 24)} ", style="bold" if place == 0 else "")
        line.append(bar(tally.weight / most, 6).rstrip() or "·")
        line.append(f" {tally.weight:.3g} ({len(tally.solutions)}) ")
    line.truncate(width, overflow="ellipsis")
    return line


def condition(node: Node) -> str:
    """One phrase for the state of a step, such as `kept`, `pruned` or `being written`."""
    if node.parent is None:
        return "the problem"
    if node.state == "writing":
        return "being written"
    if node.state == "failed":
        return "unfinished: the search ended first" if node.why == ENDED else "failed"
    parts = []
    if node.solved:
        parts.append(f"answer {words.answer(node.answer)}")
    if node.cut:
        parts.append("cut by hand")
    elif node.pruned:
        parts.append("pruned")
    elif node.merged_into is not None:
        parts.append("the same as a sibling")
    elif node.finish == "length":
        parts.append("cut off at its limit")
    if node.by_hand:
        parts.append("by hand")
    return ", ".join(parts) or "open"


def step_head(node: Node, width: int) -> list[Text]:
    """All that is known of a step, above its text."""
    lines = [Text(f"step {node.label}", style="bold").append(f" · {condition(node)}", style="bold")]
    if node.parent is None:
        return lines
    scores = node.scores
    if scores:
        line = Text("scores " + ("… " if len(scores) > MOST_SCORES else ""))
        for score in scores[-MOST_SCORES:]:
            line.append(f" {digits(score)} ", style=_heat(score)).append(" ")
        lines.append(line)
        kinds: tuple[Score, ...] = ("min", "last", "avg", "prod")
        lines.append(Text("path   " + " ".join(f"{kind} {digits(path_score(scores, kind))}" for kind in kinds)))
    usage = node.usage
    if usage is not None:
        prompt = f"{usage.prompt_computed:,} computed, {usage.prompt_cached:,} cached"
        lines.append(Text(f"tokens {usage.completion:,} written; prompt {prompt}"))
    if node.why and node.why != ENDED:
        lines.append(Text("why    " + one_line(node.why, 300)))
    for line in lines:
        line.truncate(max(8, width * 2), overflow="ellipsis")
    return lines


def _heat(score: float | None) -> str:
    style = HEAT[round(min(max(score, 0.0), 1.0) * 100)] if score is not None else None
    return str(style) if style is not None else ""


def plan_lines(plan: Plan) -> list[tuple[str, str]]:
    """The plan as labels and values, the reason last."""
    limits = plan.budget
    budget = [f"{limits.tokens:,} tokens"] if limits.tokens is not None else []
    budget += [flop(limits.flops)] if limits.flops is not None else []
    budget += [f"{limits.seconds:g} s"] if limits.seconds is not None else []
    drawing = f"temperature {plan.sampling.temperature:g}"
    drawing += f", top-p {plan.sampling.top_p:g}" if plan.sampling.top_p < 1 else ""
    return [
        ("strategy", short_plan(plan)),
        ("answer by", chooses(plan)),
        ("sampling", f"{drawing}, seed {plan.seed}"),
        ("budget", ", ".join(budget) or "no limit"),
        ("why", one_line(plan.why, 300)),
    ]
