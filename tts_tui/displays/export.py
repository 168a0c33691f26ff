"""Export of a run as a self-contained picture: an HTML page that needs no network, or an SVG drawing."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

from rich.console import Console

from tts_tui.displays import phrases, status_lines
from tts_tui.displays.frame import Moment, frame
from tts_tui.displays.html_page import PAGE
from tts_tui.displays.live_metrics import Votes
from tts_tui.displays.prose import as_html
from tts_tui.displays.score_colors import HEAT, degree
from tts_tui.errors import UsageError
from tts_tui.formatting import bar, clean, digits, one_line, plural
from tts_tui.search.slots import ENDED
from tts_tui.tree.search_tree import Node, SearchTree

DEEPEST = 40
"""Maximum nesting depth of a page's tree; browsers support a few hundred levels, and screens are narrow."""
MOST_NOTICES = 50
MOST_READABLE = 500_000
"""Maximum number of characters of steps with formulas converted for one page (about a second); later ones stay raw."""

_FONTS = re.compile(r"@font-face\s*\{[^{}]*\}\s*")
_FAMILY = re.compile(r"font-family:\s*Fira Code,\s*monospace")
_MONOSPACE = "font-family: 'Fira Code', 'DejaVu Sans Mono', Menlo, Consolas, monospace"


def write(tree: SearchTree, path: Path) -> None:
    """Draw `tree` into a new file, in the format of its suffix, `.html` or `.svg`. The file is written atomically.

    Raises:
        UsageError: The format is unknown, the file exists, or it cannot be written.
    """
    kind = path.suffix.lower()
    if kind not in (".html", ".svg"):
        raise UsageError(f"cannot draw {one_line(path.name, 200)}: give it a name that ends in .html or .svg")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.exists():
            raise UsageError(f"{path} exists already: choose another name")
        drawn = html(tree) if kind == ".html" else svg(tree)
        try:
            part.write_text(drawn, encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}; choose another place") from error


# -- SVG ---------------------------------------------------------------------------------------------------------------


def svg(tree: SearchTree, *, width: int = 120, rows: int = 200) -> str:
    """Return the picture of the live display, with the most interesting steps.

    Args:
        tree: The run.
        width: Width in columns.
        rows: Maximum number of lines.
    """
    votes = Votes().of(tree)
    writing = (node.id for node in tree.nodes if node.state == "writing")
    lines = frame(tree, writing, width, rows, Moment(votes=votes))
    console = Console(
        file=io.StringIO(), record=True, width=width, force_terminal=True, color_system="truecolor", highlight=False
    )
    for line in lines:
        console.print(line, soft_wrap=True)
    return without_fonts(console.export_svg(title=one_line(tree.start.problem, 80)))


def without_fonts(svg: str) -> str:
    """Return an SVG picture of rich or Textual that uses local fonts instead of loading fonts from the network."""
    return _FAMILY.sub(_MONOSPACE, _FONTS.sub("", svg))


# -- HTML --------------------------------------------------------------------------------------------------------------


def html(tree: SearchTree, *, title: str = "") -> str:
    """Return a self-contained page: the problem, the plan, the results, and the entire tree to open and fold.

    Args:
        tree: The run.
        title: The title of the page; the problem by default.
    """
    start, texts = tree.start, _Texts()
    body: list[str] = []
    body.append(f'<h1>{texts(start.problem)}</h1>\n<dl class="facts">\n')
    body.extend(f"<dt>{escape(name)}</dt><dd>{_said(value)}</dd>\n" for name, value in _facts(tree))
    body.append("</dl>\n")
    body.extend(_votes(tree))
    body.append(f"<h2>Tree</h2>\n<p>{_said(_legend(tree))}</p>\n<main>\n")
    body.extend(_tree(tree, texts))
    body.append("</main>\n")
    if tree.notices:
        body.append("<h2>Messages</h2>\n<ul>\n")
        body.extend(f"<li>{_said(one_line(notice, 400))}</li>\n" for notice in tree.notices[-MOST_NOTICES:])
        body.append("</ul>\n")
    name = _said(one_line(title or start.problem, 80)) or "tts-tui"
    return PAGE.format(title=name, heat=_heat(tree), body="".join(body))


def _said(text: str) -> str:
    return escape(clean(text), quote=True)


class _Texts:
    """A converter of text by models and users to HTML, which converts formulas up to `MOST_READABLE` characters."""

    def __init__(self) -> None:
        self.left = MOST_READABLE

    def __call__(self, text: str) -> str:
        """Return `text` as HTML, isolated from the text direction around it."""
        if self.left <= 0:
            return f"<bdi>{_said(text).strip()}</bdi>"
        if "\\" in text or "$" in text:
            self.left -= len(text)
        return f"<bdi>{as_html(text)}</bdi>"


def _facts(tree: SearchTree) -> Iterator[tuple[str, str]]:
    start, finished = tree.start, tree.finished
    yield "Answer", phrases.answer(finished.answer) if finished is not None else "not yet"
    if finished is None:
        yield "State", "the search had not ended when this was written"
    else:
        detail = one_line(finished.detail, 400)
        yield "Ended", phrases.REASONS.get(finished.reason, finished.reason) + (f" ({detail})" if detail else "")
    yield "Plan", phrases.plan(tree.plan)
    if tree.plan.why:
        yield "Why this plan", one_line(tree.plan.why, 400)
    if tree.plan != start.plan:
        yield "Plan at first", phrases.plan(start.plan)
    yield "Policy", phrases.model(start.policy)
    yield "Reward model", phrases.model(start.prm)
    if start.origin is not None:
        yield (
            "Fork of",
            f"{one_line(start.origin.run, 80) or 'an unknown run'}, {plural(start.origin.steps, 'step')} copied",
        )
    yield "Begun", one_line(start.created, 80)
    if tree.choices:
        choice = tree.choices[-1]
        yield "Difficulty", f"expected pass@1 {phrases.expected(choice)}; {phrases.levels(choice)}"
        yield "Last choice", f"{phrases.chosen(choice)}: {phrases.why(choice)}"
        yield "Considered", phrases.considered(choice)
        yield "Choices rest on", phrases.basis(choice)
    yield "Costs", " ".join(phrases.costs(finished)) if finished is not None else _spent(tree)
    yield "Decisions", _decisions(tree)


