"""Runs one server in a process group of its own: starts it, waits until it is ready, and leaves nothing of it behind.

Its output comes through a pipe: what it says tells how far it is, and the API key, which SGLang prints among its
settings, is taken out before anything is written to the log.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Self

from tts_tui.backends.remote.untrusted import Redactor, ServerText
from tts_tui.backends.sglang.launch import Launch
from tts_tui.errors import BackendTimeout, BackendUnavailable, UsageError

Progress = Callable[[str], None]
"""Told the stage, several times a second; raising from it ends the wait."""

_FIRST, _POLL = "importing", 0.2
_STAGES = {
    "Downloading": "downloading",
    "Load weight begin": "loading weights",
    "Load weight end": "allocating memory",
    "Capture cuda graph begin": "capturing CUDA graphs",
    "Engine startup timings": "warming up",
}
_KEPT = 400
"""Lines that are remembered, to say why it ended."""
_PATIENCE = 10.0
"""Seconds for an orderly end; a server that still writes may take six."""


def check_port(host: str, port: int) -> None:
    """Checks that a server can listen there.

    Raises:
        UsageError: It cannot.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do: a port whose last server has just ended is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}, port {port} ({error.strerror or error}): choose another port with --port, "
            "or another address with --host"
        ) from error


class ServerProcess:
    """A server as a child of this process; used as a context manager, it ends with the context.

    Should this process be killed, the server ends too: see `boot.py`.

    Args:
        launch: What to run.

    Attributes:
        launch: The same.
        url: Where it listens, once `start` was called.
    """

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.url = launch.url
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._stage = _FIRST
        self._lines: deque[str] = deque(maxlen=_KEPT)
        self._redactor = Redactor(launch.api_key or "")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Process id of the server, and of its process group; 0 before it was started."""
        return self._process.pid if self._process else 0

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts it, and returns at once.

        Raises:
            UsageError: The port is taken.
            BackendUnavailable: The log cannot be written, or the command cannot be run.
        """
        launch = self.launch
        check_port(launch.host, launch.port)
        log = _open_log(launch.log)
        try:
            # A session of its own: Ctrl-C reaches this process alone, which then ends the server in good order.
            process = subprocess.Popen(
                launch.argv,
                env=launch.env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            os.close(log)
            raise BackendUnavailable(
                f"cannot run {launch.argv[0]}: {error.strerror or error}; name a Python with --python"
            ) from error
        self._process = process
        self._reader = threading.Thread(target=self._read, args=(process, log), name="server log", daemon=True)
        self._reader.start()
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already, and says why
            process.stdin.write(f"{launch.api_key or ''}\n".encode())
            process.stdin.flush()

    def wait_ready(self, tell: Progress | None = None, timeout: float | None = None) -> None:
        """Waits until it answers.

        Args:
            tell: Told how far it is.
            timeout: Most seconds; by default as long as it takes.

        Raises:
            BackendUnavailable: It ended; the message says why, and where its log is.
            BackendTimeout: It took longer.
        """
        end = monotonic() + timeout if timeout is not None else float("inf")
        if tell:
            tell(self._stage)
        while not self._healthy():
            if not self.running:
                raise BackendUnavailable(f"the server ended while it was starting: {self._last_words()}")
            if monotonic() > end:
                raise BackendTimeout(
                    f"the server was not ready after {timeout:g} s ({self._stage}): its log is {self.launch.log}"
                )
            if tell:
                tell(self._stage)
            sleep(_POLL)

    def wait(self) -> None:
        """Waits until it ends by itself.

        Raises:
            BackendUnavailable: It did; the message says why.
        """
        if self._process is not None:
            self._process.wait()
            raise BackendUnavailable(f"the server ended: {self._last_words()}")

    def stop(self, patience: float = _PATIENCE) -> None:
        """Ends it in good order within `patience` seconds, and then by force. Safe to call twice."""
        try:
            if self._process is not None and self._process.poll() is None:
                os.kill(self.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(patience)
        finally:  # also when interrupted
            self.kill()

    def kill(self) -> None:
        """Ends it and all that it started at once. Safe to call twice."""
        process, reader = self._process, self._reader
        if process is None or process.stdin is None or process.stdin.closed:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if reader is not None:
            reader.join(5)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()

    # -- its output ----------------------------------------------------------------------------------------------------

    def _read(self, process: subprocess.Popen[bytes], log: int) -> None:
        """Copies the output into the log, line by line; runs in a thread until the output ends."""
        assert process.stdout is not None
        with process.stdout as output, os.fdopen(log, "w", encoding="utf-8") as file:
            for raw in output:
                line = self._redactor.redact(raw.decode("utf-8", "replace"))
                # Progress bars draw over themselves: what they drew last is what counts.
                self._lines.append(line.rstrip().rpartition("\r")[2])
                for sign, stage in _STAGES.items():
                    if sign in line:
                        self._stage = stage
                with contextlib.suppress(OSError):  # a full disk must not stop the server
                    file.write(line)
                    file.flush()

    def _last_words(self) -> str:
        """Why it ended, and where the log is."""
        if self._reader is not None:
            self._reader.join(2)
        return f"{ServerText(reason(list(self._lines)), self._redactor)}; its log is {self.launch.log}"

    def _healthy(self) -> bool:
        """Whether it answers. Asked without the user's proxies: it runs on this machine."""
        connection = http.client.HTTPConnection(self.launch.client_host, self.launch.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200 and self.running
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def _open_log(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Theirs alone: what people ask may be in it.
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        raise BackendUnavailable(
            f"cannot write the log {path} ({error.strerror or error}): set TTS_TUI_HOME to a folder that can be written"
        ) from error


_STAMP = re.compile(r"^\[[\d\- :]+[^\]]*\]\s*|^INFO:\s*|^ERROR:\s*")
_RAISED = re.compile(r"^(?:\w+\.)*\w*(?:Error|Exception|Exit)\b: *\S|^[\w .]*: error: ")
_NOISE = re.compile(r"sigquit|kill_process_tree|leaked .* objects|^warnings\.warn|UserWarning|resource_tracker|^\s")


def reason(lines: list[str]) -> str:
    """The line of a log that says why a server ended: the last error, else the last line that says anything."""
    said = [_STAMP.sub("", line) for line in lines]
    said = [line.strip() for line in said if line.strip() and not _NOISE.search(line)]
    errors = [line for line in said if _RAISED.search(line)]
    return ([*said, *errors] or ["it said nothing"])[-1].rstrip(".")[:400]
