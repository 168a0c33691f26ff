"""Measurements of a PRM as text, and as a profile in the user's profile folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from tts_tui.errors import UsageError
from tts_tui.evaluation.prm.metrics import Findings, Section, Value
from tts_tui.evaluation.reports.tables import WIDTH, Table, drawn, wrapped


def as_text(findings: Findings) -> str:
    """Format the findings as plain text, no wider than a report, with a reason for each missing measurement."""
    parts = []
    for section in findings.sections:
        head = section.name.capitalize()
        if not section.values:
            parts.append(wrapped(f"{head}: not measured, since {section.note}", WIDTH))
            continue
        rows = tuple((value.name, _shown(value.value), _interval(value)) for value in section.values)
        table = drawn(Table(head, ("measure", "value", "95 % interval"), rows))
        parts.append(f"{table}\n{wrapped(section.note, WIDTH)}")
    return "\n\n".join(parts)


def _shown(value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def _interval(value: Value) -> str:
    return "" if value.low is None or value.high is None else f"{value.low:.3f} to {value.high:.3f}"


def as_toml(name: str, title: str, findings: Findings, source: str, defaults: Mapping[str, str]) -> str:
    """Format a profile as TOML: the PRM's default score and vote, its biases, and all measures, each with its source.

    Args:
        name: Name of the profile.
        title: The PRM's own name.
        findings: The measurements.
        source: The command, the date, and the number of problems.
        defaults: Score and vote, with a source if they come from elsewhere; empty to omit them.
    """
    lines = [
        f"# Measured by tts-tui profile-prm; docs of tts_tui.profiles say what the keys mean.\nname = {_text(name)}"
    ]
    lines += [f"title = {_text(title)}", f"source = {_text(source)}"]
    if defaults:
        table = {"source": source, **defaults}
        lines += [
            "",
            "[defaults]",
            *(f"{key} = {_text(table[key])}" for key in ("score", "vote", "source") if key in table),
        ]
    if findings.biases:
        lines += ["", "[biases]", *(f"{key} = {_text(said)}" for key, said in findings.biases.items())]
        lines.append(f"source = {_text(source)}")
    for section in findings.sections:
        if section.values:
            lines += ["", *_section(section, source)]
    return "\n".join(lines) + "\n"


def _section(section: Section, source: str) -> Iterator[str]:
    yield f'[measured."{section.name}"]'
    for value in section.values:
        written = _text(value.value) if isinstance(value.value, str) else _number(value.value)
        yield f"{_text(value.name)} = {written}"
        if value.low is not None and value.high is not None:
            yield f"{_text(value.name + ' interval')} = [{_number(value.low)}, {_number(value.high)}]"
    yield f"note = {_text(section.note)}"
    yield f"source = {_text(source)}"


def _text(text: str) -> str:
    """Return a TOML basic string, whose escapes are those of JSON."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(round(value, 4))


def write(text: str, path: Path) -> None:
    """Write a profile atomically, replacing an older one of the same name.

    Raises:
        UsageError: The profile cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(text, "utf-8")
        os.replace(scratch, path)
    except OSError as error:
        raise UsageError(f"cannot write the profile {path}: {error.strerror or error}") from error
