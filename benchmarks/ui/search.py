"""What watching costs a search: on the real models, with the terminal UI against no display."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.ui.bars import told
from benchmarks.ui.pseudo import Pseudo
from tts_tui import load
from tts_tui.errors import TTSError

BAR = 1.05
"""Seconds of the search under the UI, by those without."""
PAIRS = 5
PROBLEM = "What is 7 * 6 + 5?"
SEARCHES = {
    "best-of-n N 16": ("--strategy", "best-of-n", "-n", "16"),
    "beam N 8 M 4": ("--strategy", "beam", "-n", "8", "-m", "4"),
}


def run() -> None:
    """Pairs, in turn the one and the other first."""
    for name, options in SEARCHES.items():
        ratios, watched, alone, same = [], [], [], True
        for pair in range(PAIRS):
            with tempfile.TemporaryDirectory() as folder:
                records = {"tui": Path(folder) / "tui.jsonl", "none": Path(folder) / "none.jsonl"}
                for display in ("tui", "none") if pair % 2 else ("none", "tui"):
                    _solve(display, [*options, "--seed", "7"], records[display])
                first, second = (load(records[display]).finished for display in ("tui", "none"))
            assert first is not None and second is not None
            watched.append(first.seconds)
            alone.append(second.seconds)
            ratios.append(first.seconds / second.seconds)
            same = same and first.tokens == second.tokens
        print(f"{name}: with the UI {_listed(watched)} s, without {_listed(alone)} s, pairs {_listed(ratios)}")
        print(f"{'':<40} the same tokens each time: {'yes' if same else 'no'}")
        told(f"{name}, medians", statistics.median(watched) / statistics.median(alone), BAR)


def _solve(display: str, options: list[str], record: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tts_tui",
        "solve",
        PROBLEM,
        *options,
        "--display",
        display,
        "--record",
        str(record),
    ]
    if display == "none":
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return
    with Pseudo(command) as terminal:
        terminal.until(lambda: _ended(record), 300)
        terminal.press("q")
        terminal.wait()


def _ended(record: Path) -> bool:
    """Whether the last line of the recording says so."""
    try:
        with record.open("rb") as file:
            file.seek(max(0, record.stat().st_size - 65_536))
            tail = file.read()
        return b'"event":"search_finished"' in tail and load(record).finished is not None
    except (OSError, TTSError):
        return False


def _listed(numbers: list[float]) -> str:
    return " ".join(f"{number:.2f}" for number in numbers)