def _spent(tree: SearchTree) -> str:
    return (
        f"{plural(tree.counts.computed, 'token')} computed in {tree.seconds:.1f} s, {plural(len(tree), 'step')} so far."
    )


def _decisions(tree: SearchTree) -> str:
    steps = tree.nodes[1:]
    kept = sum(node.kept for node in steps)
    pruned = sum(node.pruned and not node.cut for node in steps)
    said = [f"{plural(kept, 'step')} kept", f"{pruned:,} pruned"]
    by_hand = {
        "cut by hand": sum(node.cut for node in steps),
        "asked for or written by hand": sum(node.by_hand for node in steps),
        "searched further by hand": len(tree.branches),
    }
    return ", ".join([*said, *(f"{number:,} {what}" for what, number in by_hand.items() if number)])


def _legend(tree: SearchTree) -> str:
    score = "The number is the reward model's score of the step, and its colour grows lighter with it. "
    return (score if tree.start.prm is not None else "") + "Steps that were given up are folded: a click opens them."


def _votes(tree: SearchTree) -> Iterator[str]:
    votes = Votes().of(tree)
    if not votes:
        return
    most = max(abs(tally.weight) for tally in votes) or 1.0
    yield f"<h2>Answers</h2>\n<p>{_said(status_lines.chooses(tree.plan))}</p>\n<table>\n"
    for place, tally in enumerate(votes):
        drawn = bar(tally.weight / most, 20).rstrip()
        solutions = plural(len(tally.solutions), "solution")
        yield (
            f"<tr><td>{'★' if place == 0 else ''}</td><td><bdi>{_said(phrases.answer(tally.answer))}</bdi></td>"
            f'<td class="bar">{drawn}</td><td>{tally.weight:.3g} from {solutions}</td></tr>\n'
        )
    yield "</table>\n"


def _tree(tree: SearchTree, texts: _Texts) -> Iterator[str]:
    """Yield all steps, depth first. An only child stays at its parent's level, so that a long answer is flat."""
    times = Counter(node.merged_into for node in tree.nodes if node.merged_into is not None)
    below = _sizes(tree.nodes)
    won = tree.finished.node if tree.finished is not None else None
    stack: list[tuple[Node | None, str, int]] = [
        (child, f"0.{place}", 1) for place, child in reversed(list(enumerate(tree.root.children)))
    ]
    while stack:
        node, label, level = stack.pop()
        if node is None:
            yield "</div></details>\n"
            continue
        if node.merged_into is not None and not node.children:
            continue
        inside = 0
        line = _line(node, label, texts(node.text), list(_states(node, 1 + times[node.id], node.id == won)))
        if node.children and level < DEEPEST and (node.pruned or len(_shown(node)) > 1):
            inside = 1
            more = f' <span class="n">{plural(below[node.id], "step")} below</span>'
            yield f'<details{"" if node.pruned else " open"}><summary>{line}{more}</summary><div class="in">\n'
            stack.append((None, "", 0))
        else:
            yield f"<div>{line}</div>\n"
        stack.extend(
            (child, _label(label, place), level + inside) for place, child in reversed(list(enumerate(node.children)))
        )


def _shown(node: Node) -> list[Node]:
    return [child for child in node.children if child.merged_into is None or child.children]


def _label(above: str, place: int) -> str:
    """Return the label of a step, shortened to its end if the step is deep."""
    label = f"{above}.{place}"
    return label if len(label) <= 40 else f"…{label[-30:]}"


def _sizes(nodes: list[Node]) -> list[int]:
    """Return the number of steps below each node; parents come before their children."""
    below = [0] * len(nodes)
    for node in reversed(nodes):
        if node.parent is not None and (node.merged_into is None or node.children):
            below[node.parent.id] += 1 + below[node.id]
    return below


def _line(node: Node, label: str, text: str, states: list[str]) -> str:
    score = (
        f'<span class="s{"" if node.score is None else f" h{degree(node.score)}"}">{digits(node.score).strip()}</span>'
    )
    shown = "".join(f"<b>{_said(state)}</b> " for state in states)
    why = f' <span class="n">{_said(one_line(node.why, 200))}</span>' if node.why and node.why != ENDED else ""
    given_up = ' class="off"' if node.pruned or node.state == "failed" else ""
    return f'{score} <span class="n">{label}</span> {shown}<span{given_up}>{text}</span>{why}'


def _states(node: Node, times: int, won: bool) -> Iterator[str]:
    """Yield the glyphs of a step with their words."""
    for mark in phrases.marks(node):
        said = f"{mark.glyph} {mark.phrase}"
        yield said.replace("★ answer", "★ the winning answer", 1) if won else said
    if times > 1:
        yield f"×{times}"


def _heat(tree: SearchTree) -> str:
    """Return a CSS rule for each score colour that the page uses."""
    places: Iterable[int] = sorted({degree(node.score) for node in tree.nodes if node.score is not None})
    rules = []
    for place in places:
        ground, ink = HEAT[place].bgcolor, HEAT[place].color
        assert ground is not None and ink is not None
        rules.append(f".h{place}{{background:{ground.name};color:{ink.name}}}")
    return "\n".join(rules)
