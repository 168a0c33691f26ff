"""The cost of watching a search: on the real models, with the terminal UI against no display.

Other load on the machine distorts the result, so a pair during which other processes took more than a tenth of a core
is discarded and measured again, whatever its result (on Linux; elsewhere load is not checked).
"""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.ui.bars import told
from benchmarks.ui.pseudo import Pseudo
from tts_tui import SearchTree, load
from tts_tui.errors import TTSError

BAR = 1.05
"""Maximum ratio of the search's seconds with the UI to those without."""
PAIRS, TRIES = 5, 15
OTHERS = 0.1
"""Maximum share of a core that other processes may take."""
PROBLEM = "What is 7 * 6 + 5?"
SEARCHES = {
    "best-of-n N 16": ("--strategy", "best-of-n", "-n", "16"),
    "beam N 8 M 4": ("--strategy", "beam", "-n", "8", "-m", "4"),
}


def run() -> None:
    """Measure pairs, alternating which of the two runs first."""
    for name, options in SEARCHES.items():
        watched, alone, spoilt, same = [], [], 0, True
        while len(watched) < PAIRS and len(watched) + spoilt < TRIES:
            began, busy = time.monotonic(), _busy()
            first, second = _pair([*options, "--seed", "7"], watched_first=len(watched) % 2 == 1)
            if (_busy() - busy) / (time.monotonic() - began) > OTHERS:
                spoilt += 1
                continue
            assert first.finished is not None and second.finished is not None
            watched.append(first.finished.seconds)
            alone.append(second.finished.seconds)
            same = same and first.finished.tokens == second.finished.tokens
        if len(watched) < PAIRS:
            print(f"{name}: not measured, other processes took too much in {spoilt} of {TRIES} pairs")
            continue
        ratios = [a / b for a, b in zip(watched, alone, strict=True)]
        print(f"{name}: with the UI {_listed(watched)} s, without {_listed(alone)} s, in pairs {_listed(ratios)}")
        print(f"{'':<40} the same tokens each time: {'yes' if same else 'no'}; pairs left out: {spoilt}")
        told(f"{name}, median by median", statistics.median(watched) / statistics.median(alone), BAR, "{:.3f}")


def _pair(options: list[str], watched_first: bool) -> tuple[SearchTree, SearchTree]:
    """Return the recordings of a search with the UI and of the same search without."""
    with tempfile.TemporaryDirectory() as folder:
        records = {display: Path(folder) / f"{display}.jsonl" for display in ("tui", "none")}
        for display in ("tui", "none") if watched_first else ("none", "tui"):
            _solve(display, options, records[display])
        return load(records["tui"]), load(records["none"])


def _solve(display: str, options: list[str], record: Path) -> None:
    end = ["--display", display, "--record", str(record)]
    command = [sys.executable, "-m", "tts_tui", "solve", PROBLEM, *options, *end]
    if display == "none":
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return
    with Pseudo(command) as terminal:
        terminal.until(lambda: _ended(record), 300)
        terminal.press("q")
        terminal.wait()


def _ended(record: Path) -> bool:
    """Return whether the recording contains the end of the search."""
    try:
        with record.open("rb") as file:
            file.seek(max(0, record.stat().st_size - 65_536))
            tail = file.read()
        return b'"event":"search_finished"' in tail and load(record).finished is not None
    except (OSError, TTSError):
        return False


def _busy() -> float:
    """Return the CPU seconds taken by processes other than this one and its finished children."""
    total = 0.0
    with contextlib.suppress(OSError), open("/proc/stat") as file:
        user, nice, system = (int(part) for part in file.readline().split()[1:4])
        total = (user + nice + system) / os.sysconf("SC_CLK_TCK")
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
            total -= sum(resource.getrusage(who)[:2])
    return total


def _listed(numbers: list[float]) -> str:
    return " ".join(f"{number:.2f}" for number in numbers)
