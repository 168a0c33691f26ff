"""The text of the panels of a run: pure functions from a model to lines, without widgets."""

from __future__ import annotations

from rich.text import Text

from tts_tui.answers.voting import AnswerVotes, path_score
from tts_tui.displays import decisions, status_lines
from tts_tui.displays import phrases as words
from tts_tui.displays.score_colors import HEAT, degree
from tts_tui.formatting import bar, digits, one_line, plural
from tts_tui.plan import Plan, Score
from tts_tui.search.slots import ENDED
from tts_tui.tree.search_tree import Node
from tts_tui.ui.run_model import RunModel

MOST_SCORES = 12
"""Maximum number of step scores shown for a path; of a longer path, the last ones are shown."""


def state(model: RunModel, trouble: str = "") -> Text:
    """Return the glyph and the word for the current state of the run."""
    return status_lines.state(model.tree, len(model.writing), trouble)


def status(model: RunModel, width: int, *, title: str = "", trouble: str = "") -> Text:
    """Return the first status line: the search, its plan and its elapsed time."""
    return status_lines.status(model.tree, len(model.writing), width, title=title, trouble=trouble)


def gauges(model: RunModel, width: int) -> Text:
    """Return the second status line: the budget used and the token rates."""
    tree = model.tree
    written = model.policy_rate.at(tree.seconds, tree.counts.completion)
    scored = model.prm_rate.at(tree.seconds, tree.counts.prm_computed)
    if not model.writing:  # time in the events stands still, and so would the rates
        written = scored = 0.0
    return status_lines.gauges(tree, width, written=written, scored=scored)


def answers_line(model: RunModel, width: int) -> Text:
    """Return the answers with their votes in one line, best first."""
    return status_lines.answers_line(model.votes, width, over=model.over)


def answers(model: RunModel, width: int, height: int) -> list[Text]:
    """Return the answers with their votes, one line each, best first."""
    votes = model.votes
    if not votes:
        pruned = len(model.tree.solutions)
        said = "no answer" + ("" if model.over else " yet") + (f"; {pruned} given up" if pruned else "")
        return [status_lines.fit([Text(said, style="dim")], width)]
    most = max(tally.weight for tally in votes) or 1.0
    shown = votes if len(votes) <= height else votes[: max(1, height - 1)]
    column = min(max(len(one_line(tally.answer, 24)) for tally in shown), max(4, width // 3))
    lines = []
    for place, tally in enumerate(shown):
        line = Text(" ★ " if place == 0 else "   ", no_wrap=True, style="bold" if place == 0 else "")
        line.append(one_line(tally.answer, column).ljust(column) + " ")
        size = max(4, min(20, width - column - 40))
        line.append(bar(tally.weight / most, size) if tally.weight >= 0 else "")
        line.append(f" {_weight(model, tally)}")
        line.truncate(width, overflow="ellipsis")
        lines.append(line)
    if len(votes) > len(shown):
        lines.append(Text(f"   and {plural(len(votes) - len(shown), 'other answer')}", style="dim"))
    return lines


def _weight(model: RunModel, tally: AnswerVotes) -> str:
    """Return e.g. `score 0.118 from 3 solutions, 10 samples`: beam search counts identical samples as one solution."""
    solutions = len(tally.solutions)
    samples = sum(max(1, model.folding.times(id)) for id in tally.solutions)
    alike = f", {plural(samples, 'sample')}" if samples > solutions else ""
    score = "" if model.tree.plan.vote == "majority" else f"score {tally.weight:.3g} from "
    return f"{score}{plural(solutions, 'solution')}{alike}"


def condition(node: Node) -> str:
    """Return a phrase for the state of a step, such as `kept`, `pruned` or `being written`."""
    if node.parent is None:
        return "the problem"
    phrases = [mark.phrase for mark in words.marks(node)]
    if node.merged_into is not None:
        phrases.append("the same as a sibling")
    return ", ".join(phrases) or "open"


def step_head(node: Node, width: int) -> list[Text]:
    """Return everything known about a step, to show above its text."""
    lines = [Text(f"step {node.label}", style="bold").append(f" · {condition(node)}", style="bold")]
    if node.parent is None:
        return lines
    scores = [step.score for step in node.path if step.score is not None]
    if scores:
        line = Text("scores " + ("… " if len(scores) > MOST_SCORES else ""))
        for score in scores[-MOST_SCORES:]:
            line.append(f" {digits(score)} ", style=HEAT[degree(score)]).append(" ")
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


def plan_lines(plan: Plan) -> list[tuple[str, str]]:
    """Return the plan as labels and values, the reason last."""
    limits = plan.budget
    budget = [f"{limits.tokens:,} tokens"] if limits.tokens is not None else []
    budget += [status_lines.flop(limits.flops)] if limits.flops is not None else []
    budget += [f"{limits.seconds:g} s"] if limits.seconds is not None else []
    drawing = f"temperature {plan.sampling.temperature:g}"
    drawing += f", top-p {plan.sampling.top_p:g}" if plan.sampling.top_p < 1 else ""
    aim = words.wish(plan)
    return [
        ("strategy", status_lines.short_plan(plan)),
        ("answer by", status_lines.chooses(plan)),
        ("sampling", f"{drawing}, seed {plan.seed}"),
        ("budget", ", ".join(budget) or "no limit"),
        *([("wish", aim)] if aim else []),
        ("why", one_line(plan.why, 300)),
    ]


def choice(model: RunModel, width: int, rows: int) -> list[Text]:
    """Return what `auto` expects and chose, in at most `rows` lines, with the plan itself if there is room."""
    return decisions.panel(model.tree, width, rows, [row for row in plan_lines(model.tree.plan) if row[0] != "why"])
