"""Implementation of `tts-tui profiles`: a table of all profiles, or one in full with its layout drawn."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tts_tui import profiles
from tts_tui.errors import ConfigError, UnknownName, UsageError
from tts_tui.formatting import clean
from tts_tui.profiles import user

_QUESTION = "What is 2+3*4?"
_STEPS = ("3*4 = 12.", r"2+12 = 14. The answer is \boxed{14}.")
"""Example for drawing layouts."""

_ABOUT = (
    "ProcessBench: mean F1, as reported. tts-tui profiles show NAME prints a profile in full and draws its input "
    "layout; --prm hf:PATH@NAME uses the profile NAME for a checkpoint."
)
_FACTS = {
    "adapter": "adapter",
    "checkpoints": "checkpoints",
    "architectures": "class",
    "base": "made of",
    "context": "context",
    "separator": "steps",
    "read": "score read",
    "normalisation": "score is",
    "labels": "labels",
    "dtype": "computed in",
}
_BEFORE = {"defaults": "Defaults", "plan": "Limits", "biases": "Known biases"}
_AFTER = {"head": "Head", "reported": "Reported", "test": "Measured"}
"""Tables shown before and after the layouts, with their headings."""
_LEAST = 24
"""Minimum width of the text."""
_KEY = 14
"""Width of the first column."""

Fact = tuple[str, str]

# -- all profiles ------------------------------------------------------------------------------------------------------


def listing(width: int) -> str:
    """Return a table of all reward models, without the least important columns if it is too wide.

    Args:
        width: Width of the terminal in characters.
    """
    head = ("name", "title", "adapter", "context", "score", "vote", "ProcessBench")
    here = {name: found for name in user.names() if (found := _own(name)) is not None}
    shipped = [name for name in profiles.names() if "defaults" in profiles.profile(name)]
    rows = [head, *(tuple(map(clean, _row(name, here.get(name, {})))) for name in sorted({*shipped, *here}))]
    columns = list(range(len(head)))
    sizes = [max(len(row[column]) for row in rows) for column in columns]
    for extra in (1, 3, 2, 6, 5, 4):
        if sum(sizes[column] + 2 for column in columns) - 2 > width:
            columns.remove(extra)
    table = ["  ".join(f"{row[column]:<{sizes[column]}}" for column in columns).rstrip() for row in rows]
    said = [f"Measured here: {', '.join(here)}."] if here else []
    return "\n".join(
        [*table, "", *(line for text in (_ABOUT, *said, *user.trouble()) for line in _wrapped(text, width))]
    )


def _own(name: str) -> Mapping[str, Any] | None:
    """Return the user's profile of this name, None if there is none or it is invalid."""
    try:
        return user.profile(name)
    except ConfigError:
        return None


def _row(name: str, measured: Mapping[str, Any]) -> tuple[str, ...]:
    known = profiles.profile(name) if name in profiles.names() else measured
    defaults = {"score": "-", "vote": "-"} | known.get("defaults", {}) | measured.get("defaults", {})
    bench = known.get("reported", {}).get("processbench", {})
    return (
        name,
        known.get("title", "comes with tts-tui"),
        known.get("adapter", "-"),
        str(known.get("context", "-")),
        defaults["score"],
        defaults["vote"],
        str(bench.get("avg", "-")),
    )


# -- one profile -------------------------------------------------------------------------------------------------------


def shown(name: str, layout: str | None, width: int) -> str:
    """Return a profile in full, as text.

    Args:
        name: Name of the profile, or of an adapter for its general profile.
        layout: Layout to draw; the official one by default.
        width: Width of the terminal in characters.

    Raises:
        UnknownName: There is no such profile or layout.
        UsageError: A layout is given, but the profile has none.
    """
    name = _resolve(name)
    if name not in profiles.names():
        if layout is not None:
            raise UsageError(f"the profile {name} has no layouts: leave --layout out")
        return "\n".join(_measured(name, width))
    known = profiles.profile(name)
    drawn = _layouts(name, layout)
    title = f"{name}: {known['title']}" if "title" in known else name
    before, after = (
        [part for key in keys if key in known for part in _tables(keys[key], known[key])] for keys in (_BEFORE, _AFTER)
    )
    lines = _lines([("", [("", title)]), ("", _facts(known)), *before, *drawn, *after], width)
    measured = _measured(name, width)
    return "\n".join([*lines, *(["", *measured] if measured else [])])


