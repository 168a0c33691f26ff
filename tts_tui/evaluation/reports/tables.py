"""Reports as text, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from tts_tui.controller.levels import LEVELS
from tts_tui.evaluation.loaded_run import load
from tts_tui.evaluation.reports.figures import Figure
from tts_tui.evaluation.reports.report import About, Report, make
from tts_tui.formatting import clean, escape_json, one_line

WIDTH = 100
"""Maximum width of plain text; wider tables continue below."""
_FAILURES = 20
"""Maximum number of failures listed as text."""
_GAP = 2

Row = tuple[str, ...]


class Table(Struct, frozen=True):
    """A table with a heading; its first column labels the rows."""

    heading: str
    head: Row
    rows: tuple[Row, ...]


# -- numbers -----------------------------------------------------------------------------------------------------------


def percent(value: float) -> str:
    """Format a share as a percentage with one decimal."""
    return f"{100 * value:.1f}"


def _interval(figure: Figure) -> str:
    return f"{percent(figure.low or 0.0)} to {percent(figure.high or 0.0)}"


def count(value: float) -> str:
    """Format a mean number of tokens or seconds."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _flops(value: float) -> str:
    return f"{value:.2e}" if value else "0"


def probability(value: float) -> str:
    """Format a p-value."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


# -- contents of the tables --------------------------------------------------------------------------------------------


class _Numbers:
    """The figures of a report, indexed for lookup."""

    def __init__(self, report: Report) -> None:
        self.known = {(one.run, one.plan, one.group, one.measure): one for one in report.figures}
        self.plans = list(dict.fromkeys((one.run, one.plan) for one in report.figures))
        self.several = len(report.runs) > 1

    def label(self, plan: tuple[str, str]) -> str:
        return " ".join(plan) if self.several else plan[1]

    def cell(self, plan: tuple[str, str], group: str, measure: str, show: Callable[[Figure], str]) -> str:
        found = self.known.get((*plan, group, measure))
        return show(found) if found is not None else "-"

    def groups(self, kind: str) -> list[str]:
        """Return the names of the groups of a kind, in order."""
        return list(dict.fromkeys(one.group for one in self.known.values() if one.group.startswith(f"{kind} ")))

    def measures(self, group: str, start: str) -> list[str]:
        found = (one.measure for one in self.known.values() if one.group == group)
        return [name for name in dict.fromkeys(found) if name.startswith(start)]


def tables(report: Report) -> Iterator[Table]:
    """Yield the tables of a report, in order."""
    numbers = _Numbers(report)
    yield _accuracy(numbers)
    for kind in ("difficulty", "family", "level", "subject"):
        yield from _by_group(numbers, kind)
    yield from _passes(numbers)
    yield from _costs(numbers)
    yield from _votes(numbers)
    if report.tests:
        yield _tests(report)
    if report.failures:
        rows = tuple((f"{one.plan}: {one.problem}", one.detail) for one in report.failures[:_FAILURES])
        more = f" (the first {_FAILURES} of {len(report.failures)})" if len(report.failures) > _FAILURES else ""
        yield Table(f"Searches that failed{more}", ("search", "why"), rows)


def _accuracy(numbers: _Numbers) -> Table:
    def row(plan: tuple[str, str]) -> Row:
        def cell(measure: str, show: Callable[[Figure], str]) -> str:
            return numbers.cell(plan, "all", measure, show)

        return (
            numbers.label(plan),
            cell("accuracy", lambda one: str(one.n)),
            cell("accuracy", lambda one: percent(one.value)),
            cell("accuracy", _interval),
            cell("tokens", lambda one: count(one.value)),
            cell("flops", lambda one: _flops(one.value)),
            cell("seconds", lambda one: count(one.value)),
        )

    head = ("plan", "problems", "accuracy", "95 % interval", "tokens", "FLOPs", "seconds")
    heading = "Accuracy in %, and what a problem costs on average (tokens and FLOPs of policy and PRM)"
    return Table(heading, head, tuple(map(row, numbers.plans)))


def _by_group(numbers: _Numbers, kind: str) -> Iterator[Table]:
    """Yield a table with a row for each group and a column for each plan."""
    found = numbers.groups(kind)
    if kind == "difficulty":
        found.sort(key=lambda group: LEVELS.index(group.removeprefix("difficulty ")))
    if not found:
        return
    rows = []
    for group in found:
        size = max(one.n for one in numbers.known.values() if one.group == group)
        cells = (numbers.cell(plan, group, "accuracy", _with_interval) for plan in numbers.plans)
        rows.append((group.removeprefix(f"{kind} "), str(size), *cells))
    heads = (kind, "problems", *map(numbers.label, numbers.plans))
    yield Table(f"Accuracy in % by {kind}, with intervals", heads, tuple(rows))


def _with_interval(figure: Figure) -> str:
    return f"{percent(figure.value)} ({100 * (figure.low or 0.0):.0f} to {100 * (figure.high or 0.0):.0f})"


def _passes(numbers: _Numbers) -> Iterator[Table]:
    found = [plan for plan in numbers.plans if (*plan, "all", "pass@1") in numbers.known]
    if found:
        names = sorted(numbers.measures("all", "pass@"), key=lambda name: int(name[5:]))
        rows = [
            (numbers.label(plan), *(numbers.cell(plan, "all", name, _with_interval) for name in names))
            for plan in found
        ]
        yield Table("Any of k samples is right, in % (pass@k)", ("plan", *names), tuple(rows))


def _costs(numbers: _Numbers) -> Iterator[Table]:
    def rows(names: Sequence[str], show: Callable[[float], str]) -> tuple[Row, ...]:
        return tuple(
            (numbers.label(plan), *(numbers.cell(plan, "all", name, lambda one: show(one.value)) for name in names))
            for plan in numbers.plans
        )

    parts = ("policy prompt computed", "policy prompt cached", "policy sampled", "prm computed", "prm cached")
    head = ("plan", "prompt computed", "prompt cached", "sampled", "PRM computed", "PRM cached")
    yield Table("Tokens a problem, on average", head, rows(parts, count))
    apart = ("policy flops", "prm flops", "flops")
    yield Table("FLOPs a problem, on average", ("plan", "policy", "PRM", "together"), rows(apart, _flops))


def _votes(numbers: _Numbers) -> Iterator[Table]:
    """Yield tables of all votes over the same solutions, then over fewer of them."""
    names = numbers.measures("all", "accuracy ")
    shown = [plan for plan in numbers.plans if (*plan, "all", "accuracy last prm-max") in numbers.known]
    if not shown:
        return
    rows = [
        (name.removeprefix("accuracy "), *(numbers.cell(plan, "all", name, _with_interval) for plan in shown))
        for name in names
    ]
    heading = "Accuracy in % of every score and vote over the same solutions"
    yield Table(heading, ("score and vote", *map(numbers.label, shown)), tuple(rows))
    for plan in shown:
        sizes = [group for group in dict.fromkeys(one.group for one in numbers.known.values()) if group[:2] == "n="]
        sizes = [size for size in sizes if (*plan, size, "tokens") in numbers.known]
        if not sizes:
            continue
        lines = [
            (name.removeprefix("accuracy "), *(numbers.cell(plan, size, name, _value) for size in sizes))
            for name in names
        ]
        costs = [
            (said, *(numbers.cell(plan, size, name, lambda one: count(one.value)) for size in sizes))
            for said, name in (("tokens, majority", "policy tokens"), ("tokens with PRM", "tokens"))
        ]
        heading = f"The same of {numbers.label(plan)} with fewer samples, on average over subsets of them"
        yield Table(heading, ("score and vote", *sizes), (*lines, *costs))


def _value(figure: Figure) -> str:
    return percent(figure.value)


def _tests(report: Report) -> Table:
    def row(first: str, second: str, *cells: str) -> Row:
        return f"{first} less {second}", *cells

    rows = []
    for test in report.tests:
        own = test.paired
        span = f"{100 * own.low:+.1f} to {100 * own.high:+.1f}"
        split = f"{own.only_first} / {own.only_second}"
        cells = (str(own.problems), f"{100 * own.difference:+.1f}", span, split)
        rows.append(row(test.first, test.second, *cells, probability(own.p), probability(test.holm)))
    head = ("plans", "problems", "difference", "95 % interval", "only the one right", "p", "p, Holm")
    return Table("Differences on the same problems, in points (exact McNemar test)", head, tuple(rows))


# -- forms -------------------------------------------------------------------------------------------------------------


def as_text(report: Report, width: int = WIDTH) -> str:
    """Format a report as plain text, no line wider than `width`."""
    parts = [wrapped(_about(run), width) for run in report.runs]
    parts += [drawn(table, width) for table in tables(report)]
    parts += [wrapped(note, width) for note in report.notes]
    return "\n\n".join(parts)


def _about(run: About) -> str:
    models = f"policy {run.policy}, PRM {run.prm}"
    return f"{run.run}: {run.dataset}, {run.problems} problems, {models} ({run.folder})"


def wrapped(text: str, width: int) -> str:
    """Wrap a paragraph of plain text."""
    return "\n".join(textwrap.wrap(one_line(text, 4000), width, break_on_hyphens=False))


def drawn(table: Table, width: int = WIDTH) -> str:
    """Format a table as plain text; columns that do not fit continue below, with the first column repeated."""
    table = Table(table.heading, table.head, tuple(tuple(map(one_line, row)) for row in table.rows))
    heading = textwrap.wrap(table.heading, width)
    first = [table.head[0], *(row[0] for row in table.rows)]
    left = min(max(map(len, first)), width // 2)
    blocks: list[list[int]] = []
    room = 0
    for column in range(1, len(table.head)):
        size = _GAP + min(max(len(row[column]) for row in (table.head, *table.rows)), width - left - _GAP)
        if not blocks or room < size:
            blocks.append([])
            room = width - left
        blocks[-1].append(column)
        room -= size
    return "\n".join([*heading, "\n\n".join(_block(table, columns, left, width) for columns in blocks)])


def _block(table: Table, columns: Sequence[int], left: int, width: int) -> str:
    """Format some columns of a table; cells that are too long are wrapped."""
    lines = []
    rows = (table.head, *table.rows)
    sizes = [min(max(len(row[column]) for row in rows), width - left - _GAP) for column in columns]
    for row in rows:
        name = textwrap.wrap(row[0], left, break_on_hyphens=False) or [""]
        cells = [textwrap.wrap(row[column], size) or [""] for column, size in zip(columns, sizes, strict=True)]
        for line in range(max(len(name), *map(len, cells))):
            texts = [f"{name[line] if line < len(name) else '':<{left}}"]
            for cell, size in zip(cells, sizes, strict=True):
                texts.append(f"{cell[line] if line < len(cell) else '':<{size}}")
            lines.append((" " * _GAP).join(texts).rstrip())
    return "\n".join(lines)


def as_markdown(report: Report) -> str:
    """Format a report as Markdown, with a table for each part."""
    parts = ["# Report", *(f"- {_safe(_about(run))}" for run in report.runs)]
    for table in tables(report):
        lines = [table.head, ("---",) * len(table.head), *table.rows]
        parts.append(f"## {table.heading}\n\n" + "\n".join(f"| {' | '.join(map(_safe, row))} |" for row in lines))
    if report.notes:
        parts.append("## Notes\n\n" + "\n".join(f"- {_safe(note)}" for note in report.notes))
    return "\n\n".join(parts) + "\n"


def _safe(text: str) -> str:
    return " ".join(clean(text).split()).replace("|", "\\|").replace("<", "&lt;")


def as_csv(report: Report) -> str:
    """Format a report as CSV, one figure per line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    fields = ("run", "plan", "group", "measure", "value", "low", "high", "n")
    writer.writerow(fields)
    for figure in report.figures:
        writer.writerow(_cell(getattr(figure, field)) for field in fields)
    for test in report.tests:
        own, names = test.paired, ("", clean(f"{test.first} less {test.second}"), "all")
        writer.writerow([*names, "difference", own.difference, own.low, own.high, own.problems])
        for measure, value in (("p", own.p), ("p holm", test.holm)):
            writer.writerow([*names, measure, value, None, None, own.problems])
    return out.getvalue()


def _cell(value: object) -> object:
    return clean(value) if isinstance(value, str) else value


def as_json(report: Report) -> str:
    """Format a report as JSON."""
    return escape_json(msgspec.json.format(msgspec.json.encode(report), indent=2)).decode() + "\n"


def report_text(folders: Sequence[Path]) -> str:
    """Return the report of run folders as plain text, at most 100 characters wide.

    Raises:
        UsageError: A folder is not that of a run, or contains no outcome yet.
    """
    return as_text(make(load(folders)))
