"""One picture of a search: gauges, the tree, the answers. Pure: a tree in, lines out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.style import Style
from rich.text import Text

from tts_tui.events import Tally
from tts_tui.tree import Node, SearchTree
from tts_tui.ui import words
from tts_tui.ui.outline import Row, rows
from tts_tui.ui.text import bar, clock, digits, one_line, percent, plural, short, tail
from tts_tui.writing import ENDED

BAR = 6
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_STOPS = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))


def _heat(share: float) -> Style:
    """A background that grows lighter with the score, so that it reads without hue, and text that stands out on it."""
    place = share * (len(_STOPS) - 1)
    low = min(int(place), len(_STOPS) - 2)
    red, green, blue = (round(a + (b - a) * (place - low)) for a, b in zip(_STOPS[low], _STOPS[low + 1], strict=True))
    text = "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "#ffffff"
    return Style(color=text, bgcolor=f"#{red:02x}{green:02x}{blue:02x}")


HEAT = tuple(_heat(step / 100) for step in range(101))
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


def frame(tree: SearchTree, writing: Iterable[int], width: int, height: int, moment: Moment) -> list[Text]:
    """At most `height` lines of at most `width` columns."""
    if tree.started is None or width < 1 or height < 1:
        return []
    active = list(writing)
    head = [_plan_line(tree, len(active), moment), _gauges(tree, width, moment)] if height >= 8 else []
    foot = [_answers(tree, moment, width)] if height >= 4 else []
    outline = rows(tree, active, height - len(head) - len(foot))
    lines = [*head, *(_node_line(row, tree, width, moment) for row in outline), *foot]
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
    {"├": "|", "│": "|", "└": "`", "─": "-", "★": "*", "✗": "x", "…": ".", "·": "-", "●": "*", "×": "x"}
)


def _status(tree: SearchTree, writing: int) -> str:
    if tree.finished is not None:
        return f"● finished: {words.REASONS.get(tree.finished.reason, tree.finished.reason)}"
    if tree.paused:
        return f"● paused, {writing} writing"
    return f"● running, {writing} writing"


def _plan_line(tree: SearchTree, writing: int, moment: Moment) -> Text:
    plan, start = tree.start.plan, tree.start
    vote = plan.vote if plan.vote == "majority" else f"{plan.vote} of {plan.score}"
    line = Text(f" {one_line(plan.strategy, 30)} n {plan.n} · {vote}", style=BOLD)
    line.append(f" · {_status(tree, writing)}", style=BOLD)
    line.append(f" · {clock(tree.seconds)}")
    if moment.title:
        line.append(f" · {one_line(moment.title, 40)}")
    line.append(f" · {one_line(start.policy.name, 40)}", style=DIM)
    return line


def _gauges(tree: SearchTree, width: int, moment: Moment) -> Text:
    counts, limits = tree.counts, tree.start.plan.budget
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


def _node_line(row: Row, tree: SearchTree, width: int, moment: Moment) -> Text:
    node = row.node
    line = Text(no_wrap=True)
    if node is tree.root:
        line.append(" " * (BAR + 5)).append(one_line(tree.start.problem, width), style=BOLD)
    else:
        heat = None if node.score is None else HEAT[round(min(max(node.score, 0.0), 1.0) * 100)]
        line.append(f" {digits(node.score)} ")
        line.append(bar(node.score or 0.0, BAR, blocks=moment.unicode), style=heat if heat is not None else "")
        line.append(f" {_rails(row.rails, width)}")
        if row.skipped:
            line.append("… ")
        _what(line, node, width, moment)
    if row.folded > 0:
        note = f" +{row.folded:,} folded"
        line.truncate(max(0, width - len(note)), overflow="ellipsis")
        line.append(note, style=DIM)
    return line


def _rails(rails: str, width: int) -> str:
    """Rails of a deep step take at most a third of the width; its own end of them is what counts."""
    most = max(4, width // 3)
    return rails if len(rails) <= most else "…" + rails[len(rails) - most + 1 :]


def _what(line: Text, node: Node, width: int, moment: Moment) -> None:
    """Glyph and word of the step's state, then its text."""
    if node.state == "writing":
        spinner = SPINNER[moment.tick % len(SPINNER)] if moment.unicode else "|/-\\"[moment.tick % 4]
        line.append(f"{spinner} writing ", style=BOLD).append(tail(node.text, max(10, width - line.cell_len)))
        return
    if node.solved:
        line.append(f"★ answer {words.answer(node.answer)} ", style=BOLD)
    elif node.state == "failed" and node.why == ENDED:
        line.append("! unfinished ", style=BOLD)
    elif node.state == "failed":
        line.append(f"! failed ({one_line(node.why, 60)}) ", style=BOLD)
    elif node.finish == "length":
        line.append("! cut off ", style=BOLD)
    if node.pruned:
        line.append("✗ pruned ", style=BOLD)
    if (times := _times(node)) > 1:
        line.append(f"×{times} ", style=BOLD)
    line.append(one_line(node.text, width), style=DIM if node.pruned or node.state == "failed" else "")


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
