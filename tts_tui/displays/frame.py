"""One frame of a search: gauges, the tree, the answers. Pure: a tree in, lines out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from rich.style import Style
from rich.text import Text

from tts_tui.answers.voting import AnswerVotes
from tts_tui.displays import decisions, phrases, status_lines
from tts_tui.displays.outline import OutlineRow, rows
from tts_tui.displays.score_colors import BARS, HEAT, degree
from tts_tui.formatting import bar, digits, one_line, tail
from tts_tui.tree.search_tree import Node, SearchTree, State

Heat = Literal["bar", "colour", "digits"]

BAR = 6
CHOICE = (8, 14, 20, 24)
"""Heights from which the choice of `auto` gets one line, two, and so on."""
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
_UPRIGHT = Style(reverse=False)
DIM = Style(dim=True)
BOLD = Style(bold=True)


@dataclass(frozen=True, slots=True)
class Moment:
    """The contents of a frame besides the tree.

    Attributes:
        written, scored: Recent tokens per second of policy and reward model.
        tick: The number of the frame; turns the spinner.
        title: Text at the start of the first line.
        votes: The answers so far, best first.
        unicode: Whether the terminal supports more than ASCII.
    """

    written: float = 0.0
    scored: float = 0.0
    tick: int = 0
    title: str = ""
    votes: Sequence[AnswerVotes] = ()
    unicode: bool = True


class RowView(NamedTuple):
    """Everything that decides the look of a step's line, apart from the terminal: equal values give equal lines.

    Attributes:
        root: Whether it is the root, whose line is the problem.
        text: The text of the step.
        value: The number shown for it, in [0, 1], or None.
        rails: The lines that connect it to its parent.
        fold: The mark of a step that can be folded or opened, or empty.
        hidden: The number of steps folded away below it.
        skipped: Whether steps between it and the line above it are left out.
        times: The number of samples with this text.
        marks: The state of the step, as glyphs and words.
        faint: Whether it was pruned or failed.
    """

    root: bool
    text: str
    value: float | None
    rails: str
    state: State
    marks: tuple[phrases.Mark, ...]
    faint: bool
    times: int
    fold: str = ""
    hidden: int = 0
    skipped: bool = False


def frame(tree: SearchTree, writing: Iterable[int], width: int, height: int, moment: Moment) -> list[Text]:
    """Draw a frame of at most `height` lines of at most `width` columns."""
    if tree.started is None or width < 1 or height < 1:
        return []
    active = list(writing)
    head, foot = [], []
    if height >= 8:
        head.append(status_lines.status(tree, len(active), width, title=one_line(moment.title, 40)))
        head.append(
            status_lines.gauges(tree, width, written=moment.written, scored=moment.scored, blocks=moment.unicode)
        )
    if height >= 8:
        foot += decisions.lines(tree, width, sum(height >= enough for enough in CHOICE), blocks=moment.unicode)
    if height >= 4:
        over = tree.finished is not None
        foot.append(status_lines.answers_line(moment.votes, width, over=over, blocks=moment.unicode))
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


_ASCII = str.maketrans(dict(zip("├│└─★✗…·●■‖×✎", "||`-*x.-*#=x+", strict=True)))


def _row(row: OutlineRow, tree: SearchTree, width: int, moment: Moment) -> Text:
    shown = row_view(
        row.node,
        row.rails,
        _times(row.node),
        problem=tree.start.problem,
        hidden=row.folded,
        skipped=row.skipped,
    )
    return node_line(shown, width, tick=moment.tick, unicode=moment.unicode)


def row_view(node: Node, rails: str, times: int, *, problem: str = "", **more: Any) -> RowView:
    """Return the current look of a step.

    Args:
        node: The step.
        rails: The lines that connect it to its parent.
        times: The number of samples with this text.
        problem: The text of the root's line.
        more: Other fields of `RowView` that differ from their defaults.
    """
    root = node.parent is None
    fields = {"value": node.score, **more}
    return RowView(
        root=root,
        text=problem if root else node.text,
        rails=rails,
        times=times,
        state=node.state,
        marks=tuple(phrases.marks(node)),
        faint=node.pruned or node.cut or node.state == "failed",
        **fields,
    )


def node_line(look: RowView, width: int, *, tick: int = 0, unicode: bool = True, heat: Heat = "bar") -> Text:
    """Draw the line of a step, which may be longer than `width`: score, rails, state as glyph and word, and text.

    Args:
        look: The look of the step.
        width: Available columns.
        tick: The number of the frame; turns the spinner of a step that is being generated.
        unicode: Whether the terminal supports more than ASCII.
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
    """Return the column after the rails, where the fold mark is."""
    return 6 + (BAR if heat == "bar" else 0) + len(_rails(rails, width))


def _score(line: Text, value: float | None, unicode: bool, heat: Heat) -> None:
    place = 0 if value is None else degree(value)
    coloured = heat == "colour" and value is not None
    line.append(f" {digits(value)} ", style=HEAT[place] + _UPRIGHT if coloured else "")
    if heat == "bar":
        line.append(bar(value or 0.0, BAR, blocks=unicode), style="" if value is None else BARS[place])


def _rails(rails: str, width: int) -> str:
    """Shorten the rails of a deep step to at most a third of the width, keeping the end next to the step."""
    most = max(4, width // 3)
    return rails if len(rails) <= most else "…" + rails[len(rails) - most + 1 :]


def _what(line: Text, look: RowView, width: int, tick: int, unicode: bool) -> None:
    """Add the glyph and word of the step's state to `line`, then its text."""
    for mark in look.marks:
        glyph = mark.glyph
        if look.state == "writing" and mark.word == "writing":
            glyph = SPINNER[tick % len(SPINNER)] if unicode else "|/-\\"[tick % 4]
        line.append(f"{glyph} {mark.word} ", style=BOLD)
    if look.state == "writing":
        line.append(tail(look.text, max(10, width - line.cell_len)))
        return
    if look.times > 1:
        line.append(f"×{look.times} ", style=BOLD)
    line.append(one_line(look.text, width), style=DIM if look.faint else "")


def _times(node: Node) -> int:
    """Return the number of samples with the text of a step; the others are merged into it."""
    siblings = node.parent.children if node.parent else ()
    return 1 + sum(1 for other in siblings if other.merged_into == node.id)
