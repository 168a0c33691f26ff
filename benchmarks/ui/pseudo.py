"""A command in a pseudo-terminal, whose output is read at once and stored with the time of its arrival."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence

WIDTH, HEIGHT = 120, 40
REPLIES = {b"\x1b[?2026$p": b"\x1b[?2026;2$y"}
"""Reply of a modern terminal to a query: it supports synchronized output of complete frames."""


class Pseudo:
    """A command in a terminal of 120 columns and 40 rows with true colours. Use as a context manager.

    Args:
        command: The command and its arguments.
        environment: Variables added to the environment.

    Attributes:
        began: `time.monotonic()` just before the process was created.
        written: Times and contents of all output.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        whole = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", **(environment or {})}
        whole.pop("NO_COLOR", None)
        self.written: list[tuple[float, bytes]] = []
        self.code: int | None = None
        size = struct.pack("HHHH", HEIGHT, WIDTH, 0, 0)
        self.began = time.monotonic()
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, size)
            os.execvpe(command[0], list(command), whole)

    def __enter__(self) -> Pseudo:
        return self

    def __exit__(self, *_: object) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._terminal)

    def press(self, keys: str) -> None:
        """Type keys into the terminal."""
        os.write(self._terminal, keys.encode())

    def until(self, done: Callable[[], bool], seconds: float) -> None:
        """Read output until `done` returns True.

        Raises:
            SystemExit: The process ended before, or `seconds` have passed; the message contains its last output.
        """
        end = time.monotonic() + seconds
        while not done():
            if not self._read(0.1):
                self.wait()
            if self.code is not None or time.monotonic() > end:
                raise SystemExit(f"it was awaited in vain (exit code {self.code}):\n{self.said()[-2000:]!r}")

    def wait(self) -> int:
        """Read output until the process ends, and return its exit code."""
        while self.code is None:
            self._read(0.1)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def said(self) -> bytes:
        """Return all output so far."""
        return b"".join(data for _, data in self.written)

    def between(self, begin: float, end: float) -> int:
        """Return the number of bytes that were output in a span of `time.monotonic()`."""
        return sum(len(data) for t, data in self.written if begin <= t < end)

    def _read(self, seconds: float) -> bool:
        """Read the available output; return False at the end of file."""
        ready, _, _ = select.select([self._terminal], [], [], seconds)
        if not ready:
            return True
        data = b""
        with contextlib.suppress(OSError):  # on Linux the end of file is an error here
            data = os.read(self._terminal, 65536)
        if not data:
            time.sleep(0.01)
            return False
        self.written.append((time.monotonic(), data))
        for asked, reply in REPLIES.items():
            if asked in data:
                os.write(self._terminal, reply)
        return True
