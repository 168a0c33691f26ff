"""The expectations, candidates and choices of `auto`, as text for the terminal UI's plan panel and the live display.

Pure: plain values in, text out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from rich.text import Text

from tts_tui.displays import phrases
from tts_tui.displays.status_lines import fit
from tts_tui.formatting import one_line, plural, wrap
from tts_tui.tree.events import Considered, PlanChosen
from tts_tui.tree.search_tree import SearchTree

LABEL = 10
"""Width of a label, in columns."""
TWO = 70
"""Width from which the table of plans is placed next to the expectations."""
TABLE = 30
"""Width of that table of plans."""
CHOSEN = "▶"
INTERVAL = 16
"""Maximum width of the bar of pass@1."""
ORDER = (("why", 2), ("plans", 3), ("basis", 1), ("plans", 7), ("why", 4), ("basis", 3), ("plans", 99), ("more", 99))
"""Priorities for the rows of a panel: each part gets up to that many, in this order."""


def is_auto(tree: SearchTree) -> bool:
    """Return whether the plan is `auto`, or another plan was chosen by it."""
    return tree.started is not None and (tree.plan.strategy == phrases.AUTO or bool(tree.choices))


def interval(choice: PlanChosen, width: int, *, blocks: bool = True) -> str:
    """Draw the expected pass@1 on a scale from 0 to 1, within its 90 % range: `─━━●━━━─────`."""
    outside, inside, mean = "─━●" if blocks else "-=o"
    low, middle, high = (round(min(max(x, 0.0), 1.0) * (width - 1)) for x in (choice.low, choice.pass1, choice.high))
    drawn = [inside if low <= column <= high else outside for column in range(width)]
    drawn[middle] = mean
    return "".join(drawn)


# -- the panel ---------------------------------------------------------------------------------------------------------


def panel(tree: SearchTree, width: int, rows: int, more: Sequence[tuple[str, str]] = ()) -> list[Text]:
    """Return the last choice in at most `rows` lines of at most `width` columns.

    Args:
        tree: A run of `auto`.
        width: Maximum width in columns.
        rows: Maximum number of lines.
        more: Labels and values to add if there is room.
    """
    if not tree.choices:
        said = "nothing is chosen yet: it begins with a few samples, looks how hard it seems, and goes on or stops"
        return [*_labelled("auto", said, width, rows), *(_line(*row, width) for row in more)][:rows]
    choice = tree.choices[-1]
    wide = width >= TWO
    column = width - TABLE - 2 if wide else width
    head = _expected(choice, column)
    if choice.root != tree.search_root.id:
        head.append(_line("from", phrases.scored(tree.nodes[choice.root]), column))
    parts = {
        "why": _labelled("why", phrases.why(choice), column, 9),
        "basis": _labelled("basis", phrases.basis(choice), column, 9),
        "more": [_line(*row, column) for row in more],
    }
    if not wide:
        parts["plans"] = [Text()] * (1 + len(choice.considered))
    got = _allot({name: len(lines) for name, lines in parts.items()}, rows - len(head))
    text = head[:rows]
    text += _labelled("why", phrases.why(choice), column, got["why"])
    if not wide:
        text += _plans(choice, width, got["plans"])
    text += _labelled("basis", phrases.basis(choice), column, got["basis"])
    text += parts["more"][: got["more"]]
    return _beside(text, _plans(choice, TABLE, rows), column) if wide else text


def _allot(wanted: dict[str, int], room: int) -> dict[str, int]:
    """Return how many of the `room` available rows each part gets."""
    got = dict.fromkeys(wanted, 0)
    for part, upto in ORDER:
        more = min(min(wanted.get(part, 0), upto) - got.get(part, 0), room)
        if more > 0:
            got[part] += more
            room -= more
    return got


def _beside(left: Sequence[Text], right: Sequence[Text], column: int) -> list[Text]:
    lines = []
    for one, other in zip_longest(left, right, fillvalue=Text()):
        line = Text(no_wrap=True).append_text(one)
        if other.plain:
            line.append(" " * (column + 2 - line.cell_len)).append_text(other)
        lines.append(line)
    return lines


def _expected(choice: PlanChosen, width: int) -> list[Text]:
    """Return the expected difficulty, the confidence in the answer, and the chosen plan."""
    said = phrases.expected(choice).replace("90 % range: ", "") if width < 64 else phrases.expected(choice)
    room = width - LABEL - len(said) - 1
    drawn = f"{interval(choice, min(INTERVAL, room))} " if room >= 5 else ""
    return [
        _line("pass@1", drawn + said, width),
        _level(choice, width),
        _line("answer", _answer(choice), width),
        _line("chosen", phrases.chosen(choice), width),
    ]


def _level(choice: PlanChosen, width: int) -> Text:
    """Return the probabilities of all three levels, the likeliest one bold, or only that one if space is short."""
    said = phrases.levels(choice)
    if len(said) > width - LABEL:
        return _line("level", phrases.likeliest(choice), width)
    line = Text(f"{'level':<{LABEL}}", style="dim", no_wrap=True)
    for place, text in enumerate(said.split(", ")):
        style = "not dim bold" if text == phrases.likeliest(choice) else "not dim"
        line.append(", " if place else "", style="not dim").append(text, style=style)
    return line


def _answer(choice: PlanChosen) -> str:
    if not choice.samples:
        return "none yet: no sample was seen"
    seen = plural(choice.samples, "solution")
    if choice.answer is None:
        return f"none in {seen}"
    return f"{one_line(choice.answer, 24)}, {phrases.share(choice.confidence)} sure after {seen}"


def _plans(choice: PlanChosen, width: int, rows: int) -> list[Text]:
    """Return a table of the considered plans: the chosen one, then `stop` and the best others if there is room."""
    if rows < 1:
        return []
    ways = list(choice.considered)
    lines = [_row("  plan", "right", "tokens", width, "dim")] if rows > 1 else []
    room = rows - len(lines)
    shown = _picked(ways, choice.chosen, room if len(ways) <= room else max(1, room - 1))
    for way in shown:
        is_chosen = way.plan == choice.chosen
        named = f"{CHOSEN if is_chosen else ' '} {one_line(way.plan, 30)}"
        lines.append(_row(named, phrases.share(way.accuracy), phrases.cost(way), width, "bold" if is_chosen else ""))
    if len(shown) < len(ways) and len(lines) < rows:
        rest = Text(f"  and {plural(len(ways) - len(shown), 'other plan')}", style="dim", no_wrap=True)
        rest.truncate(width, overflow="ellipsis")
        lines.append(rest)
    return lines


def _picked(ways: Sequence[Considered], chosen: str, room: int) -> list[Considered]:
    """Return up to `room` of the plans in their order, picking the chosen one first, then `stop`, then the best."""
    worth = sorted(
        range(len(ways)), key=lambda place: (ways[place].plan != chosen, ways[place].plan != phrases.STOP, place)
    )
    return [ways[place] for place in sorted(worth[:room])]


def _row(plan: str, right: str, tokens: str, width: int, style: str) -> Text:
    line = Text(f"{plan:<15} {right:>5} {tokens:>7}", style=style, no_wrap=True)
    line.truncate(width, overflow="ellipsis")
    return line


def _labelled(label: str, said: str, width: int, most: int) -> list[Text]:
    """Return `said` after its label, wrapped to at most `most` lines."""
    if most < 1:
        return []
    room = max(8, width - LABEL)
    wrapped = wrap(said, room, max_lines=most, placeholder=" …") or [""]
    return [_line(label if place == 0 else "", line, width, "not dim") for place, line in enumerate(wrapped)]


def _line(label: str, value: str, width: int, style: str = "not dim bold") -> Text:
    line = Text(f"{label:<{LABEL}}", style="dim", no_wrap=True).append(value, style=style)
    line.truncate(width, overflow="ellipsis")
    return line


# -- next to another run -----------------------------------------------------------------------------------------------


def course(tree: SearchTree, width: int, rows: int) -> list[Text]:
    """Return all choices in order, in at most `rows` lines, then the last reason, the expectations and their basis.

    Args:
        tree: A run; there are no lines unless its plan is `auto`.
        width: Maximum width in columns.
        rows: Maximum number of lines.
    """
    if not is_auto(tree) or rows < 1:
        return []
    if not tree.choices:
        return [_line("auto", "nothing chosen yet", width, "not dim")]
    choice = tree.choices[-1]
    expected = f"{phrases.expected(choice)}, {phrases.likeliest(choice)}"
    return [
        *_chain([phrases.now(one) for one in tree.choices], width, min(2, rows)),
        *_labelled("why", phrases.why(choice), width, 2),
        _line("pass@1", expected, width, "not dim"),
        _line("basis", phrases.basis(choice), width, "not dim"),
    ][:rows]


def _chain(names: Sequence[str], width: int, most: int) -> list[Text]:
    """Join names as `best-of-n:4 → beam:16 → stop`, without repetitions; if that is too long, keep the last ones."""
    kept = [name for place, name in enumerate(names) if not place or name != names[place - 1]]
    said = " → ".join(kept)
    while len(kept) > 1 and len(wrap(said, max(8, width - LABEL))) > most:
        kept = kept[1:]
        said = f"… → {' → '.join(kept)}"
    return _labelled("auto", said, width, most)


# -- a line ------------------------------------------------------------------------------------------------------------


def latest(tree: SearchTree, width: int) -> Text:
    """Return the last choice and its reason in one line: ` auto    beam:16: 10 % sure of 8 after 4 samples …`."""
    choice = tree.choices[-1]
    line = Text(" auto    ", no_wrap=True).append(phrases.now(choice), style="bold").append(f": {phrases.why(choice)}")
    line.truncate(width, overflow="ellipsis")
    return line


# -- the live display --------------------------------------------------------------------------------------------------


def lines(tree: SearchTree, width: int, rows: int, *, blocks: bool = True) -> list[Text]:
    """Return the last choice in at most `rows` lines: expectations, reason, alternatives and basis.

    Args:
        tree: A run.
        width: Maximum width in columns.
        rows: Maximum number of lines.
        blocks: Whether the terminal supports more than ASCII.
    """
    if not is_auto(tree):
        return []
    if not tree.choices:
        return [fit([Text("auto    ").append("nothing chosen yet", style="dim")], width)][:rows]
    choice = tree.choices[-1]
    spacious = width >= 110
    pass1 = Text("auto    pass@1 ").append(interval(choice, 12 if spacious else 6, blocks=blocks), style="bold")
    pass1.append(f" {phrases.expected(choice) if spacious else phrases.share(choice.pass1)}")
    said = phrases.levels(choice) if spacious else phrases.likeliest(choice)
    parts = [pass1, Text(said), Text(phrases.chosen(choice), style="bold")]
    if choice.answer is not None:
        parts.insert(2, Text(f"{phrases.share(choice.confidence)} sure of {one_line(choice.answer, 12)}"))
    why = Text(f" why     {phrases.why(choice)}", no_wrap=True)
    basis = Text(f" basis   {phrases.basis(choice)}", style="dim", no_wrap=True)
    for line in (why, basis):
        line.truncate(width, overflow="ellipsis")
    return [fit(parts, width), why, fit(list(_ways(choice, blocks)), width), basis][:rows]


def _ways(choice: PlanChosen, blocks: bool) -> Iterator[Text]:
    """Yield the plans for one line, each with its expected accuracy and tokens."""
    for place, way in enumerate(choice.considered):
        mark = f"{CHOSEN if blocks else '>'} " if way.plan == choice.chosen else ""
        said = f"{mark}{one_line(way.plan, 30)} {phrases.share(way.accuracy)}"
        said += "" if way.plan == phrases.STOP else f" {phrases.cost(way)}"
        said += "" if place else " (right, tokens)"
        yield Text("" if place else "plans   ").append(said, style="bold" if mark else "")