def _measured(name: str, width: int) -> list[str]:
    """Return the user's own profile of this name, or why it is invalid; empty if there is none."""
    try:
        known = user.profile(name)
    except ConfigError as error:
        return _wrapped(str(error), width)
    if known is None:
        return []
    title = f"{name}: {known.get('title', name)}, measured here; its score and vote are the ones that count"
    tables = {**_BEFORE, "measured": "Measured"}
    parts = [part for key, head in tables.items() if key in known for part in _tables(head, known[key])]
    return _lines([("", [("", title)]), ("", _facts(known)), *parts], width)


def _lines(parts: Sequence[tuple[str, list[Fact]]], width: int) -> list[str]:
    """Lay out parts with their headings, separated by empty lines."""
    lines: list[str] = []
    for heading, facts in parts:
        lines += [""] if lines and facts else []
        lines += _wrapped(heading, width) if heading else []
        for key, text in facts:
            lines += _fact(key, text, width, indent=2 if heading else 0)
    return lines


def _resolve(name: str) -> str:
    if name.lower() in {*profiles.names(), *user.names()}:
        return name.lower()
    try:
        return profiles.resolve(name)
    except UnknownName:
        raise UnknownName("profile", name, {*profiles.names(), *user.names(), *profiles.adapters()}) from None


def _facts(known: Mapping[str, Any]) -> list[Fact]:
    """Return the facts at the top of a profile."""
    facts = [(label, _words(known[key])) for key, label in _FACTS.items() if known.get(key)]
    if "context_note" in known:
        facts = [(key, f"{text} tokens: {known['context_note']}" if key == "context" else text) for key, text in facts]
    return facts + [(key, known[key]) for key in ("note", "source") if key in known]


def _tables(heading: str, table: Mapping[str, Any]) -> Iterator[tuple[str, list[Fact]]]:
    """Yield a table as one part, or a table of tables as several."""
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    for key, value in inner.items():
        yield from _tables(f"{heading}: {key}", value)
    if inner:
        return
    if "tokens" in table:
        pairs = zip(table["tokens"], table["written"], strict=True)
        table = {**table, "tokens": " and ".join(f"{_quoted(text)} = token {token}" for token, text in pairs)}
        del table["written"]
    texts = {key: value for key, value in table.items() if isinstance(value, str)}
    figures = "; ".join(f"{key} {_words(value)}" for key, value in table.items() if key not in texts)
    yield heading, [*([("", figures)] if figures else []), *texts.items()]


def _words(value: Any) -> str:
    """Format a value of a profile; two numbers are an interval."""
    if not isinstance(value, list):
        return str(value)
    return (", " if isinstance(value[0], str) else " to ").join(map(str, value))


# -- layouts -----------------------------------------------------------------------------------------------------------


def _layouts(name: str, layout: str | None) -> list[tuple[str, list[Fact]]]:
    """Draw the chosen layout, and add a line about each other one."""
    known = profiles.profile(name).get("layouts", {})
    if not known:
        if layout is not None:
            raise UsageError(f"the profile {name} has no layouts: leave --layout out")
        return []
    chosen = (layout or profiles.OFFICIAL).lower()
    table = profiles.layout(name, chosen)
    same = known[chosen].get("same")
    heading = f"Layout {chosen}" + (f", the same input as {same}" if same else "")
    facts = [*_drawn(table), *((key, table[key]) for key in ("note", "source") if key in table)]
    others = []
    for other, inside in known.items():
        if other != chosen:
            what = f"the same input as {inside['same']}" if "same" in inside else f"see it with --layout {other}"
            others.append((other, f"{what}. {inside.get('note', '')}".rstrip()))
    return [(heading, facts), *([("Other layouts", others)] if others else [])]


def _drawn(table: Mapping[str, Any]) -> Iterator[Fact]:
    """Yield the pieces of the input for a path of two steps: name and text."""
    return {"text": _drawn_text, "chat": _drawn_chat, "turns": _drawn_turns}[table["kind"]](table)


