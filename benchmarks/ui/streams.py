"""The cost of watching streams: the terminal UI compared with the same search without a display."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.ui.bars import told
from benchmarks.ui.pseudo import Pseudo
from benchmarks.ui.typist import PACE, SECONDS, STREAMS

WORK_BAR = 0.15
"""Maximum share of a core."""
BYTES_BAR = 25_000
"""Maximum number of bytes per second."""
ARGUMENTS = [sys.executable, "-m", "benchmarks.ui.typist"]


def run() -> None:
    """Run the search without a display and with the terminal UI, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        alone, watched = Path(folder) / "none.json", Path(folder) / "tui.json"
        subprocess.run([*ARGUMENTS, "none", str(alone)], check=False, stdout=subprocess.DEVNULL)
        with Pseudo([*ARGUMENTS, "tui", str(watched)]) as terminal:
            terminal.wait()
        without, with_it = (json.loads(path.read_text()) for path in (alone, watched))
        written = terminal.between(with_it["begin"], with_it["end"]) / (with_it["end"] - with_it["begin"])
    asked = STREAMS * PACE
    for name, figures in (("no display", without), ("terminal UI", with_it)):
        seconds = figures["end"] - figures["begin"]
        rate, work = figures["tokens"] / seconds, figures["cpu"] / seconds
        print(f"{name:<12} {rate:.0f} of {asked} tokens/s, {work:.1%} of a core over {seconds:.1f} s")
    work = (with_it["cpu"] - without["cpu"]) / SECONDS
    told("work of the UI, of a core", work, WORK_BAR, "{:.1%}")
    told("bytes to the terminal", written / 1000, BYTES_BAR / 1000, "{:.1f} kB/s")
