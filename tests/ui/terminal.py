"""A real terminal for tests: tmux, whose keys are pressed and whose screen is read."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Terminal:
    """A command in a terminal of its own. Use it as a context manager.

    Args:
        arguments: What follows `tts-tui`.
        size: Columns and rows.
        before: Shell commands that come first.
        environment: Added to the environment.
    """

    def __init__(
        self, *arguments: str, size: tuple[int, int] = (120, 36), before: str = ":", **environment: str
    ) -> None:
        self._tmux = ["tmux", "-L", f"tts-{uuid.uuid4().hex[:8]}", "-f", os.devnull]
        command = shlex.join([sys.executable, "-m", "tts_tui", *arguments])
        # The terminal's own settings before and after: whatever ran must leave it as it was.
        state = "case \"$(stty -a)\" in *-icanon*|*'-echo '*) echo BROKEN;; *) echo WHOLE;; esac"
        script = f"unset COLUMNS LINES; {before}; {command}; echo EXIT=$?; {state}; exec sleep 1000"
        given = [item for name, value in environment.items() for item in ("-e", f"{name}={value}")]
        size_of = ["-x", str(size[0]), "-y", str(size[1])]
        subprocess.run(
            [*self._tmux, "new-session", "-d", *size_of, *given, f"sh -c {shlex.quote(script)}"], check=True, cwd=ROOT
        )
        subprocess.run([*self._tmux, "set-option", "-g", "escape-time", "0"], check=True)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)

    def press(self, *keys: str) -> None:
        """Presses keys, by tmux's names."""
        subprocess.run([*self._tmux, "send-keys", *keys], check=True)

    def type(self, text: str) -> None:
        """Types text."""
        subprocess.run([*self._tmux, "send-keys", "-l", text], check=True)

    def send(self, data: bytes) -> None:
        """Sends bytes as they are."""
        subprocess.run([*self._tmux, "send-keys", "-H", *(f"{byte:02x}" for byte in data)], check=True)

    def resize(self, width: int, height: int) -> None:
        """Gives it another size."""
        subprocess.run([*self._tmux, "resize-window", "-x", str(width), "-y", str(height)], check=True)

    def screen(self, *flags: str) -> str:
        """What stands on it."""
        shown = subprocess.run([*self._tmux, "capture-pane", "-p", *flags], capture_output=True, text=True, check=True)
        return shown.stdout

    def pid(self) -> int:
        """Process of the command."""
        shell = subprocess.run(
            [*self._tmux, "list-panes", "-F", "#{pane_pid}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for _ in range(500):
            children = subprocess.run(["pgrep", "-P", shell], capture_output=True, text=True).stdout.split()
            for child in children:
                if b"tts_tui" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
            time.sleep(0.02)
        raise AssertionError("the command does not run")

    def wait(self, pattern: str, seconds: float = 60.0) -> str:
        """The screen, once `pattern` is found on it.

        Raises:
            AssertionError: It never was; the message shows the screen.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            shown = self.screen()
            if re.search(pattern, shown):
                return shown
            time.sleep(0.05)
        raise AssertionError(f"{pattern!r} never stood on the screen:\n{self.screen()}")