def _drawn_text(table: Mapping[str, Any]) -> Iterator[Fact]:
    begin = {"always": "the token that begins a text", "tokenizer": "the token that begins a text, if there is one"}
    if table["bos"] in begin:
        yield "begin", begin[table["bos"]]
    joined = ", one text with step 1" if table.get("joined") else ""
    yield "opening", _quoted(_filled(table["opening"], question=_QUESTION)) + joined
    for number, step in enumerate(_STEPS, 1):
        if number > 1 and table.get("blank"):
            yield "blank line", f"{_tag(table)}; its own score is not used"
        if number > 1 and "between" in table:
            yield "between", _quoted(table["between"])
        text = f"Step {number}: {step}" if table.get("numbered") else step
        yield f"step {number}", _quoted(_filled(table["step"], step=text))
        yield "tag", f"{_tag(table)}; the score of step {number} is read here"
    if table.get("numbered"):
        yield "numbers", "A step that has its number already gets no other."
    if "lines" in table:
        each = "Each line of a step has a tag of its own; the last one's score is the step's."
        yield "lines", each if table["lines"] == "each" else "Line feeds inside a step become spaces."


def _drawn_chat(table: Mapping[str, Any]) -> Iterator[Fact]:
    if "system" in table:
        yield "system", _quoted(table["system"])
    yield "user", _quoted(_QUESTION)
    if "tag" not in table:
        yield "assistant", _quoted(table["join"].join(_STEPS))
        yield "end", "as the chat template closes a chat; the score of the path is read at its last token"
        yield "", "For the score of step 1 there is an input of its own, which ends after that step."
        return
    yield "assistant", "as the chat template opens an answer"
    for number, step in enumerate(_STEPS, 1):
        yield f"step {number}", _quoted(step)
        yield "tag", f"{_tag(table)}; the score of step {number} is read here"


def _drawn_turns(table: Mapping[str, Any]) -> Iterator[Fact]:
    for number, step in enumerate(_STEPS, 1):
        text = table["first"] if number == 1 else table["step"]
        yield "user", _quoted(_filled(text, question=_QUESTION, step=step))
        yield "assistant", f"as the chat template opens an answer; the score of step {number} is read at its last token"
        if number < len(_STEPS):
            yield "answer", f"{_quoted(table['answer'])} = token {', '.join(map(str, table['answer_ids']))}"


def _tag(table: Mapping[str, Any]) -> str:
    ids = table.get("tag_ids")
    return f"{_quoted(table['tag'])} = token {', '.join(map(str, ids))}" if ids else _quoted(table["tag"])


def _filled(text: str, **texts: str) -> str:
    """Fill in `{question}` and `{step}` in `text`, and keep other braces."""
    for slot, value in texts.items():
        before, found, after = text.rpartition(f"{{{slot}}}")
        text = before + value + after if found else text
    return text


# -- lines -------------------------------------------------------------------------------------------------------------

_KEPT = "\u00a0"
"""Placeholder for a space where lines must not be broken."""


def _quoted(text: str) -> str:
    r"""Quote `text`, with line feeds as `\n` and with the spaces at its ends kept."""
    inner = text.strip(" ")
    before, after = len(text) - len(text.lstrip(" ")), len(text) - len(text.rstrip(" "))
    if not inner:
        before, after = len(text), 0
    return f'"{_KEPT * before}{inner}{_KEPT * after}"'.replace("\n", "\\n")


def _fact(key: str, text: str, width: int, indent: int) -> list[str]:
    """Lay out a fact: the key in a column of its own if there is room for two, else above the text."""
    start = " " * indent
    if width >= 3 * _KEY and len(key) < _KEY:
        head = f"{key:<{_KEY}}" if key else ""
        return _wrapped(text, width, start + head, start + " " * len(head))
    above = [start + clean(key)] if key else []
    inner = start + "  " if key else start
    return above + _wrapped(text, width, inner, inner)


def _wrapped(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    lines = textwrap.wrap(
        clean(text).replace(" %", f"{_KEPT}%"),
        max(width, _LEAST),
        initial_indent=clean(first),
        subsequent_indent=rest,
        break_on_hyphens=False,
    )
    return [line.replace(_KEPT, " ") for line in lines]
