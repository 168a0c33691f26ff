"""Implementation of `tts-tui report`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tts_tui.errors import UsageError
from tts_tui.evaluation.loaded_run import load
from tts_tui.evaluation.reports.report import Report, make
from tts_tui.evaluation.reports.tables import as_csv, as_json, as_markdown, as_text
from tts_tui.formatting import one_line

FORMATS: dict[str, tuple[str, Callable[[Report], str]]] = {
    "text": ("txt", lambda report: as_text(report) + "\n"),
    "markdown": ("md", as_markdown),
    "csv": ("csv", as_csv),
    "json": ("json", as_json),
}
"""Formats of a report: file extension and formatter."""


def report(folders: Sequence[Path], given: Mapping[str, Any]) -> int:
    """Print the report of runs; with --out or --plots, also write it in every format."""
    runs = load(folders)
    made = make(runs)
    out: Path | None = given["out"]
    if out is None and given["plots"]:
        out = folders[0] / "report"
    print(FORMATS[given["format"]][1](made), end="")
    if out is None:
        return 0
    written = write(made, out)
    if given["plots"]:
        from tts_tui.evaluation.reports.plots import draw

        written += draw(made, runs, out)
    if given["format"] == "text":
        print(f"\nWritten to {one_line(str(out), 1000)}: {', '.join(path.name for path in written)}")
    return 0


def write(made: Report, out: Path) -> list[Path]:
    """Write a report to a folder in every format, and return the paths of the files.

    Raises:
        UsageError: A file cannot be written.
    """
    written = []
    for ending, form in FORMATS.values():
        path = out / f"report.{ending}"
        try:
            out.mkdir(parents=True, exist_ok=True)
            path.write_text(form(made), "utf-8", newline="")
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
        written.append(path)
    return written
