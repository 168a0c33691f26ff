"""The time until the terminal UI is shown, and the modules loaded for it."""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
from pathlib import Path

from benchmarks.ui.bars import told
from benchmarks.ui.pseudo import Pseudo

BAR = 0.5
"""Maximum number of seconds from the start of the process to the first screen."""
HEAVY = ("torch", "transformers", "numpy")
TURNS = 5
LIST = """
import atexit, json, pathlib, sys
atexit.register(lambda: pathlib.Path(sys.argv[1]).write_text(json.dumps(sorted(sys.modules))))
from tts_tui.cli.main import run
run(["tui"])
"""


def run() -> None:
    """Open the first screen repeatedly, closing it immediately each time."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = [_opened([sys.executable, "-m", "tts_tui"], folder) for _ in range(TURNS + 1)][1:]
        modules = Path(folder) / "modules.json"
        _opened([sys.executable, "-c", LIST, str(modules)], folder)
        loaded = json.loads(modules.read_text())
    print(f"first screen after {', '.join(f'{one:.2f}' for one in sorted(seconds))} s")
    told("first screen, median", statistics.median(seconds), BAR, "{:.2f} s")
    parts = {name.partition(".")[0] for name in loaded}
    heavy = ", ".join(sorted(parts & {*HEAVY})) or "none (met)"
    print(f"{len(loaded)} modules are loaded by then; of {', '.join(HEAVY)}: {heavy}")


def _opened(command: list[str], folder: str) -> float:
    """Return the seconds until the first screen, without the settings and runs of the current user."""
    given = {"TTS_TUI_HOME": folder, "TTS_TUI_CONFIG": str(Path(folder) / "none.toml")}
    with Pseudo(command, given) as terminal:
        terminal.until(lambda: b"Problem" in terminal.said(), 30)
        shown = next(t for t, data in terminal.written if b"Problem" in data)
        terminal.press("\x11")  # ctrl+q
        terminal.wait()
    return shown - terminal.began
