"""One picture of a search: gauges, the tree, the answers. Pure: a tree in, lines out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from rich.style import Style
from rich.text import Text

from tts_tui.contracts import Finish
from tts_tui.events import Tally
from tts_tui.tree import Node, SearchTree, State
from tts_tui.ui import words
from tts_tui.ui.outline import Row, rows
from tts_tui.ui.text import bar, clock, digits, one_line, percent, plural, short, tail
from tts_tui.writing import ENDED

Heat = Literal["bar", "colour", "digits"]

BAR = 6
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_STOPS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


_BRIGHT = ((126, 87, 178), (86, 116, 199), (46, 158, 160), *_STOPS[3:])
"""The same, the low end as light as a thin bar on a dark ground needs it."""


def _colour(share: float, stops: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    place = share * (len(stops) - 1)
    low = min(int(place), len(stops) - 2)
    red, green, blue = (round(a + (b - a) * (place - low)) for a, b in zip(stops[low], stops[low + 1], strict=True))
    return red, green, blue


def _heat(share: float) -> Style:
    """A background that grows lighter with the score, so that it reads without hue, and text that stands out on it."""
    red, green, blue = _colour(share, _STOPS)
    text = "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "#ffffff"
    return Style(color=text, bgcolor=f"#{red:02x}{green:02x}{blue:02x}")


HEAT = tuple(_heat(step / 100) for step in range(101))
BARS = tuple(
    Style(color="rgb({},{},{})".format(*_colour(step / 100, _BRIGHT)), bgcolor="#2a2a2e", reverse=False)
    for step in range(101)
)
"""The same as bars: coloured as far as they reach, on a dark ground, so that they read on light terminals too."""
_UPRIGHT = Style(reverse=False)
DIM = Style(dim=True)
BOLD = Style(bold=True)


@dataclass(frozen=True, slots=True)
class Moment:
    """What a frame shows beside the tree.

    Attributes:
        rate: Tokens a second, lately.
        tick: Number of the frame; turns the spinner.
        title: Said beside the plan.
        votes: Answers so far, best first.
        unicode: Whether the terminal knows more than ASCII.
    """

    rate: float = 0.0
    tick: int = 0
    title: str = ""
    votes: Sequence[Tally] = ()
    unicode: bool = True


class Look(NamedTuple):
    """All that decides how a step's line looks, apart from the terminal: equal looks are equal lines.

    Attributes:
        root: Whether it is the root, whose line is the problem.
        text: What it says.
        value: The number that is shown for it, in [0, 1], or None.
        rails: The lines that connect it to its parent.
        fold: The mark of a step that can be folded or opened, or nothing.
        hidden: How many steps are folded away below it.
        skipped: Whether steps between it and the line above it are left out.
        times: How many samples said this.
        yours: A person wrote it or asked for it.
        cut: A person pruned it.
    """

    root: bool
    text: str
    value: float | None
    rails: str
    state: State
    finish: Finish | None
    solved: bool
    answer: str | None
    pruned: bool
    why: str
    times: int
    yours: bool
    cut: bool
    fold: str = ""
    hidden: int = 0
    skipped: bool = False


def frame(tree: SearchTree, writing: Iterable[int], width: int, height: int, moment: Moment) -> list[Text]:
    """At most `height` lines of at most `width` columns."""
    if tree.started is None or width < 1 or height < 1:
        return []
    active = list(writing)
    head = [_plan_line(tree, len(active), moment), _gauges(tree, width, moment)] if height >= 8 else []
    foot = [_answers(tree, moment, width)] if height >= 4 else []
    outline = rows(tree, active, height - len(head) - len(foot))
    lines = [*head, *(_row(row, tree, width, moment) for row in outline), *foot]
    for line in lines:
        _fit(line, width, moment.unicode)
    return lines


def _fit(line: Text, width: int, unicode: bool) -> None:
    line.no_wrap = True
    line.truncate(width, overflow="ellipsis" if unicode else "crop")
    if not unicode:
        style, spans = line.style, line.spans
        plain = line.plain.translate(_ASCII).encode("ascii", "replace").decode()
        line.plain = plain
        line.style, line.spans = style, spans


_ASCII = str.maketrans(
    {"├": "|", "│": "|", "└": "`", "─": "-", "★": "*", "✗": "x", "…": ".", "·": "-", "●": "*", "×": "x", "✎": "+"}
)


def _status(tree: SearchTree, writing: int) -> str:
    if tree.finished is not None:
        return f"● finished: {words.REASONS.get(tree.finished.reason, tree.finished.reason)}"
    if tree.paused:
        return f"● paused, {writing} writing"
    return f"● running, {writing} writing"


def _plan_line(tree: SearchTree, writing: int, moment: Moment) -> Text:
    plan, start = tree.plan, tree.start
    vote = plan.vote if plan.vote == "majority" else f"{plan.vote} of {plan.score}"
    line = Text(f" {one_line(plan.strategy, 30)} n {plan.n} · {vote}", style=BOLD)
    line.append(f" · {_status(tree, writing)}", style=BOLD)
    line.append(f" · {clock(tree.seconds)}")
    if moment.title:
        line.append(f" · {one_line(moment.title, 40)}")
    line.append(f" · {one_line(start.policy.name, 40)}", style=DIM)
    return line


def _gauges(tree: SearchTree, width: int, moment: Moment) -> Text:
    counts, limits = tree.counts, tree.plan.budget
    size = 10 if width >= 100 else 5
    line = Text(" ")
    if limits.tokens is not None:
        share = counts.computed / limits.tokens
        line.append("budget ").append(bar(share, size, blocks=moment.unicode), style=BOLD)
        line.append(f" {percent(min(share, 1.0))} {short(counts.computed)}/{short(limits.tokens)} tokens · ")
    else:
        line.append(f"{short(counts.computed)} tokens computed · ")
    line.append("cached ").append(bar(counts.cached_share, size, blocks=moment.unicode), style=BOLD)
    line.append(f" {percent(counts.cached_share)} · {moment.rate:.0f} tokens/s · {plural(len(tree), 'step')}")
    if limits.seconds is not None:
        line.append(f" · {max(0.0, limits.seconds - tree.seconds):.0f} s left")
    return line


def _row(row: Row, tree: SearchTree, width: int, moment: Moment) -> Text:
    shown = look(
        row.node,
        row.rails,
        _times(row.node),
        problem=tree.start.problem,
        hidden=row.folded,
        skipped=row.skipped,
    )
    return node_line(shown, width, tick=moment.tick, unicode=moment.unicode)


def look(node: Node, rails: str, times: int, *, problem: str = "", **more: Any) -> Look:
    """How a step looks now.

    Args:
        node: The step.
        rails: The lines that connect it to its parent.
        times: How many samples said this.
        problem: What stands in the root's line.
        more: Other fields of `Look` that are not their defaults.
    """
    root = node.parent is None
    fields = {"value": node.score, "cut": getattr(node, "cut", False), "yours": getattr(node, "by_hand", False), **more}
    return Look(
        root=root,
        text=problem if root else node.text,
        rails=rails,
        times=times,
        state=node.state,
        finish=node.finish,
        solved=node.solved,
        answer=node.answer,
        pruned=node.pruned,
        why=node.why,
        **fields,
    )


def node_line(look: Look, width: int, *, tick: int = 0, unicode: bool = True, heat: Heat = "bar") -> Text:
    """The line of a step, which may be longer than `width`: its score, rails, state as glyph and word, and text.

    Args:
        look: The step.
        width: Columns that there are.
        tick: Turns the spinner of a step that is being written.
        unicode: Whether the terminal knows more than ASCII.
        heat: How the score is shown: digits and a bar, digits on the colour of the score, or digits alone.
    """
    line = Text(no_wrap=True)
    if look.root:
        line.append(" " * (fold_column(look.rails, width, heat) - 1)).append(one_line(look.text, width), style=BOLD)
    else:
        _score(line, look.value, unicode, heat)
        line.append(f" {_rails(look.rails, width)}")
        if look.fold:
            line.append(f"{look.fold} ")
        if look.skipped:
            line.append("… ")
        _what(line, look, width, tick, unicode)
    if look.hidden > 0:
        note = f" +{look.hidden:,} folded"
        line.truncate(max(0, width - len(note)), overflow="ellipsis")
        line.append(note, style=DIM)
    return line


def fold_column(rails: str, width: int, heat: Heat = "bar") -> int:
    """The column behind the rails, where the mark of what can be folded stands."""
    return 6 + (BAR if heat == "bar" else 0) + len(_rails(rails, width))


def _score(line: Text, value: float | None, unicode: bool, heat: Heat) -> None:
    place = 0 if value is None else round(min(max(value, 0.0), 1.0) * 100)
    coloured = heat == "colour" and value is not None
    line.append(f" {digits(value)} ", style=HEAT[place] + _UPRIGHT if coloured else "")
    if heat == "bar":
        line.append(bar(value or 0.0, BAR, blocks=unicode), style="" if value is None else BARS[place])


def _rails(rails: str, width: int) -> str:
    """Rails of a deep step take at most a third of the width; its own end of them is what counts."""
    most = max(4, width // 3)
    return rails if len(rails) <= most else "…" + rails[len(rails) - most + 1 :]


def _what(line: Text, look: Look, width: int, tick: int, unicode: bool) -> None:
    """Glyph and word of the step's state, then its text."""
    if look.yours:
        line.append("✎ yours ", style=BOLD)
    if look.state == "writing":
        spinner = SPINNER[tick % len(SPINNER)] if unicode else "|/-\\"[tick % 4]
        line.append(f"{spinner} writing ", style=BOLD).append(tail(look.text, max(10, width - line.cell_len)))
        return
    if look.solved:
        line.append(f"★ answer {words.answer(look.answer)} ", style=BOLD)
    elif look.state == "failed" and look.why == ENDED:
        line.append("! unfinished ", style=BOLD)
    elif look.state == "failed" and not look.cut:
        line.append(f"! failed ({one_line(look.why, 60)}) ", style=BOLD)
    elif look.finish == "length":
        line.append("! cut off ", style=BOLD)
    if look.cut or look.pruned:
        line.append("✗ cut " if look.cut else "✗ pruned ", style=BOLD)
    if look.times > 1:
        line.append(f"×{look.times} ", style=BOLD)
    line.append(one_line(look.text, width), style=DIM if look.pruned or look.cut or look.state == "failed" else "")


def _times(node: Node) -> int:
    """How many of the samples said this; the others are merged into it."""
    siblings = node.parent.children if node.parent else ()
    return 1 + sum(1 for other in siblings if other.merged_into == node.id)


def _answers(tree: SearchTree, moment: Moment, width: int) -> Text:
    line = Text(" answers ", style="")
    if not moment.votes:
        return line.append("none" if tree.finished else "none yet", style=DIM)
    most = max(tally.weight for tally in moment.votes) or 1.0
    for tally in moment.votes:
        if line.cell_len > width:
            break
        line.append(f" {one_line(tally.answer, 30)} ", style=BOLD)
        line.append(bar(tally.weight / most, 8, blocks=moment.unicode).rstrip() or "·")
        line.append(f" {tally.weight:.3g} ({len(tally.solutions)})  ")
    return line
